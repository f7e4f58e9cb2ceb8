"""Processes that may die: files are not trusted, so whatever parses them does it where a crash costs one row."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from genzqa.batch.decoding import packed, unpacked
from genzqa.errors import ConfigError, DecoderCrashedError, GenzqaError, InputError, InputTimeoutError
from genzqa.wire import receive, send

_T = TypeVar("_T")
_R = TypeVar("_R")
_TRIES = 2  # of one task: whoever kills a process, out of memory, say, need not have meant the file
_STARTS = 3  # of one process, before it is not the files' fault
_READY = "ready"


class Workers(Generic[_T, _R]):
    """Some processes that work on one task each.

    A task whose process dies is tried once more, in a new process; if that dies too, its error is `DecoderCrashedError`.
    A thread for each process feeds it, so that no lock is shared with what may die.

    Args:
        count: Of processes; each starts when there is work for it.
        make: Called once in each process, with ``arguments``; gives the function that does the tasks. Both travel there by
            pickle. What comes back does not, since a file may have taken the process over: it is a `PreparedPhoto`, plain
            JSON, or an error.
        arguments: For ``make``.
        patience: Seconds that a task may take, None for any time.
    """

    def __init__(self, count: int, make: Callable[..., Callable[[_T], _R]], arguments: tuple[Any, ...], *,
                 patience: float | None = None) -> None:  # fmt: skip
        self._make, self._arguments, self._patience = make, arguments, patience
        self._tasks: queue.SimpleQueue[tuple[Future[_R], _T] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._feed, name="genzqa-worker", daemon=True) for _ in range(count)]
        self._closed = False
        self._children: set[_Child] = set()
        for thread in self._threads:
            thread.start()

    def submit(self, task: _T) -> Future[_R]:
        """Queue a task. Its exception is what the function raised: an `InputError` concerns the task alone."""
        future: Future[_R] = Future()
        self._tasks.put((future, task))
        return future

    def close(self) -> None:
        """End all processes, whatever they are at."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for child in list(self._children):
            child.kill()
        for thread in self._threads:
            thread.join()

    def _feed(self) -> None:
        child: _Child | None = None
        while (job := self._tasks.get()) is not None:
            future, task = job
            if self._closed:
                future.cancel()
                continue
            outcome: Any = None
            for _ in range(_TRIES):
                try:
                    child = child or self._start()
                    outcome = child.do(task, self._patience)
                    break
                except (EOFError, OSError) as error:
                    how = self._end(child)
                    late = isinstance(error, TimeoutError)
                    outcome = _too_slow(self._patience) if late else _crashed(how)
                    child = None
                    if late or self._closed:
                        break
                except Exception as error:
                    outcome = error
                    break
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._end(child)

    def _start(self) -> _Child:
        for _ in range(_STARTS):
            child = _Child(self._make, self._arguments)
            self._children.add(child)
            if child.ready():
                return child
            self._end(child)
        raise ConfigError("the processes that decode files die while they start", subject="--processes",
                          hint="there may not be enough memory for so many")  # fmt: skip

    def _end(self, child: _Child | None) -> str:
        if child is None:
            return ""
        self._children.discard(child)
        return child.end()


def _crashed(how: str) -> InputError:
    return DecoderCrashedError(f"the process that decoded it died{how}, and so did another",
                               hint="leave it out if that happens again; the file may be made to do harm")  # fmt: skip


def _too_slow(seconds: float | None) -> InputError:
    return InputTimeoutError(
        f"its process took longer than {seconds or 0:g} seconds", hint="try again, or leave it out"
    )


class _Child:
    """One process and the pipe to it, which nobody else has."""

    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        # Not forked: a copy of a process with threads and torch in it may hang.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        process.start()
        theirs.close()
        self._process: BaseProcess = process

    def ready(self) -> bool:
        """Wait until it can work; False if it died."""
        try:
            return bool(receive(self._pipe)[0].get("plain") == _READY)
        except (EOFError, OSError, ValueError):
            return False

    def do(self, task: Any, patience: float | None) -> Any:
        """What the function gave, or the exception it raised.

        Raises:
            TimeoutError: It takes too long.
            EOFError, OSError: The process is dead.
        """
        self._pipe.send(task)
        if not self._pipe.poll(patience):
            raise TimeoutError
        try:
            return unpacked(*receive(self._pipe))
        except (ValueError, KeyError, TypeError) as error:  # whoever says this has been taken over
            raise EOFError from error

    def kill(self) -> None:
        """End it from another thread; the one that waits for its answer finds it dead."""
        self._process.kill()

    def end(self) -> str:
        """Make sure that it is gone; say of which signal it had died, if it had."""
        self._process.join(0.2)  # the pipe may close a moment before the process is gone
        code = self._process.exitcode
        self._process.kill()
        self._process.join()
        self._process.close()
        self._pipe.close()
        return f" of {signal.Signals(-code).name}" if code is not None and code < 0 else ""


def _serve(pipe: Connection, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    """The process: ends when the pipe does, and with it whoever held the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the other end decides what to do about it
    work = make(*arguments)
    send(pipe, *packed(_READY))
    try:
        while True:
            task = pipe.recv()
            try:
                outcome = work(task)
            except GenzqaError as error:
                outcome = error
            except Exception as error:  # of a file that is not trusted: it costs a row, not the run
                outcome = InputError(f"decoding failed: {type(error).__name__}: {error}")
            send(pipe, *packed(outcome))
    except (EOFError, OSError):
        return
