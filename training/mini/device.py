"""Stage 5, on a GPU: everything at once, every photo many times, its views cut, degraded and shown to the teacher while it trains.

    python training/mini/device.py --biq2021 DIR --pristine PNG --unscored PHOTOS --out RUN --minutes 6

Reads ``stage4.safetensors`` (or ``--start MODEL``), writes ``stage5.safetensors`` with the same keys, and a line of JSON for every
check. The schedule goes by the clock: what a GPU does in a minute is not known beforehand.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from codecs_ahead import Codec, CodecCopies, codec_copies
from device_views import CODECS, DRAWS, Maker, Pool, Teacher, read_sources
from genzqa.model.config import ScorerConfig
from genzqa.training.mini.components import build_vae, embedded_tokenizer
from genzqa.training.mini.degradations import DRAW_WEIGHT
from genzqa.training.mini.fitting import Average, keep, learning_rate_at
from genzqa.training.mini.photos import Batch, Photos, open_biq2021
from genzqa.training.mini.plan import read_mini_plan
from genzqa.training.mini.score import ScoreStage, WholeStage, build_scorer
from genzqa.training.mini.stages import as_pixels, new_score_stage, start_from
from genzqa.training.mini.teacher import FEATURES, TeacherHead
from plain_net import ConvStage

RECIPE = Path(__file__).parents[2] / "configs" / "mini.yaml"
PLAN = Path(__file__).parent / "device.toml"
GENERATIVE = ("denoise", "reconstruction", "kl")  # the losses of a diffusion model
SCORED_ALONE = {"clean_parts": [1, 0, 0], "pair_parts": [1, 0, 0]}
Check = Callable[[nn.Module], float]


def train_teacher(maker: Maker, plan: dict[str, Any], seed: int) -> None:
    """The head, on the features of a hundred batches' views, copies among them; they are drawn once and used many times.

    Only photos with MOS are among them: of others the head has no opinion yet.
    """
    head, device = maker.teacher.head, maker.pool.pixels.device
    scored = Maker(maker.pool, maker.teacher, None, maker.plan | SCORED_ALONE, maker.size, maker.rng)
    made: list[Batch] = []
    for _ in range(plan["batches"]):
        batch, _ = scored.batch()
        views = (batch.inputs + 1) * 127.5
        made.append(replace(batch, inputs=torch.cat([maker.teacher.features(part) for part in views.split(64)])))
    seen = torch.cat([batch.inputs[: batch.clean] for batch in made])
    head.mean.copy_(seen.mean(0))
    head.deviation.copy_(seen.std(0).clamp_min(1e-4))
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(head.parameters(), lr=plan["rate"], weight_decay=0.02)
    head.train()
    steps = plan["epochs"] * len(made)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at((step + 1) / steps, plan["rate"])
        batch = made[step % len(made)]
        loss = torch.stack(list(head.losses(batch.inputs, batch).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    head.eval()
    assert torch.isfinite(next(head.parameters())).all(), device


def losses(
    whole: WholeStage | ConvStage, probe: nn.Module, batch: Batch, wanted: Tensor, plan: dict[str, Any]
) -> dict[str, Tensor]:
    """Those of stage 4, and of what the teacher's backbone sees, which the readout's inputs are to tell."""
    seen: dict[str, Tensor] = {}
    hook = whole.hidden.register_forward_pre_hook(lambda _, inputs: seen.update(features=inputs[0]))
    found = whole.losses(batch, as_scored=plan["as_scored"], order=plan["order"], reconstruct=plan["reconstruct"])
    hook.remove()
    guessed = probe(seen["features"].flatten(1)[: batch.clean])
    return found | {"backbone": plan["backbone"] * F.mse_loss(guessed, wanted)}


class Validation:
    """The rank correlation with MOS on the photos set aside.

    Args:
        photos: Whose ``validation`` photos are taken.
        size: Of the network's input.
        device: Where they wait.
    """

    def __init__(self, photos: Photos, size: int, device: torch.device) -> None:
        chosen = photos.indices("validation")
        self.pixels, self.mos = as_pixels(photos, chosen, size).to(device), photos.mos[chosen]

    @torch.no_grad()
    def srcc(self, score: Callable[[Tensor], Tensor]) -> float:
        """Of scores ``(N,)`` for pixels ``(N, 3, size, size)`` in [-1, 1]."""
        scores = torch.cat([score(part) for part in self.pixels.split(50)])
        return round(float(spearmanr(scores.cpu().numpy(), self.mos).statistic), 4)


def fresh_stage(config: dict[str, Any], tokenizer: CLIPTokenizer) -> ScoreStage:
    """Of random weights, for ablations."""
    scorer_config = ScorerConfig.model_validate({"base": "mini", "lora_rank": 0, **config["scorer"]})
    vae = {f"vae.{name}": value for name, value in build_vae().state_dict().items()}
    return ScoreStage(build_scorer(tokenizer, vae | {"latent_moments.var": torch.ones(1)}, scorer_config))


Variant = Callable[[dict[str, Any], CLIPTokenizer, dict[str, Any]], tuple["WholeStage | ConvStage", dict[str, Any]]]


def _variant(change: Callable[[ScoreStage], None] = lambda stage: None, **settings: Any) -> Variant:
    def make(
        config: dict[str, Any], tokenizer: CLIPTokenizer, plan: dict[str, Any]
    ) -> tuple[WholeStage, dict[str, Any]]:
        stage = fresh_stage(config, tokenizer)
        change(stage)
        return WholeStage(stage), plan | settings

    return make


def _no_learned_prompts(stage: ScoreStage) -> None:
    """The words alone, through a text encoder that stays as it is."""
    stage.frozen.append(stage.model.prompts)


def _no_bias(stage: ScoreStage) -> None:
    """The readout sees a zero in its place, which is the first thing it reads."""
    stage.readout.hidden.register_forward_pre_hook(lambda _, inputs: (F.pad(inputs[0][..., 1:], (1, 0)),))


VARIANTS: dict[str, Variant] = {
    "as published": _variant(),
    "no learned prompts": _variant(_no_learned_prompts),
    "no bias term": _variant(_no_bias),
    "no denoising pre-training": _variant(pretraining=0.0),
    "plain convolutional": lambda config, tokenizer, plan: (
        ConvStage(config["scorer"]["preprocessing"]["chroma_blur"]),
        plan | {"pretraining": 0.0},
    ),
}


class Training:
    """One model's training, by the clock."""

    def __init__(self, whole: WholeStage | ConvStage, maker: Maker, plan: dict[str, Any], out: Path, name: str) -> None:
        device = maker.pool.pixels.device
        self.whole, self.maker, self.plan, self.out, self.name = whole.to(device), maker, plan, out, name
        self.average = Average(whole)
        self.probe = nn.Linear(whole.read, maker.teacher.head.mean.numel()).to(device)
        self.log = out / f"{name}.jsonl"

    def run(self, seconds: float, check: Check) -> float:
        """Train for so long; the last check's figure."""
        plan, parameters = self.plan, [*self.whole.trained(), *self.probe.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=plan["rate"], weight_decay=plan["weight_decay"], betas=(0.9, 0.99),
                                      fused=self.maker.pool.pixels.is_cuda)  # fmt: skip
        started, checked, steps, sums, since = time.time(), time.time(), 0, Counter[str](), 0
        while (progress := (time.time() - started) / seconds) < 1:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(max(progress, 1e-4), plan["rate"])
            batch, wanted = self.maker.batch()
            self.whole.train()
            with torch.autocast("cuda", torch.bfloat16, enabled=plan["bf16"] and wanted.is_cuda):
                values = losses(self.whole, self.probe, batch, wanted, plan)
            if progress < plan["pretraining"]:  # nothing but what a diffusion model learns
                values = {key: value for key, value in values.items() if key in GENERATIVE}
            loss = torch.stack(list(values.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            self.average.update(self.whole)
            steps, since = steps + 1, since + 1
            if since % 20 == 0:
                sums.update({key: float(value.detach()) for key, value in values.items()})
                if not np.isfinite(sum(sums.values())):
                    raise SystemExit(f"the loss is no number at step {steps}: {dict(sums)}")
            if time.time() - checked > plan["check_seconds"]:
                self._note(check, steps, time.time() - started, sums, since)
                checked, since = time.time(), 0
                sums.clear()
        return self._note(check, steps, time.time() - started, sums, since)

    def _note(self, check: Check, steps: int, seconds: float, sums: Counter[str], since: int) -> float:
        kept = self.average.model
        keep(kept.to_keep(), self.out / f"{self.name}.safetensors")
        found = check(kept)
        row = {"step": steps, "seconds": round(seconds, 1),
               **{key: round(value / max(1, since // 20), 4) for key, value in sums.items()}, "validation_srcc": found}  # fmt: skip
        with self.log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return found


def codec_stream(pixels: Any, source: Any, plan: dict[str, Any], seed: int, processes: int) -> Iterator[Codec]:
    """Copies by codecs, whose processes have started when this returns: before anything is on a device, which they never touch."""
    shares = Pool(torch.empty(0), torch.empty(0), source).shares(tuple(plan["pair_parts"]))
    kinds = tuple(kind for kind in CODECS for _ in range(round(10 * DRAW_WEIGHT[kind])))
    draws = [replace(draw, kinds=kinds) for draw in DRAWS]
    stream = codec_copies(CodecCopies(pixels, shares, plan["codec_pairs"], draws, seed), processes)
    return chain([next(stream)], stream)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--biq2021", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pristine", type=Path, help="folder of PNG photos that no lossy codec has touched")
    parser.add_argument("--unscored", type=Path, help="folder of JPEG photos, for the teacher's opinion of them")
    parser.add_argument("--start", help="a finished model instead of stage 4's, for example mini")
    parser.add_argument("--minutes", type=float, default=6, help="of the training of the model itself")
    parser.add_argument(
        "--ablations", type=float, default=0, help="minutes for each variant, from random weights; 0 for none"
    )
    parser.add_argument("--processes", type=int, default=14, help="that run codecs")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="of the stages before this one")
    parser.add_argument("--plan", type=Path, default=PLAN, help="of this one")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    config = read_mini_plan(options.recipe).settings() | {"stage5": tomllib.loads(options.plan.read_text())}
    plan, seed, out = config["stage5"], config["seed"] + 20, options.out
    size = config["scorer"]["preprocessing"]["size"]
    out.mkdir(parents=True, exist_ok=True)
    photos = open_biq2021(options.biq2021, out, config["validation"], config["seed"])
    device = torch.device(options.device)
    pixels, mos, source = read_sources(photos, options.pristine, options.unscored, config["seed"])
    codecs = codec_stream(pixels, source, plan, seed, options.processes)
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    pool = Pool(torch.from_numpy(pixels).to(device), torch.from_numpy(mos).to(device), source)
    teacher = Teacher(TeacherHead(FEATURES)).to(device)
    maker = Maker(pool, teacher, codecs, plan, size, np.random.default_rng(seed))
    validation = Validation(photos, size, device)

    began = time.time()
    train_teacher(maker, plan["teacher"], seed)
    keep(teacher.head.state_dict(), out / "teacher5.safetensors")
    srcc = validation.srcc(lambda part: teacher.opinion((part + 1) * 127.5))
    print(f"{len(pixels)} photos; teacher: validation SRCC {srcc}, {time.time() - began:.0f} s", flush=True)

    def check(model: nn.Module) -> float:
        return validation.srcc(model.raw)

    if options.start:
        start_from(options.start, out)
        tokenizer = CLIPTokenizer.from_pretrained(embedded_tokenizer())
    else:
        tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    if options.minutes:
        stage = new_score_stage(config, tokenizer, out)
        stage.load_state_dict(load_file(out / ("stage3.safetensors" if options.start else "stage4.safetensors")))
        Training(WholeStage(stage), maker, plan, out, "stage5").run(60 * options.minutes, check)
    if options.ablations:
        ablate(config, tokenizer, maker, out, 60 * options.ablations, check)


def ablate(
    config: dict[str, Any], tokenizer: CLIPTokenizer, maker: Maker, out: Path, seconds: float, check: Check
) -> None:
    """Every variant from random weights, for as long, on the same photos; their figures to ``ablations.json``."""
    plan = config["stage5"] | config["stage5"]["ablations"]
    results = {}
    for name, variant in VARIANTS.items():
        torch.manual_seed(config["seed"])
        whole, changed = variant(config, tokenizer, plan)
        results[name] = Training(whole, maker, changed, out, f"ablation-{name}").run(seconds, check)
        (out / "ablations.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
