"""The motion network: trained to tell what is wrong in time and what that leaves of the quality, then frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from faults import FAULTS, Frames, frame_rate_share, motion_of, temporal_noise
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from genzqa.model.slowfast import DEVIATION, MEAN, SlowFast

CODING = "coding"
KINDS = ("none", *FAULTS, CODING)
LEAST_FALL = 0.02  # of the share, owed to the mildest fault too: what can hardly be seen must not look like a gain


class MotionStage(nn.Module):
    """The network with two heads. They read the pooled features as the modulator will: normalised, then linearly."""

    def __init__(self, network: SlowFast) -> None:
        super().__init__()
        self.network = network
        slow, fast = network.config.slow_features, network.config.fast_features
        self.slow_norm, self.fast_norm = nn.LayerNorm(slow), nn.LayerNorm(fast)
        self.share, self.kind = nn.Linear(slow + fast, 1), nn.Linear(slow + fast, len(KINDS))
        nn.init.zeros_(self.share.weight)
        nn.init.constant_(self.share.bias, 0.8)

    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Share of the quality left ``(N,)`` and logits of the kinds ``(N, kinds)`` of clips ``(N, 3, n, h, w)``."""
        slow, fast = self.network(clips)
        features = torch.cat([self.slow_norm(slow), self.fast_norm(fast)], 1)
        return self.share(features).squeeze(1), self.kind(features)

    def losses(self, clips: torch.Tensor, share: torch.Tensor, kind: torch.Tensor) -> dict[str, torch.Tensor]:
        """For triples (as it is, mild, strong) of windows: the share, its order inside a triple, and the kind."""
        guess, logits = self(clips)
        falls, owed = guess.view(-1, 3).diff(dim=1), share.view(-1, 3).diff(dim=1)
        return {
            "share": 20 * F.mse_loss(guess, share),
            "order": 6 * F.relu(falls - (0.5 * owed).clamp(max=-LEAST_FALL)).mean(),
            "kind": 0.2 * F.cross_entropy(logits, kind),
        }


def to_clip(frames: Frames) -> torch.Tensor:
    """``(3, n, h, w)``, as the motion network takes it."""
    return (torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2).float() / 255 - MEAN) / DEVIATION


def as_filmed(frames: Frames, rng: np.random.Generator) -> Frames:
    """The same motion seen otherwise: mirrored, backwards, from elsewhere, slower, darker, flatter."""
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    if rng.random() < 0.5:
        frames = frames[::-1]
    gain, lift = rng.uniform(0.5, 1.15), rng.uniform(0, 30)
    if rng.random() < 0.5:
        frames = np.clip(frames * gain + lift, 0, 255).astype(np.uint8)
    return frames


def as_received(frames: Frames, rng: np.random.Generator) -> Frames:
    """What a codec adds to every frame anew, so that a repeated frame is not the same to the last bit."""
    if rng.random() < 0.5:
        return frames
    grain = rng.uniform(0.3, 1.6) * rng.standard_normal(frames.shape, dtype=np.float32)
    return np.clip(frames + grain, 0, 255).round().astype(np.uint8)


