"""The training of a student on its teacher's readings.

Every random choice is a function of the seed, the epoch and the batch, never of a generator's state: a training that was
killed goes on as if it had not been.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from genzqa.errors import DataError, TrainingError
from genzqa.evaluation.statistics import LEAST
from genzqa.files import write_atomically
from genzqa.student.network import StudentNetwork
from genzqa.student.plan import DistillPlan
from genzqa.student.readings import Readings, ReadingsCache
from genzqa.training.checkpoint import Position, load_checkpoint, save_checkpoint

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
_CLIP_NORM = 5.0
_WARM_UP = 0.1  # of the steps


@dataclass(frozen=True)
class Split:
    """Rows of the readings to train on, and those held out; a photo's copies are in its row and go where it goes."""

    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


def split(photos: int, views: int, plan: DistillPlan) -> Split:
    """Set photos aside, at least so many that agreement can be measured on them.

    Args:
        photos: How many could be read.
        views: Of each.
        plan: Settings.

    Raises:
        DataError: If too few photos are left to train on.
    """
    aside = max(math.ceil(plan.held_out * photos), math.ceil(LEAST / views))
    if photos - aside < 2:
        raise DataError(f"{photos} readable photos are too few to distill from",
                        hint=f"give at least {2 + math.ceil(LEAST / views)}, better some thousands")  # fmt: skip
    order = np.random.default_rng((plan.seed, 0)).permutation(photos)
    return Split(np.sort(order[aside:]), np.sort(order[:aside]))


