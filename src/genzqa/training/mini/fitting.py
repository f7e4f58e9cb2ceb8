"""One loop for every stage of the recipe; stopped and started again, it goes on as if it had not been."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn

from genzqa.errors import TrainingError
from genzqa.files import atomic_file
from genzqa.training.mini.photos import Batch

Model = TypeVar("Model", bound=nn.Module)
Progress = Callable[[int, int, dict[str, float]], None]


def unseen(step: int, steps: int, figures: dict[str, float]) -> None:
    """Says nothing."""


class Average(Generic[Model]):
    """Exponential moving average of the trained weights: what is evaluated and kept."""

    def __init__(self, model: Model, decay: float = 0.998) -> None:
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the kept weights a little towards those of ``model``."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        both = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        floating = [pair for pair in both if pair[0].is_floating_point()]
        torch._foreach_lerp_([kept for kept, _ in floating], [new for _, new in floating], 1 - decay)
        for kept, new in both:
            if not kept.is_floating_point():
                kept.copy_(new)


WARM = 0.05  # of the training


def learning_rate(step: int, steps: int, peak: float) -> float:
    """5 % linear warm-up, then cosine to a twentieth."""
    return learning_rate_at((step + 1) / steps, peak)


def learning_rate_at(progress: float, peak: float) -> float:
    """The same at this part of the training, 0 to 1."""
    if progress < WARM:
        return peak * progress / WARM
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (min(progress, 1) - WARM) / (1 - WARM))))


def fit(model: nn.Module, parameters: list[nn.Parameter], losses: Callable[[Batch], dict[str, torch.Tensor]],
        average: Average[Any], stream: Iterable[Batch], part: dict[str, Any], out: Path,
        check: Callable[[], dict[str, float]], progress: Progress = unseen) -> None:  # fmt: skip
    """One part of a stage: AdamW, warm-up and cosine, clipped gradients, averaged weights.

    Args:
        model: What is trained, in place.
        parameters: Those of its weights that are.
        losses: The terms to sum, of a batch.
        average: Its averaged weights.
        stream: The part's batches, the same whenever it is begun anew.
        part: ``steps``, ``rate`` and ``check_every``, by how many steps figures are taken and the state is kept.
        out: What this part makes, a safetensors file; beside it go a ``.jsonl`` with a line every 50 steps, and the state.
        check: Figures of the averaged weights.
        progress: Told the step, of how many, and its loss or the figures.

    Raises:
        TrainingError: If the loss is not finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=part["rate"], weight_decay=0.02, betas=(0.9, 0.99))
    log, kept = out.with_suffix(".jsonl"), out.with_suffix(".state")
    started, since, sums, first = time.time(), 0, Counter[str](), 0
    stored = _kept(kept)
    if stored is not None:
        model.load_state_dict(stored["model"])
        average.model.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        first = average.steps = int(stored["step"])
    for step, batch in enumerate(stream):
        if step < first:
            continue
        if step == first and stored is not None:
            torch.set_rng_state(stored["chances"])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, part["steps"], part["rate"])
        model.train()
        values = losses(batch)
        loss = torch.stack(list(values.values())).sum()
        if not torch.isfinite(loss):
            terms = {name: float(value.detach()) for name, value in values.items()}
            raise TrainingError(f"the loss became {loss.item()} at step {step + 1}: {terms}", subject=str(out))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(model)
        since += 1
        sums.update({name: float(value.detach()) for name, value in values.items()})
        last = step + 1 == part["steps"]
        checked = check() if (step + 1) % part["check_every"] == 0 or last else {}
        progress(step + 1, part["steps"], checked or {"loss": float(loss.detach())})
        if (step + 1) % 50 == 0 or checked:
            row = {"step": step + 1, "seconds": round(time.time() - started, 1),
                   **{name: round(value / since, 4) for name, value in sums.items()}, **checked}  # fmt: skip
            sums.clear()
            since = 0
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if checked and not last:
            whole = {"model": model.state_dict(), "average": average.model.state_dict(), "step": step + 1,
                     "optimizer": optimizer.state_dict(), "chances": torch.get_rng_state()}  # fmt: skip
            with atomic_file(kept) as binary:
                torch.save(whole, binary)


def _kept(path: Path) -> dict[str, Any] | None:
    """What to go on from; None at the beginning."""
    if not path.exists():
        return None
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        raise TrainingError(
            f"cannot be read: {error}", subject=str(path), hint="remove it to begin this part anew"
        ) from error
    return found


def keep(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a state, whole or not at all; what `fit` kept to go on from is done with."""
    save_file({name: value.contiguous() for name, value in state.items()}, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)
    path.with_suffix(".state").unlink(missing_ok=True)
