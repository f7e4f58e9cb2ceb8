"""What is missing, unreadable or mislabelled in a database, told before hours are spent on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genzqa.databases.database import Samples
from genzqa.databases.raw import CONTAINERS, CONVERT, RAW
from genzqa.errors import InputError, InputNotFoundError, UnsupportedFormatError
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
        samples: The database, from `genzqa.databases.registry.open_for_check`.
        limits: As scoring will apply them.
        progress: Called after each file.
    """
    findings = Findings(len(samples.items))
    findings.faults["mislabelled"] = list(_label_faults(samples))
    open_one = _open_photo if samples.database.kind == "image" else _open_video
    withheld: Counter[str] = Counter()
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(samples.items), _AHEAD):
            part = samples.items[first : first + _AHEAD]
            for item, error in zip(part, pool.map(lambda item: open_one(item.path, limits), part), strict=True):
                if isinstance(error, InputNotFoundError) and item.group in samples.database.known.withheld:
                    withheld[item.group] += 1
                elif error is not None:
                    kind: Fault = "missing" if isinstance(error, InputNotFoundError) else "unreadable"
                    findings.faults[kind].append((str(item.path), _reason(item.path, error)))
                progress()
    findings.remarks = [*_remarks(samples), *_known(samples, withheld), *_raw(findings)]
    return findings


def _reason(path: Path, error: InputError) -> str:
    """Of a raw video, what its reader would have taken; of any other file, the error's own."""
    if path.suffix.lower() == RAW:
        if isinstance(error, InputNotFoundError):
            return f"{error.reason}, nor {' or '.join(path.with_suffix(suffix).name for suffix in CONTAINERS)}"
        if isinstance(error, UnsupportedFormatError):
            return "raw video, which has no header to be decoded by"
    return error.reason


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
    scale, known = samples.database.mos_range, samples.database.known
    passed = known.scores or scale
    seen: Counter[Path] = Counter()
    for item in samples.items:
        if scale and passed and not passed[0] <= item.mos <= passed[1]:
            yield str(item.path), f"MOS {item.mos:g} is outside {scale[0]:g}..{scale[1]:g}"
        if item.std is not None and item.std < 0:
            yield str(item.path), f"standard deviation {item.std:g} is negative"
        if seen[item.path] > (item.path.name in known.twice):
            yield str(item.path), "listed more than once"
        seen[item.path] += 1
    yield from _cut_groups(samples)


def _cut_groups(samples: Samples) -> Iterator[tuple[str, str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for item in samples.items:
        split = samples.split_of(item)
        if item.group and split:
            splits[item.group].add(split)
    for group, found in splits.items():
        if len(found) > 1:
            yield group, f"the group is in {' and '.join(sorted(found))}"


def _remarks(samples: Samples) -> Iterator[str]:
    published = samples.database.items
    if samples.database.mos_range is None:
        yield "carries no human scores: only the files that its table names were opened"
    elif len(samples.items) != published:
        yield f"the labels list {len(samples.items)} items; the published database has {published}"
    counts = Counter(item.split for item in samples.items if item.split)
    if counts:
        yield "official splits: " + ", ".join(f"{name} {count}" for name, count in counts.items())
        unmarked = len(samples.items) - counts.total()
        if unmarked:
            yield f"without a split, and for training as others have one: {unmarked}"
    groups = {item.group for item in samples.items if item.group}
    if groups:
        yield f"{len(groups)} groups (references or sources), kept whole where a split is drawn"


def _known(samples: Samples, withheld: Counter[str]) -> Iterator[str]:
    """What would be a fault were it not published so."""
    known, scale = samples.database.known, samples.database.mos_range
    if known.scores and scale:
        beyond = [item.mos for item in samples.items if not scale[0] <= item.mos <= scale[1]]
        within = [mos for mos in beyond if known.scores[0] <= mos <= known.scores[1]]
        if within:
            yield (
                f"scores outside {scale[0]:g}..{scale[1]:g}, as published: {len(within)}, from {min(within):g} "
                f"to {max(within):g}"
            )
    names = Counter(item.path.name for item in samples.items)
    for name in known.twice:
        if names[name] > 1:
            yield f"{name} is listed twice, as published"
    if withheld:
        yield f"not there, as not published: {withheld.total()} files of {', '.join(withheld)}"


def _raw(findings: Findings) -> Iterator[str]:
    if any(Path(subject).suffix.lower() == RAW for subject, _ in findings.faults["unreadable"]):
        yield f"raw videos have to be converted first, to a file beside each or in its place: {CONVERT}"
