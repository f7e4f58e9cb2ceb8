"""What is to be done: the listing, less what is scored already."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from genzqa.batch.item import Item
from genzqa.batch.known import KeySet, Known, facts_of
from genzqa.batch.remote import sha256_of

_CHUNK = 1024  # inputs looked up together
_READERS = 4  # threads that hash contents
_T = TypeVar("_T")


class Plan:
    """Goes through a listing once and gives the inputs that have no right row yet.

    An input is the same as before if its name, size and time of modification are, and, with ``hash_content``, its content.

    Args:
        listing: Inputs in order, some perhaps twice.
        known: Rows of earlier runs; what is met and what holds is marked in it.
        hash_content: Whether to read and compare contents.

    Attributes:
        listed: Different inputs met so far.
        unchanged: How many of them need nothing.
    """

    def __init__(self, listing: Iterable[Item], known: Known, *, hash_content: bool = False) -> None:
        self._listing, self._known, self._hash = listing, known, hash_content
        self._new = KeySet()
        self.listed = self.unchanged = 0

    def __iter__(self) -> Iterator[Item]:
        with ThreadPoolExecutor(_READERS, "genzqa-hash") as readers:
            for chunk in chunks(self._listing):
                items = chunk
                if self._hash:
                    digests = readers.map(sha256_of, items)
                    items = [dataclasses.replace(item, sha256=digest)
                             for item, digest in zip(items, digests, strict=True)]  # fmt: skip
                yield from self._to_do(items)

    def _to_do(self, items: list[Item]) -> Iterator[Item]:
        facts = facts_of(items)
        first = np.zeros(len(items), np.bool_)
        first[np.unique(facts.key, return_index=True)[1]] = True
        place = self._known.find(facts.key)
        found = place >= 0
        again = np.zeros(len(items), np.bool_)
        again[found] = self._known.listed[place[found]]
        fresh = first & ~found
        again[fresh] = ~self._new.add(facts.key[fresh])
        wanted = first & ~again
        same = wanted & self._known.unchanged(place, facts, content=self._hash)
        self._known.listed[place[wanted & found]] = True
        self._known.keep[place[same]] = True
        self.listed += int(wanted.sum())
        self.unchanged += int(same.sum())
        for number in np.flatnonzero(wanted & ~same):
            yield items[number]


def count_to_do(listing: Iterable[Item], known: Known, stop: threading.Event) -> int:
    """How many inputs a `Plan` of this listing would give, for the time that is left; twice what is listed twice.

    Contents are not compared, and nothing is marked. Ends early, with what it has, once ``stop`` is set.
    """
    count = 0
    for items in chunks(listing):
        if stop.is_set():
            break
        facts = facts_of(items)
        count += len(items) - int(known.unchanged(known.find(facts.key), facts, content=False).sum())
    return count


def read_ahead(values: Iterable[_T], most: int) -> Generator[_T]:
    """The same values, taken by a thread that runs up to ``most`` of them ahead; its exception comes out here."""
    ready: queue.Queue[tuple[_T] | BaseException | None] = queue.Queue(most)
    stop = threading.Event()

    def put(value: tuple[_T] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.2)
            except queue.Full:
                continue
            return

    def run() -> None:
        try:
            for value in values:
                put((value,))
                if stop.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=run, name="genzqa-list", daemon=True)
    thread.start()
    try:
        while (value := ready.get()) is not None:
            if isinstance(value, BaseException):
                raise value
            yield value[0]
    finally:
        stop.set()
        thread.join()


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Inputs as many together as are looked up at once; the first few come sooner, so that work can begin."""
    source = iter(items)
    size = 16
    while chunk := list(islice(source, size)):
        yield chunk
        size = min(_CHUNK, size * 2)
