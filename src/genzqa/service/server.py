"""The app behind uvicorn, on one socket, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from genzqa.errors import ConfigError
from genzqa.service.settings import ServiceSettings

_KEEP_ALIVE_SECONDS = 30
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        ConfigError: If the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"cannot listen there: {error.strerror or error}", subject=f"{host}:{port}",
                          hint="name an address of this machine and a free port") from error  # fmt: skip


def run(app: FastAPI, listener: socket.socket, settings: ServiceSettings, *, started: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer what was accepted and return; a second SIGINT ends at once.

    Args:
        app: From `create_app`.
        listener: From `listen`.
        settings: Those of the app.
        started: Called when requests are answered.

    Raises:
        RuntimeError: The app did not start; the log says why.
    """
    config = uvicorn.Config(
        app,
        http=_protocol(settings.idle_seconds),
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        # as long as one request may last, and a little for its answer to be sent
        timeout_graceful_shutdown=round(settings.upload_seconds + settings.request_seconds) + 10,
    )
    # uvicorn raises the signal again when all is done, for whoever handled it before
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    server = _Server(config, started)
    server.run(sockets=[listener])
    if not server.started:
        raise RuntimeError("the service did not start")


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


def _protocol(idle_seconds: float) -> type[H11Protocol]:
    """HTTP/1.1 that gives up connections on which no request's head comes to its end; bodies have their own bounds."""

    class Impatient(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._waiting = self.loop.call_later(idle_seconds, self._give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._waiting is None:
                self._waiting = self.loop.call_later(idle_seconds, self._give_up)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _give_up(self) -> None:
            self._waiting = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Impatient
