"""From a path to the bytes of one photo, without ever blocking on something that is not a file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from genzqa.errors import InputNotFoundError, InputTooLargeError, InputUnreadableError
from genzqa.limits import Limits
from genzqa.media.sniff import HEAD_BYTES, sniff

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def read_photo_file(path: str, limits: Limits) -> bytes:
    """All bytes of an image file; a file of another kind is refused on its first bytes, however large it is.

    Raises:
        InputNotFoundError: Nothing is at this path.
        InputUnreadableError: A directory, a pipe or device, no permission, or the read fails.
        InputTooLargeError: More bytes than `Limits.max_file_bytes`.
        UnsupportedFormatError, CorruptInputError: See `sniff`.
    """
    status = regular_file(path)
    check_bytes(status.st_size, limits)
    try:
        with Path(path).open("rb") as file:
            sniff(file.read(HEAD_BYTES))
            file.seek(0)
            # One byte more than allowed, so that a file that grew after stat is noticed and not read to its end.
            data = file.read(limits.max_file_bytes + 1)
    except FileNotFoundError as error:
        raise InputNotFoundError("no such file", hint="it was there a moment ago; check what removes it") from error
    except OSError as error:
        raise unreadable(error) from error
    check_bytes(len(data), limits)
    return data


def regular_file(path: str) -> os.stat_result:
    """What the system says of a file that can be opened without blocking.

    Raises:
        InputNotFoundError: Nothing is at this path.
        InputUnreadableError: A directory, a pipe or device, or no permission.
    """
    try:
        # An empty string would become the current directory as a Path.
        status = Path(path).stat() if path else None
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character in the path
        status = None
    except OSError as error:
        raise unreadable(error) from error
    if status is None:
        is_url = _URL.match(path) is not None
        hint = "URLs are not fetched; download the file first" if is_url else "check the path"
        raise InputNotFoundError("no such file", hint=hint)
    if stat.S_ISDIR(status.st_mode):
        raise InputUnreadableError("this is a directory", hint="give the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputUnreadableError("not a regular file", hint="pipes and devices are not read; save to a file first")
    return status


def check_bytes(count: int, limits: Limits) -> None:
    """Refuse more bytes than the limit.

    Raises:
        InputTooLargeError: More than `Limits.max_file_bytes`.
    """
    if count > limits.max_file_bytes:
        raise InputTooLargeError(
            f"{count:,} bytes are over the limit of {limits.max_file_bytes:,}", hint="raise Limits.max_file_bytes"
        )


def unreadable(error: OSError) -> InputUnreadableError:
    """The error to raise when the system refuses to read a file."""
    hint = "check its permissions" if isinstance(error, PermissionError) else "check the disk or the path"
    return InputUnreadableError(f"cannot be read: {(error.strerror or 'I/O error').lower()}", hint=hint)
