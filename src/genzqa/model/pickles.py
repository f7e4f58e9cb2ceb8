"""The one place where a file in PyTorch's own format, which is a pickle, is opened: ``weights_only=True`` runs nothing."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzqa.errors import ModelCorruptError, ModelNotFoundError


def plain_tensors(path: Path, part: str = "") -> dict[str, Tensor]:
    """The dictionary of tensors in a file, or in its entry ``part`` if it has one.

    Raises:
        ModelNotFoundError: No such file.
        ModelCorruptError: Damaged, or holds anything but tensors by name.
    """
    if not path.is_file():
        raise ModelNotFoundError("no such file", subject=str(path))
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own text advises to open it without this guard
        raise ModelCorruptError("damaged, or holds more than plain tensors, which could run code when opened",
                                subject=str(path), hint="get the file from where it was published")  from None  # fmt: skip
    except Exception as error:  # the reader raises many kinds on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelCorruptError(f"not a file of plain tensors: {reason}", subject=str(path)) from None
    if part and isinstance(loaded, dict):
        loaded = loaded.get(part, loaded)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelCorruptError("not a dictionary of tensors", subject=str(path))
    return {str(name): value for name, value in loaded.items()}
