"""What every request goes through before any route: id, token, headers, log line, metrics, and the last error handler."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Iterable, MutableMapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genzqa.errors import GenzqaError
from genzqa.service.logs import new_request_id, request_id
from genzqa.service.metrics import Metrics
from genzqa.service.refusals import ForeignPageError, RequestError, UnauthorizedError
from genzqa.service.uploads import ClientGoneError

_log = logging.getLogger("genzqa.service")
_CLIENT_GONE = 499  # in log and metrics alone: nobody gets this answer
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64 << 20
_LONGEST_PATH = 200  # characters of a path in the log
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Exchange:
    """ASGI middleware around the whole app.

    Args:
        app: The app.
        metrics: Told of every answer.
        token: Wanted on every path but the open ones; None for no token at all.
        open_paths: Answered without a token.
        routes: Paths that are counted under their own name.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, token: str | None, open_paths: Iterable[str],
                 routes: Iterable[str]) -> None:  # fmt: skip
        self._app, self._metrics = app, metrics
        self._token = token.encode("ascii") if token is not None else None
        self._open, self._routes = frozenset(open_paths), frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        one = _Connection(receive, send, headers, new_request_id(headers.get("x-request-id")))
        mark = request_id.set(one.id)
        try:
            try:
                self._check(scope, headers)
                await self._app(scope, one.receive, one.send)
            except RequestError as error:
                await one.answer(error.status, error, error.retry_after)
            except ClientGoneError:
                one.status = _CLIENT_GONE
            except Exception:
                _log.exception("internal error")
                await one.answer(500, GenzqaError("internal error", hint="report it with the request id"))
        finally:
            self._note(scope, one, time.perf_counter() - started)
            request_id.reset(mark)

    def _check(self, scope: Scope, headers: MutableMapping[str, str]) -> None:
        if headers.get("sec-fetch-site") == "cross-site" and scope["method"] not in ("GET", "HEAD"):
            raise ForeignPageError("a page of another site sent this request", hint="use the service's own page")
        if self._token is None or scope["path"] in self._open:
            return
        scheme, _, offered = headers.get("authorization", "").partition(" ")
        given = offered.strip().encode("latin-1")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, self._token):
            raise UnauthorizedError("a token is needed" if not offered else "this is not the token",
                                    hint="send the header Authorization: Bearer TOKEN")  # fmt: skip

    def _note(self, scope: Scope, one: _Connection, seconds: float) -> None:
        path = scope["path"]
        route = path if path in self._routes else "other"
        self._metrics.requests.labels(route, str(one.status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        client = scope.get("client")
        _log.info("request", extra={
            "method": scope["method"], "path": path[:_LONGEST_PATH], "status": one.status, "seconds": round(seconds, 4),
            "received_bytes": one.received_bytes, "client": client[0] if client else None,
        } | scope.get("state", {}).get("log", {}))  # fmt: skip


class _Connection:
    """The two ends of one request, watched."""

    def __init__(self, receive: Receive, send: Send, headers: MutableMapping[str, str], identifier: str) -> None:
        self._receive, self._send, self.id = receive, send, identifier
        self._unread = "content-length" in headers or "transfer-encoding" in headers
        self._waits = headers.get("expect", "").lower() == "100-continue"
        self._started = False
        self.status, self.received_bytes = _CLIENT_GONE, 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._waits = False
        self.received_bytes += len(message.get("body", b""))
        self._unread = self._unread and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started, self.status = True, message["status"]
            if self._unread and not self._waits:
                await self._linger()
            own = {"x-request-id": self.id, **_HEADERS}
            present = {name.lower() for name, _ in message["headers"]}
            added = [(name.encode(), value.encode()) for name, value in own.items() if name.encode() not in present]
            message = {**message, "headers": [*message["headers"], *added]}
        await self._send(message)

    async def answer(self, status: int, error: GenzqaError, retry_after: int | None = None) -> None:
        """Send an error, unless an answer is under way."""
        if self._started:
            return
        body = error_body(error, self.id)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if retry_after is not None:
            headers.append((b"retry-after", str(retry_after).encode()))
        if status == UnauthorizedError.status:
            headers.append((b"www-authenticate", b'Bearer realm="genzqa"'))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        """Take in what is still being sent, for a moment: a client that meets a closed connection never sees its answer."""
        left = _LINGER_BYTES
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while self._unread and left > 0:
                    message = await self.receive()
                    left -= len(message.get("body", b""))
        except TimeoutError:
            pass


def error_body(error: GenzqaError, identifier: str) -> bytes:
    """A refusal as JSON: ``{"error": {"code", "reason", "hint", "request_id"}}``."""
    content = {"code": error.code, "reason": str(error.reason), "hint": error.hint, "request_id": identifier}
    return json.dumps({"error": content}).encode("ascii")
