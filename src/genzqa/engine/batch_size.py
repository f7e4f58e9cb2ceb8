"""How many photos one call of the network takes: found by measuring once, remembered on this machine."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from genzqa.errors import OutputError
from genzqa.files import write_atomically
from genzqa.model.registry import cache_folder

LARGEST = 32
WORTH = 1.03  # twice as many photos a call must give at least so many times the photos a second


def remembered(key: str) -> int | None:
    """What was found for this model, backend and machine; None if nothing was."""
    found = _read().get(key)
    return found if isinstance(found, int) and 1 <= found <= LARGEST else None


def remember(key: str, photos: int) -> None:
    """Write it down for the next process; a folder that cannot be written is no failure, it is found again then."""
    with contextlib.suppress(OutputError, OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), (json.dumps({**_read(), key: photos}, indent=2, sort_keys=True) + "\n").encode())


def fastest(call: Callable[[int], None], largest: int = LARGEST, now: Callable[[], float] = time.perf_counter) -> int:
    """The number of photos per call with the most photos a second, doubling from 1 for as long as that is worth it.

    Args:
        call: Runs the network on so many photos; a `MemoryError` of it ends the search.
        largest: Where it ends.
    """

    def rate(photos: int) -> float:
        started = now()
        call(photos)
        return photos / max(now() - started, 1e-9)

    call(1)  # the first call of all is slower
    best, speed = 1, rate(1)
    while 2 * best <= largest:
        try:
            larger = rate(2 * best)
        except MemoryError:
            break
        if larger < WORTH * speed:
            break
        best, speed = 2 * best, larger
    return best


def _file() -> Path:
    return cache_folder() / "batch-sizes.json"


def _read() -> dict[str, object]:
    try:
        found = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