class Distillation:
    """Trains a network on readings.

    Args:
        cache: The squares.
        readings: What the teacher says of them.
        network: To train, not folded; of the plan's sizes and seed.
        plan: Settings.
        out: Folder of checkpoint and log; a checkpoint of the same training there is gone on from.
        progress: Called with the step, the number of all steps, and the latest figures.
    """

    def __init__(self, cache: ReadingsCache, readings: Readings, network: StudentNetwork, plan: DistillPlan, out: Path,
                 progress: Callable[[int, int, Mapping[str, float]], object]) -> None:  # fmt: skip
        self._cache, self._readings, self._plan, self._out, self._progress = cache, readings, plan, out, progress
        self.split = split(len(readings.index), readings.values.shape[1], plan)
        seen = readings.values[torch.from_numpy(self.split.train)].flatten(0, 1)
        self.mean, spread = seen.mean(0), seen.std(0)
        self.spread = torch.where(
            spread > 1e-5 * (1 + self.mean.abs()), spread, 1.0
        )  # 1: a quantity that never changes
        self.network = network
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's annotations
        self.average: StudentNetwork = copy.deepcopy(self.network).requires_grad_(False)
        trained = [value for value in network.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=plan.learning_rate, weight_decay=plan.weight_decay,
                                           foreach=False)  # fmt: skip
        self._batch_size = min(plan.batch_size, len(self.split.train))
        self._batches = len(self.split.train) // self._batch_size  # what is left over comes in another epoch
        decides = [plan.model_dump(mode="json"), network.sizes.model_dump(mode="json"), cache.folder.name]
        digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
        self.position = Position(0, 0, 0, None, None, digest)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self._plan.epochs * self._batches

    def run(self) -> StudentNetwork:
        """Train to the end; the averaged network, folded, in the teacher's units.

        Raises:
            TrainingError: The loss is not finite, or the checkpoint is another training's.
            ModelCorruptError, DataError, OutputError: See `genzqa.errors`.
        """
        self._resume()
        self.network.train()
        places = [divmod(step, self._batches) for step in range(self.position.step, self.steps)]
        for (epoch, number), (squares, wanted) in zip(places, self._ahead(places), strict=True):
            figures = self._step(squares, wanted)
            self.position = replace(self.position, epoch=epoch, batch=number + 1, step=self.position.step + 1)
            self._record(figures)
            if self.position.step % self._plan.save_every == 0 or self.position.step == self.steps:
                save_checkpoint(self._out / CHECKPOINT, self._kept(), self.optimizer, self.position)
        network: StudentNetwork = copy.deepcopy(self.average)
        network.fold(self.mean, self.spread)
        return network

    def _ahead(self, places: Sequence[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, each made ready while the one before is learned from."""
        with ThreadPoolExecutor(1, "genzqa-batch") as pool:
            following: Future[tuple[Tensor, Tensor]] | None = None
            for place in places:
                ready, following = following, pool.submit(self._batch, *place)
                if ready is not None:
                    yield ready.result()
            if following is not None:
                yield following.result()

    def _batch(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Squares or crops ``(V * B, 3, h, w)`` in [-1, 1], the photos first, then a copy of each in the same order and cut
        alike; and what the teacher says of them, ``(V * B, 1 + P)``. V is 2, or 1 without copies."""
        order = np.random.default_rng((self._plan.seed, 1, epoch)).permutation(self.split.train)
        rows = order[number * self._batch_size : (number + 1) * self._batch_size]
        rng = np.random.default_rng((self._plan.seed, 2, epoch, number))
        side = self._side(epoch * self._batches + number)
        views = self._readings.values.shape[1]
        squares: list[list[Tensor]] = [[], []]
        wanted: list[list[Tensor]] = [[], []]
        for row in rows:
            top, left = rng.integers(0, self._plan.size - side + 1, 2)
            mirrored = rng.random() < 0.5
            chosen = [0] if views == 1 else [0, int(rng.integers(1, views))]
            for place, view in enumerate(chosen):
                square = self._cache.square(int(self._readings.index[row]), view)
                square = square[top : top + side, left : left + side]
                squares[place].append(square.flip(1) if mirrored else square)
                wanted[place].append(self._readings.values[row, view])
        pixels = torch.stack([*squares[0], *squares[1]]).permute(0, 3, 1, 2)
        return pixels.float() / 127.5 - 1, (torch.stack([*wanted[0], *wanted[1]]) - self.mean) / self.spread

    def _side(self, step: int) -> int:
        if step >= self._plan.cropped * self.steps:
            return self._plan.size
        return 32 * max(1, round(self._plan.size / 64))

    def _step(self, squares: Tensor, wanted: Tensor) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self._plan.learning_rate * one_cycle(self.position.step / self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._plan.precision == "bf16"):
            read = self.network(squares)
        terms = losses(read.raw.float(), read.block_scores.float(), wanted, len(wanted) - self._batch_size)
        weights = {"blocks": self._plan.block_weight, "order": self._plan.order_weight}
        total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP_NORM))
        if not math.isfinite(norm + float(total.detach())):
            raise TrainingError(f"the loss or its gradient is not finite at step {self.position.step + 1}",
                                subject=str(self._out), hint="the last checkpoint is kept; try another --seed")  # fmt: skip
        self.optimizer.step()
        self._follow()
        return {**{name: float(term.detach()) for name, term in terms.items()}, "gradient": norm}

    def _follow(self) -> None:
        """The average goes along; at first quickly, for what it starts from is chance."""
        decay = min(self._plan.average, (1 + self.position.step) / (10 + self.position.step))
        live = self.network.state_dict()
        with torch.no_grad():
            for name, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(live[name], 1 - decay)
                else:
                    value.copy_(live[name])

    def _kept(self) -> dict[str, Tensor]:
        """All that a killed training needs back, by name; parameters are the live ones, whose moments are kept too."""
        return {
            f"{name}.{key}": value
            for name, network in (("network", self.network), ("average", self.average))
            for key, value in (*network.named_parameters(), *network.named_buffers())
        }

    def _resume(self) -> None:
        path = self._out / CHECKPOINT
        if path.exists():
            found = load_checkpoint(path, self._kept(), self.optimizer)
            if found.plan != self.position.plan:
                raise TrainingError("holds a checkpoint of other settings, photos or teacher", subject=str(self._out),
                                    hint="name another folder with --out, or delete its checkpoint to start over")  # fmt: skip
            self.position = found
        log = self._out / LOG
        lines = log.read_text("utf-8").splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # a kill may have cut the last
        write_atomically(
            log, "".join(line for line in whole if json.loads(line)["step"] <= self.position.step).encode()
        )

    def _record(self, figures: Mapping[str, float]) -> None:
        row = {"step": self.position.step, "epoch": self.position.epoch, **{k: round(v, 6) for k, v in figures.items()}}
        with (self._out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        self._progress(self.position.step, self.steps, figures)


def one_cycle(done: float) -> float:
    """Share of the highest learning rate after ``done`` (0..1) of the training: up in a line, down along a cosine."""
    if done < _WARM_UP:
        return 0.1 + 0.9 * done / _WARM_UP
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def losses(raw: Tensor, blocks: Tensor, wanted: Tensor, copies: int) -> dict[str, Tensor]:
    """The terms of a batch, all in units of the teacher's spread.

    ``order``: a copy must fall behind its photo by what the teacher says, and must never be put above it, even where the
    teacher does.

    Args:
        raw, blocks: The student's ``(N,)``, ``(N, P)``.
        wanted: The teacher's ``(N, 1 + P)``.
        copies: Rows at the end that are copies of the first rows, in the same order.
    """
    terms = {"raw": F.mse_loss(raw, wanted[:, 0]), "blocks": F.mse_loss(blocks, wanted[:, 1:])}
    if copies:
        fall = (wanted[:copies, 0] - wanted[-copies:, 0]).clamp_min(0)
        terms["order"] = (fall - (raw[:copies] - raw[-copies:])).clamp_min(0).mean()
    return terms
