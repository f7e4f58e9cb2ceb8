"""The stages of the recipe, each from files to a file: teacher, latent, scorer, its readout, everything at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from transformers import CLIPTokenizer

from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import load_scorer
from genzqa.model.config import ScorerConfig
from genzqa.training.mini.bank import Bank, Source, build_bank
from genzqa.training.mini.components import build_vae
from genzqa.training.mini.fitting import Average, Progress, fit, keep, unseen
from genzqa.training.mini.fresh import Fresh, Plan, ahead
from genzqa.training.mini.latent import LatentStage
from genzqa.training.mini.photos import Batch, Copies, Photos, Views
from genzqa.training.mini.score import ScoreStage, WholeStage, build_scorer
from genzqa.training.mini.teacher import Features, TeacherHead
from genzqa.training.mini.whole import captured, fit_readout

FRESH = "fresh"  # in place of a bank's name: views made while training runs


def as_pixels(photos: Photos, index: npt.NDArray[np.int64], size: int) -> torch.Tensor:
    """Whole photos ``(n, 3, size, size)`` in [-1, 1], as scoring sees them."""
    return torch.stack([to_network(resize_square(photos.pixels[i], size)) for i in index])


@torch.no_grad()
def validation_srcc(score: Callable[[torch.Tensor], torch.Tensor], photos: Photos, size: int, limit: int) -> float:
    """Rank correlation with MOS on the first ``limit`` photos set aside."""
    chosen = photos.indices("validation")[:limit]
    scores = [score(as_pixels(photos, index, size)) for index in np.array_split(chosen, max(1, len(chosen) // 5))]
    return round(float(spearmanr(torch.cat(scores).numpy(), photos.mos[chosen]).statistic), 4)


def flipped_views(bank: Bank, part: dict[str, Any], seed: int) -> Iterator[Batch]:
    """Batches of pixels, every other view mirrored."""
    rng = np.random.default_rng(seed)
    clean, pairs = part["clean"], part["pairs"]
    drawn = {name: part[name] for name in ("mildest", "kinds") if name in part}
    for rows in bank.draws(clean=clean, pairs=pairs, seed=seed, steps=part["steps"], **drawn):
        views = bank.views(rows)
        mirrored = torch.from_numpy(rng.random(len(rows)) < 0.5)
        views[mirrored] = views[mirrored].flip(3)
        yield bank.batch(rows, clean, pairs, views.contiguous(memory_format=torch.channels_last))


def plain_batches(bank: Bank, inputs: torch.Tensor, part: dict[str, Any], seed: int) -> Iterator[Batch]:
    """Batches whose inputs, one for each row of the bank, are made already."""
    clean, pairs = part["clean"], part["pairs"]
    for rows in bank.draws(clean=clean, pairs=pairs, seed=seed, steps=part["steps"]):
        yield bank.batch(rows, clean, pairs, inputs[rows])


def seen_by(features: Features, pixels: torch.Tensor) -> torch.Tensor:
    """The pretrained features of network inputs ``(n, 3, s, s)`` in [-1, 1]."""
    return torch.from_numpy(features(pixels.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()))


def train_teacher(crops: Bank, whole: Bank, features: Features, photos: Photos, config: dict[str, Any],
                  out: Path, progress: Progress = unseen) -> None:  # fmt: skip
    """Writes ``teacher.safetensors``: the head, trained on views and on whole photos in turn; its validation SRCC, on whole photos,
    goes to the log."""
    plan, seed = config["teacher"], config["seed"] + 1
    torch.manual_seed(seed)
    head = TeacherHead(crops.features.shape[1])
    head.mean.copy_(crops.features.float().mean(0))
    head.deviation.copy_(crops.features.float().std(0).clamp_min(1e-4))
    chosen = photos.indices("validation")
    size = config["scorer"]["preprocessing"]["size"]
    parts = np.array_split(chosen, -(-len(chosen) // 8))
    seen = torch.cat([seen_by(features, as_pixels(photos, part, size)) for part in parts])
    average = Average(head, 0.99)

    def check() -> dict[str, float]:
        score = average.model.opinion(average.model.know(seen)).detach()
        return {"validation_srcc": round(float(spearmanr(score.numpy(), photos.mos[chosen]).statistic), 4)}

    streams = [plain_batches(bank, bank.features.float(), plan, seed) for bank in (crops, whole)]
    in_turn = (batch for both in zip(*streams, strict=True) for batch in both)
    made = out / "teacher.safetensors"
    fit(head, list(head.parameters()), lambda batch: head.losses(batch.inputs, batch), average, in_turn,
        plan | {"steps": 2 * plan["steps"]}, made, check, progress)  # fmt: skip
    keep(average.model.state_dict(), made)


def load_teacher(out: Path) -> TeacherHead:
    """The head that `train_teacher` wrote."""
    state = load_file(out / "teacher.safetensors")
    head = TeacherHead(len(state["mean"]))
    head.load_state_dict(state)
    return head.eval()


def train_stage1(bank: Bank, photos: Photos, config: dict[str, Any], out: Path, progress: Progress = unseen) -> None:
    """Writes ``stage1.safetensors``: the VAE and the moments of its latent."""
    plan, seed, preprocessing = config["stage1"], config["seed"] + 2, config["scorer"]["preprocessing"]
    torch.manual_seed(seed)
    stage = LatentStage(build_vae(), preprocessing["chroma_blur"])
    to_channels_last(stage)
    average, made = Average(stage), out / "stage1.safetensors"

    def check() -> dict[str, float]:
        return {"validation_srcc": validation_srcc(average.model, photos, preprocessing["size"], 300)}

    fit(stage, list(stage.parameters()), lambda batch: stage.losses(batch, noise=0.3, reconstruct=4), average,
        flipped_views(bank, plan, seed), plan, made, check, progress)  # fmt: skip
    keep(average.model.state_dict(), made)


def to_channels_last(module: torch.nn.Module) -> None:
    """A quarter faster on a CPU."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def part_of(stage: int, number: int, out: Path) -> Path:
    """Where a part of stage 2 or 4 leaves its weights."""
    return out / f"stage{stage}.{number + 1}.safetensors"


