"""Weights of a motion network: the public Kinetics-400 file, fetched once, checked, and kept as safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from genzqa.errors import ConfigError, ModelCorruptError, ModelNotFoundError, OfflineError, OutputError
from genzqa.files import write_atomically
from genzqa.model.checksums import check_recorded, write_record
from genzqa.model.names import ModelName
from genzqa.model.pickles import plain_tensors
from genzqa.model.registry import REGISTRY, cache_folder
from genzqa.model.slowfast import SlowFast

LARGEST_FILE = 1 << 30  # bytes; the public file has about a quarter of that
CHUNK = 1 << 20


def load_motion(name: str, *, offline: bool = False) -> tuple[SlowFast, str]:
    """SlowFast-R50 with the weights of a registered name, or of ``file:PATH.safetensors``; frozen, in eval mode.

    Returns:
        The network, and the SHA-256 of the safetensors file it was made from.

    Raises:
        ConfigError: Another kind of name.
        OfflineError: Not on this machine, and downloads are forbidden.
        ModelNotFoundError, ModelCorruptError: The file is missing, could not be had, or does not hold these weights.
    """
    if name.startswith("file:") and name.endswith(".safetensors"):
        return _built(Path(name.removeprefix("file:")).expanduser())
    if name not in REGISTRY or REGISTRY[name].kind != "motion":
        raise ConfigError("not a motion network", subject=name, hint="use slowfast-r50, or file:PATH.safetensors")
    path = motion_file(name)
    if not path.is_file():
        if offline:
            raise OfflineError("not on this machine, and offline mode forbids the download", subject=name,
                               hint=f"run once with a connection: genzqa pull {name}")  # fmt: skip
        pull_motion(name)
    network, digest = _built(path)
    check_recorded(ModelName("registry", name), path.parent, {path.name: digest})
    return network, digest


def motion_file(name: str) -> Path:
    """Where the weights of a registered motion network lie once they are here."""
    return cache_folder() / "motion" / f"{name}.safetensors"


def pull_motion(name: str, *, local: Path | None = None) -> tuple[Path, str]:
    """Fetch the public checkpoint, or take it from a ``local`` file, and keep it as safetensors.

    The file is a pickle: it is opened with ``weights_only=True``, which executes nothing. Its SHA-256 is compared with
    the published one where there is one, else with that of the first download.

    Returns:
        The safetensors file, and the SHA-256 of the checkpoint it was made from.

    Raises:
        ModelNotFoundError: It could not be downloaded, or there is no such local file.
        ModelCorruptError: It is not the checkpoint it should be.
        OutputError: It cannot be stored.
    """
    model, target = ModelName("registry", name), motion_file(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be created: {error.strerror or error}", subject=str(target.parent)) from None
    source = REGISTRY[name].sources[0]
    with contextlib.ExitStack() as stack:
        path = local if local is not None else _downloaded(source, target.parent, stack)
        digest, state = _checked(path)
    known = REGISTRY[name].sha256.get(Path(source).name) or _recorded_source(target)
    if known not in ("", digest):
        raise ModelCorruptError(f"sha256 {digest[:12]}, expected {known[:12]}", subject=name,
                                hint=f"if the new file is the right one, delete {target} first")  # fmt: skip
    write_atomically(target, save(state, metadata={"format": "pt", "source": source, "source_sha256": digest}))
    files = {target.name: hashlib.sha256(target.read_bytes()).hexdigest()}
    write_record(model, source, target.parent, files)
    return target, digest


def _downloaded(url: str, folder: Path, stack: contextlib.ExitStack) -> Path:
    handle, name = tempfile.mkstemp(dir=folder, suffix=".part")
    part = Path(name)
    stack.callback(part.unlink, missing_ok=True)
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=60) as response:
            taken = 0
            while chunk := response.read(CHUNK):
                taken += len(chunk)
                if taken > LARGEST_FILE:
                    raise ModelCorruptError("the download is far larger than the checkpoint", subject=url)
                file.write(chunk)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise ModelNotFoundError(f"could not be downloaded: {getattr(error, 'reason', error)}", subject=url,
                                 hint="fetch it by other means and name it with --file") from None  # fmt: skip
    return part


def _checked(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Digest and weights of a checkpoint that fits SlowFast-R50 8x8 name by name."""
    state = plain_tensors(path, "model_state")
    _fill(SlowFast(), state, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, {name: value.contiguous() for name, value in state.items()}


def _recorded_source(path: Path) -> str:
    """The SHA-256 of the checkpoint that stored weights were made from; empty when there are none."""
    try:
        with safe_open(path, "pt") as stored:
            return str((stored.metadata() or {}).get("source_sha256", ""))
    except (OSError, SafetensorError):
        return ""


def _built(path: Path) -> tuple[SlowFast, str]:
    try:
        data = path.read_bytes()  # once, so that the digest is of what is loaded
        state = load(data)
    except FileNotFoundError:
        raise ModelNotFoundError("no such file", subject=str(path)) from None
    except (OSError, SafetensorError) as error:
        raise ModelCorruptError(f"cannot be read: {error}", subject=str(path), hint="pull it again") from None
    network = SlowFast()
    _fill(network, state, path)
    return network.eval().requires_grad_(False), hashlib.sha256(data).hexdigest()


def _fill(network: SlowFast, state: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelCorruptError(f"not SlowFast-R50 8x8: {first}", subject=str(path)) from None
