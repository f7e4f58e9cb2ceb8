"""A process that works on strangers' files, and may die of them.

`Worker` is the service's side, `work` the process's. The process ends by itself when the service does, however that ends:
its end of the socket says so.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import TypeAlias

from genzqa.wire import Message, Pipe, receive, send

CANCEL_GRACE = 5.0  # seconds that a process gets to stop a cancelled piece of work before it is killed
_LOOK_AGAIN = 0.1  # seconds between looks at whether somebody still waits
_SECRETS = ("GENZQA_TOKEN",)

Answer: TypeAlias = tuple[Message, Sequence[bytes | memoryview]]
Handler: TypeAlias = Callable[[Message, Callable[[], bool]], Answer]


class WorkerDiedError(Exception):
    """The process ended, or answered nonsense, while it worked."""


class WorkerUnusableError(Exception):
    """The process cannot be started, or failed in a way that has nothing to do with a file; the message says how."""


class CancelledWorkError(Exception):
    """Nobody waits for this piece of work any more."""


class Worker:
    """One process, started when it is first needed and again after it died; for use by one thread.

    Args:
        command: Module to run and its arguments; it gets the number of its end of the socket as its last one.
        threads: Of numerical libraries in the process; None for as many as here.
    """

    def __init__(self, command: Sequence[str], *, threads: int | None = None) -> None:
        self._command, self._threads = tuple(command), threads
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Pipe | None = None
        self._number = 0
        self._ready = False

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process if there is none."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        if self._threads is not None:
            environment |= {"OMP_NUM_THREADS": str(self._threads)}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the service alone
            )
        finally:
            theirs.close()
        self._pipe = Connection(ours.detach())

    def ask(self, request: Message, blocks_at_most: int, cancelled: threading.Event) -> tuple[Message, list[bytes]]:
        """Have one piece of work done.

        Args:
            request: What to do.
            blocks_at_most: More blocks in the answer are nonsense.
            cancelled: Set by whoever asked when the answer is no longer wanted.

        Raises:
            WorkerDiedError: The process died; the next call starts another.
            WorkerUnusableError: It cannot be started, or failed for another reason than the file.
            CancelledWorkError: ``cancelled`` was set.
        """
        if self._process is None or self._process.poll() is not None:
            self.start()
        try:
            if not self._ready:
                self._wait(cancelled, stop_politely=False)
                self._receive()
                self._ready = True
        except (EOFError, OSError, ValueError) as error:
            self.stop()
            raise WorkerUnusableError("its process does not start") from error
        self._number += 1
        try:
            self._send(request | {"number": self._number})
            self._wait(cancelled, stop_politely=True)
            message, blocks = self._receive()
        except (EOFError, OSError, ValueError) as error:
            self.stop()
            raise WorkerDiedError from error
        if message.get("number") != self._number or len(blocks) > blocks_at_most:
            self.stop()
            raise WorkerDiedError
        if message.get("cancelled"):
            raise CancelledWorkError
        if "failed" in message:
            raise WorkerUnusableError(str(message["failed"]))
        return message, blocks

    def _wait(self, cancelled: threading.Event, *, stop_politely: bool) -> None:
        """Until there is something to receive, or nobody wants it any more."""
        assert self._pipe is not None
        deadline: float | None = None
        while not self._pipe.poll(_LOOK_AGAIN):
            if not cancelled.is_set():
                continue
            if deadline is None:
                deadline = time.monotonic() + CANCEL_GRACE
                if stop_politely:
                    self._send({"cancel": self._number})
            elif time.monotonic() > deadline:
                if stop_politely:
                    self.stop()
                raise CancelledWorkError

    def _send(self, message: Message) -> None:
        assert self._pipe is not None
        send(self._pipe, message)

    def _receive(self) -> tuple[Message, list[bytes]]:
        assert self._pipe is not None
        return receive(self._pipe)

    def stop(self) -> None:
        """End the process at once, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self._ready = False


def work(descriptor: int, handle: Handler) -> None:
    """Answer requests until the service is gone.

    Args:
        descriptor: Of the socket.
        handle: Gets a request, and a function that says whether it was cancelled meanwhile; returns the answer.
    """
    # The service decides when its processes end: what it has accepted is still worked on after SIGTERM.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_first()
    pipe: Pipe = Connection(descriptor)
    send(pipe, {"ready": True})
    while True:
        try:
            request, _ = receive(pipe)
            if "cancel" in request:  # of work that was done when it came
                continue
            number = request["number"]
            try:
                answer, blocks = handle(request, partial(_cancelled, pipe, number))
            except Exception as error:  # the service says so in its log, and goes on
                answer, blocks = {"failed": f"{type(error).__name__}: {error}"}, ()
            send(pipe, answer | {"number": number}, blocks)
        except (EOFError, OSError):
            return


def _cancelled(pipe: Pipe, number: int) -> bool:
    return pipe.poll() and receive(pipe)[0].get("cancel") == number


def _die_first() -> None:
    """If memory runs out, the kernel shall end this process and not the service. Linux alone knows this."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    except OSError:
        pass