def train_stage2(number: int, bank: Bank, photos: Photos, config: dict[str, Any], tokenizer: CLIPTokenizer,
                 out: Path, progress: Progress = unseen) -> None:  # fmt: skip
    """Part ``number``, from 0, on the bank's latents, from the averaged weights of the part before; writes `part_of`."""
    torch.manual_seed(config["seed"] + 3 + number)
    stage = new_score_stage(config, tokenizer, out)
    if number:
        stage.load_state_dict(load_file(part_of(2, number - 1, out)))
    part, average, made = config["stage2"][number], Average(stage), part_of(2, number, out)
    kept, size = average.model, config["scorer"]["preprocessing"]["size"]

    def check() -> dict[str, float]:
        return {"validation_srcc": validation_srcc(lambda x: kept.model(x).raw, photos, size, 150)}

    rows = np.array_split(np.arange(len(bank.target)), -(-len(bank.target) // 16))
    with torch.no_grad():
        latents = torch.cat([stage.model.encode(bank.views(chosen)) for chosen in rows])
    fit(stage, stage.trained(), stage.losses, average,
        plain_batches(bank, latents, part, config["seed"] + 3 + number), part, made, check, progress)  # fmt: skip
    keep(kept.state_dict(), made)


def new_score_stage(config: dict[str, Any], tokenizer: CLIPTokenizer, out: Path) -> ScoreStage:
    """The scorer of stages 2 to 4 on stage 1's VAE, not yet trained."""
    scorer_config = ScorerConfig.model_validate({"base": "mini", "lora_rank": 0, **config["scorer"]})
    return ScoreStage(build_scorer(tokenizer, load_file(out / "stage1.safetensors"), scorer_config))


def train_stage3(bank: Bank, photos: Photos, config: dict[str, Any], tokenizer: CLIPTokenizer, out: Path) -> None:
    """Reads what the last part of stage 2 left, writes ``stage3.safetensors`` with the same keys."""
    stage = new_score_stage(config, tokenizer, out)
    stage.load_state_dict(load_file(part_of(2, len(config["stage2"]) - 1, out)))
    stage.eval()
    chosen, size = photos.indices("validation"), config["scorer"]["preprocessing"]["size"]
    unseen = captured(stage.model, lambda rows: as_pixels(photos, chosen[rows], size), len(chosen))
    history = fit_readout(stage.model, bank, captured(stage.model, bank.views, len(bank.target)), unseen,
                          photos.mos[chosen], config["stage3"], config["seed"] + 4)  # fmt: skip
    (out / "stage3.json").write_text(json.dumps({"validation_srcc": history}) + "\n")
    keep(stage.state_dict(), out / "stage3.safetensors")


def stage4_batches(part: dict[str, Any], seed: int, *, banks: dict[str, Bank], photos: Photos, pristine: Photos,
                   teacher: TeacherHead, features: Features, size: int) -> Iterable[Batch]:  # fmt: skip
    """The batches of a part of stage 4, from its bank or fresh."""
    if part["bank"] != FRESH:
        return flipped_views(banks[part["bank"]], part, seed)
    copies = Copies(tuple(part.get("kinds", ())), part["mildest"], part["reach"])
    plan = Plan(part["steps"], part["clean"], part["pairs"], part["pristine"], copies)
    return ahead(Fresh(photos, pristine, Views(size, size, 1.0), teacher, features, plan, seed))


def train_stage4(number: int, batches: Callable[[dict[str, Any], int], Iterable[Batch]], photos: Photos, config: dict[str, Any],
                 tokenizer: CLIPTokenizer, out: Path, progress: Progress = unseen) -> None:  # fmt: skip
    """Part ``number``, from 0: everything at once, from pixels; reads what stage 3 or the part before left, writes `part_of`."""
    seed = config["seed"] + 5 + number
    torch.manual_seed(seed)
    stage = new_score_stage(config, tokenizer, out)
    stage.load_state_dict(load_file(part_of(4, number - 1, out) if number else out / "stage3.safetensors"))
    whole = WholeStage(stage)
    to_channels_last(whole.stage.model.vae)
    part, average, made = config["stage4"][number], Average(whole), part_of(4, number, out)
    kept, size = average.model, config["scorer"]["preprocessing"]["size"]

    def check() -> dict[str, float]:
        return {"validation_srcc": validation_srcc(lambda x: kept.stage.model(x).raw, photos, size, 200)}

    losses = partial(whole.losses, as_scored=part["as_scored"], order=part["order"], reconstruct=2)
    fit(whole, whole.trained(), losses, average, batches(part, seed), part, made, check, progress)
    keep(kept.stage.state_dict(), made)


def start_from(model_name: str, out: Path) -> None:
    """Write a finished model as if stages 1 and 3 had just made it; the auxiliary heads start anew."""
    model = load_scorer(model_name).model
    torch.manual_seed(0)
    vae = {f"vae.{name}": value for name, value in model.vae.state_dict().items()}
    scale = torch.tensor([float(model.vae.config.scaling_factor) ** -2])
    keep({**vae, "latent_moments.var": scale}, out / "stage1.safetensors")
    keep(ScoreStage(model).state_dict(), out / "stage3.safetensors")


def make_bank(name: str, sources: dict[str, Photos], features: Features, config: dict[str, Any], out: Path) -> Bank:
    """The bank of this name in the configuration; ``<source>_groups`` and ``<source>_singles`` say what it is cut from."""
    plan, scoring = config[name], config["scorer"]["preprocessing"]["size"]
    views = Views(plan.get("size", scoring), scoring, plan.get("native", 1.0))
    cut = [Source(photos, photos.indices("train"), plan[f"{source}_groups"], plan[f"{source}_singles"])
           for source, photos in sources.items()]  # fmt: skip
    return build_bank(cut, views=views, seed=config["seed"], features=features, path=out / f"{name}.npy")
