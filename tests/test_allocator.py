"""The program keeps memory that was given back, unless its user has settled that."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES = 10_000  # of 4 KiB, in one array
TIMES = 20
FAULTS = f"""
import resource
import torch
from genzqa.cli import main
try:
    main()
except SystemExit:
    pass
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range({TIMES}):
    torch.empty({PAGES} * 4096, dtype=torch.uint8).fill_(1)
print("faults", faults() - before)
"""


def faults(**environment: str) -> int:
    """Pages that the system had to give for arrays that were made and dropped one after the other."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", FAULTS, "--version"], env=plain | environment, capture_output=True,
                          text=True, check=True)  # fmt: skip
    return int(done.stdout.split("faults")[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")
def test_pages_are_asked_for_once() -> None:
    assert faults() < 3 * PAGES


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")
def test_what_the_environment_says_is_left_alone() -> None:
    assert faults(MALLOC_TRIM_THRESHOLD_="1000000", MALLOC_MMAP_THRESHOLD_="1000000") > 0.9 * TIMES * PAGES
