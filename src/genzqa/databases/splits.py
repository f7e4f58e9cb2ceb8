"""Splits that never cut a reference image or a source video in two."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from genzqa.databases.database import Sample

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_by_group(items: Iterable[Sample], shares: Sequence[float], seed: int) -> dict[Split, tuple[Sample, ...]]:
    """Cut samples into train, validation and test of about these shares, whole groups at a time.

    The order of the groups comes of their names and the seed alone, so a sample that is missing today moves no other.

    Args:
        items: The samples.
        shares: Of train, validation and test; they sum to 1.
        seed: Another one gives another cut.
    """
    kept = tuple(items)
    names = sorted({_group(item) for item in kept}, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    where = dict(zip(names, _in_parts(len(names), shares), strict=True))
    return {split: tuple(item for item in kept if where[_group(item)] == split) for split in SPLITS}


def _group(item: Sample) -> str:
    return item.group or item.path.as_posix()


def _in_parts(count: int, shares: Sequence[float]) -> list[Split]:
    """The split of each of ``count`` groups in turn; where they suffice, every split that has a share gets one."""
    ends = [round(count * shares[0]), round(count * (shares[0] + shares[1])), count]
    sizes = [ends[0], ends[1] - ends[0], ends[2] - ends[1]]
    for number, share in enumerate(shares):
        if share > 0 and sizes[number] == 0 and max(sizes) > 1:
            sizes[sizes.index(max(sizes))] -= 1
            sizes[number] += 1
    return [split for split, size in zip(SPLITS, sizes, strict=True) for _ in range(size)]
