"""Downloads: which files are fetched from where, and where they are found again.

Connections are opened by `pull`, and by `locate` for a hub model that is not on this machine yet. Nothing else does,
and offline mode (``offline=True``, ``GENZQA_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``) stops both before the first one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genzqa.errors import ConfigError, ModelCorruptError, ModelError, ModelNotFoundError, OfflineError
from genzqa.model.checksums import check_recorded, is_embedded, read_record, write_record
from genzqa.model.folder import (
    CONFIG_FILES,
    TOKENIZER_FILES,
    WEIGHT_STEMS,
    Layout,
    check_configs,
    file_digests,
    read_layout,
    weight_files,
)
from genzqa.model.names import ModelName, parse_name
from genzqa.model.registry import cache_folder, lookup

_SMALL_FILES = ("model_index.json", *CONFIG_FILES, *TOKENIZER_FILES)
_PLAIN_WEIGHTS = (".safetensors", ".safetensors.index.json", "-*.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GATED = "needs its licence accepted and a login"


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        folder: Where the model lies now.
        repo: The repository it came from; empty for the model inside the package.
        files: File to SHA-256 of everything that decides a score.
        failed: Repositories tried before, with the reason each failed.
    """

    folder: Path
    repo: str
    files: Mapping[str, str]
    failed: Mapping[str, str]


def is_offline(offline: bool = False) -> bool:
    """True when asked for, or when the environment forbids connections."""
    asked = (os.environ.get(name, "") for name in ("GENZQA_OFFLINE", "HF_HUB_OFFLINE"))
    return offline or any(value.strip().upper() in ("1", "ON", "YES", "TRUE") for value in asked)


def locate(model: ModelName, *, offline: bool = False) -> Path:
    """The base folder of a registered or hub model: what is here already, else downloaded where that is allowed.

    Raises:
        ConfigError: A registered motion network or student, which is no base.
        OfflineError: Not here, and downloads are forbidden.
        ModelNotFoundError: Not here, and no source could be downloaded; or the embedded model is not installed.
        ModelCorruptError: The only source holds something that is not a base.
    """
    if is_motion(model) or _is_student(model):
        what = "motion network" if is_motion(model) else "student"
        raise ConfigError(f"this is a {what}, not a base", subject=str(model), hint="use mini, sd15, sd21 or sd-turbo")
    if is_embedded(model):
        return _inside_the_package(model)
    if folder := find_local(model):
        return folder
    if is_offline(offline):
        hint = f"run once with a connection: genzqa pull {model}"
        raise OfflineError("not on this machine, and offline mode forbids the download", subject=str(model), hint=hint)
    return pull(str(model)).folder


def is_motion(model: ModelName) -> bool:
    """True for a registered motion network."""
    return model.kind == "registry" and lookup(model.value).kind == "motion"


def _is_student(model: ModelName) -> bool:
    return model.kind == "registry" and lookup(model.value).kind == "student"


def find_local(model: ModelName) -> Path | None:
    """The folder of a registered or hub model if it is completely on this machine; never opens a connection."""
    if is_motion(model):
        file = cache_folder() / "motion" / f"{model.value}.safetensors"
        return file.parent if file.is_file() else None
    if is_embedded(model):
        folder = lookup(model.value).folder
        folder = folder if _is_student(model) else folder / "base"
        return folder if folder.is_dir() else None
    record = read_record(model)
    if record and _is_complete(record.folder):
        return record.folder
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    for repo, revision in _sources(model):
        with contextlib.suppress(LocalEntryNotFoundError):
            cached = huggingface_hub.snapshot_download(
                repo, revision=revision, allow_patterns=list(_SMALL_FILES), local_files_only=True
            )
            if _is_complete(Path(cached)):
                return Path(cached)
    return None


