"""The recipe from the photos to a model that scores; what is finished is never made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from transformers import CLIPTokenizer

from genzqa.databases.registry import open_database
from genzqa.errors import DataError, TrainingError
from genzqa.files import atomic_file, write_atomically
from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.feature_encoder import FACTOR, FeatureEncoder
from genzqa.model.genziqa import GenzIQA
from genzqa.training.mini.components import embedded_tokenizer
from genzqa.training.mini.encoder import check_installed, find_directions, pretrained_encoder, scale_latent
from genzqa.training.mini.export import calibrate, write_model
from genzqa.training.mini.fitting import Average, Progress, fit, keep, unseen
from genzqa.training.mini.latents import (
    FOUND,
    Eye,
    Latents,
    Source,
    make_latents,
    open_latents,
    plain_latents,
    spread_of,
)
from genzqa.training.mini.opinions import heads_say, opinions
from genzqa.training.mini.photos import SIDE, Batch, Copies, Photos, open_biq2021
from genzqa.training.mini.plan import HeadsPart, MiniPlan, ReadoutPart
from genzqa.training.mini.pristine import best_scored, open_pristine
from genzqa.training.mini.readout import captured, fit_readout, standardise
from genzqa.training.mini.score import ScoreStage, build_scorer

PLAN, SCORER = "plan.json", "scorer.safetensors"
ENCODER, LATENTS, VALIDATION, HEADS = "encoder", "latents", "validation.npy", "heads.npy"
SCALED_ON = 256  # photos, of which means and deviations are taken
AT_ONCE = 10  # validation photos in one call


class Recipe:
    """A plan, the photos, and the folder of everything that is made of them.

    Args:
        plan: What to make.
        biq2021: The database's folder.
        pristine: A folder of PNG photos; None: the best-scored training photos stand in for them.
        out: Where encoder, latents, weights, logs, and at last ``model/`` go.
        pretrained: Gives the encoder with so many latent channels, its directions not yet found.

    Raises:
        ConfigError: If the pretrained network is not installed.
        DataError: If photos are missing.
    """

    def __init__(self, plan: MiniPlan, biq2021: Path, pristine: Path | None, out: Path,
                 pretrained: Callable[[int], FeatureEncoder] = pretrained_encoder) -> None:  # fmt: skip
        if pretrained is pretrained_encoder:
            check_installed()
        self.plan, self.out, self.pretrained = plan, out, pretrained
        samples = open_database(f"biq2021={biq2021}").items
        lost = [one.path for one in samples if not one.path.is_file()]
        if lost:
            raise DataError(f"{len(lost)} photos are missing, {lost[0].name} first", subject=str(biq2021))
        if pristine is not None and not any(pristine.glob("*.png")):
            raise DataError("holds no PNG photos", subject=str(pristine))
        self.biq2021, self.folder = biq2021, pristine
        self.copies = Copies(mildest=plan.latents.mildest, reach=plan.latents.reach)

    def outline(self) -> Iterator[str]:
        """What there is to do, a line each."""
        plan, latents = self.plan, self.plan.latents
        views = 3 * (latents.biq2021_groups + latents.pristine_groups) + latents.biq2021_singles
        of_one = 4 * plan.encoder.directions * (plan.scorer.preprocessing.size // FACTOR) ** 2
        bytes_needed = views * of_one + 12_000 * SIDE**2 * 3
        yield f"encoder: {plan.encoder.directions} directions, found on {plan.encoder.photos:,} photos"
        yield f"latents of {views:,} views, made once; {bytes_needed / 2**30:.1f} GiB in {self.out}"
        if plan.heads is not None:
            yield f"heads: {plan.heads.count} of {plan.heads.steps:,} steps"
        for number, part in enumerate(plan.denoiser, 1):
            taught = ", taught by what is before it" if part.taught else ""
            yield f"denoiser, part {number}: {part.steps:,} steps of {part.clean + 2 * part.pairs} views{taught}"
        if plan.readout is not None:
            yield f"readout: {plan.readout.epochs} epochs"

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
        if not _written(self.out / ENCODER / FOUND):
            said("encoder")
            self._make_encoder()
        if not (self.out / VALIDATION).exists():
            said("latents")
            self._make_latents(progress)
        if self.plan.heads is not None and not (self.out / HEADS).exists():
            said("heads")
            self._train_heads(self.plan.heads, progress)
        for number in range(len(self.plan.denoiser)):
            if not self._part(number).exists():
                said(f"denoiser, part {number + 1}")
                self._train(number, progress)
        if not (self.out / SCORER).exists():
            if self.plan.readout is not None:
                said("readout")
            self._read_out(self.plan.readout, progress)
        said("calibration")
        folder = self.out / "model"
        config = write_model(self.out, folder, self.plan.scorer)
        calibrate(folder, config, self._photos, f"local-dir:{folder / 'adapter'}")
        return folder / "adapter"

    def _claim(self) -> None:
        """Refuse a folder of another plan; mark an empty one."""
        self.out.mkdir(parents=True, exist_ok=True)
        where = [str(path.resolve()) for path in (self.biq2021, self.folder) if path is not None]
        digest = hashlib.sha256(json.dumps([self.plan.settings(), where], sort_keys=True).encode()).hexdigest()
        mark = self.out / PLAN
        if mark.exists() and json.loads(mark.read_text())["sha256"] != digest:
            raise TrainingError(
                "holds what another plan or other photos made", subject=str(self.out), hint="choose another --out"
            )
        write_atomically(mark, (json.dumps({"sha256": digest, "plan": self.plan.settings()}, indent=2) + "\n").encode())

    def _part(self, number: int) -> Path:
        """Where a part of the denoiser's training leaves its weights."""
        return self.out / f"denoiser.{number + 1}.safetensors"

    def _make_encoder(self) -> None:
        encoder, folder = self.pretrained(2 * self.plan.encoder.directions), self.out / ENCODER
        encoder.save_pretrained(folder)
        spread = spread_of(self._photos, self.plan.encoder.photos, self.copies, self._eye, self.plan.seed)
        between, changed = find_directions(encoder, spread)
        encoder.save_pretrained(folder)
        (folder / FOUND).touch()
        some = self._photos.indices("train")[:SCALED_ON]
        scale_latent(encoder, torch.from_numpy(plain_latents(self._photos, some, self._eye)).float())
        encoder.save_pretrained(folder)
        found = {"variance_between_cells": round(between, 4), "variance_of_changes": round(changed, 4)}
        write_atomically(folder / FOUND, (json.dumps(found) + "\n").encode())

    def _make_latents(self, progress: Progress) -> None:
        plan = self.plan.latents
        sources = [Source(self._photos, plan.biq2021_groups, plan.biq2021_singles),
                   Source(self._pristine, plan.pristine_groups, 0)]  # fmt: skip
        make_latents(sources, self.copies, self._eye, self.out / LATENTS, self.plan.seed + 1,
                     lambda done, of: progress(done, of, {}))  # fmt: skip
        seen = plain_latents(self._photos, self._photos.indices("validation"), self._eye)
        with atomic_file(self.out / VALIDATION) as file:
            np.save(file, seen)

    def _train_heads(self, part: HeadsPart, progress: Progress) -> None:
        found = heads_say(self._latents, part, self.plan.seed + len(self.plan.denoiser) + 3, progress)
        with atomic_file(self.out / HEADS) as file:
            np.save(file, found.numpy())

    def _teachers_say(self, number: int) -> torch.Tensor:
        """The mean of what the heads, and the parts before part ``number``, say of every row, ``(N,)``."""
        found = [torch.from_numpy(np.load(self.out / HEADS))] if self.plan.heads is not None else []
        for part in range(number):
            kept = self._part(part).with_suffix(".said.npy")
            if not kept.exists():
                stage = ScoreStage(new_scorer(self.plan, self.out))
                stage.load_state_dict(load_file(self._part(part)))
                rows = np.array_split(np.arange(len(self._latents)), -(-len(self._latents) // AT_ONCE))
                with atomic_file(kept) as file:
                    np.save(file, raw_of(stage.eval().model, (self._latents.rows(one) for one in rows)).numpy())
            found.append(torch.from_numpy(np.load(kept)))
        return torch.stack(found).mean(0)

    def _train(self, number: int, progress: Progress) -> None:
        """Part ``number`` of the denoiser's training, from the averaged weights of the part before or from nothing."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(self.plan.seed + 2 + number)
        stage = ScoreStage(new_scorer(self.plan, self.out))
        part, photos, latents = self.plan.denoiser[number], self._photos, self._latents
        if part.taught:
            latents = latents.taught_by(self._teachers_say(number))
        if number and not part.anew:
            stage.load_state_dict(load_file(self._part(number - 1)))
        else:
            first = np.flatnonzero((latents.kind == 0).numpy())[-SCALED_ON:]
            standardise(stage.readout, captured(stage.model.eval(), iter([latents.rows(first)])), keep=False)
        stage.to(device)
        average, seen = Average(stage), np.load(self.out / VALIDATION)
        mos = photos.mos[photos.indices("validation")]
        rows = latents.draws(clean=part.clean, pairs=part.pairs, steps=part.steps, seed=self.plan.seed + 2 + number)

        def losses(batch: Batch) -> dict[str, torch.Tensor]:
            with torch.autocast(device, torch.bfloat16, enabled=part.precision == "bf16"):
                return stage.losses(batch, part.as_scored, part.order)

        fit(stage, stage.trained(), losses, average,
            (latents.batch(row, part.clean, part.pairs).to(device) for row in rows), part.model_dump(), self._part(number),
            lambda: {"validation_srcc": srcc_of(average.model.model, seen, mos)}, progress)  # fmt: skip
        keep(average.model.state_dict(), self._part(number))

    def _read_out(self, part: ReadoutPart | None, progress: Progress) -> None:
        stage = ScoreStage(new_scorer(self.plan, self.out))
        stage.load_state_dict(load_file(self._part(len(self.plan.denoiser) - 1)))
        stage.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        if part is not None:
            photos, seen = self._photos, np.load(self.out / VALIDATION)
            history = fit_readout(stage.model, self._latents, seen, photos.mos[photos.indices("validation")], part,
                                  self.plan.seed + 2 + len(self.plan.denoiser), progress)  # fmt: skip
            write_atomically(self.out / "readout.json", (json.dumps({"validation_srcc": history}) + "\n").encode())
        keep(stage.cpu().state_dict(), self.out / SCORER)

    @property
    def _eye(self) -> Eye:
        preprocessing = self.plan.scorer.preprocessing
        return Eye(self.out / ENCODER, preprocessing.size, preprocessing.chroma_blur)

    @cached_property
    def _latents(self) -> Latents:
        latents = open_latents(self.out / LATENTS)
        return latents.scored_by(opinions(latents))

    @cached_property
    def _photos(self) -> Photos:
        return open_biq2021(self.biq2021, self.out, self.plan.validation, self.plan.seed)

    @cached_property
    def _pristine(self) -> Photos:
        if self.folder is None:
            return best_scored(self._photos, self.out)
        return open_pristine(self.folder, self.out, self.plan.seed)


def _written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def new_scorer(plan: MiniPlan, out: Path) -> GenzIQA:
    """The scorer on the encoder that lies in ``out``, not yet trained."""
    kept = out / "tokenizer"
    if not kept.exists():
        half = out / "tokenizer.partial"
        shutil.copytree(embedded_tokenizer(), half, dirs_exist_ok=True)
        half.rename(kept)
    encoder = FeatureEncoder.from_pretrained(out / ENCODER, torch_dtype=torch.float32).eval()
    return build_scorer(CLIPTokenizer.from_pretrained(kept), encoder, plan.scorer)


@torch.no_grad()
def raw_of(model: GenzIQA, parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """What the model says of latents ``(n, C, h, w)``, part by part, as scoring reads them; ``(N,)``."""
    device, steps, found = model.alphas_cumprod.device, scoring_timesteps(model.config.timesteps), []
    for rows in parts:
        shape = rows.shape[1:]
        noise = fixed_noise(len(steps), (shape[0], shape[1], shape[2]), model.config.seed).to(device)
        found.append(model.score_trace(model.trace(rows.to(device), noise, steps), shape[1:]).raw.cpu())
    return torch.cat(found)


def srcc_of(
    model: GenzIQA,
    latents: np.ndarray[tuple[int, ...], np.dtype[np.float16]],
    mos: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> float:
    """Rank correlation with MOS of what the model says of latents ``(n, C, h, w)``."""
    parts = np.array_split(latents, -(-len(latents) // AT_ONCE))
    raw = raw_of(model, (torch.from_numpy(part).float() for part in parts))
    return round(float(spearmanr(raw.numpy(), mos.tolist()).statistic), 4)
