"""Output files that appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from genzqa.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, replacing what was there; no reader ever sees half a file.

    Raises:
        OutputError: If the folder is missing, the target is no regular file, or writing fails.
    """
    with atomic_file(path) as file:
        try:
            file.write(content)
        except OSError as error:
            raise unwritable(path, error) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that becomes ``path`` when the block ends well; after an exception nothing has changed.

    Entering the block proves that the target can be written, so a long computation inside it is not lost at its end.
    A symbolic link is followed: its target is replaced, not the link.

    Raises:
        OutputError: If the folder is missing, the target is no regular file, or the last step fails.
    """
    target = Path(os.path.realpath(path))
    _check(target, path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".genzqa-")
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise unwritable(path, error) from error
        try:
            Path(temporary).chmod(0o666 & ~_umask())
            Path(temporary).replace(target)
        except OSError as error:
            raise unwritable(path, error) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error to raise when the system refuses to write ``path``."""
    return OutputError(f"cannot be written: {error.strerror or error}", subject=str(path),
                       hint="check the folder, its permissions and the free space")  # fmt: skip


def _check(target: Path, named: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError("its folder does not exist", subject=str(named), hint=f"create {target.parent} first")
    if not target.exists():
        return
    if not target.is_file():  # a folder, or a device such as /dev/stdout, which a rename would replace
        raise OutputError("exists and is not a regular file", subject=str(named), hint="give the name of a new file")
    if not os.access(target, os.W_OK):
        raise OutputError("exists and is write-protected", subject=str(named), hint="give another name")


def _umask() -> int:
    """The process's mask can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