def pull(name: str, *, offline: bool = False) -> Pulled:
    """Download a model, check it and record the checksums of its files. Sources are tried in order.

    A pull of a model whose files have changed since they were recorded downloads them again.

    Raises:
        ConfigError: A local name, or a malformed one.
        OfflineError: Downloads are forbidden.
        ModelNotFoundError: Every source failed; the reason lists them.
        ModelCorruptError: The only source holds something that is not a base.
        OutputError: The checksums cannot be recorded.
    """
    model = parse_name(name)
    if model.kind in ("local-dir", "file"):
        raise ConfigError("already on this machine; only registered and hub models are pulled", subject=name)
    if is_embedded(model):
        return Pulled(_inside_the_package(model), "", {}, {})
    if is_offline(offline):
        raise OfflineError("offline mode forbids the download", subject=name, hint="pull where there is a connection")
    failed: dict[str, str] = {}
    sources = _sources(model)
    for repo, revision in sources:
        try:
            folder, digests = _download_checked(model, repo, revision)
        except ModelCorruptError as error:
            if len(sources) == 1:
                raise
            failed[repo] = error.reason
        except (
            Exception
        ) as error:  # the client's HTTP library differs between versions; one mirror must not stop the next
            failed[repo] = _why(error)
        else:
            write_record(model, repo, folder, digests)
            return Pulled(folder, repo, digests, failed)
    tried = "; ".join(f"{repo}: {why}" for repo, why in failed.items())
    hint = "with the files at hand, use local-dir:FOLDER"
    if _GATED in failed.values():
        hint = "accept the licence on the model's page, then log in with: hf auth login"
    raise ModelNotFoundError(f"could not be downloaded; tried {tried}", subject=name, hint=hint)


def _inside_the_package(model: ModelName) -> Path:
    if folder := find_local(model):
        return folder
    raise ModelNotFoundError("the model inside the package is missing", subject=str(model), hint="reinstall genzqa")


def _sources(model: ModelName) -> list[tuple[str, str | None]]:
    if model.kind == "hf-hub":
        return [(model.value, model.revision)]
    known = lookup(model.value)
    return [(repo, known.revision) for repo in known.sources]


def _download_checked(model: ModelName, repo: str, revision: str | None) -> tuple[Path, dict[str, str]]:
    """Download one source; once more, by force, when the files the cache holds are not what was recorded."""
    folder, layout = _download(repo, revision, force=False)
    digests = file_digests(folder, layout.files)
    try:
        check_recorded(model, folder, digests)
    except ModelCorruptError:
        folder, layout = _download(repo, revision, force=True)
        digests = file_digests(folder, layout.files)
        check_recorded(model, folder, digests)
    return folder, digests


def _download(repo: str, revision: str | None, *, force: bool) -> tuple[Path, Layout]:
    """Configurations first, so that another family is refused before its gigabytes come; then the plain weights; half
    precision only for parts that have no plain ones."""
    folder = _fetch(repo, revision, _SMALL_FILES, force=force)
    check_configs(folder)
    # All parts from the same commit, even if the branch moves in between.
    pinned = folder.name if _COMMIT.fullmatch(folder.name) else revision
    stems = {part: f"{part}/{stem}" for part, stem in WEIGHT_STEMS.items()}
    _fetch(repo, pinned, [stem + ending for stem in stems.values() for ending in _PLAIN_WEIGHTS], force=force)
    if halves := [f"{stem}.fp16.safetensors" for part, stem in stems.items() if not _has_weights(folder, part)]:
        _fetch(repo, pinned, halves, force=force)
    return folder, read_layout(folder)


def _fetch(repo: str, revision: str | None, files: Sequence[str], *, force: bool) -> Path:
    import huggingface_hub

    folder = huggingface_hub.snapshot_download(
        repo, revision=revision, allow_patterns=list(files), force_download=force
    )
    return Path(folder)


def _is_complete(folder: Path) -> bool:
    try:
        read_layout(folder)
    except ModelError:
        return False
    return True


def _has_weights(folder: Path, part: str) -> bool:
    try:
        weight_files(folder, part)
    except ModelCorruptError:
        return False
    return True


def _why(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # a kind of the next one
        return _GATED
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository (or it is private)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "no connection to the hub"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
