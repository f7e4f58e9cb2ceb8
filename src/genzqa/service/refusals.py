"""Why a whole request is refused; what is wrong with one file of it stands in that file's record instead.

RequestError                  a request is refused as a whole          400 "bad_request"
├── UnauthorizedError         no token, or a wrong one                 401 "unauthorized"
├── ForeignPageError          a page of another site sent it           403 "foreign_page"
├── UploadTimeoutError        the body came too slowly                 408 "upload_timeout"
├── BodyTooLargeError         too many bytes or files                  413 "body_too_large"
├── NotMultipartError         the body is no form                      415 "not_multipart"
├── BusyError                 the queue is full                        429 "busy"
├── WorkTimeoutError          scoring took longer than is allowed      504 "work_timeout"
└── UnavailableError          no disk space, or shutting down          503 "unavailable"
"""

from __future__ import annotations

from typing import ClassVar

from genzqa.errors import GenzqaError


class RequestError(GenzqaError):
    """The request does not say what it should; base of all refusals.

    Args:
        retry_after: Seconds after which a new try makes sense, or None.
    """

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400

    def __init__(self, reason: str, *, subject: str = "", hint: str = "", retry_after: int | None = None) -> None:
        super().__init__(reason, subject=subject, hint=hint)
        self.retry_after = retry_after


class UnauthorizedError(RequestError):
    """The service wants a bearer token, and this request brings none or another."""

    code, status = "unauthorized", 401


class ForeignPageError(RequestError):
    """A browser says that a page of another site sent the request."""

    code, status = "foreign_page", 403


class UploadTimeoutError(RequestError):
    """The body stopped coming, or came too slowly."""

    code, status = "upload_timeout", 408


class BodyTooLargeError(RequestError):
    """More bytes or files than one request may have."""

    code, status = "body_too_large", 413


class NotMultipartError(RequestError):
    """The body is not ``multipart/form-data``."""

    code, status = "not_multipart", 415


class BusyError(RequestError):
    """As many files are waiting as may wait."""

    code, status = "busy", 429


class WorkTimeoutError(RequestError):
    """Scoring took longer than a request may take."""

    code, status = "work_timeout", 504


class UnavailableError(RequestError):
    """The service cannot work just now."""

    code, status = "unavailable", 503
