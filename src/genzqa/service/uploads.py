"""From a request's body to private files: ``multipart/form-data`` (RFC 7578), read as it comes.

Bytes are counted while they come, so that neither a wrong ``Content-Length`` nor a missing one lets more in than is allowed.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from genzqa.service.metrics import Metrics
from genzqa.service.refusals import (
    BodyTooLargeError,
    NotMultipartError,
    RequestError,
    UnavailableError,
    UploadTimeoutError,
)
from genzqa.service.settings import ServiceSettings
from genzqa.service.spool import Spool
from genzqa.text import printable

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

FIELD = "file"
_WRITE_FROM = 256 * 1024  # bytes that are gathered before a thread writes them
_LONGEST_NAME = 200
_CURL = "curl -F file=@photo.jpg"


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""


@dataclass(eq=False)
class Upload:
    """One received file: where it lies, what the client calls it, and how many bytes it has."""

    path: str
    name: str
    size: int


def shown_name(sent: str) -> str:
    r"""A client's file name as it may be shown: the part after the last ``/`` or ``\``, in printable characters."""
    name = PurePosixPath(sent.replace("\\", "/")).name
    shown = printable(name)[:_LONGEST_NAME]
    return "<upload>" if shown in ("", ".", "..") else shown


class BodyReader:
    """Reads one request's body into the spool; `remove` what it took in when the request is over.

    Args:
        receive: Of the ASGI connection.
        headers: Of the request, lower-case names.
        spool: Where files go.
        settings: Bounds.
        metrics: Told how many bytes came.
    """

    def __init__(self, receive: Receive, headers: MutableMapping[str, str], spool: Spool, settings: ServiceSettings,
                 metrics: Metrics) -> None:  # fmt: skip
        self._receive, self._headers, self._spool = receive, headers, spool
        self._settings, self._metrics = settings, metrics
        self.uploads: list[Upload] = []
        self._file: BinaryIO | None = None
        self._files: list[BinaryIO] = []
        self._pending: list[tuple[BinaryIO, bytes]] = []
        self._pending_bytes = 0
        self._header, self._value = b"", b""
        self._disposition = b""
        self._ended = False

    async def read(self) -> list[Upload]:
        """All files of the request.

        Raises:
            RequestError: See `genzqa.service.refusals`.
            ClientGoneError: The client went away.
        """
        declared = self._headers.get("content-length", "0")
        if not declared.isdecimal():
            raise RequestError("Content-Length is no number", hint="send the number of bytes of the body, or none")
        self._count(int(declared))
        parser = MultipartParser(self._boundary(), {
            "on_part_begin": self._part_begins, "on_part_data": self._part_data, "on_part_end": self._part_ends,
            "on_header_field": self._header_field, "on_header_value": self._header_value,
            "on_header_end": self._header_ends, "on_headers_finished": self._headers_finished, "on_end": self._end,
        })  # fmt: skip
        received = 0
        try:
            async with asyncio.timeout(self._settings.upload_seconds):
                async for chunk in self._chunks():
                    received += len(chunk)
                    self._metrics.upload_bytes.inc(len(chunk))
                    self._count(received)
                    parser.write(chunk)
                    if self._pending_bytes >= _WRITE_FROM:
                        await self._write()
            await self._write()
        except FormParserError as error:
            raise RequestError("the body is not well-formed multipart/form-data", hint=_CURL) from error
        except TimeoutError as error:
            raise UploadTimeoutError(
                f"the body was not there after {self._settings.upload_seconds:g} seconds, or stopped coming for "
                f"{self._settings.idle_seconds:g}", hint="send smaller files, or use a faster connection"
            ) from error  # fmt: skip
        except OSError as error:
            reason = (
                "no space for uploads" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "uploads cannot be stored"
            )
            raise UnavailableError(reason, hint="send it again later", retry_after=30) from error
        if not self._ended:
            raise RequestError("the body ends in the middle of a part", hint=_CURL)
        if not self.uploads:
            raise RequestError("there is no file in the body", hint=_CURL)
        return self.uploads

    def remove(self) -> None:
        """Remove the files, complete or not."""
        for file in self._files:
            file.close()
        for upload in self.uploads:
            self._spool.remove(upload.path, upload.size)
        self.uploads = []

    def _boundary(self) -> bytes:
        kind, options = parse_options_header(self._headers.get("content-type", ""))
        if kind != b"multipart/form-data":
            raise NotMultipartError("the body is not multipart/form-data", hint=_CURL)
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:  # RFC 2046, section 5.1.1
            raise RequestError("the boundary in Content-Type is missing or over 70 characters", hint=_CURL)
        return boundary

    async def _chunks(self) -> Any:
        while True:
            async with asyncio.timeout(self._settings.idle_seconds):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body", False):
                return

    def _count(self, count: int) -> None:
        if count > self._settings.max_body_bytes:
            raise BodyTooLargeError(f"the body is over the limit of {self._settings.max_body_bytes:,} bytes",
                                    hint="send smaller or fewer files")  # fmt: skip

    async def _write(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if pending:
            await asyncio.to_thread(_write_all, pending)

    def _part_begins(self) -> None:
        self._header = self._value = self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or options.get(b"name") != FIELD.encode():
            raise RequestError("a part of the form is not named file", hint=f"send nothing but files: {_CURL}")
        if b"filename" not in options:
            raise RequestError("the field file holds text, not a file", hint=f"mind the @ in {_CURL}")
        if len(self.uploads) == self._settings.max_files:
            raise BodyTooLargeError(f"more than {self._settings.max_files} files in one request", hint="send fewer")
        self._file, path = self._spool.create()
        self._files.append(self._file)
        self.uploads.append(Upload(path, shown_name(options[b"filename"].decode("utf-8", "replace")), 0))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._spool.reserve(end - start)
        self.uploads[-1].size += end - start
        self._pending.append((self._file, data[start:end]))
        self._pending_bytes += end - start

    def _part_ends(self) -> None:
        assert self._file is not None
        self._pending.append((self._file, b""))
        self._file = None

    def _end(self) -> None:
        self._ended = True


def _write_all(pending: list[tuple[BinaryIO, bytes]]) -> None:
    """Write every piece to its file; an empty one closes it."""
    for file, piece in pending:
        if not piece:
            file.close()
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
