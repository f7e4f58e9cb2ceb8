"""What is missing, unreadable or mislabelled in a database, told before hours are spent on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genzqa.databases.database import Sample, Samples
from genzqa.errors import InputError, InputNotFoundError
from genzqa.limits import DEFAULT_LIMITS, Limits

Fault = Literal["missing", "unreadable", "mislabelled"]
_AHEAD = 64  # files handed to the threads at once, so that a stop is obeyed soon


@dataclass
class Findings:
    """What a check found.

    Attributes:
        listed: Items that the labels list.
        faults: Of each kind, the file's path or the label's subject and what is wrong with it, in the order found.
        remarks: What is unusual, but no fault.
    """

    listed: int
    faults: dict[Fault, list[tuple[str, str]]] = field(
        default_factory=lambda: {"missing": [], "unreadable": [], "mislabelled": []}
    )
    remarks: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether there is no fault at all."""
        return not any(self.faults.values())


def check(
    samples: Samples, *, limits: Limits = DEFAULT_LIMITS, progress: Callable[[], object] = lambda: None
) -> Findings:
    """Look at every label and open every file: photos are decoded, of videos the first frame.

    Args:
        samples: The database.
        limits: As scoring will apply them.
        progress: Called after each file.
    """
    findings = Findings(len(samples.items))
    findings.faults["mislabelled"] = list(_label_faults(samples))
    open_one = _open_photo if samples.database.kind == "image" else _open_video
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(samples.items), _AHEAD):
            part = samples.items[first : first + _AHEAD]
            for item, error in zip(part, pool.map(lambda item: open_one(item.path, limits), part), strict=True):
                if error is not None:
                    kind: Fault = "missing" if isinstance(error, InputNotFoundError) else "unreadable"
                    findings.faults[kind].append((str(item.path), error.reason))
                progress()
    findings.remarks = list(_remarks(samples))
    return findings


def _open_photo(path: Path, limits: Limits) -> InputError | None:
    from genzqa.media.image import decode_image

    try:
        decode_image(path, limits=limits)
    except InputError as error:
        return error
    return None


def _open_video(path: Path, limits: Limits) -> InputError | None:
    from genzqa.media.video import open_video

    try:
        with open_video(path, limits=limits) as video:
            next(iter(video.moments([0.0])))
    except InputError as error:
        return error
    return None


def _label_faults(samples: Samples) -> Iterator[tuple[str, str]]:
    low, high = samples.database.mos_range
    seen: set[Path] = set()
    for item in samples.items:
        if not low <= item.mos <= high:
            yield str(item.path), f"MOS {item.mos:g} is outside {low:g}..{high:g}"
        if item.std is not None and item.std < 0:
            yield str(item.path), f"standard deviation {item.std:g} is negative"
        if item.path in seen:
            yield str(item.path), "listed more than once"
        seen.add(item.path)
    yield from _cut_groups(samples.items)


def _cut_groups(items: tuple[Sample, ...]) -> Iterator[tuple[str, str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.group and item.split:
            splits[item.group].add(item.split)
    for group, found in splits.items():
        if len(found) > 1:
            yield group, f"the group is in {' and '.join(sorted(found))}"


def _remarks(samples: Samples) -> Iterator[str]:
    published = samples.database.items
    if len(samples.items) != published:
        yield f"the labels list {len(samples.items)} items; the published database has {published}"
    counts = Counter(item.split for item in samples.items if item.split)
    if counts:
        yield "official splits: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    groups = {item.group for item in samples.items if item.group}
    if groups:
        yield f"{len(groups)} groups (references or sources) that no split cuts in two"
