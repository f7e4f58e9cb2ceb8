"""Train the embedded model from nothing: ``python training/mini/train.py --biq2021 DIR --clip-merges FILE --out DIR``.

Banks of views and of whole photos are cut and shown to a pretrained network; stage 0 trains its head to be the teacher,
stage 1 makes the latent, stage 2 the scorer, stage 3 fits its readout to whole photos, stage 4 trains everything at once,
on pristine photos too; ``export.py`` then fits the calibration and writes the embedded model. Banks, once made, are used
again. ``--start MODEL --stage 0 4`` goes on from a finished model (an adapter folder) instead of stage 3's.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import nn
from transformers import CLIPTokenizer

from bank import Bank, Source, build_bank
from components import build_vae, write_clip_tokenizer
from fresh import Fresh, Plan, ahead
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import load_scorer
from genzqa.model.config import ScorerConfig
from latent import LatentStage
from photos import Batch, Copies, Photos, Views, open_biq2021
from pristine import open_pristine
from score import ScoreStage, WholeStage, build_scorer
from teacher import Features, TeacherHead, pretrained_features
from whole import captured, fit_readout

FRESH = "fresh"  # in place of a bank's name: views made while training runs


class Average:
    """Exponential moving average of the trained weights: what is evaluated and kept."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
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
    return peak * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * (min(progress, 1) - WARM) / (1 - WARM))))


def as_pixels(photos: Photos, index: npt.NDArray[np.int64], size: int) -> torch.Tensor:
    """Whole photos ``(n, 3, size, size)`` in [-1, 1], as scoring sees them."""
    return torch.stack([to_network(resize_square(photos.pixels[i], size)) for i in index])


