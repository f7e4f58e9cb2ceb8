"""A quicker start of the program: diffusers imported without what scoring never uses.

To import one model class, diffusers also imports torch's compiler, peft and most of transformers, where they are installed:
half of the time before the first score. It only wants to mark functions for the compiler and to know what is there. So for
as long as its import takes, marking does nothing and those are not there; each is imported later by whoever really uses it.

This leaves diffusers without its LoRA loaders and scales for the life of the process. Nothing here uses them, but another program
might: so only the program itself does this, never the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_FLAGS = ("_peft_available", "_transformers_available")

own_process = False
"""True where ``main`` runs: nobody else's code shares the process."""


def import_quickly() -> None:
    """Import what scoring needs of diffusers; the plain way where that has begun already or the process is shared."""
    if not own_process or _COMPILER in sys.modules or "diffusers" in sys.modules:
        return
    import torch

    compiler = ModuleType(_COMPILER)
    compiler.allow_in_graph = compiler.disable = _unmarked  # type: ignore[attr-defined]
    sys.modules[_COMPILER] = compiler
    try:
        import diffusers.utils
        from diffusers.utils import import_utils

        # else every pass of a UNet imports peft, to scale LoRA layers by 1
        diffusers.utils.USE_PEFT_BACKEND = False
        found = {flag: getattr(import_utils, flag, None) for flag in _FLAGS}
        vars(import_utils).update(dict.fromkeys(_FLAGS, False))
        try:
            import genzqa.model.base  # noqa: F401
        finally:
            vars(import_utils).update(found)
    except Exception:  # a release that needs more than this: start over, the plain way
        for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
            del sys.modules[name]
    finally:
        del sys.modules[_COMPILER]
        vars(torch).pop("_dynamo", None)


def _unmarked(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    """Stands for the compiler's decorators: ``@mark`` and ``@mark(option=...)`` give the function back as it is."""
    return function if function is not None else _unmarked
