"""Processes that may die, with work that makes them die."""

import os
import signal
import time
from concurrent.futures import CancelledError
from multiprocessing import Pipe

import pytest

from genzqa.batch.workers import Workers
from genzqa.errors import (
    ConfigError,
    CorruptInputError,
    DecoderCrashedError,
    InputError,
    InputTimeoutError,
    ModelCorruptError,
)
from genzqa.wire import receive


class Evil:
    """Opened as a pickle, it would run this."""

    def __reduce__(self):
        return (os.mkdir, (os.environ["EVIL"],))


def worker(answer):
    def work(task):
        if task == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if task == "sleep":
            time.sleep(600)
        if task == "corrupt":
            raise CorruptInputError("is damaged", subject="x", hint="copy it")
        if task == "model":
            raise ModelCorruptError("is damaged")
        if task == "fault":
            raise ZeroDivisionError("of a decoder")
        return answer, task, os.getpid()

    return work


def stillborn():
    os._exit(1)


@pytest.fixture
def workers():
    workers = Workers(1, worker, (7,), patience=5)
    yield workers
    workers.close()


def test_a_crash_costs_one_task(workers):
    answers = [workers.submit(task) for task in ("a", "crash", "b", "c")]
    assert answers[0].result()[:2] == [7, "a"]
    with pytest.raises(DecoderCrashedError, match="SIGSEGV"):
        answers[1].result()
    assert answers[2].result()[2] == answers[3].result()[2] != answers[0].result()[2]  # another process does the rest


@pytest.mark.parametrize(("task", "kind", "message"), [("corrupt", CorruptInputError, r"x: is damaged \(copy it\)"),
                                                       ("fault", InputError, "ZeroDivisionError: of a decoder"),
                                                       ("model", ModelCorruptError, "is damaged")])  # fmt: skip
def test_exceptions_come_back(workers, task, kind, message):
    with pytest.raises(kind, match=message):
        workers.submit(task).result()
    assert workers.submit("a").result()[:2] == [7, "a"]


def test_what_a_process_says_is_never_unpickled(tmp_path, monkeypatch):
    monkeypatch.setenv("EVIL", str(tmp_path / "ran"))
    ours, theirs = Pipe()
    theirs.send(Evil())
    with pytest.raises(ValueError):  # noqa: PT011 - of JSON, or of its encoding
        receive(ours)
    assert not (tmp_path / "ran").exists()


def test_one_that_hangs_is_ended():
    workers = Workers(1, worker, (7,), patience=0.2)
    try:
        with pytest.raises(InputTimeoutError, match=r"longer than 0\.2 seconds"):
            workers.submit("sleep").result()
    finally:
        workers.close()


def test_processes_that_cannot_start_end_the_run():
    workers = Workers(1, stillborn, ())
    try:
        with pytest.raises(ConfigError, match="die while they start"):
            workers.submit("a").result()
    finally:
        workers.close()


def test_closing_does_not_wait_for_work():
    workers = Workers(2, worker, (7,))
    pid = workers.submit("a").result()[2]
    answer = workers.submit("sleep")
    workers.close()
    with pytest.raises((DecoderCrashedError, CancelledError)):  # killed, or not yet begun
        answer.result(timeout=0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
