"""From a teacher and a list of photos to a finished student folder: readings, training, measuring, writing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import Tensor

from genzqa.errors import DataError, NotTrainedError, OutputError, TrainingError
from genzqa.evaluation.statistics import LEAST, Figure, agreement
from genzqa.files import write_atomically
from genzqa.model.adapter import LoadedScorer, fill
from genzqa.model.config import Preprocessing
from genzqa.model.feature_encoder import FeatureEncoder
from genzqa.model.genziqa import GenzIQA
from genzqa.scoring.calibration import widen_interval
from genzqa.student.config import CONFIG, ONNX, PARITY, Interval, StudentConfig, Teacher, TeacherAgreement
from genzqa.student.distill import Distillation
from genzqa.student.folder import as_scored, packed, save_student
from genzqa.student.network import StudentNetwork
from genzqa.student.onnx_file import export_onnx, parity_json, require_onnx
from genzqa.student.plan import DistillPlan
from genzqa.student.readings import Readings, ReadingsCache

_COMPARED = 16  # squares on which ONNX is compared with torch
_AT_ONCE = 16  # held-out squares in one call


@dataclass(frozen=True)
class Told:
    """What to call while it goes on.

    Attributes:
        read: With the photos the teacher has read, and all.
        refused: With a photo that cannot be read, and why.
        start: With the photos to train on, those held out, and the steps.
        step: With the step, all steps, and the latest figures.
    """

    read: Callable[[int, int], object]
    refused: Callable[[Path, str], object]
    start: Callable[[int, int, int], object]
    step: Callable[[int, int, Mapping[str, float]], object]


@dataclass(frozen=True)
class Made:
    """A finished student: its config, and how well it agrees with its teacher on held-out photos with their copies, and, if
    there are enough of them, on the photos alone."""

    config: StudentConfig
    readings: Mapping[str, Figure]
    photos: Mapping[str, Figure] | None


def make_student(teacher: LoadedScorer, paths: Sequence[Path], plan: DistillPlan, out: Path, cache: Path, told: Told, *,
                 source: str) -> Made:  # fmt: skip
    """Distill; started again after a kill, it goes on where it was.

    Args:
        teacher: Whom to imitate.
        paths: The photos; those that cannot be read are told of and left out.
        plan: Settings.
        out: The student's folder; its name is the student's.
        cache: Where readings are kept.
        told: What to call on the way.
        source: What the photos are, for the record.

    Raises:
        ConfigError: ONNX cannot be written on this machine, or the plan's network does not suit the teacher.
        NotTrainedError: The teacher has no calibration to inherit.
        DataError: Too few photos can be read, or a cached reading is damaged.
        TrainingError, ModelCorruptError, OutputError: See `genzqa.errors`.
    """
    require_onnx()
    calibration = teacher.config.calibration
    if calibration is None:
        raise NotTrainedError("a teacher without calibration has no scale to hand on", subject=teacher.name)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject=str(out)) from None
    network = new_network(plan, teacher.model)
    readings, store = _readings(teacher, paths, plan, cache, told)
    training = Distillation(store, readings, network, plan, out, told.step)
    told.start(len(training.split.train), len(training.split.held_out), training.steps)
    weights, digest = packed(training.run())
    network = as_scored(_as_written(weights, network))
    held_out = training.split.held_out
    mine = read_all(network, store, readings, held_out)
    theirs = readings.values[torch.from_numpy(held_out)]
    raw, truth = _doubles(mine[..., 0]), _doubles(theirs[..., 0])
    what = f"{len(held_out)} held-out photos with {plan.copies} degraded copies each"
    calibration = widen_interval(calibration, raw.ravel(), truth.ravel(), source=what)
    scores, wanted = (np.interp(one, calibration.raw_knots, calibration.score_knots) for one in (raw, truth))
    every = _measured(scores, wanted)
    config = StudentConfig(
        name=out.absolute().name, preprocessing=Preprocessing(size=plan.size), network=network.sizes, blocks=network.blocks,
        teacher=Teacher(name=teacher.config.name, weights_sha256=teacher.weights_sha256, base_sha256=teacher.base_sha256),
        mos_range=teacher.config.mos_range, calibration=calibration, agreement=_recorded(every, len(held_out), raw.size),
        weights_sha256=digest, licences=teacher.config.licences,
        training_data=[source, *(f"of the teacher: {one}" for one in teacher.config.training_data)],
    )  # fmt: skip
    squares = _squares(store, readings, held_out[:_COMPARED], 0)
    onnx = export_onnx(network, config, squares)
    (out / CONFIG).unlink(missing_ok=True)  # of an earlier training: none of its files must stand beside new ones
    write_atomically(out / ONNX, onnx.content)
    write_atomically(out / PARITY, parity_json(onnx))
    save_student(out, weights, config)
    photos = _measured(scores[:, :1], wanted[:, :1]) if len(held_out) >= LEAST else None
    return Made(config, every, photos)


def _readings(teacher: LoadedScorer, paths: Sequence[Path], plan: DistillPlan, cache: Path, told: Told
              ) -> tuple[Readings, ReadingsCache]:  # fmt: skip
    store = ReadingsCache(cache, paths, teacher.model, size=plan.size, copies=plan.copies, seed=plan.seed,
                          precision=plan.precision)  # fmt: skip
    missing = store.missing()
    done = len(paths) - store.files_in(missing)

    def one_more() -> None:
        nonlocal done
        done += 1
        told.read(done, len(paths))

    store.build(missing, one_more)
    readings, refused = store.readings()
    for path, reason in refused.items():
        told.refused(path, reason)
    if not len(readings.index):
        raise DataError(f"none of {len(paths)} photos can be read", hint="give photos that genzqa score can score")
    return readings, store


def new_network(plan: DistillPlan, teacher: GenzIQA) -> StudentNetwork:
    """A network to train, by the plan's seed; what it takes over of the teacher's encoder is in it.

    Raises:
        ConfigError: As `DistillPlan.sizes_for`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        network = StudentNetwork(plan.sizes_for(teacher), [block.name for block in teacher.blocks], folded=False)
    if network.encoder is not None:
        assert isinstance(teacher.vae, FeatureEncoder)
        network.encoder.copy_from(teacher.vae)
    return network


