"""The temporal quality modulator, trained on what the frozen parts made of every window: readings and motion features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from windows import CODED_STRENGTHS

from genzqa.model.modulator import TemporalQualityModulator

CODED = len(CODED_STRENGTHS)  # the last variants of every window
OWED, LEAST_FALL = 0.5, 1.0  # of a window with a fault: a share of what its label says, and MOS units
STEEP, LEAST_STEP = 0.2, 0.3  # likewise of a step in a ladder; more, which features cannot tell, is learned by heart
VIDEOS = 400  # of a batch of ladders


@dataclass(frozen=True)
class Samples:
    """V variants of N windows, the first of each as it is, the last `CODED` through an encoder, ever more strongly; among the
    others one in which nothing moves, which lacks nothing.

    raw ``(N, V)``: the image model's quality of the frames; queries: P tensors ``(N, V, C)``, mean over frames and prompts;
    slow ``(N, V, S)``, fast ``(N, V, F)``; share ``(N, V)``: of the quality that is left.
    """

    raw: torch.Tensor
    queries: Sequence[torch.Tensor]
    slow: torch.Tensor
    fast: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True)
class Jitter:
    """Moves the motion features of a source by chance, in every feature by ``share`` of its own deviation ``(F,)``.

    What the motion network makes of a sound video differs from source to source; with few sources a modulator learns them by heart.
    """

    slow: torch.Tensor
    fast: torch.Tensor
    share: float

    @classmethod
    def of(cls, samples: Samples, rows: npt.NDArray[np.int64], share: float) -> Jitter:
        """By the spread between these windows, as they are."""
        index = torch.from_numpy(rows)
        return cls(samples.slow[index, 0].std(0, unbiased=False), samples.fast[index, 0].std(0, unbiased=False), share)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of ``count`` sources: slow ``(count, S)``, fast ``(count, F)``."""
        slow, fast = (self.share * one * torch.randn(count, len(one)) for one in (self.slow, self.fast))
        return slow, fast


@dataclass(frozen=True)
class Ladders:
    """Whole videos of S sources in L ladders of K steps, the first of which is the intact video.

    raw, share ``(S, L, K)``; queries: P tensors ``(S, L, K, C)``; slow ``(S, L, K, clips, F)``, fast likewise.
    """

    raw: torch.Tensor
    queries: Sequence[torch.Tensor]
    slow: torch.Tensor
    fast: torch.Tensor
    share: torch.Tensor

    def of(self, rows: npt.NDArray[np.int64]) -> Ladders:
        """Those of some sources."""
        index = torch.from_numpy(rows)
        return Ladders(self.raw[index], [layer[index] for layer in self.queries], self.slow[index], self.fast[index],
                       self.share[index])  # fmt: skip

    def elsewhere(self, jitter: Jitter) -> Ladders:
        """Their motion as of sources a little unlike these: all videos of one are moved by the same."""
        count = len(self.raw)
        slow, fast = (one.view(count, 1, 1, 1, -1) for one in jitter.draw(count))
        return replace(self, slow=self.slow + slow, fast=self.fast + fast)

    def scores(self, modulator: TemporalQualityModulator) -> torch.Tensor:
        """``(S, L, K)``."""
        gamma = modulated(
            modulator, [layer.flatten(0, 2) for layer in self.queries], self.slow.flatten(0, 2), self.fast.flatten(0, 2)
        )
        return self.raw * gamma.view(self.raw.shape)


def modulated(modulator: TemporalQualityModulator, queries: Sequence[torch.Tensor], slow: torch.Tensor,
              fast: torch.Tensor) -> torch.Tensor:  # fmt: skip
    """Mean gamma ``(B,)`` of videos with queries ``(B, C)`` and motion ``(B, clips, features)``; as the modulator's own
    forward does one by one."""
    gammas = []
    for name, heads, query in zip(modulator.names, modulator.heads, queries, strict=True):
        scaled = query * (modulator.scale / heads)
        agreement = [torch.einsum("bkc,bc->bk", keys[name](motion), scaled)
                     for keys, motion in ((modulator.slow, slow), (modulator.fast, fast))]  # fmt: skip
        seen = [one.mean(1) for one in agreement]
        if modulator.form == "ordered":
            seen += [one.std(1, unbiased=False) for one in agreement]
            seen += [one.diff(dim=1).abs().mean(1) for one in agreement]
        gammas.append(torch.relu(modulator.linear[name](torch.stack(seen, 1))).squeeze(1))
    return torch.stack(gammas, 1).mean(1)


