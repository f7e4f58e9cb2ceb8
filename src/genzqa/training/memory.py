"""When memory runs out in a training: one error that says what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from genzqa.engine.torch_engine import memory_errors
from genzqa.errors import TrainingError
from genzqa.training.plan import TrainingPlan

FOR_ENCODING = (
    "end what else uses the device, or take one with more memory; what is encoded is kept. "
    "A smaller scorer.preprocessing.size needs less, but is another training"
)


@contextmanager
def memory_guard(doing: str, hint: str) -> Iterator[None]:
    """Tell in plain words that memory ran out, of a device or of the machine.

    Args:
        doing: When, as the end of a sentence: ``in a step``.
        hint: What to change.

    Raises:
        TrainingError: If memory runs out inside.
    """
    try:
        with memory_errors():
            yield
    except MemoryError as error:
        raise TrainingError(f"memory ran out {doing}", hint=hint) from error


def for_a_step(plan: TrainingPlan, share: int) -> str:
    """What to set so that a step takes less memory.

    Args:
        plan: As it is now.
        share: Items of a batch that one process has.
    """
    ways = [] if plan.gradient_checkpointing else ["gradient_checkpointing: true"]
    if plan.gradient_accumulation < share:
        ways.append(f"gradient_accumulation: {min(2 * plan.gradient_accumulation, share)}")
    if not ways:  # one item at a time, and nothing of it is kept
        return for_validation(plan)
    return f"set {' or '.join(ways)}; the result stays the same up to rounding, and a checkpoint is gone on from"


def for_validation(plan: TrainingPlan) -> str:
    """What to do where no setting takes less memory without changing the result."""
    smaller = ["a smaller scorer.preprocessing.size"]
    if plan.scorer.video is not None:
        smaller.append("fewer frames")
    if plan.precision == "fp32":
        smaller.append("precision: bf16")
    return (
        "end what else uses the device, or take one with more memory: a checkpoint is gone on from. "
        f"Less is needed with {' or '.join(smaller)}, but that is another training, with another --out"
    )
