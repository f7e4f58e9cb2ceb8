"""Train the embedded model from nothing: ``python training/mini/train.py --biq2021 DIR --clip-merges FILE --out DIR``.

Stage 1 makes the latent, stage 2 the scorer, stage 3 fits its readout to whole photos; ``export.py`` then fits the
calibration and writes the embedded model.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import nn
from transformers import CLIPTokenizer

from components import build_vae, write_clip_tokenizer
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.config import ScorerConfig
from latent import LatentStage
from photos import Batch, Photos, Views, batches, open_biq2021
from score import ScoreStage, build_scorer
from whole import captured, fit_readout


class Average:
    """Exponential moving average of the trained weights: what is evaluated and kept."""

    def __init__(self, model: nn.Module, decay: float = 0.998) -> None:
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for kept, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """5 % linear warm-up, then cosine to a twentieth."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * (step - warm) / (steps - warm))))


def as_pixels(photos: Photos, index: npt.NDArray[np.int64], size: int) -> torch.Tensor:
    """Whole photos ``(n, 3, size, size)`` in [-1, 1], as scoring sees them."""
    return torch.stack([to_network(resize_square(photos.pixels[i], size)) for i in index])


@torch.no_grad()
def validation_srcc(score: Callable[[torch.Tensor], torch.Tensor], photos: Photos, size: int, limit: int) -> float:
    chosen = photos.indices("validation")[:limit]
    scores = [score(as_pixels(photos, index, size)) for index in np.array_split(chosen, max(1, len(chosen) // 5))]
    return round(float(spearmanr(torch.cat(scores).numpy(), photos.mos[chosen]).statistic), 4)


def fit(model: nn.Module, parameters: list[nn.Parameter], losses: Callable[[Batch], dict[str, torch.Tensor]],
        average: Average, stream: Iterator[Batch], part: dict[str, Any], log: Path,
        check: Callable[[], dict[str, float]]) -> None:  # fmt: skip
    """One part of a stage: AdamW, warm-up and cosine, clipped gradients, averaged weights, a JSON line every 50 steps."""
    optimizer = torch.optim.AdamW(parameters, lr=part["rate"], weight_decay=0.02, betas=(0.9, 0.99))
    started, since, sums = time.time(), 0, Counter[str]()
    for step, batch in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, part.get("decay_over", part["steps"]), part["rate"])
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
            row = {"step": step + 1, "size": part["size"], "seconds": round(time.time() - started, 1),
                   **{name: round(value / since, 4) for name, value in sums.items()}, **checked}  # fmt: skip
            sums.clear()
            since = 0
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")


def keep(state: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def stream_of(photos: Photos, part: dict[str, Any], seed: int) -> Iterator[Batch]:
    views = Views(part["size"], part["scoring_size"], part["native"])
    return batches(photos, photos.indices("train"), clean=part["clean"], pairs=part["pairs"], views=views, seed=seed,
                   steps=part["steps"])  # fmt: skip


def train_stage1(photos: Photos, config: dict[str, Any], out: Path, first: int) -> None:
    plan, seed, size = config["stage1"], config["seed"], config["scorer"]["preprocessing"]["size"]
    torch.manual_seed(seed)
    stage = LatentStage(build_vae())
    average = Average(stage)
    kept = average.model

    def check() -> dict[str, float]:
        keep(kept.state_dict(), out / "stage1.safetensors")
        return {"validation_srcc": validation_srcc(kept, photos, size, 300)}

    for number, part in list(enumerate(plan))[first:]:
        if number:  # every part starts from the averaged weights of the one before
            stage.load_state_dict(load_file(out / "stage1.safetensors"))
            kept.load_state_dict(stage.state_dict())
        fit(stage, list(stage.parameters()), lambda batch: stage.losses(batch, noise=0.3, reconstruct=8), average,
            stream_of(photos, part, seed + number), part, out / "stage1.jsonl", check)  # fmt: skip


def train_stage2(photos: Photos, config: dict[str, Any], tokenizer: CLIPTokenizer, out: Path, first: int) -> None:
    torch.manual_seed(config["seed"] + 1)
    scorer_config = ScorerConfig.model_validate({"base": "mini", "lora_rank": 0, **config["scorer"]})
    stage1 = load_file(out / "stage1.safetensors")
    stage = ScoreStage(build_scorer(tokenizer, stage1, scorer_config), stage1)
    average = Average(stage)
    kept = average.model

    def check() -> dict[str, float]:
        keep(kept.state_dict(), out / "stage2.safetensors")
        return {
            "validation_srcc": validation_srcc(
                lambda x: kept.model(x).raw, photos, scorer_config.preprocessing.size, 150
            )
        }

    for number, part in list(enumerate(config["stage2"]))[first:]:
        if number:
            stage.load_state_dict(load_file(out / "stage2.safetensors"))
            kept.load_state_dict(stage.state_dict())
        taught = not part["encoder"]
        fit(stage, stage.trained(part["encoder"]), lambda batch, taught=taught: stage.losses(batch, taught), average,
            stream_of(photos, part, config["seed"] + 100 + number), part, out / "stage2.jsonl", check)  # fmt: skip


def train_stage3(photos: Photos, config: dict[str, Any], tokenizer: CLIPTokenizer, out: Path) -> None:
    """Reads ``stage2.safetensors``, writes ``stage3.safetensors`` with the same keys."""
    scorer_config = ScorerConfig.model_validate({"base": "mini", "lora_rank": 0, **config["scorer"]})
    stage1 = load_file(out / "stage1.safetensors")
    stage = ScoreStage(build_scorer(tokenizer, stage1, scorer_config), stage1)
    stage.load_state_dict(load_file(out / "stage2.safetensors"))
    stage.eval()
    plan, seed = config["stage3"], config["seed"] + 200
    train = np.random.default_rng(seed).permutation(photos.indices("train"))
    plain, laddered = train[: plan["plain"]], train[plan["plain"] :][: plan["laddered"]]
    model = stage.model
    history = fit_readout(
        model,
        captured(model, photos, plain, False, seed),
        captured(model, photos, laddered, True, seed),
        captured(model, photos, photos.indices("validation"), False, seed),
        plan,
        seed,
    )
    keep(stage.state_dict(), out / "stage3.safetensors")
    (out / "stage3.json").write_text(json.dumps({"validation_srcc": history}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--biq2021", type=Path, required=True, help="folder with Images/ and the two tables")
    parser.add_argument("--clip-merges", type=Path, required=True, help="bpe_simple_vocab_16e6.txt.gz of CLIP")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, logs and the decoded photos")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), nargs="*", default=[1, 2, 3])
    parser.add_argument(
        "--part", type=int, default=0, help="go on at this part of the (first) stage, from its checkpoint"
    )
    arguments = parser.parse_args()
    config = tomllib.loads((Path(__file__).parent / "mini.toml").read_text())
    arguments.out.mkdir(parents=True, exist_ok=True)
    photos = open_biq2021(arguments.biq2021, arguments.out, config["validation"], config["seed"])
    tokenizer = write_clip_tokenizer(arguments.clip_merges, arguments.out / "tokenizer")
    first, part = min(arguments.stage), arguments.part
    if 1 in arguments.stage:
        train_stage1(photos, config, arguments.out, part if first == 1 else 0)
    if 2 in arguments.stage:
        train_stage2(photos, config, tokenizer, arguments.out, part if first == 2 else 0)
    if 3 in arguments.stage:
        train_stage3(photos, config, tokenizer, arguments.out)


if __name__ == "__main__":
    main()
