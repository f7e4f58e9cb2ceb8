"""Batches of views made on a device: photos cut, degraded and shown to the teacher while a model trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

import device_faults
from genzqa.training.mini.degradations import graded_target
from genzqa.training.mini.photos import DRAW_SHARE, GRAINY, KINDS, SIDE, Batch, Copies, Photos
from genzqa.training.mini.pristine import squares_of
from genzqa.training.mini.teacher import TeacherHead, pretrained_network
from resample import apply, resize_matrix

CODECS = ("jpeg", "webp")
DRAWS = [Copies(mildest=0.25, reach=0.5), Copies(mildest=0.8)]  # mild ones, where order is hard, and all strengths


def full_precision(work: Callable[..., Any]) -> Callable[..., Any]:
    """Without TF32, which would round a photo's pixels."""

    def exactly(*arguments: Any) -> Any:
        kept = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            return work(*arguments)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = kept

    return exactly


@dataclass(frozen=True)
class Pool:
    """All photos of all sources on the device.

    pixels ``(N, 512, 512, 3) uint8``; mos ``(N,)``, NaN where nobody scored; source ``(N,)``: 0 scored, 1 pristine, 2 unscored.
    """

    pixels: Tensor
    mos: Tensor
    source: npt.NDArray[np.int64]

    def shares(self, parts: tuple[float, float, float]) -> npt.NDArray[np.float64]:
        """How often each photo is drawn if the sources are drawn in these parts."""
        counts = np.bincount(self.source, minlength=3)
        weights = (np.array(parts) / np.maximum(counts, 1))[self.source]
        return weights / weights.sum()


class Teacher(nn.Module):
    """The pretrained network and the head on it, on the device."""

    def __init__(self, head: TeacherHead) -> None:
        super().__init__()
        self.net, self.head = pretrained_network().to(memory_format=torch.channels_last), head

    @torch.no_grad()
    def features(self, views: Tensor) -> Tensor:
        """Of views ``(B, 3, s, s)`` in 0..255."""
        whole = (views.round().clamp(0, 255) / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16, enabled=views.is_cuda):
            found: Tensor = self.net(whole)
        return found.float()

    def opinion(self, views: Tensor) -> Tensor:
        """Scores ``(B,)`` of views in 0..255."""
        found: Tensor = self.head.opinion(self.head.know(self.features(views)))
        return found

    def normal(self, features: Tensor) -> Tensor:
        """The features as the head reads them."""
        normal: Tensor = ((features - self.head.mean) / self.head.deviation).clamp(-6, 6)
        return normal


def cut(size: int, count: int, device: torch.device, native: float) -> tuple[Tensor, Tensor]:
    """Matrices for rows and columns of ``count`` views: the whole photo, or with probability 1 - ``native`` three quarters of a side
    and more; half of them mirrored."""
    whole = torch.rand(count, device=device) < native

    def span() -> tuple[Tensor, Tensor]:
        length = torch.where(whole, 1.0, torch.empty(count, device=device).uniform_(0.75, 1.0)) * SIDE
        return torch.rand(count, device=device) * (SIDE - length), length

    rows, columns = resize_matrix(*span(), SIDE, size), resize_matrix(*span(), SIDE, size)
    mirrored = (torch.rand(count, device=device) < 0.5).view(-1, 1, 1)
    return rows, torch.where(mirrored, columns.flip(1), columns)


