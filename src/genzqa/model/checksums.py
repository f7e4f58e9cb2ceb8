"""Whether a model's files are still what they were: the checksums published, shipped or recorded at the first download.

A downloaded model's record lies in ``$GENZQA_CACHE/pulled`` (default ``~/.cache/genzqa``); that of the model inside the
package is its ``manifest.json``, file to SHA-256. Local folders have none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from genzqa.errors import ConfigError, ModelCorruptError, ModelNotFoundError, OutputError
from genzqa.model.folder import file_sha256
from genzqa.model.names import ModelName, parse_name
from genzqa.model.registry import cache_folder, lookup


@dataclass(frozen=True)
class FileCheck:
    """One file against its recorded checksum; ``got`` is empty when the file is missing."""

    file: str
    ok: bool
    expected: str
    got: str


@dataclass(frozen=True)
class Record:
    """Where a model lies and the SHA-256 of each of its files, relative to that folder."""

    folder: Path
    files: Mapping[str, str]


def verify(name: str) -> list[FileCheck]:
    """Compare a model's files with the checksums known for them; opens no connection.

    Raises:
        ConfigError: A local name: nothing is recorded for it.
        ModelNotFoundError: The model was never pulled, so nothing is recorded.
    """
    model = parse_name(name)
    if model.kind in ("local-dir", "file"):
        raise ConfigError("nothing is recorded for local files", subject=name, hint="verify a registered or hub model")
    record = read_record(model)
    if record is None:
        hint = "reinstall genzqa" if is_embedded(model) else f"run genzqa pull {model}"
        raise ModelNotFoundError("no checksums are recorded for it", subject=name, hint=hint)
    checks = []
    for file, expected in sorted({**record.files, **_published(model)}.items()):
        try:
            got = file_sha256(record.folder / file)
        except ModelCorruptError:
            got = ""
        checks.append(FileCheck(file, got == expected, expected, got))
    return checks


def check_recorded(model: ModelName, folder: Path, digests: Mapping[str, str]) -> None:
    """Compare the digests of the files in ``folder`` with what is known for that model, if anything is.

    Raises:
        ModelCorruptError: A file is not what it was.
    """
    if model.kind in ("local-dir", "file"):
        return
    expected = dict(_published(model))
    record = read_record(model)
    if record and folder.is_relative_to(record.folder):
        within = folder.relative_to(record.folder)  # the embedded model's record also covers its adapter
        expected = {str(Path(file).relative_to(within)): digest for file, digest in record.files.items()
                    if Path(file).is_relative_to(within)} | expected  # fmt: skip
    if changed := [file for file, digest in digests.items() if expected.get(file, digest) != digest]:
        hint = "reinstall genzqa" if is_embedded(model) else f"download it again: genzqa pull {model}"
        raise ModelCorruptError(f"{changed[0]} does not have its recorded checksum", subject=str(model), hint=hint)


def is_embedded(model: ModelName) -> bool:
    """True for a model whose weights are part of the package."""
    return model.kind == "registry" and lookup(model.value).embedded


def read_record(model: ModelName) -> Record | None:
    """The record of the last pull, or the embedded model's manifest; None when there is none that can be read."""
    try:
        if is_embedded(model):
            folder = lookup(model.value).folder
            files = json.loads((folder / "manifest.json").read_text("utf-8"))
        else:
            content = json.loads(_record_path(model).read_text("utf-8"))
            folder, files = Path(content["folder"]), content["files"]
        return Record(folder, {str(file): str(digest) for file, digest in files.items()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write_record(model: ModelName, repo: str, folder: Path, digests: Mapping[str, str]) -> None:
    """Record a download, whole or not at all: written beside and renamed over.

    Raises:
        OutputError: The record cannot be written.
    """
    path = _record_path(model)
    part = path.with_suffix(f".{os.getpid()}.part")
    record = {"name": str(model), "repo": repo, "folder": str(folder), "files": dict(sorted(digests.items()))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot record the checksums: {error.strerror}", subject=str(path)) from error


def _published(model: ModelName) -> Mapping[str, str]:
    return lookup(model.value).sha256 if model.kind == "registry" else {}


def _record_path(model: ModelName) -> Path:
    return cache_folder() / "pulled" / f"{quote(str(model), safe='')}.json"