def _as_written(weights: bytes, trained: StudentNetwork) -> StudentNetwork:
    """The network as its file makes it: what half precision changes is part of what is measured."""
    network = StudentNetwork(trained.sizes, trained.blocks)
    fill(network.state_dict(), {name: value.float() for name, value in load(weights).items()}, "student")
    return network


def read_all(network: StudentNetwork, store: ReadingsCache, readings: Readings, rows: npt.NDArray[np.int64]) -> Tensor:
    """The student's readings of these rows, ``(N, V, 1 + P)``."""
    views = []
    for view in range(readings.values.shape[1]):
        parts = []
        for first in range(0, len(rows), _AT_ONCE):
            read = network.read(_squares(store, readings, rows[first : first + _AT_ONCE], view))
            parts.append(torch.cat([read.raw[:, None], read.block_scores], 1))
        views.append(torch.cat(parts))
    return torch.stack(views, 1)


def _squares(store: ReadingsCache, readings: Readings, rows: npt.NDArray[np.int64], view: int) -> Tensor:
    stacked = torch.stack([store.square(int(readings.index[row]), view) for row in rows])
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def _doubles(values: Tensor) -> npt.NDArray[np.float64]:
    return values.double().numpy()


def _measured(scores: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> dict[str, Figure]:
    """Over photos and copies ``(N, V)``; a photo and its copies are drawn together."""
    groups = np.repeat(np.arange(len(scores)), scores.shape[1])
    found = agreement(scores.ravel(), wanted.ravel(), groups=groups)
    if not all(np.isfinite((one.value, one.low, one.high)).all() for one in found.values()):
        raise TrainingError("student or teacher gives all held-out photos one score, so agreement cannot be measured",
                            hint="use more photos, and more varied ones")  # fmt: skip
    return found


def _recorded(found: Mapping[str, Figure], photos: int, readings: int) -> TeacherAgreement:
    figures = {
        name: Interval(value=round(one.value, 4), low=round(one.low, 4), high=round(one.high, 4))
        for name, one in found.items()
    }
    return TeacherAgreement(photos=photos, readings=readings, **figures)
