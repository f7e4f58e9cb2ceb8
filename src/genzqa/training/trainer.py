"""The training loop of GenzIQA and GenzVQA (paper Section 4).

Every random choice (order, timestep, noise, flip) is a function of the seed, the epoch and the item, never of a generator's state
or of how a batch is cut into parts and processes. So a training that was killed goes on as if it had not been, and several
processes give what one gives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genzqa.errors import TrainingError
from genzqa.evaluation.statistics import srcc
from genzqa.files import write_atomically
from genzqa.model.adapter import save_adapter
from genzqa.training.checkpoint import Position, load_checkpoint, save_checkpoint
from genzqa.training.losses import batch_losses
from genzqa.training.memory import for_a_step, for_validation, memory_guard
from genzqa.training.plan import TrainingPlan
from genzqa.training.task import Task

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINT, BEST, LOG, EVENTS = "checkpoint.safetensors", "best.safetensors", "log.jsonl", "tensorboard"


class Trainer:
    """Trains a task's model in place and leaves a finished adapter in a folder.

    Args:
        task: The model, on the CPU, and what it learns from; what is trained of it is what the plan says.
        plan: All settings.
        digest: Of the plan and the data, see `Position`.
        out: Folder for checkpoint, log and adapter; a checkpoint of the same training there is gone on from.
        accelerator: Devices and processes.
        progress: Called with the step, the number of all steps, and the latest figures.

    Raises:
        TrainingError: If the model is too large for the device's memory.
    """

    def __init__(self, task: Task, plan: TrainingPlan, digest: str, out: Path, accelerator: Accelerator,
                 progress: Callable[[int, int, Mapping[str, float]], object]) -> None:  # fmt: skip
        self.task, self.plan, self.out = task, plan, out
        self.accelerator, self._progress = accelerator, progress
        with memory_guard("for the model itself", for_validation(plan)):
            task.model.to(accelerator.device).eval()  # no dropout: a step is repeated exactly
        if plan.gradient_checkpointing:
            task.image.recompute_activations()
        named = task.trained_parameters()
        wanted = tuple(plan.train)
        self.parameters = {name: value for name, value in named.items() if name.split(".")[0] in wanted}
        for name, value in named.items():
            value.requires_grad_(name in self.parameters)
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), lr=plan.learning_rate, betas=plan.betas,
                                           weight_decay=plan.weight_decay, foreach=False)  # fmt: skip
        count = len(task.train.mos)
        self.batch_size = min(plan.batch_size, count)
        self.batches = count // self.batch_size  # an incomplete last batch is left out; another epoch leaves out others
        self._backward: Callable[[Tensor], object] = accelerator.backward
        self.position = Position(0, 0, 0, None, None, digest)
        self._events: SummaryWriter | None = None

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.plan.epochs * self.batches

    def parts(self, size: int) -> list[npt.NDArray[np.int64]]:
        """Places in a batch of ``size`` items that are this process's, cut as ``gradient_accumulation`` says; none is empty."""
        mine = np.arange(size)[self.accelerator.process_index :: self.accelerator.num_processes]
        return [part for part in np.array_split(mine, self.plan.gradient_accumulation) if len(part)]

    def rehearse(self, *, gradients: bool) -> None:
        """Run the first part of a batch through the network as a step does, and forget what comes of it.

        Args:
            gradients: With the backward pass; without, as scores of the whole batch are made where a step needs them.

        Raises:
            TrainingError: If memory runs out.
        """
        rows = self.parts(self.batch_size)[0]
        with self._step_memory(), torch.set_grad_enabled(gradients):
            scores = self._scores(rows)
            if gradients:
                self._backward(scores.sum())
        self.optimizer.zero_grad(set_to_none=True)

    def validation_scores(self) -> npt.NDArray[np.float64]:
        """Raw scores of the validation items, in the plan's precision.

        Raises:
            TrainingError: If memory runs out.
        """
        with memory_guard("in validation", for_validation(self.plan)), self.accelerator.autocast():
            return self.task.validation_scores()

    def run(self) -> Position:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            TrainingError: The loss or a gradient is not finite, or memory ran out.
            ModelCorruptError, DataError, OutputError: See `genzqa.errors`.
        """
        with self._step_memory():  # the moments of AdamW go back to the device
            self._resume()
        self._events = self._open_events()
        while self.position.epoch < self.plan.epochs:
            self._epoch()
        if self._events is not None:
            self._events.close()
        return self.position

    def finish(self, sources: Sequence[str], base_sha256: str) -> None:
        """Write the adapter: the best weights, calibrated on the validation part.

        Raises:
            TrainingError: Memory ran out.
            ModelCorruptError, DataError, OutputError: See `genzqa.errors`.
        """
        if not self.accelerator.is_main_process:
            return
        with memory_guard("while calibrating", for_validation(self.plan)):
            load_checkpoint(self.out / BEST, self.parameters, self.optimizer)
            weights, config = self.task.finished()
        update = {"training_data": list(sources), "base_sha256": base_sha256}
        save_adapter(self.out, weights, config.model_copy(update=update))

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if path.exists():
            found = load_checkpoint(path, self.parameters, self.optimizer)
            if found.plan != self.position.plan:
                raise TrainingError("holds a checkpoint of another plan or other data", subject=str(self.out),
                                    hint="name another folder with --out, or delete its checkpoint to start over")  # fmt: skip
            self.position = found
        if self.accelerator.is_main_process:
            self._forget_after(self.position.step)

    def _forget_after(self, step: int) -> None:
        """Lines of the log that a killed run wrote after its last checkpoint come again."""
        path = self.out / LOG
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]  # the last may have been cut
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        write_atomically(path, "".join(kept).encode())

    def _open_events(self) -> SummaryWriter | None:
        """TensorBoard's log, where it is installed; what a killed run wrote after its last checkpoint is taken back."""
        if not self.accelerator.is_main_process:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(self.out / EVENTS), purge_step=self.position.step + 1)

    def _epoch(self) -> None:
        epoch = self.position.epoch
        order = np.random.default_rng((self.plan.seed, 1, epoch)).permutation(len(self.task.train.mos))
        for number in range(self.position.batch, self.batches):
            rows = order[number * self.batch_size : (number + 1) * self.batch_size]
            with self._step_memory():
                figures = self._step(rows)
            self._move(batch=number + 1, step=self.position.step + 1)
            self._record(figures)
            if self.position.step % self.plan.save_every == 0 and number + 1 < self.batches:
                self._save(CHECKPOINT)
        found = self._of_main(srcc(self.validation_scores(), self.task.validation.mos))
        better = _better(found, self.position.best_srcc)
        if better:
            self._move(best_srcc=found, best_epoch=epoch)
        self._move(epoch=epoch + 1, batch=0)
        self._record({"validation_srcc": found})
        if better:
            self._save(BEST)
        self._save(CHECKPOINT)

    def _move(self, **changes: Any) -> None:
        self.position = Position(**{**self.position.__dict__, **changes})

    def _step_memory(self) -> AbstractContextManager[None]:
        share = -(-self.batch_size // self.accelerator.num_processes)
        return memory_guard("in a step", for_a_step(self.plan, share))

    def _of_main(self, figure: float) -> float:
        """The main process's figure for all. Rounding differs between processes, and those that do not choose the same epoch
        would wait for each other for ever."""
        if self.accelerator.num_processes == 1:
            return figure
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor([figure], dtype=torch.float64, device=self.accelerator.device)))

    def _step(self, rows: npt.NDArray[np.int64]) -> dict[str, float]:
        """One step on a batch, which all processes share out among them."""
        parts = self.parts(len(rows))
        mos = torch.tensor(self.task.train.mos[rows], dtype=torch.float32, device=self.accelerator.device)
        together = len(parts) > 1 or self.accelerator.num_processes > 1
        scores = self._all_scores(rows, parts) if together else None
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, Tensor] = {}
        for part in parts:
            own = self._scores(rows[part])
            # the rest of the batch stands beside the part as numbers, so that every loss is that of the whole batch
            whole = own if scores is None else scores.index_copy(0, torch.from_numpy(part).to(own.device), own)
            terms = batch_losses(whole, mos, self.plan.losses)
            self._backward(torch.stack(list(terms.values())).sum())
        return self._update(rows, {name: float(value.detach()) for name, value in terms.items()})

    def _update(self, rows: npt.NDArray[np.int64], terms: dict[str, float]) -> dict[str, float]:
        for value in self.parameters.values():
            gradient = torch.zeros_like(value) if value.grad is None else value.grad
            value.grad = (
                self.accelerator.reduce(gradient, reduction="sum") if self.accelerator.num_processes > 1 else gradient
            )
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.plan.clip_norm))
        if not np.isfinite([norm, *terms.values()]).all():
            names = ", ".join(self.task.train.names[row] for row in rows[:20])
            raise TrainingError(f"the loss or its gradient is not finite at step {self.position.step + 1}", subject=names,
                                hint="the last checkpoint is kept; look at these files, or lower learning_rate")  # fmt: skip
        self.optimizer.step()
        return {**terms, "gradient": norm}

    def _all_scores(self, rows: npt.NDArray[np.int64], parts: Sequence[npt.NDArray[np.int64]]) -> Tensor:
        """Scores of the whole batch, without gradients, each process having made its own."""
        with torch.no_grad():
            own = torch.zeros(len(rows), device=self.accelerator.device)
            for part in parts:
                own[torch.from_numpy(part)] = self._scores(rows[part])
            return self.accelerator.reduce(own, reduction="sum") if self.accelerator.num_processes > 1 else own

    def _scores(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """Scores of items with the timestep, noise and flip that are theirs in this epoch."""
        with self.accelerator.autocast():
            return self.task.scores(rows, self.position.epoch).float()

    def _record(self, figures: Mapping[str, float]) -> None:
        row = {
            "step": self.position.step,
            "epoch": self.position.epoch,
            **{name: round(value, 6) for name, value in figures.items()},
        }
        if self.accelerator.is_main_process:
            with (self.out / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, self.position.step)
        self._progress(self.position.step, self.steps, figures)

    def _save(self, name: str) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(self.out / name, self.parameters, self.optimizer, self.position)
        self.accelerator.wait_for_everyone()


def _better(found: float, best: float | None) -> bool:
    """Whether an epoch's SRCC is the best so far. Where all scores are alike it is NaN, which is worse than any number."""
    return best is None or found > best or (math.isnan(best) and not math.isnan(found))