def draw(
    samples: Samples, rows: npt.NDArray[np.int64], clips: int, rng: np.random.Generator, intact: float = 0.0
) -> tuple[torch.Tensor, ...]:
    """Videos of ``clips`` clips from the windows ``rows``: all of one variant, or of two that take turns by chance; a share
    ``intact`` of them is as filmed from end to end.

    Returns raw, target (both MOS units), slow, fast, and the queries behind them.
    """
    variants = samples.share.shape[1]
    one, other = (rng.integers(0, variants, len(rows)) for _ in range(2))
    mixed = rng.random((len(rows), clips)) < rng.choice([0, 0, 0.25, 0.5], len(rows))[:, None]
    left_alone = rng.random(len(rows)) < intact
    one, other = np.where(left_alone, 0, one), np.where(left_alone, 0, other)
    chosen = torch.from_numpy(np.where(mixed, other[:, None], one[:, None]))
    row = torch.from_numpy(rows)[:, None]
    target = samples.raw[row[:, 0], 0] * samples.share[row, chosen].mean(1)
    queries = [layer[row, chosen].mean(1) for layer in samples.queries]
    return (samples.raw[row, chosen].mean(1), target, samples.slow[row, chosen], samples.fast[row, chosen], *queries)


def train_modulator(modulator: TemporalQualityModulator, samples: Samples, chosen: npt.NDArray[np.int64],
                    held: npt.NDArray[np.int64], ladders: Sequence[Ladders], plan: dict[str, float],
                    seed: int) -> list[dict[str, float]]:  # fmt: skip
    """Train in place; returns the figures on the held-out windows before and during training."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(modulator.parameters(), lr=plan["rate"], weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan["rate"], total_steps=int(plan["steps"]))
    history = [figures(modulator, samples, held, int(plan["clips"]))]
    jitter = Jitter.of(samples, chosen, plan["jitter"])
    for step in range(int(plan["steps"])):
        raw, target, slow, fast, *queries = draw(
            samples, rng.choice(chosen, int(plan["batch"])), int(plan["clips"]), rng, plan["intact"]
        )
        modulator.train()
        moved = jitter.draw(len(raw))
        slow, fast = slow + moved[0][:, None], fast + moved[1][:, None]
        loss = ((raw * modulated(modulator, queries, slow, fast) - target) ** 2).mean() / 100
        loss = loss + plan["order"] * out_of_order(modulator, samples, rng.choice(chosen, int(plan["ordered"])), jitter)
        for one in ladders:
            drawn = rng.choice(len(one.raw), min(len(one.raw), VIDEOS // one.raw[0].numel()), replace=False)
            videos = one.of(drawn).elsewhere(jitter)
            loss = loss + plan["sound"] * missed(modulator, videos) + plan["ladders"] * rising(modulator, videos)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modulator.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % int(plan["check_every"]) == 0:
            history.append({"step": step + 1, **figures(modulator, samples, held, int(plan["clips"]))})
    modulator.eval()
    level(modulator, samples, chosen, ladders)
    history.append({"step": int(plan["steps"]), "levelled": 1, **figures(modulator, samples, held, int(plan["clips"]))})
    return history


def out_of_order(
    modulator: TemporalQualityModulator, samples: Samples, rows: npt.NDArray[np.int64], jitter: Jitter
) -> torch.Tensor:
    """By how many MOS units, on average, a fault lowers the score too little: half of what it owes, and `LEAST_FALL` at least.
    Compared are every variant with the window as it is, and each encoding with the next stronger one."""
    index = torch.from_numpy(rows)
    count, variants = len(rows), samples.share.shape[1]
    queries = [layer[index].flatten(0, 1) for layer in samples.queries]
    moved = (one[index] + by[:, None] for one, by in zip((samples.slow, samples.fast), jitter.draw(count), strict=True))
    slow, fast = (one.flatten(0, 1)[:, None].expand(-1, 2, -1) for one in moved)
    score = samples.raw[index] * modulated(modulator, queries, slow, fast).view(count, variants)
    owed = samples.raw[index, :1] * samples.share[index]
    coded = variants - CODED
    falls, due = (torch.cat([one[:, 1:] - one[:, :1], one[:, coded:].diff(dim=1)], 1) for one in (score, owed))
    return torch.relu(falls - (OWED * due).clamp(max=-LEAST_FALL))[due < 0].mean()


def missed(modulator: TemporalQualityModulator, ladders: Ladders) -> torch.Tensor:
    """Squared error of the intact videos of these ladders, without which their order would be bought with gammas that differ
    from one sound video to the next."""
    gamma = intact_gamma(modulator, ladders)
    return ((ladders.raw[:, 0, 0] * (gamma - ladders.share[:, 0, 0])) ** 2).mean() / 100


def intact_gamma(modulator: TemporalQualityModulator, ladders: Ladders) -> torch.Tensor:
    """``(S,)``."""
    queries = [layer[:, 0, 0] for layer in ladders.queries]
    return modulated(modulator, queries, ladders.slow[:, 0, 0], ladders.fast[:, 0, 0])


def rising(modulator: TemporalQualityModulator, ladders: Ladders) -> torch.Tensor:
    """By how many MOS units, on average, the steps of these ladders fall too little: of every source, and of their mean."""
    falls, due = ladders.scores(modulator).diff(dim=2), (ladders.raw[:, :, :1] * ladders.share).diff(dim=2)
    short = torch.relu(falls - (STEEP * due).clamp(max=-LEAST_STEP))[due < 0].mean()
    return short + torch.relu(falls.mean(0) - (STEEP * due.mean(0)).clamp(max=-LEAST_STEP)).mean()


@torch.no_grad()
def steps_of(modulator: TemporalQualityModulator, ladders: Ladders) -> torch.Tensor:
    """How much the mean over the sources changes from step to step: ``(L, K - 1)``, MOS units."""
    return ladders.scores(modulator).mean(0).diff(dim=1)


@torch.no_grad()
def level(
    modulator: TemporalQualityModulator, samples: Samples, rows: npt.NDArray[np.int64], ladders: Sequence[Ladders]
) -> None:
    """Scale gamma so that windows and videos as filmed keep, on average, the share they ought to: trained on squared error it
    stays near the mean of all, most of which are faulty, and a sound video would lose what it never lacked. Changes no order."""
    index = torch.from_numpy(rows)
    queries = [layer[index, 0] for layer in samples.queries]
    slow, fast = (motion[index, :1].expand(-1, 2, -1) for motion in (samples.slow, samples.fast))  # two clips alike
    kept = [modulated(modulator, queries, slow, fast).mean() / samples.share[index, 0].mean()]
    for one in ladders:
        intact = [layer[:, 0, 0] for layer in one.queries]
        kept.append(
            modulated(modulator, intact, one.slow[:, 0, 0], one.fast[:, 0, 0]).mean() / one.share[:, 0, 0].mean()
        )
    factor = len(kept) / torch.stack(kept).sum()
    for layer in modulator.linear.values():
        assert isinstance(layer, torch.nn.Linear)
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)


@torch.no_grad()
def figures(
    modulator: TemporalQualityModulator, samples: Samples, rows: npt.NDArray[np.int64], clips: int
) -> dict[str, float]:
    """Root mean square error and rank correlation with the target on 20 draws of these windows, modulated and not."""
    from scipy.stats import spearmanr

    modulator.eval()
    rng = np.random.default_rng(0)
    drawn = [draw(samples, rows, clips, rng) for _ in range(20)]
    raw, target, slow, fast, *queries = (torch.cat(column) for column in zip(*drawn, strict=True))
    scores = {"frames": raw, "modulated": raw * modulated(modulator, queries, slow, fast)}
    found = {}
    for name, score in scores.items():
        found[f"{name}_rmse"] = round(float(((score - target) ** 2).mean().sqrt()), 3)
        found[f"{name}_srcc"] = round(float(spearmanr(score.numpy(), target.numpy()).statistic), 4)
    return found
