"""A bank of views on disk: cut, degraded and shown to the teacher once, then drawn from for as many epochs as wanted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from genzqa.training.mini.photos import KINDS, Batch, Copies, Photos, Views, make_group
from genzqa.training.mini.teacher import Features, TeacherHead

SHARD = 256
Job = tuple[Photos, npt.NDArray[np.int64], bool]


@dataclass(frozen=True)
class Bank:
    """``groups`` triples (photo, mild copy, strong copy) first, then single views.

    pixels ``(N, s, s, 3) uint8`` (memory mapped); target, kind and strength ``(N,)`` as in `Batch`; features ``(N, F)``
    of the pretrained network; known ``(N, 128)`` and opinion ``(N,)`` of the teacher's head, once it is trained.
    """

    pixels: npt.NDArray[np.uint8]
    target: torch.Tensor
    kind: torch.Tensor
    strength: torch.Tensor
    features: torch.Tensor
    groups: int
    known: torch.Tensor
    opinion: torch.Tensor

    def taught_by(self, head: TeacherHead) -> Bank:
        """The same bank with the opinions of a trained teacher."""
        head.eval()
        with torch.no_grad():
            known = torch.cat([head.know(part.float()) for part in self.features.split(4096)])
            return replace(self, known=known, opinion=head.opinion(known))

    def draws(
        self, *, clean: int, pairs: int, seed: int, steps: int, mildest: float = 1.0, kinds: Sequence[str] = ()
    ) -> Iterator[npt.NDArray[np.int64]]:
        """Rows of ``steps`` batches in `Batch`'s order: photos of triples, single views, copies of the triples.

        Only triples whose first copy is of at most the strength ``mildest`` are drawn; with ``kinds``, only of these,
        each as often as it is named.
        """
        rng = np.random.default_rng(seed)
        first, kind = self.strength[1 : 3 * self.groups : 3].numpy(), self.kind[1 : 3 * self.groups : 3].numpy()
        pools = [np.flatnonzero((first <= mildest) & (kind == 1 + KINDS.index(name))) for name in kinds]
        if not kinds:
            pools = [np.flatnonzero(first <= mildest)]
        most = max(map(len, pools), default=0)
        if pairs and not all(map(len, pools)):
            raise ValueError(f"no photo with a copy of strength {mildest} or less of every kind asked for")
        triples = 3 * np.concatenate([np.resize(rng.permutation(pool), most) for pool in pools])
        singles = np.arange(3 * self.groups, len(self.target))
        queues = [np.empty(0, np.int64), np.empty(0, np.int64)]
        for _ in range(steps):
            taken = []
            for number, (pool, wanted) in enumerate(((triples, pairs), (singles, clean - pairs))):
                while len(queues[number]) < wanted:
                    queues[number] = np.concatenate([queues[number], rng.permutation(pool)])
                taken.append(queues[number][:wanted])
                queues[number] = queues[number][wanted:]
            copies = (taken[0][:, None] + np.array([1, 2])).ravel()
            yield np.concatenate([*taken, copies])

    def batch(self, rows: npt.NDArray[np.int64], clean: int, pairs: int, inputs: torch.Tensor) -> Batch:
        """A batch of these rows, whose network inputs the caller has made."""
        return Batch(inputs, self.target[rows], self.kind[rows], self.strength[rows], clean, pairs,
                     self.known[rows], self.opinion[rows])  # fmt: skip

    def views(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Pixels ``(n, 3, s, s)`` in [-1, 1]."""
        return torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1


def _cut(
    photos: Photos, chosen: npt.NDArray[np.int64], copies: bool, views: Views, seed: int
) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    groups = [make_group(photos, int(index), Copies() if copies else None, views, rng) for index in chosen]
    return tuple(np.concatenate(column) for column in zip(*groups, strict=True))


@dataclass(frozen=True)
class Source:
    """What a bank is cut from: some photos of a set, this many with degraded copies and this many without."""

    photos: Photos
    indices: npt.NDArray[np.int64]
    groups: int
    singles: int

    def jobs(self, seed: int) -> tuple[list[Job], list[Job]]:
        """The triples and the single views, in parts of `SHARD` photos; every photo before any comes again."""
        rng = np.random.default_rng(seed)
        turns = -(-(self.groups + self.singles) // len(self.indices))
        chosen = np.concatenate([rng.permutation(self.indices) for _ in range(turns)])[: self.groups + self.singles]
        parts = np.split(chosen, [self.groups])
        triples, singles = ([part[i : i + SHARD] for i in range(0, len(part), SHARD)] for part in parts)
        return [(self.photos, part, True) for part in triples], [(self.photos, part, False) for part in singles]


def build_bank(sources: Sequence[Source], *, views: Views, seed: int, features: Features, path: Path) -> Bank:
    """Make the bank at ``path`` (``.npy``, with a table beside it), or open the one that is there."""
    table = path.with_suffix(".npz")
    if not table.exists():
        groups = sum(source.groups for source in sources)
        count = 3 * groups + sum(source.singles for source in sources)
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, (count, views.size, views.size, 3))
        planned = [source.jobs(seed + number) for number, source in enumerate(sources)]
        jobs = [job for triples, _ in planned for job in triples] + [job for _, singles in planned for job in singles]
        columns: list[tuple[np.ndarray, ...]] = []
        at = 0
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("forkserver")) as pool:
            made = [pool.submit(_cut, photos, part, copies, views, seed + number)
                    for number, (photos, part, copies) in enumerate(jobs)]  # fmt: skip
            for number, future in enumerate(made):
                shown, *labels = future.result()
                made[number] = None  # type: ignore[call-overload]
                pixels[at : at + len(shown)] = shown
                at += len(shown)
                known = np.concatenate([features(shown[i : i + 16]) for i in range(0, len(shown), 16)])
                columns.append((*labels, known.astype(np.float16)))
        pixels.flush()
        target, kind, strength, known = (np.concatenate(column) for column in zip(*columns, strict=True))
        np.savez(table, target=target, kind=kind, strength=strength, features=known, groups=groups)
    stored = np.load(table)
    seen = [torch.from_numpy(stored[name]) for name in ("target", "kind", "strength", "features")]
    none = torch.zeros(len(seen[0]), 1)
    return Bank(
        np.load(path, mmap_mode="r"), seen[0], seen[1], seen[2], seen[3], int(stored["groups"]), none, none[:, 0]
    )
