"""How the network is called, how many photos a call and how many calls at once: found by measuring, remembered on this machine."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from genzqa.errors import OutputError
from genzqa.files import write_atomically
from genzqa.model.registry import cache_folder

LARGEST = 32  # photos of all calls together
PER_CORE = 2  # photos of one of several calls at once; more take memory and bring little
WORTH = 1.03  # what takes twice the memory must give at least so many times the photos a second


@dataclass(frozen=True)
class Way:
    """So many photos a call, and so many calls at the same time, each on a share of the cores."""

    photos: int
    calls: int = 1

    @property
    def together(self) -> int:
        """Photos under way at the same time."""
        return self.photos * self.calls


def remembered(key: str) -> Way | None:
    """What was found for this model, backend and machine; None if nothing was."""
    match _read().get(key):
        case [int(photos), int(calls)] if min(photos, calls) >= 1 and photos * calls <= LARGEST:
            return Way(photos, calls)
    return None


def remember(key: str, way: Way) -> None:
    """Write it down for the next process; a folder that cannot be written is no failure, it is found again then."""
    with contextlib.suppress(OutputError, OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        found = {**_read(), key: [way.photos, way.calls]}
        write_atomically(_file(), (json.dumps(found, indent=2, sort_keys=True) + "\n").encode())


def fastest(call: Callable[[Way], None], largest: int = LARGEST, calls: Sequence[int] = (1,),
            now: Callable[[], float] = time.perf_counter) -> Way:  # fmt: skip
    """The way with the most photos a second: for every number of calls, photos doubling from 1 for as long as that is worth it.

    Args:
        call: Runs the network in this way, on as many photos as it takes together; a `MemoryError` ends the search for its number
            of calls.
        largest: Where it ends.
        calls: At the same time, fewest first; more of them must be worth it too.
    """
    found: list[tuple[Way, float]] = []
    for number in calls:
        if number <= largest:
            with contextlib.suppress(MemoryError):
                found.append(_fastest(call, largest, number, now))
    if not found:
        raise MemoryError("too little for a single photo")
    best, speed = found[0]
    for way, rate in found[1:]:
        if rate >= WORTH * speed:
            best, speed = way, rate
    return best


def _fastest(call: Callable[[Way], None], largest: int, calls: int, now: Callable[[], float]) -> tuple[Way, float]:
    def rate(way: Way) -> float:
        started = now()
        call(way)
        return way.together / max(now() - started, 1e-9)

    best = Way(1, calls)
    call(best)  # the first call of all is slower
    speed = rate(best)
    while 2 * best.together <= largest and (calls == 1 or best.photos < PER_CORE):
        larger = Way(2 * best.photos, calls)
        try:
            found = rate(larger)
        except MemoryError:
            break
        if found < WORTH * speed:
            break
        best, speed = larger, found
    return best, speed


def _file() -> Path:
    return cache_folder() / "batch-sizes.json"


def _read() -> dict[str, object]:
    try:
        found = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
