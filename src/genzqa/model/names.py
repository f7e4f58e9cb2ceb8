"""How a model is named: ``hf-hub:ORG/REPO[@REVISION]``, ``local-dir:PATH``, ``file:PATH.safetensors``, or registered.

A bare name is never guessed to be a path: a folder called ``mini`` must not change what ``mini`` means.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from genzqa.errors import ConfigError
from genzqa.model.registry import REGISTRY

Kind = Literal["hf-hub", "local-dir", "file", "registry"]

SPELLINGS = "hf-hub:ORG/REPO[@REVISION], local-dir:FOLDER, file:CHECKPOINT.safetensors, or a registered name"
_PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class ModelName:
    """A parsed model name; ``str()`` gives the spelling back.

    Attributes:
        kind: Which of the four spellings.
        value: Repository, path or registered name, without the prefix.
        revision: Commit, branch or tag of a hub repository; None is its default branch.
    """

    kind: Kind
    value: str
    revision: str | None = None

    def __str__(self) -> str:
        prefix = "" if self.kind == "registry" else f"{self.kind}:"
        return f"{prefix}{self.value}" + (f"@{self.revision}" if self.revision else "")


def parse_name(text: str) -> ModelName:
    """Read a model name. The disk is looked at only to give a better hint; the result does not depend on it.

    Raises:
        ConfigError: The name is malformed, unknown, or a path without its prefix; the hint prints the right spelling.
    """
    if text in REGISTRY:
        return ModelName("registry", text)
    if not text.strip() or "\0" in text:
        raise ConfigError("the model name is empty or not text", subject=repr(text), hint=f"write {SPELLINGS}")
    prefix, colon, value = text.partition(":")
    if not colon or len(prefix) == 1:  # one letter before the colon is a drive: C:\models
        raise _bare_name(text)
    if prefix == "hf-hub":
        return _hub_name(text, value)
    if prefix in ("local-dir", "file") and not value:
        raise ConfigError("no path after the colon", subject=text, hint=f"write {SPELLINGS}")
    if prefix == "local-dir":
        return ModelName("local-dir", value)
    if prefix == "file":
        # Exactly lower case: the libraries choose the reader by this suffix and would unpickle anything else.
        if not value.endswith(".safetensors"):
            raise ConfigError("not a .safetensors file; pickle formats are not opened", subject=text, hint=_CONVERT)
        return ModelName("file", value)
    raise ConfigError(f"unknown kind of model name {prefix!r}", subject=text, hint=f"write {SPELLINGS}")


_CONVERT = "convert it to safetensors where you trust it: pickle files can run code when opened"


def _hub_name(text: str, value: str) -> ModelName:
    repo, at, revision = value.partition("@")
    bad_revision = at and (not _REVISION.fullmatch(revision) or ".." in revision)
    if not _REPO.fullmatch(repo) or ".." in repo or bad_revision:
        raise ConfigError(
            "not a hub repository", subject=text, hint="write hf-hub:ORG/REPO or hf-hub:ORG/REPO@REVISION"
        )
    return ModelName("hf-hub", repo, revision or None)


def _bare_name(text: str) -> ConfigError:
    """The error for a name without prefix that is not registered: a path, a repository, or a slip of the pen."""
    suffix = PurePath(text).suffix.lower()
    on_disk = _exists(text)
    if suffix in _PICKLE_SUFFIXES:
        return ConfigError("pickle formats are not opened", subject=text, hint=_CONVERT)
    if suffix == ".safetensors":
        return ConfigError("a path needs its prefix", subject=text, hint=f"write file:{text}")
    if _REPO.fullmatch(text) and not on_disk:
        return ConfigError(
            "could be a hub repository or a folder",
            subject=text,
            hint=f"write hf-hub:{text} for the repository, local-dir:{text} for a folder",
        )
    if on_disk or "/" in text or "\\" in text or text[0] in ".~":
        return ConfigError("a path needs its prefix", subject=text, hint=f"write local-dir:{text}")
    return unknown_name(text)


def unknown_name(text: str) -> ConfigError:
    """The error for a bare word that no model is registered under."""
    close = difflib.get_close_matches(text.lower(), REGISTRY, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]}? " if close else ""
    return ConfigError("no such model", subject=text, hint=f"{guess}registered models: {', '.join(REGISTRY)}")


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # longer than a path may be
        return False