def faulty(frames: Frames, rate: float, name: str, strength: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Frames with a fault, or without for ``none``, and the share left, the source's own frame rate counted."""
    share = frame_rate_share(rate, motion_of(frames))
    if name == "none":
        return as_received(frames, rng), share
    if name == "temporal_noise":  # which was there before the frames were made small
        shown, left = temporal_noise(frames, strength, rng, kept=rng.uniform(0.15, 0.6))
    else:
        shown, left = FAULTS[name](frames, strength, rng)
    return as_received(shown, rng), share * left


def still(frames: Frames, rng: np.random.Generator) -> Frames:
    """The same as a camera on a tripod sees it where nothing moves, which is no freeze: one frame throughout."""
    return as_received(np.repeat(frames[:1], len(frames), 0), rng)


@dataclass(frozen=True)
class Windows:
    """N windows small ``(N, n, h, w, 3) uint8``, the same through an encoder at E falling qualities ``(N, E, n, h, w, 3)``, the
    share of the quality that each encoding leaves ``(N, E)``, and the frames per second of the source ``(N,)``."""

    small: npt.NDArray[np.uint8]
    coded: npt.NDArray[np.uint8]
    coded_share: npt.NDArray[np.float64]
    rate: npt.NDArray[np.float64]

    def __reduce__(self) -> tuple[Any, ...]:  # another process maps the pixels itself
        return _reopen, (str(self.small.filename), str(self.coded.filename), self.coded_share, self.rate)  # type: ignore[attr-defined]


def _reopen(small: str, coded: str, *columns: npt.NDArray[np.float64]) -> Windows:
    return Windows(np.load(small, mmap_mode="r"), np.load(coded, mmap_mode="r"), *columns)


def open_windows(out: Path) -> Windows:
    table = np.load(out / "windows.npz")
    return Windows(np.load(out / "small.npy", mmap_mode="r"), np.load(out / "coded-small.npy", mmap_mode="r"),
                   table["coded_share"], table["rate"])  # fmt: skip


def draw_triple(windows: Windows, row: int, rng: np.random.Generator) -> tuple[list[Frames], list[float], list[int]]:
    """A window as it is, and with one fault at two strengths or through one encoder; clips, shares and kinds."""
    rate, name = float(windows.rate[row]), str(rng.choice(KINDS[1:]))
    number = KINDS.index(name)
    if name == CODING:
        look = int(rng.integers(2**31))  # the three are filmed alike
        two = np.sort(rng.choice(windows.coded.shape[1], 2, replace=False))
        clips = [as_filmed(one, np.random.default_rng(look)) for one in (windows.small[row], *windows.coded[row, two])]
        intact = frame_rate_share(rate, motion_of(clips[0]))
        shares = [intact, *(float(left) * intact for left in windows.coded_share[row, two])]
        return [as_received(clip, rng) for clip in clips], shares, [0, number, number]
    frames = as_filmed(windows.small[row], rng)
    mild = 0.7 * float(rng.random()) ** 2  # mostly the mildest, which are the hardest to tell
    seed = int(rng.integers(2**31))  # the two copies share the fault's own chances
    drawn = [faulty(frames, rate, "none", 0.0, rng)]
    drawn += [faulty(frames, rate, name, s, np.random.default_rng(seed)) for s in (mild, rng.uniform(mild + 0.1, 1))]
    return [clip for clip, _ in drawn], [share for _, share in drawn], [0, number, number]


def batches(windows: Windows, chosen: npt.NDArray[np.int64], *, count: int, steps: int, seed: int,
            area: Sequence[int] = ()) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:  # fmt: skip
    """``steps`` batches of clips, shares and kinds, of ``count`` windows drawn from the chosen; with an ``area``, rows and
    columns, only as much of each window, cut anywhere."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        triples = [draw_triple(windows, int(row), rng) for row in rng.choice(chosen, count)]
        if area:
            triples = [(part(clips, area, rng), shares, kinds) for clips, shares, kinds in triples]
        clips, shares, kinds = ([value for triple in triples for value in triple[column]] for column in range(3))
        stacked = torch.stack([to_clip(clip) for clip in clips]).contiguous(memory_format=torch.channels_last_3d)
        yield stacked, torch.tensor(shares, dtype=torch.float32), torch.tensor(kinds)


def part(clips: list[Frames], area: Sequence[int], rng: np.random.Generator) -> list[Frames]:
    """The same rows and columns of every clip."""
    (rows, columns), (height, width) = area, clips[0].shape[1:3]
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    return [clip[:, top : top + rows, left : left + columns] for clip in clips]


class Batches(IterableDataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """What `batches` yields, made in a process of its own while the network learns from the batch before."""

    def __init__(self, windows: Windows, chosen: npt.NDArray[np.int64], plan: dict[str, Any]) -> None:
        self.windows, self.chosen, self.plan = windows, chosen, plan

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        return batches(self.windows, self.chosen, **self.plan)


def ahead(
    windows: Windows, chosen: npt.NDArray[np.int64], **plan: Any
) -> DataLoader[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    return DataLoader(Batches(windows, chosen, plan), batch_size=None, num_workers=1, prefetch_factor=4)