@torch.no_grad()
def validation_srcc(score: Callable[[torch.Tensor], torch.Tensor], photos: Photos, size: int, limit: int) -> float:
    chosen = photos.indices("validation")[:limit]
    scores = [score(as_pixels(photos, index, size)) for index in np.array_split(chosen, max(1, len(chosen) // 5))]
    return round(float(spearmanr(torch.cat(scores).numpy(), photos.mos[chosen]).statistic), 4)


def fit(model: nn.Module, parameters: list[nn.Parameter], losses: Callable[[Batch], dict[str, torch.Tensor]],
        average: Average, stream: Iterable[Batch], part: dict[str, Any], log: Path,
        check: Callable[[], dict[str, float]]) -> None:  # fmt: skip
    """One part of a stage: AdamW, warm-up and cosine, clipped gradients, averaged weights, a JSON line every 50 steps."""
    optimizer = torch.optim.AdamW(parameters, lr=part["rate"], weight_decay=0.02, betas=(0.9, 0.99))
    started, since, sums = time.time(), 0, Counter[str]()
    for step, batch in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, part["steps"], part["rate"])
        model.train()
        values = losses(batch)
        loss = torch.stack(list(values.values())).sum()
        if not torch.isfinite(loss):
            raise SystemExit(f"the loss became {loss.item()} at step {step}: {values}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(model)
        since += 1
        sums.update({name: float(value.detach()) for name, value in values.items()})
        last = step + 1 == part["steps"]
        checked = check() if (step + 1) % part["check_every"] == 0 or last else {}
        if (step + 1) % 50 == 0 or checked:
            row = {"step": step + 1, "seconds": round(time.time() - started, 1),
                   **{name: round(value / since, 4) for name, value in sums.items()}, **checked}  # fmt: skip
            sums.clear()
            since = 0
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")


def keep(state: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


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
    clean, pairs = part["clean"], part["pairs"]
    for rows in bank.draws(clean=clean, pairs=pairs, seed=seed, steps=part["steps"]):
        yield bank.batch(rows, clean, pairs, inputs[rows])


def seen_by(features: Features, pixels: torch.Tensor) -> torch.Tensor:
    """The pretrained features of network inputs ``(n, 3, s, s)`` in [-1, 1]."""
    return torch.from_numpy(features(pixels.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()))


def train_teacher(crops: Bank, whole: Bank, features: Features, photos: Photos, config: dict[str, Any],
                  out: Path) -> None:  # fmt: skip
    """The head, on views and on whole photos in turn; its validation SRCC, on whole photos, goes to the log."""
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
    fit(head, list(head.parameters()), lambda batch: head.losses(batch.inputs, batch), average, in_turn,
        plan | {"steps": 2 * plan["steps"]}, out / "teacher.jsonl", check)  # fmt: skip
    keep(average.model.state_dict(), out / "teacher.safetensors")


def load_teacher(out: Path) -> TeacherHead:
    state = load_file(out / "teacher.safetensors")
    head = TeacherHead(len(state["mean"]))
    head.load_state_dict(state)
    return head.eval()


def train_stage1(bank: Bank, photos: Photos, config: dict[str, Any], out: Path) -> None:
    plan, seed, preprocessing = config["stage1"], config["seed"] + 2, config["scorer"]["preprocessing"]
    torch.manual_seed(seed)
    stage = LatentStage(build_vae(), preprocessing["chroma_blur"]).to(
        memory_format=torch.channels_last
    )  # a quarter faster on a CPU
    average = Average(stage)

    def check() -> dict[str, float]:
        keep(average.model.state_dict(), out / "stage1.safetensors")
        return {"validation_srcc": validation_srcc(average.model, photos, preprocessing["size"], 300)}

    fit(stage, list(stage.parameters()), lambda batch: stage.losses(batch, noise=0.3, reconstruct=4), average,
        flipped_views(bank, plan, seed), plan, out / "stage1.jsonl", check)  # fmt: skip


def train_stage2(banks: dict[str, Bank], photos: Photos, config: dict[str, Any], tokenizer: CLIPTokenizer,
                 out: Path, first: int) -> None:  # fmt: skip
    """Parts in turn, on the latents of the small views, then of whole photos; ``first`` is the part to go on at."""
    torch.manual_seed(config["seed"] + 3)
    stage = new_score_stage(config, tokenizer, out)
    average = Average(stage)
    kept, size = average.model, config["scorer"]["preprocessing"]["size"]

    def check() -> dict[str, float]:
        keep(kept.state_dict(), out / "stage2.safetensors")
        return {"validation_srcc": validation_srcc(lambda x: kept.model(x).raw, photos, size, 150)}

    for number, part in list(enumerate(config["stage2"]))[first:]:
        if number:  # every part starts from the averaged weights of the one before
            stage.load_state_dict(load_file(out / "stage2.safetensors"))
            average = Average(stage)
            kept = average.model
        bank = banks[part["bank"]]
        rows = np.array_split(np.arange(len(bank.target)), -(-len(bank.target) // 16))
        with torch.no_grad():
            latents = torch.cat([stage.model.encode(bank.views(chosen)) for chosen in rows])
        fit(stage, stage.trained(), stage.losses, average,
            plain_batches(bank, latents, part, config["seed"] + 3 + number), part, out / "stage2.jsonl", check)  # fmt: skip


def new_score_stage(config: dict[str, Any], tokenizer: CLIPTokenizer, out: Path) -> ScoreStage:
    scorer_config = ScorerConfig.model_validate({"base": "mini", "lora_rank": 0, **config["scorer"]})
    return ScoreStage(build_scorer(tokenizer, load_file(out / "stage1.safetensors"), scorer_config))


def train_stage3(bank: Bank, photos: Photos, config: dict[str, Any], tokenizer: CLIPTokenizer, out: Path) -> None:
    """Reads ``stage2.safetensors``, writes ``stage3.safetensors`` with the same keys."""
    stage = new_score_stage(config, tokenizer, out)
    stage.load_state_dict(load_file(out / "stage2.safetensors"))
    stage.eval()
    chosen, size = photos.indices("validation"), config["scorer"]["preprocessing"]["size"]
    unseen = captured(stage.model, lambda rows: as_pixels(photos, chosen[rows], size), len(chosen))
    history = fit_readout(stage.model, bank, captured(stage.model, bank.views, len(bank.target)), unseen,
                          photos.mos[chosen], config["stage3"], config["seed"] + 4)  # fmt: skip
    keep(stage.state_dict(), out / "stage3.safetensors")
    (out / "stage3.json").write_text(json.dumps({"validation_srcc": history}) + "\n")


def stage4_batches(part: dict[str, Any], seed: int, *, banks: dict[str, Bank], photos: Photos, pristine: Photos,
                   teacher: TeacherHead, features: Features, size: int) -> Iterable[Batch]:  # fmt: skip
    """The batches of a part of stage 4, from its bank or fresh."""
    if part["bank"] != FRESH:
        return flipped_views(banks[part["bank"]], part, seed)
    copies = Copies(tuple(part.get("kinds", ())), part["mildest"], part["reach"])
    plan = Plan(part["steps"], part["clean"], part["pairs"], part["pristine"], copies)
    return ahead(Fresh(photos, pristine, Views(size, size, 1.0), teacher, features, plan, seed))


def train_stage4(batches: Callable[[dict[str, Any], int], Iterable[Batch]], photos: Photos, config: dict[str, Any],
                 tokenizer: CLIPTokenizer, out: Path, first: int) -> None:  # fmt: skip
    """Everything at once, from pixels; reads ``stage3.safetensors``, writes ``stage4.safetensors`` with the same keys."""
    torch.manual_seed(config["seed"] + 5)
    start = "stage4.safetensors" if first else "stage3.safetensors"
    stage = new_score_stage(config, tokenizer, out)
    stage.load_state_dict(load_file(out / start))
    whole = WholeStage(stage)
    whole.stage.model.vae.to(memory_format=torch.channels_last)
    size = config["scorer"]["preprocessing"]["size"]
    for number, part in list(enumerate(config["stage4"]))[first:]:
        average = Average(whole)

        def check(kept: nn.Module = average.model) -> dict[str, float]:
            keep(kept.stage.state_dict(), out / "stage4.safetensors")
            return {"validation_srcc": validation_srcc(lambda x: kept.stage.model(x).raw, photos, size, 200)}

        seed = config["seed"] + 5 + number
        losses = partial(whole.losses, as_scored=part["as_scored"], order=part["order"], reconstruct=2)
        fit(whole, whole.trained(), losses, average, batches(part, seed), part, out / "stage4.jsonl", check)
        whole.load_state_dict(average.model.state_dict())


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--biq2021", type=Path, required=True, help="folder with Images/ and the two tables")
    parser.add_argument("--clip-merges", type=Path, required=True, help="bpe_simple_vocab_16e6.txt.gz of CLIP")
    parser.add_argument("--out", type=Path, required=True, help="bank of views, checkpoints, logs, decoded photos")
    parser.add_argument("--pristine", type=Path, required=True, help="folder of large PNG photos (CLIC 2025)")
    parser.add_argument(
        "--stage", type=int, choices=range(5), nargs="*", default=list(range(5)), help="0 is the teacher"
    )
    parser.add_argument("--part", type=int, default=0, help="go on at this part of stage 2 or 4, from its checkpoint")
    parser.add_argument("--start", help="a finished model to give to stage 4, for example mini")
    arguments = parser.parse_args()
    config = tomllib.loads((Path(__file__).parent / "mini.toml").read_text())
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    photos = open_biq2021(arguments.biq2021, out, config["validation"], config["seed"])
    tokenizer = write_clip_tokenizer(arguments.clip_merges, out / "tokenizer")
    biq = {"biq2021": photos}
    banks = {name: make_bank(name, biq, pretrained_features, config, out) for name in ("crops", "whole")}
    if 0 in arguments.stage:
        train_teacher(banks["crops"], banks["whole"], pretrained_features, photos, config, out)
    teacher = load_teacher(out)
    banks = {name: bank.taught_by(teacher) for name, bank in banks.items()}
    if arguments.start:
        start_from(arguments.start, out)
    if 1 in arguments.stage:
        train_stage1(banks["crops"], photos, config, out)
    if 2 in arguments.stage:
        train_stage2(banks, photos, config, tokenizer, out, arguments.part)
    if 3 in arguments.stage:
        train_stage3(banks["whole"], photos, config, tokenizer, out)
    if 4 in arguments.stage:
        size = config["scorer"]["preprocessing"]["size"]
        pristine = open_pristine(arguments.pristine, out, teacher=teacher, features=pretrained_features, scoring_size=size,
                                 seed=config["seed"])  # fmt: skip
        sources = {**biq, "pristine": pristine}
        names = {part["bank"] for part in config["stage4"][arguments.part :]} - {FRESH}
        banks = {name: make_bank(name, sources, pretrained_features, config, out).taught_by(teacher) for name in names}
        batches = partial(stage4_batches, banks=banks, photos=photos, pristine=pristine, teacher=teacher,
                          features=pretrained_features, size=size)  # fmt: skip
        train_stage4(batches, photos, config, tokenizer, out, arguments.part)


if __name__ == "__main__":
    main()
