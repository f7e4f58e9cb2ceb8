"""The latents that the denoiser is trained on: photos and degraded copies as the frozen encoder shows them, made once.

They lie in shards, each whole or not there, so that a run that is stopped loses one of them a core.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from genzqa.engine.openvino_engine import shared_core
from genzqa.files import atomic_file
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.colour import soften_chroma
from genzqa.model.feature_encoder import FeatureEncoder
from genzqa.training.mini.encoder import Spread
from genzqa.training.mini.photos import Batch, Copies, Photos, make_group

SHARD = 64  # photos
FOUND = "directions.json"  # beside an encoder whose directions are found
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """Photos of one set, with two degraded copies each or without."""

    photos: Photos
    chosen: npt.NDArray[np.int64]
    copies: Copies | None
    seed: int


@dataclass(frozen=True)
class Source:
    """Some photos of a set: so many with degraded copies, and so many without; every photo before any comes again."""

    photos: Photos
    groups: int
    singles: int

    def jobs(self, copies: Copies, seed: int) -> tuple[list[Job], list[Job]]:
        """Photos with copies, and without, in parts of `SHARD`."""
        rng, train = np.random.default_rng(seed), self.photos.indices("train")
        turns = -(-(self.groups + self.singles) // len(train))
        chosen = np.concatenate([rng.permutation(train) for _ in range(turns)])[: self.groups + self.singles]
        made: list[list[Job]] = []
        for part, what in zip(np.split(chosen, [self.groups]), (copies, None), strict=True):
            cuts = [part[first : first + SHARD] for first in range(0, len(part), SHARD)]
            made.append([Job(self.photos, cut, what, int(rng.integers(2**31))) for cut in cuts])
        return made[0], made[1]


@dataclass(frozen=True)
class Latents:
    """Triples (photo, mild copy, strong copy) first, then single photos.

    Attributes:
        shards: Latents ``(n, C, h, w) float16``, memory mapped.
        share: Of the photo's MOS that a row is to keep, ``(N,)``; 1 for the photo itself.
        kind, strength: ``(N,)`` as in `Batch`.
        groups: Number of triples.
        mos: Of the row's photo, ``(N,)`` 0..100; NaN where nobody has scored it.
        taught: What teachers say of the row itself, ``(N,)`` 0..100.
    """

    shards: list[npt.NDArray[np.float16]]
    share: torch.Tensor
    kind: torch.Tensor
    strength: torch.Tensor
    groups: int
    mos: torch.Tensor
    taught: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.share)

    def rows(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """Latents ``(n, C, h, w) float32``."""
        ends = np.cumsum([len(shard) for shard in self.shards])
        places = np.searchsorted(ends, rows, side="right")
        found = [self.shards[place][row - ends[place]] for place, row in zip(places, rows, strict=True)]
        return torch.from_numpy(np.stack(found)).float()

    def scored_by(self, opinion: torch.Tensor) -> Latents:
        """With an opinion ``(N,)`` for the rows of photos that nobody has scored."""
        return replace(self, mos=torch.where(self.mos.isnan(), opinion, self.mos))

    @property
    def photo(self) -> torch.Tensor:
        """The row of the photo itself, ``(N,)``."""
        rows = torch.arange(len(self))
        return torch.where(rows < 3 * self.groups, rows - rows % 3, rows)

    def taught_by(self, opinion: torch.Tensor) -> Latents:
        """With teachers' opinion ``(N,)`` of every row, and that of the photo itself for its MOS."""
        return replace(self, mos=opinion[self.photo], taught=opinion)

    def draws(self, *, clean: int, pairs: int, steps: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
        """Rows of ``steps`` batches in `Batch`'s order: photos of triples, any photos, copies of the triples."""
        rng = np.random.default_rng(seed)
        triples = 3 * np.arange(self.groups)
        pools = [triples, np.concatenate([triples, np.arange(3 * self.groups, len(self))])]
        queues = [np.empty(0, np.int64), np.empty(0, np.int64)]
        for _ in range(steps):
            taken = []
            for number, wanted in enumerate((pairs, clean - pairs)):
                while len(queues[number]) < wanted:
                    queues[number] = np.concatenate([queues[number], rng.permutation(pools[number])])
                taken.append(queues[number][:wanted])
                queues[number] = queues[number][wanted:]
            copies = (taken[0][:, None] + np.array([1, 2])).ravel()
            yield np.concatenate([*taken, copies])

    def batch(self, rows: npt.NDArray[np.int64], clean: int, pairs: int) -> Batch:
        """The batch of these rows."""
        target = self.mos[rows] * self.share[rows]
        taught = None if self.taught is None else self.taught[rows]
        return Batch(self.rows(rows), target, self.kind[rows], self.strength[rows], clean, pairs, taught)


@dataclass(frozen=True)
class Eye:
    """What a worker needs to see photos as the encoder does.

    Attributes:
        folder: The encoder's, as `FeatureEncoder.save_pretrained` wrote it.
        size: Of the square that scoring resizes every photo to.
        chroma_blur: See `genzqa.model.colour`.
    """

    folder: Path
    size: int
    chroma_blur: float


class _Seen(nn.Module):
    """A photo ``(1, 3, s, s)`` in [-1, 1] to its latent, or while the directions are not found, to its features."""

    def __init__(self, eye: Eye) -> None:
        super().__init__()
        self.encoder = FeatureEncoder.from_pretrained(eye.folder, torch_dtype=torch.float32).eval()
        self.chroma_blur, self.found = eye.chroma_blur, (eye.folder / FOUND).exists()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        softened = soften_chroma(pixels, self.chroma_blur)
        return self.encoder(softened) if self.found else self.encoder.features(softened)


_see: Callable[[npt.NDArray[np.float32]], torch.Tensor]


def _open_eye(eye: Eye) -> None:
    """By OpenVINO, which needs half of torch's time for it on a CPU."""
    import openvino

    global _see
    torch.set_num_threads(1)  # photos are shared out among processes
    shape = [1, 3, eye.size, eye.size]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sides become constants of the graph, as they should
        converted = openvino.convert_model(_Seen(eye), example_input=torch.zeros(shape), input=shape)
    # without these it would take bf16 where there is one, too coarse for what a mild degradation changes, and the same core twice
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
    compiled = shared_core().compile_model(converted, "CPU", {"PERFORMANCE_HINT": "LATENCY", **exact})

    def see(pixels: npt.NDArray[np.float32]) -> torch.Tensor:
        return torch.cat([torch.from_numpy(compiled(to_network(one)[None].numpy())[0].copy()) for one in pixels])

    _see = see


@torch.inference_mode()
def _shard(job: Job, size: int, path: Path) -> Path:
    rng = np.random.default_rng(job.seed)
    latents, columns = [], []
    for index in job.chosen:
        pixels, *labels = make_group(job.photos.pixels[index], job.copies, size, rng)
        latents.append(_see(pixels).half().numpy())
        columns.append((*labels, np.full(len(pixels), job.photos.mos[index], np.float32)))
    share, kind, strength, mos = (np.concatenate(column) for column in zip(*columns, strict=True))
    with atomic_file(path) as file:
        np.save(file, np.concatenate(latents))
    with atomic_file(path.with_suffix(".npz")) as file:  # last, so that a shard with labels is whole
        np.savez(file, share=share, kind=kind, strength=strength, mos=mos)
    return path


def make_latents(sources: Sequence[Source], copies: Copies, eye: Eye, out: Path, seed: int, done: Done) -> None:
    """Make the shards that are not there yet; ``done`` is told how many of how many are."""
    planned = [source.jobs(copies, seed + number) for number, source in enumerate(sources)]
    jobs = [job for groups, _ in planned for job in groups] + [job for _, singles in planned for job in singles]
    out.mkdir(exist_ok=True)
    waiting = [(job, out / f"{number:04}.npy") for number, job in enumerate(jobs)]
    waiting = [(job, path) for job, path in waiting if not path.with_suffix(".npz").exists()]
    with _workers(eye) as pool:
        made = [pool.submit(_shard, job, eye.size, path) for job, path in waiting]
        for number, future in enumerate(as_completed(made), len(jobs) - len(waiting) + 1):
            future.result()
            done(number, len(jobs))


def open_latents(out: Path) -> Latents:
    """What `make_latents` made."""
    tables = [np.load(path) for path in sorted(out.glob("*.npz"))]
    shards = [np.load(path, mmap_mode="r") for path in sorted(out.glob("*.npy"))]
    share, kind, strength, mos = (
        torch.from_numpy(np.concatenate([table[name] for table in tables])) for name in ("share", "kind", "strength", "mos")
    )  # fmt: skip
    groups = int((kind > 0).sum()) // 2
    return Latents(shards, share, kind, strength, groups, mos)


def _workers(eye: Eye) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(os.cpu_count(), get_context("forkserver"), initializer=_open_eye, initargs=(eye,))


@torch.inference_mode()
def _plain(photos: Photos, chosen: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float16]:
    return np.concatenate([_see(resize_square(photos.pixels[index], size)[None]).half().numpy() for index in chosen])


def plain_latents(photos: Photos, chosen: npt.NDArray[np.int64], eye: Eye) -> npt.NDArray[np.float16]:
    """Photos as scoring sees them, ``(n, C, h, w)``: nothing mirrored, no grain, no copies."""
    cuts = [chosen[first : first + SHARD] for first in range(0, len(chosen), SHARD)]
    with _workers(eye) as pool:
        made = [pool.submit(_plain, photos, cut, eye.size) for cut in cuts]
        return np.concatenate([future.result() for future in made])


@torch.inference_mode()
def _spread(job: Job, size: int) -> Spread:
    spread, rng = Spread(), np.random.default_rng(job.seed)
    for index in job.chosen:
        pixels, _, kind, _ = make_group(job.photos.pixels[index], job.copies, size, rng)
        features = _see(pixels[:2])  # the photo and its mild copy
        spread.add(features[:1], features[1:] - features[:1], int(kind[1]))
    return spread


def spread_of(photos: Photos, count: int, copies: Copies, eye: Eye, seed: int) -> Spread:
    """What the directions are found from: features of ``count`` photos, and how mild copies change them."""
    jobs, _ = Source(photos, count, 0).jobs(copies, seed)
    with _workers(eye) as pool:
        made = [pool.submit(_spread, job, eye.size) for job in jobs]
        return Spread().join(future.result() for future in made)  # in their order: sums of floats depend on it
