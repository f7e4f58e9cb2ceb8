"""Copies of photos through JPEG and WebP, made by processes of their own while a device trains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genzqa.training.mini.degradations import DEGRADATIONS, grain
from genzqa.training.mini.photos import GRAINY, KINDS, Copies

Codec = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class CodecCopies(IterableDataset[Codec]):
    """Without end: indices ``(n,)``, pixels ``(n, 3, 512, 512, 3) uint8`` of photo, mild and strong copy, kinds ``(n,)`` in `KINDS`
    and strengths ``(n, 2)``.

    Args:
        pixels: Of all photos, ``(N, 512, 512, 3) uint8``.
        shares: How often each photo is drawn.
        count: n.
        draws: How copies are drawn, each as often as the others.
        seed: Of the draws.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8], shares: npt.NDArray[np.float64], count: int, draws: list[Copies],
                 seed: int) -> None:  # fmt: skip
        self.pixels, self.shares, self.count, self.draws, self.seed = pixels, shares, count, draws, seed

    def __iter__(self) -> Iterator[Codec]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            indices = rng.choice(len(self.shares), self.count, p=self.shares)
            groups, kinds, strengths = [], [], []
            for index in indices:
                kind, *both = self.draws[int(rng.integers(len(self.draws)))].draw(rng)
                photo = self.pixels[index]
                photo = grain(photo, rng) if rng.random() < GRAINY else photo
                groups.append([photo, *(DEGRADATIONS[KINDS[kind]](photo, strength, rng) for strength in both)])
                kinds.append(kind)
                strengths.append(both)
            yield (torch.from_numpy(indices), torch.from_numpy(np.array(groups)), torch.tensor(kinds),
                   torch.tensor(strengths, dtype=torch.float32))  # fmt: skip


def codec_copies(copies: CodecCopies, processes: int) -> Iterator[Codec]:
    return iter(DataLoader(copies, batch_size=None, num_workers=processes, prefetch_factor=2, pin_memory=torch.cuda.is_available(),
                           multiprocessing_context="fork"))  # fmt: skip
