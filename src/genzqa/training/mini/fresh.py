"""Batches of whole photos made while training runs: every photo of the database in turn, no two copies alike.

A bank is quicker to draw from but small: what order mild copies keep, a network learns by heart from a few hundred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset

from genzqa.training.mini.photos import Batch, Copies, Photos, Views, make_group
from genzqa.training.mini.teacher import Features, TeacherHead


@dataclass(frozen=True)
class Plan:
    """``clean`` photos a step, ``pairs`` of them with two copies, a share ``pristine`` of these from the second source."""

    steps: int
    clean: int
    pairs: int
    pristine: float
    copies: Copies


class Fresh(IterableDataset[Batch]):
    """Batches from photos with MOS, and pristine ones; the teacher sees every photo, and no copy."""

    def __init__(self, scored: Photos, pristine: Photos, views: Views, teacher: TeacherHead, features: Features,
                 plan: Plan, seed: int) -> None:  # fmt: skip
        self.scored, self.pristine, self.views, self.plan, self.seed = scored, pristine, views, plan, seed
        self.teacher, self.features = teacher, features

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self.seed)
        scored = _in_turn(self.scored.indices("train"), rng)
        pristine = _in_turn(self.pristine.indices("train"), rng)
        for _ in range(self.plan.steps):
            groups = []
            for number in range(self.plan.clean):
                paired = number < self.plan.pairs
                bare = paired and rng.random() < self.plan.pristine
                source, index = (self.pristine, next(pristine)) if bare else (self.scored, next(scored))
                groups.append(make_group(source, index, self.plan.copies if paired else None, self.views, rng))
            yield self._batch(groups)

    def _batch(self, groups: Sequence[tuple[npt.NDArray[Any], ...]]) -> Batch:
        photos = [[column[:1] for column in group] for group in groups]
        copies = [[column[1:] for column in group] for group in groups]
        pixels, target, kind, strength = (np.concatenate(column) for column in zip(*photos, *copies, strict=True))
        clean = len(groups)
        with torch.no_grad():
            known = self.teacher.know(torch.from_numpy(self.features(pixels[:clean])))
            opinion = self.teacher.opinion(known)
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return Batch(inputs.contiguous(memory_format=torch.channels_last), torch.from_numpy(target), torch.from_numpy(kind),
                     torch.from_numpy(strength), clean, self.plan.pairs, known, opinion)  # fmt: skip


def ahead(batches: Fresh) -> DataLoader[Batch]:
    """The same, made in a process of its own while the network learns from the batch before."""
    return DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=3, multiprocessing_context="forkserver")


def _in_turn(indices: npt.NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from map(int, rng.permutation(indices))
