"""The program killed, out of disk, interrupted: what is left is valid, and the next start ends as if nothing had been."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import genzqa
from batches import album, batch, engine_of, rows, same, scores
from genzqa.batch import parts, store
from genzqa.batch.item import Item
from genzqa.batch.parts import write_part
from genzqa.batch.records import row_of
from genzqa.batch.store import Store
from genzqa.errors import CorruptInputError, OutputError
from genzqa.result import FailedResult
from test_report import MADE

# parts of three rows, so that some are there before the end
PROGRAM = """
import resource, sys
from genzqa.batch import store
store._ROWS = 3
if int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = ["genzqa", "batch", *sys.argv[2:]]
from genzqa.cli import main
main()
"""
LONG = 300  # seconds; only a stuck program takes that long


@pytest.fixture(scope="module")
def scorer(small_scorer):
    return genzqa.load(f"local-dir:{small_scorer}")


@pytest.fixture(scope="module")
def undisturbed(scorer, small_scorer, tmp_path_factory):
    """Photos, and what a batch makes of them that nobody disturbs."""
    folder = tmp_path_factory.mktemp("album")
    album(folder / "photos", 80)
    (folder / "photos" / "041.png").write_bytes(b"broken")
    with engine_of(scorer, f"local-dir:{small_scorer}") as engine:
        batch(engine, scorer, folder / "wanted", folder / "photos")
    return folder / "photos", scores(folder / "wanted")


@pytest.fixture
def start(small_scorer, undisturbed, tmp_path):
    def go(*options, largest_file=0):
        command = [sys.executable, "-c", PROGRAM, str(largest_file), str(undisturbed[0]), "--out", "scores", "--processes", "1",
                   "--model", f"local-dir:{small_scorer}", *options]  # fmt: skip
        # tests that run in the background of a shell were told to ignore Ctrl-C
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip

    return go


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_parts(program, folder, count):
    limit = time.monotonic() + LONG
    while len(list(folder.glob("part-*.parquet"))) < count:
        assert program.poll() is None, program.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.002)


def ended(program, status):
    _, said = program.communicate(timeout=LONG)
    assert program.returncode == status, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_middle(start, undisturbed, tmp_path, blow):
    program = start()
    wait_for_parts(program, tmp_path / "scores", 2)
    decoders = children(program.pid)
    program.send_signal(blow)
    ended(program, {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[blow])
    done = rows(tmp_path / "scores")
    assert 6 <= len(done) < 80
    limit = time.monotonic() + LONG
    while any(Path(f"/proc/{pid}").exists() for pid in decoders):  # nobody is left behind
        assert time.monotonic() < limit
        time.sleep(0.01)
    said = ended(start(), 1)
    assert f"{len(done)} unchanged" in said
    assert same(scores(tmp_path / "scores"), undisturbed[1])


def test_a_file_that_cannot_grow_is_a_full_disk(start, undisturbed, tmp_path):
    said = ended(start(largest_file=5000), 2)
    assert "error[output]" in said
    assert "cannot be written" in said
    assert not list((tmp_path / "scores").glob("*part*"))
    program = start()
    wait_for_parts(program, tmp_path / "scores", 2)
    program.kill()
    ended(program, -9)
    done = rows(tmp_path / "scores")
    ended(start(largest_file=5000), 2)
    assert rows(tmp_path / "scores") == done  # what is written stays
    assert "error[output]" in ended(start(largest_file=30_000), 2)  # parts have room, all rows in one have not
    assert len(list((tmp_path / "scores").glob("*.parquet"))) > 3
    said = ended(start(), 1)
    assert "0 scored, 0 failed, 80 unchanged" in said
    assert same(scores(tmp_path / "scores"), undisturbed[1])


def test_a_disk_that_is_really_full(tmp_path, undisturbed, start):
    disk = tmp_path / "scores"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        said = ended(start(), 2)
        assert os.strerror(errno.ENOSPC) in said
        done = rows(disk)
        assert 3 <= len(done) < 80
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert f"{len(done)} unchanged" in ended(start(), 1)
        assert same(scores(disk), undisturbed[1])
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # a file just read may not be closed yet


@contextmanager
def interrupted(step):
    """A KeyboardInterrupt before line ``step``, from 0, of those that write; yields a list of where it came, if it did."""
    writing, left, came = {parts.__file__, store.__file__, pq.ParquetWriter.__init__.__code__.co_filename}, step, []

    def before_line(frame, event, _):
        nonlocal left
        if event == "line":
            if not left:
                came.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                raise KeyboardInterrupt  # which also ends the tracing
            left -= 1
        return before_line

    traced = sys.gettrace()
    sys.settrace(lambda frame, *_: before_line if frame.f_code.co_filename in writing else None)
    try:
        yield came
    finally:
        sys.settrace(traced)


# where a writer has just been made, it outlives its file, and Python says that its end could not be written
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_at_every_line_that_writes(tmp_path):
    """The store writes again what waits while the interrupted writer is still there, which goes with its exception."""
    names = {f"{number}.png" for number in range(3)}
    for step in itertools.count():
        folder = tmp_path / str(step)
        with suppress(KeyboardInterrupt), Store(folder, "x") as scores_of:
            for name in sorted(names):
                scores_of.add(row_of(Item(name), FailedResult(name, CorruptInputError("x"), MADE).to_dict()))
            with interrupted(step) as came:
                scores_of.flush()
        assert rows(folder).keys() == names, came
        assert not list(folder.glob(".genzqa-*")), came
        if not came:
            break
    assert step > 50


def test_nothing_is_left_of_a_part_that_fails(tmp_path):
    with pytest.raises(OutputError):
        write_part(tmp_path / "missing", 0, "x", [])
    assert list(tmp_path.iterdir()) == []


def test_the_program(start, undisturbed, tmp_path, small_scorer):
    said = ended(start("--hash"), 1)
    assert "79 scored, 1 failed, 0 unchanged, 0 removed" in said
    assert "scores: 80 rows, 1 of them errors" in said
    manifest = json.loads((tmp_path / "scores" / "_manifest.json").read_text())
    assert manifest["options"] == {"engine": "local", "hash": True, "column": "path"}
    assert all(len(row["sha256"]) == 64 for row in rows(tmp_path / "scores").values())
    (part,) = (tmp_path / "scores").glob("*.parquet")
    assert pq.read_metadata(part).num_rows == 80
