"""What the parts of the method are worth, at a size that a laptop trains.

``python training/mini/ablate.py --biq2021 DIR --out RUN``

Every variant starts from the same random weights and sees the same photos in the same order, reduced, as latents of the shipped
model's image encoder, which is frozen. What is trained is every weight, since there is no pretrained denoiser at this size, on
squared error to the MOS alone, as in the paper. Validation photos are those of the recipe; the test split is not opened.

With ``--data clive=DIR`` (repeat) every variant is read on the photos of databases it was not trained on, too.

With ``--left-out ss01`` (or another subset of BIQ2021, which come from different places) no photo of that subset is trained on, and
photos of it, of the training split, take the place of the validation photos: how much is left where photos are of another kind?
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from genzqa.databases.registry import open_database
from genzqa.evaluation.statistics import compare, measure
from genzqa.files import write_atomically
from genzqa.media.image import decode_image
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import load_scorer
from genzqa.model.config import ScorerConfig
from genzqa.model.diffusion import fixed_noise, scoring_timesteps
from genzqa.model.feature_encoder import FeatureEncoder
from genzqa.model.genziqa import GenzIQA, join_steps
from genzqa.training.mini.components import embedded_tokenizer
from genzqa.training.mini.export import as_pixels
from genzqa.training.mini.fitting import Average, learning_rate
from genzqa.training.mini.photos import Photos, open_biq2021
from genzqa.training.mini.plan import read_mini_plan
from genzqa.training.mini.score import build_scorer
from plain_net import LatentConv

RECIPE = Path(__file__).parents[2] / "configs" / "mini.yaml"
TIMESTEPS = (1, 2, 4, 8)
SQUARED = 400.0  # squared points to about one
SUBSETS = ("ss01", "ss02", "ss03")
LEFT_OUT = 1000  # photos of a subset that is left out are looked at
SAID_EVERY = 50  # steps
LATEST = 100  # training draws its timesteps below this, as the recipe does


@dataclass(frozen=True)
class Variant:
    """What is changed.

    Attributes:
        prompts: Whether their context, and the text encoder, are trained.
        bias: Whether b(t) is added.
        pretraining: Whether photos are denoised by quality captions first: by the prompts, in proportion to the MOS.
        readout: As in a scorer's configuration.
        plain: A convolutional network on the latents instead.
    """

    prompts: bool = True
    bias: bool = True
    pretraining: bool = True
    readout: str = "published"
    plain: bool = False


VARIANTS = {
    "as published": Variant(),
    "no pre-training": Variant(pretraining=False),
    "no learned prompts": Variant(prompts=False),
    "no bias": Variant(bias=False),
    "learned readout": Variant(readout="learned"),
    "learned readout, no pre-training": Variant(readout="learned", pretraining=False),
    "plain convolutional network": Variant(plain=True, pretraining=False),
}


@dataclass(frozen=True)
class Data:
    """Latents ``(2, N, C, h, w)`` of photos and of the same mirrored, MOS 0..100 ``(N,)``; and what is looked at."""

    latents: Tensor
    mos: Tensor
    unseen: dict[str, Unseen]


@dataclass(frozen=True)
class Unseen:
    """Latents ``(N, C, h, w)`` of photos that no weight is trained on, their MOS, and at how many timesteps they are read."""

    latents: Tensor
    mos: npt.NDArray[np.float64]
    timesteps: tuple[int, ...]


@torch.inference_mode()
def encoded(biq2021: Path, out: Path, side: int, left_out: str = "", elsewhere: Sequence[str] = ()) -> Data:
    """The training photos, ``validation``, and under its own name each of the databases ``elsewhere`` (NAME=PATH)."""
    plan, model = read_mini_plan(RECIPE), load_scorer("mini").model
    photos = open_biq2021(biq2021, out, plan.validation, plan.seed)
    parts = {name: photos.indices(name) for name in ("train", "validation")}
    if left_out:
        parts = without(left_out, photos, plan.seed)
    kept = {}
    for name, chosen in parts.items():
        made = []
        for part in np.array_split(chosen, -(-len(chosen) // 16)):
            pixels = as_pixels(photos, part, side)
            made.append(torch.stack([model.encode(pixels), model.encode(pixels.flip(3))]))
        kept[name] = torch.cat(made, 1).clone()
    mos = {name: torch.from_numpy(photos.mos[chosen]) for name, chosen in parts.items()}
    unseen = {"validation": Unseen(kept["validation"][0], mos["validation"].double().numpy(), TIMESTEPS)}
    for samples in map(open_database, elsewhere):
        pixels = (to_network(resize_square(decode_image(one.path).pixels, side)) for one in samples.items)
        latents = torch.cat([model.encode(torch.stack(part)) for part in batched(pixels, 16)])
        unseen[samples.database.name] = Unseen(
            latents.clone(), np.array([one.mos for one in samples.items]), TIMESTEPS[:1]
        )
    return Data(kept["train"], mos["train"], unseen)


def batched(values: Iterator[Tensor], count: int) -> Iterator[list[Tensor]]:
    """`itertools.batched`, which Python 3.11 has not."""
    while part := list(islice(values, count)):
        yield part


def without(subset: str, photos: Photos, seed: int) -> dict[str, npt.NDArray[np.int64]]:
    """The photos trained on, none of this subset; and photos of it, drawn from all that are not in the test split."""
    of_it = np.char.startswith(np.char.lower(photos.name), subset)
    there = np.flatnonzero(of_it & (photos.split != "test"))
    train = np.flatnonzero(~of_it & (photos.split == "train"))
    return {"train": train, "validation": np.random.default_rng(seed).permutation(there)[:LEFT_OUT]}


def new_model(variant: Variant, seed: int) -> GenzIQA:
    torch.manual_seed(seed)
    embedded, tokenizer = load_scorer("mini"), CLIPTokenizer.from_pretrained(embedded_tokenizer())
    config = embedded.config.model_dump() | {"readout": variant.readout, "use_bias": variant.bias, "video": None}
    encoder = embedded.model.vae
    assert isinstance(encoder, FeatureEncoder)
    model = build_scorer(tokenizer, encoder, ScorerConfig.model_validate(config))
    model.requires_grad_(True)
    model.vae.requires_grad_(False)
    model.prompts.requires_grad_(variant.prompts)
    model.prompts.text_encoder.get_input_embeddings().requires_grad_(False)
    return model


def drawn(data: Data, epochs: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Latents, MOS, noise and timesteps; of one seed the same for every variant."""
    chances = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(data.mos), generator=chances)
        for rows in order[: len(order) // batch * batch].view(-1, batch):
            mirrored = torch.randint(0, 2, (batch,), generator=chances)
            latents = data.latents[mirrored, rows]
            noise = torch.randn(latents.shape, generator=chances)
            yield latents, data.mos[rows], noise, torch.randint(0, LATEST, (batch,), generator=chances)


def fit(model: nn.Module, batches: Iterator[tuple[Tensor, ...]], steps: int, rate: float,
        loss_of: Callable[..., Tensor], say: Callable[[str], object]) -> nn.Module:  # fmt: skip
    """Train; returns the averaged weights. ``say`` is told the mean loss since it was told last."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer, average = torch.optim.AdamW(trained, lr=rate, weight_decay=0.02, betas=(0.9, 0.99)), Average(model, 0.99)
    losses: list[float] = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, rate)
        model.train()
        loss = loss_of(*batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update(model)
        losses.append(loss.item())
        if (step + 1) % SAID_EVERY == 0:
            say(f"step {step + 1} of {steps}: {np.mean(losses[-SAID_EVERY:]):.4f}")
    return average.model


def trained_variant(name: str, data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of what is looked at, with each number of timesteps, and what it took."""
    torch.set_num_threads(1)
    variant, began = VARIANTS[name], time.time()

    def train(model: nn.Module, epochs: int, seed: int, loss_of: Callable[..., Tensor]) -> nn.Module:
        steps = epochs * (len(data.mos) // options.batch)
        return fit(model, drawn(data, epochs, options.batch, seed), steps, options.rate, loss_of,
                   lambda line: print(f"{name}: {line}", flush=True))  # fmt: skip

    if variant.plain:
        torch.manual_seed(options.seed)
        plain = LatentConv(data.latents.shape[2], float(data.mos.mean()), float(data.mos.std()))
        kept = train(
            plain, options.epochs, options.seed, lambda latents, mos, *_: F.mse_loss(plain(latents), mos) / SQUARED
        )
        with torch.inference_mode():
            scores = {name: {"none": torch.cat([kept(part) for part in seen.latents.split(50)])}
                      for name, seen in data.unseen.items()}  # fmt: skip
        size = sum(value.numel() for value in plain.parameters())
    else:
        model = new_model(variant, options.seed)

        def denoising(latents: Tensor, mos: Tensor, noise: Tensor, times: Tensor) -> Tensor:
            error = ((model.step(latents, noise, times, model.prompts()).eps - noise[:, None]) ** 2).mean(
                (2, 3, 4)
            )  # (B, 2)
            good = (mos / 100).clamp(0.02, 0.98)
            return (good * error[:, 0] + (1 - good) * error[:, 1]).mean()

        def scoring(latents: Tensor, mos: Tensor, noise: Tensor, times: Tensor) -> Tensor:
            embeds = model.prompts()
            trace = join_steps([model.step(latents, noise, times, embeds)], embeds)
            return F.mse_loss(model.score_trace(trace, latents.shape[2:]).raw, mos) / SQUARED

        if variant.pretraining:
            model.load_state_dict(train(model, options.pretraining, options.seed + 1, denoising).state_dict())
        kept = train(model, options.epochs, options.seed, scoring)
        assert isinstance(kept, GenzIQA)
        with torch.inference_mode():
            scores = {name: {str(count): torch.cat([as_scored(kept, part, count) for part in seen.latents.split(50)])
                             for count in seen.timesteps}
                      for name, seen in data.unseen.items()}  # fmt: skip
        size = sum(value.numel() for value in model.parameters() if value.requires_grad)
    found = {name: {count: value.double().tolist() for count, value in one.items()} for name, one in scores.items()}
    return {"scores": found, "parameters": size, "seconds": round(time.time() - began)}


def as_scored(model: GenzIQA, latents: Tensor, count: int) -> Tensor:
    shape = (latents.shape[1], latents.shape[2], latents.shape[3])
    noise = fixed_noise(count, shape, model.config.seed)
    return model.score_trace(model.trace(latents, noise, scoring_timesteps(count)), latents.shape[2:]).raw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--biq2021", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="where the photos are decoded once, and scores are kept"
    )
    parser.add_argument("--result", type=Path, help="default: results/ablations.json, or ablations-without-SUBSET.json")
    parser.add_argument(
        "--left-out", choices=SUBSETS, default="", help="a subset that is not trained on, but looked at"
    )
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=PATH", help="databases that are looked at, too")
    parser.add_argument("--side", type=int, default=256, help="of the reduced photos")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pretraining", type=int, default=1, help="epochs of denoising alone")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=2406)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    options = parser.parse_args()
    suffix = f"-without-{options.left_out}" if options.left_out else ""
    options.result = options.result or Path(__file__).parent / "results" / f"ablations{suffix}.json"
    data = encoded(options.biq2021, options.out, options.side, options.left_out, options.data)
    settings = {
        name: value for name, value in vars(options).items() if isinstance(value, int | float) or name == "left_out"
    }
    settings["photos"] = {name: len(seen.mos) for name, seen in data.unseen.items()}
    kept = options.out / f"ablation-scores{suffix}.json"
    done = finished(kept, settings)
    with ProcessPoolExecutor(os.cpu_count(), get_context("forkserver")) as pool:
        work = partial(trained_variant, data=data, options=options)
        missing = [name for name in options.variants if name not in done]
        for name, found in zip(missing, pool.map(work, missing), strict=True):
            done[name] = found
            content = json.dumps({"settings": settings, "variants": done})
            write_atomically(kept, content.encode())
            print(f"{name}: finished after {found['seconds']} s", flush=True)
    made = {name: done[name] for name in options.variants}
    results = {name: {**report(name, made, data), "parameters": found["parameters"], "seconds": found["seconds"]}
               for name, found in made.items()}  # fmt: skip
    options.result.write_text(json.dumps({"settings": settings, "variants": results}, indent=1) + "\n")


def finished(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Variants that an earlier run with these settings has trained; they are not trained again."""
    if not file.exists():
        return {}
    kept = json.loads(file.read_text())
    return dict(kept["variants"]) if kept.get("settings") == settings else {}


def report(name: str, made: dict[str, Any], data: Data) -> dict[str, dict[str, Any]]:
    """Of what is looked at: SRCC and PLCC with their 95 % intervals for each number of timesteps, and how far SRCC at the first is
    from that of the first variant."""
    told: dict[str, dict[str, Any]] = {}
    first = next(iter(made))
    for where, seen in data.unseen.items():
        scores = made[name]["scores"][where]
        told[where] = found = {}
        for count, values in scores.items():
            figures = measure(np.array(values), seen.mos)
            found[count] = {kind: [round(x, 4) for x in (figures[kind].value, figures[kind].low, figures[kind].high)]
                            for kind in ("srcc", "plcc")}  # fmt: skip
        if name != first:
            ours, theirs = (next(iter(one.values())) for one in (scores, made[first]["scores"][where]))
            gap = compare(np.array(ours), np.array(theirs), seen.mos)
            found["srcc_gain"] = [round(x, 4) for x in (gap.value, gap.low, gap.high)]
    return told


if __name__ == "__main__":
    main()
