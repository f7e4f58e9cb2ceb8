"""The program keeps memory that was given back, unless its user has settled that."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES = 10_000  # of 4 KiB, in one array
TIMES = 20
PROGRAM = "import genzqa.cli\ntry:\n    genzqa.cli.main()\nexcept SystemExit:\n    pass"
TRAINING = "from genzqa.allocator import keep_freed_memory\nkeep_freed_memory(training=True)"
FAULTS = """
{first}
import resource
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def make():
    for _ in range({times}):
        torch.empty({pages} * 4096, dtype=torch.uint8).fill_(1)
make()  # what lies between the first arrays keeps them apart for a while
before = faults()
make()
print("faults", faults() - before)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")


def faults(first: str, pages: int, **environment: str) -> int:
    """Pages that the system had to give for arrays of so many that were made and dropped one after the other."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS.format(first=first, times=TIMES, pages=pages), "--version"]
    done = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    return int(done.stdout.split("faults")[1])


@glibc
def test_pages_are_asked_for_once() -> None:
    assert faults(PROGRAM, PAGES) < 2 * PAGES


@glibc
def test_large_pieces_are_kept_while_training_alone() -> None:
    assert faults(PROGRAM, 3 * PAGES) > 0.9 * TIMES * 3 * PAGES
    assert faults(TRAINING, 3 * PAGES) < 2 * 3 * PAGES


@glibc
def test_what_the_environment_says_is_left_alone() -> None:
    settled = {"MALLOC_TRIM_THRESHOLD_": "1000000", "MALLOC_MMAP_THRESHOLD_": "1000000"}
    assert faults(PROGRAM, PAGES, **settled) > 0.9 * TIMES * PAGES
