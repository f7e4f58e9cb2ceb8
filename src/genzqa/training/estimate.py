"""What a training will take, from a few items encoded, one step and a bit of validation; all of it is thrown away."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from genzqa.databases.database import Samples
from genzqa.training.films import FilmCache
from genzqa.training.latents import LatentCache
from genzqa.training.plan import TrainingPlan
from genzqa.training.setup import Built, Shares, SplitPart, build_model, caches_of, encoding_on, gather, task_of
from genzqa.training.task import Labels
from genzqa.training.trainer import Trainer

if TYPE_CHECKING:
    from accelerate import Accelerator

PROBED = {"image": 4, "video": 2}  # items encoded
VALIDATED = {"image": 8, "video": 2}  # items validated with; photos go through the network eight at a time
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Estimate:
    """What a training will take, for the process that has most to do. Times in seconds, sizes in bytes; what is of two kinds
    is of items to train on and of items to validate with.

    Attributes:
        items: How many there are.
        unencoded: How many of them this process has to encode, as they are in no cache yet.
        epochs, batches: Steps are their product.
        parts: Into how many a process cuts its share of a batch.
        processes: That share a batch.
        encoding_of_one: Time for an item, all its forms.
        learning_of_part: Time forward and backward.
        scoring_of_part: Time forward alone.
        validating_one: Time for an item.
        bytes_of_one: Of an item in its cache.
        memory: Of the accelerator, or on a CPU of the whole process, at most.
    """

    items: tuple[int, int]
    unencoded: tuple[int, int]
    epochs: int
    batches: int
    parts: int
    processes: int
    encoding_of_one: tuple[float, float]
    learning_of_part: float
    scoring_of_part: float
    validating_one: float
    bytes_of_one: tuple[float, float]
    memory: int

    @property
    def twice(self) -> bool:
        """Whether a step runs the network a second time, for the scores of the whole batch that no one part has."""
        return self.parts > 1 or self.processes > 1

    @property
    def step(self) -> float:
        """Time of one step."""
        return self.parts * (self.learning_of_part + self.twice * self.scoring_of_part)

    @property
    def encoding(self) -> float:
        """Time to encode what is not encoded yet."""
        return sum(count * one for count, one in zip(self.unencoded, self.encoding_of_one, strict=True))

    @property
    def training(self) -> float:
        """Time of all steps."""
        return self.epochs * self.batches * self.step

    @property
    def validation_pass(self) -> float:
        """Time to validate once; every process does all of it."""
        return self.items[1] * self.validating_one

    @property
    def validation(self) -> float:
        """Time to validate after every epoch, and once more for the calibration."""
        return (self.epochs + 1) * self.validation_pass

    @property
    def total(self) -> float:
        """Time from start to end."""
        return self.encoding + self.training + self.validation

    @property
    def disk(self) -> float:
        """Bytes of both caches when they are complete."""
        return sum(count * one for count, one in zip(self.items, self.bytes_of_one, strict=True))


class Rehearsal:
    """A training that is ready to be tried out, on a few of its items; see `rehearsal`.

    Attributes:
        trainer: With all the items to train on, as far as counts go.
        validation: How many items there are to validate with.
    """

    def __init__(self, plan: TrainingPlan, built: Built, parts: tuple[SplitPart, SplitPart], scratch: Path, cache: Path,
                 accelerator: Accelerator) -> None:  # fmt: skip
        train, validation = parts
        kind = "image" if built.video is None else "video"
        self._plan, self._built, self._parts, self._cache, self._accelerator = plan, built, parts, cache, accelerator
        self._few = caches_of(built, plan, scratch, _spread(train.paths, PROBED[kind]), _spread(validation.paths, PROBED[kind]),
                              photos=_FewPhotos, films=_FewFilms)  # fmt: skip
        self.validation, count = len(validation.mos), VALIDATED[kind]
        some = Labels(validation.mos[:count], validation.labels.names[:count])
        self.trainer = Trainer(
            task_of(built, plan, train.labels, some, self._few), plan, "", scratch, accelerator, lambda *_: None
        )

    def measure(self) -> Estimate:
        """Encode, step and validate a little.

        Raises:
            TrainingError: If memory runs out.
            DataError: If an item cannot be decoded.
        """
        trainer, device = self.trainer, self._accelerator.device
        with encoding_on(self._built, device):
            encoding = [_seconds(partial(one.build, [0]), device) / one.files_in([0]) for one in self._few]
        # the shorter one first: what is slow only once is then no part of the longer, which nearly all the time goes to
        scoring = _seconds(lambda: trainer.rehearse(gradients=False), device)
        learning = _seconds(lambda: trainer.rehearse(gradients=True), device)
        validating = _seconds(trainer.validation_scores, device) / len(trainer.task.validation.mos)
        moments = sum(2 * value.numel() * value.element_size() for value in trainer.parameters.values())  # AdamW's
        train, validation = self._parts
        whole = caches_of(self._built, self._plan, self._cache, train.paths, validation.paths)
        rank, processes = self._accelerator.process_index, self._accelerator.num_processes
        return Estimate(
            items=(len(train.mos), len(validation.mos)),
            unencoded=_pair([one.files_in(one.missing()[rank::processes]) for one in whole]),
            epochs=self._plan.epochs,
            batches=trainer.batches,
            parts=len(trainer.parts(trainer.batch_size)),
            processes=processes,
            encoding_of_one=_pair(encoding),
            learning_of_part=learning,
            scoring_of_part=scoring,
            validating_one=validating,
            bytes_of_one=_pair([_size(one.folder) / one.files_in([0]) for one in self._few]),
            memory=_memory(device) + moments,
        )


@contextmanager
def rehearsal(plan: TrainingPlan, databases: Sequence[Samples], cache: Path, accelerator: Accelerator, *,
              shares: Shares = (0.7, 0.1, 0.2), offline: bool = False) -> Iterator[Rehearsal]:  # fmt: skip
    """A training to try out. Nothing of it is left when the block ends, and no cache is written.

    Args:
        plan, databases, accelerator, shares, offline: See `prepare`.
        cache: Where latents and motion features would be kept; what is there already need not be encoded.

    Raises:
        GenzqaError: See `genzqa.errors`.
    """
    parts = gather(plan, databases, shares)
    built = build_model(plan, offline=offline)
    with tempfile.TemporaryDirectory(prefix="genzqa-") as scratch:
        yield Rehearsal(plan, built, parts, Path(scratch), cache, accelerator)


class _FewPhotos(LatentCache):
    """A few photos that stand for any number."""

    def read(self, index: int, form: int = 0) -> Tensor:
        """See `LatentCache`."""
        return super().read(index % self.files_in([0]), form)


class _FewFilms(FilmCache):
    """A few videos that stand for any number."""

    def read(self, index: int, form: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """See `FilmCache`."""
        return super().read(index % self.files_in([0]), form)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """So many of them, from all over the list: databases are often in an order."""
    return list(paths[:: max(1, len(paths) // count)])[:count]


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    """How long a call takes; on an accelerator its second one, as the first one also starts the device."""
    if device.type != "cpu":
        call()
        torch.accelerator.synchronize()
    started = time.perf_counter()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on every system; nor is training

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _pair(two: Sequence[Number]) -> tuple[Number, Number]:
    first, second = two
    return first, second