@dataclass
class Maker:
    """Batches of views with their labels, all on the device but for what codecs make."""

    pool: Pool
    teacher: Teacher
    codecs: Iterator[Any] | None
    plan: dict[str, Any]
    size: int
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.clean_shares = torch.from_numpy(self.pool.shares(tuple(self.plan["clean_parts"])))
        self.pair_shares = torch.from_numpy(self.pool.shares(tuple(self.plan["pair_parts"])))
        others = np.array([0 if kind in CODECS else share for kind, share in zip(KINDS, DRAW_SHARE, strict=True)])
        self.others = others / others.sum()

    @torch.no_grad()
    @full_precision
    def batch(self) -> tuple[Batch, Tensor]:
        """A batch, and the teacher's whole features of its photos; the first photos are those that have copies."""
        device, plan = self.pool.pixels.device, self.plan
        photos, indices, kinds, strengths = self._faults()
        if self.codecs is not None:
            chosen, pixels, kind, strength = next(self.codecs)
            groups = pixels.to(device, non_blocking=True).permute(0, 1, 4, 2, 3).float()
            photos = torch.cat([groups, photos])
            indices, kinds, strengths = (
                torch.cat(both) for both in ((chosen, indices), (kind, kinds), (strength, strengths))
            )
        pairs = len(photos)
        single = torch.multinomial(self.clean_shares, plan["clean"] - pairs, replacement=True)
        alone = self._photos(single)
        rows, columns = cut(self.size, plan["clean"], device, plan["native"])
        several = photos.flatten(0, 1)
        of_pairs = apply(rows[:pairs].repeat_interleave(3, 0), columns[:pairs].repeat_interleave(3, 0), several)
        by_group = of_pairs.unflatten(0, (pairs, 3))
        clean = torch.cat([by_group[:, 0], apply(rows[pairs:], columns[pairs:], alone)])
        features = self.teacher.features(clean)
        known = self.teacher.head.know(features)
        opinion = self.teacher.head.opinion(known)
        mos = self.pool.mos[torch.cat([indices, single]).to(device)]
        mos = torch.where(mos.isnan(), opinion, mos)
        loss = torch.tensor([[1 - graded_target(1.0, KINDS[int(kind)], float(one)) for one in both]
                             for kind, both in zip(kinds, strengths, strict=True)]).to(device)  # fmt: skip
        kinds, strengths = kinds.to(device), strengths.to(device)
        graded = (mos[:pairs, None] * (1 - loss)).flatten()
        nothing = torch.zeros(plan["clean"], device=device)
        views = torch.cat([clean, by_group[:, 1:].flatten(0, 1)]).round().clamp(0, 255) / 127.5 - 1
        made = Batch(
            views, torch.cat([mos, graded]), torch.cat([nothing.long(), (kinds + 1).repeat_interleave(2)]),
            torch.cat([nothing, strengths.flatten()]), plan["clean"], pairs, known, opinion,
        )  # fmt: skip
        return made, self.teacher.normal(features)

    def _photos(self, indices: Tensor) -> Tensor:
        photos = self.pool.pixels[indices.to(self.pool.pixels.device)].permute(0, 3, 1, 2).float()
        some = torch.rand(len(photos), device=photos.device) < GRAINY
        if some.any():
            photos[some] = device_faults.grain(photos[some])
        return photos

    def _faults(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Groups ``(n, 3, 3, 512, 512)`` of photo, mild and strong copy, made here; their indices, kinds and strengths."""
        count = self.plan["fault_pairs"]
        indices = torch.multinomial(self.pair_shares, count, replacement=True)
        kinds = self.rng.choice(len(KINDS), count, p=self.others)
        strengths = np.array(
            [DRAWS[int(self.rng.integers(len(DRAWS)))].draw(self.rng)[1:] for _ in range(count)], np.float32
        )
        groups = self._photos(indices)[:, None].repeat(1, 3, 1, 1, 1)
        for kind in np.unique(kinds):
            these = np.flatnonzero(kinds == kind)
            source = groups[these, 1:].flatten(0, 1)
            degraded = device_faults.FAULTS[KINDS[kind]](
                source, torch.from_numpy(strengths[these].ravel()).to(source.device)
            )
            groups[these, 1:] = degraded.round().clamp(0, 255).unflatten(0, (-1, 2))
        return groups, indices, torch.from_numpy(kinds), torch.from_numpy(strengths)


def decode(files: list[Path]) -> npt.NDArray[np.uint8]:
    """Photos without scores, squashed as scoring does."""
    pixels = np.empty((len(files), SIDE, SIDE, 3), np.uint8)

    def one(number: int) -> None:
        with Image.open(files[number]) as opened:
            pixels[number] = np.asarray(opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, range(len(files))))
    return pixels


def read_sources(scored: Photos, pristine: Path | None, unscored: Path | None, seed: int) -> tuple[
        npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.int64]]:  # fmt: skip
    """Pixels, MOS and source of all photos, as `Pool` has them."""
    train = scored.indices("train")
    squares = [square for number, file in enumerate(sorted(pristine.glob("*.png")) if pristine else [])
               for square in squares_of(file, seed + number)]  # fmt: skip
    others = decode(sorted(unscored.glob("*.jpg"))) if unscored else np.empty((0, SIDE, SIDE, 3), np.uint8)
    parts = [scored.pixels[train], np.array(squares, np.uint8).reshape(-1, SIDE, SIDE, 3), others]
    pixels = np.concatenate(parts)
    mos = np.concatenate([scored.mos[train], np.full(len(pixels) - len(train), np.nan, np.float32)])
    return pixels, mos, np.repeat(np.arange(3), [len(part) for part in parts])
