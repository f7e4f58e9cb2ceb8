"""What is scored already: sorted arrays of digests, some 50 bytes an input, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from genzqa.batch.item import Item
from genzqa.text import valid_utf8

UNKNOWN = -1  # a size or time that is not known; no file has it
MAY_PASS = ("decoder_crashed", "timeout", "unreadable", "too_large")
"""Errors that can be the machine's or the limits', not the file's: such inputs are tried again by the next run."""

Keys = npt.NDArray[np.bytes_]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


def keys_of(inputs: Iterable[str]) -> Keys:
    """A 16-byte digest of each name. Of bytes that differ in their last zeros alone numpy would think they are equal,
    which makes no difference to digests.
    """
    return np.frombuffer(b"".join(blake2b(name.encode(), digest_size=16).digest() for name in inputs), "S16")


@dataclass(frozen=True)
class Facts:
    """Identity of some inputs, an array each: key, size, time, first 8 bytes of the content's digest (0 without)."""

    key: Keys
    size: Integers
    modified: Integers
    content: npt.NDArray[np.uint64]


def facts_of(items: Sequence[Item]) -> Facts:
    """Of listed inputs."""
    return Facts(
        keys_of(valid_utf8(item.input) for item in items),
        np.array([UNKNOWN if item.size is None else item.size for item in items], np.int64),
        np.array([UNKNOWN if item.modified is None else item.modified for item in items], np.int64),
        np.array([_content(item.sha256) for item in items], np.uint64),
    )


def facts_of_table(table: pa.Table) -> Facts:
    """Of written rows."""
    return Facts(
        keys_of(table["input"].to_pylist()),
        pc.fill_null(table["size"], UNKNOWN).to_numpy().astype(np.int64),
        pc.fill_null(table["modified"].cast(pa.int64()), UNKNOWN).to_numpy().astype(np.int64),
        np.array([_content(value) for value in table["sha256"].to_pylist()], np.uint64),
    )


def _content(sha256: str | None) -> int:
    return int(sha256[:16], 16) if sha256 else 0


class KeySet:
    """Keys seen so far, 16 bytes each; lookups go to a large sorted array and a small one that is merged into it."""

    _SMALL = 1 << 16

    def __init__(self) -> None:
        self._large: Keys = np.empty(0, "S16")
        self._small: Keys = np.empty(0, "S16")

    def __len__(self) -> int:
        return len(self._large) + len(self._small)

    def add(self, keys: Keys) -> Mask:
        """Take in keys, no two alike; True for each that was not there."""
        new = ~(_contains(self._large, keys) | _contains(self._small, keys))
        self._small = np.sort(np.concatenate([self._small, keys[new]]))
        if len(self._small) > self._SMALL:
            self._large, self._small = np.sort(np.concatenate([self._large, self._small])), self._small[:0]
        return new


class Known:
    """The rows of earlier runs; of several with one key, that of the latest part counts.

    Attributes:
        listed: Of each key, whether this run has met it.
        keep: Of each key, whether its row still holds.
        part: Of each key, the number of the part with its row.
    """

    def __init__(self, parts: Iterable[tuple[int, pa.Table, bool]] = ()) -> None:
        """
        Args:
            parts: Number, rows (``input``, identity and ``error``), and whether they are by the present model.
        """
        found = [(number, facts_of_table(table), _final(table) & current) for number, table, current in parts]
        key = _joined([facts.key for _, facts, _ in found], "S16")
        number = _joined([np.full(len(facts.key), number, np.int32) for number, facts, _ in found], np.int32)
        order = np.lexsort((number, key))
        key = key[order]
        order = order[np.append(key[1:] != key[:-1], True)] if len(key) else order
        self.key: Keys = _joined([facts.key for _, facts, _ in found], "S16")[order]
        self.part: npt.NDArray[np.int32] = number[order]
        self._size: Integers = _joined([facts.size for _, facts, _ in found], np.int64)[order]
        self._modified: Integers = _joined([facts.modified for _, facts, _ in found], np.int64)[order]
        self._content = _joined([facts.content for _, facts, _ in found], np.uint64)[order]
        self._final: Mask = _joined([final for _, _, final in found], np.bool_)[order]
        self.listed: Mask = np.zeros(len(self.key), np.bool_)
        self.keep: Mask = np.zeros(len(self.key), np.bool_)

    def __len__(self) -> int:
        return len(self.key)

    def find(self, keys: Keys) -> Integers:
        """The place of each key, -1 for one that is not here."""
        if not len(self.key):
            return np.full(len(keys), -1, np.int64)
        place = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
        return np.where(self.key[place] == keys, place, -1)

    def unchanged(self, place: Integers, facts: Facts, *, content: bool) -> Mask:
        """Whether the row at each place (-1: none) is still right for an input of these facts."""
        if not len(self.key):
            return np.zeros(len(place), np.bool_)
        same = (self._size[place] == facts.size) & (self._modified[place] == facts.modified) & self._final[place]
        if content:
            same &= self._content[place] == facts.content
        unchanged: Mask = same & (place >= 0)
        return unchanged


def _final(table: pa.Table) -> Mask:
    codes = pc.struct_field(table["error"], "code")
    retried = pc.fill_null(pc.is_in(codes, value_set=pa.array(MAY_PASS)), False)
    final: Mask = ~retried.to_numpy()
    return final


def _joined(arrays: Sequence[npt.NDArray[Any]], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(0, kind)


def _contains(ordered: Keys, keys: Keys) -> Mask:
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    same: Mask = ordered[place] == keys
    return same
