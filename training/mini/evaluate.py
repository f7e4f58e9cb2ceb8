"""The figures of the model card, from the installed model: a split of BIQ2021, the ladders over the Kodak photos, or, on the
validation photos, both readouts with one timestep and more.

``python training/mini/evaluate.py --biq2021 DIR --cache DIR --split test --out results/biq2021-test.json``
``python training/mini/evaluate.py --kodak DIR --out results/ladders.json``
``python training/mini/evaluate.py --biq2021 DIR --cache DIR --readouts --out results/readouts.json --timesteps 1 2 4 8``
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import genzqa
from genzqa.evaluation.statistics import compare, measure
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import load_scorer
from genzqa.training.mini.degradations import DEGRADATIONS
from genzqa.training.mini.photos import open_biq2021

LADDER = (0.0, 0.25, 0.5, 0.75, 1.0)


def report(score: npt.NDArray[np.float64], mos: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Every measure with its 95 % interval."""
    found: dict[str, Any] = {"photos": len(score)}
    for name, figure in measure(score, mos).items():
        found |= {name: round(figure.value, 4), f"{name}_95": [round(figure.low, 4), round(figure.high, 4)]}
    return found


def evaluate_biq2021(root: Path, cache: Path, split: str) -> dict[str, Any]:
    photos = open_biq2021(root, cache, 500, 2406)
    chosen = photos.indices(split)
    scorer = genzqa.load()
    results = [
        one for one in scorer.score_many(photos.pixels[i] for i in chosen) if isinstance(one, genzqa.ImageResult)
    ]
    score, mos = np.array([one.score for one in results]), photos.mos[chosen].astype(np.float64)
    bounds = np.array([one.interval for one in results])
    subset = np.array([name[:4] for name in photos.name[chosen]])
    return {
        "split": split,
        "all": report(score, mos),
        "subsets": {str(name): report(score[subset == name], mos[subset == name]) for name in np.unique(subset)},
        "interval_coverage": round(float(np.mean((bounds[:, 0] <= mos) & (mos <= bounds[:, 1]))), 4),
        "interval_mean_width": round(float(np.mean(bounds[:, 1] - bounds[:, 0])), 2),
        "seconds_per_photo": round(float(np.median([one.seconds for one in results])), 3),
    }


def evaluate_readouts(root: Path, cache: Path, timesteps: list[int]) -> dict[str, Any]:
    """The same network on the validation photos with each number of timesteps, read in both ways: the learned readout, and the
    published mean. Of each but the first, how much the learned readout's rank correlation differs from that of the first."""
    photos = open_biq2021(root, cache, 500, 2406)
    chosen = photos.indices("validation")
    model = load_scorer("mini").model
    size = model.config.preprocessing.size
    mos = photos.mos[chosen].astype(np.float64)
    raw: dict[int, dict[str, list[torch.Tensor]]] = {steps: {"learned": [], "published": []} for steps in timesteps}
    with torch.inference_mode():
        for part in np.array_split(chosen, len(chosen) // 4):
            pixels = torch.stack([to_network(resize_square(photos.pixels[i], size)) for i in part])
            for steps, kept in raw.items():
                scored = model(pixels, timesteps=steps)
                kept["learned"].append(scored.raw)
                kept["published"].append(scored.block_quality.mean(1))
    scores = {steps: {name: torch.cat(parts).double().numpy() for name, parts in kept.items()}
              for steps, kept in raw.items()}  # fmt: skip
    found: dict[str, Any] = {"split": "validation", "timesteps": {}}
    for steps, both in scores.items():
        found["timesteps"][str(steps)] = {name: report(one, mos) for name, one in both.items()}
        if steps != timesteps[0]:
            gain = compare(both["learned"], scores[timesteps[0]]["learned"], mos)
            found["timesteps"][str(steps)]["srcc_gain"] = [round(x, 4) for x in (gain.value, gain.low, gain.high)]
    return found


def evaluate_ladders(folder: Path, model: str) -> dict[str, Any]:
    """Mean score over the photos at every step of every ladder; step 0 is the photo itself."""
    paths = sorted(folder.glob("*.png"))
    with ProcessPoolExecutor(os.cpu_count(), get_context("forkserver")) as pool:
        table = dict(zip(DEGRADATIONS, pool.map(partial(one_ladder, paths, model), DEGRADATIONS), strict=True))
    return {"model": model, "photos": len(paths), "strengths": LADDER, "ladders": table}


def one_ladder(paths: list[Path], model: str, kind: str) -> dict[str, Any]:
    torch.set_num_threads(1)  # the ladders are shared out among processes
    scorer, photos = genzqa.load(model), [genzqa_pixels(path) for path in paths]
    means = [float(np.mean([scorer.score(photo).score for photo in photos]))]
    for strength in LADDER:
        rng = np.random.default_rng(7)
        means.append(float(np.mean([scorer.score(DEGRADATIONS[kind](photo, strength, rng)).score for photo in photos])))
    return {"mean_score": [round(value, 2) for value in means], "falls": bool(np.all(np.diff(means) < 0))}


def genzqa_pixels(path: Path) -> npt.NDArray[np.uint8]:
    from genzqa.media.image import decode_image

    return np.asarray(decode_image(path).pixels, np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--biq2021", type=Path)
    parser.add_argument("--cache", type=Path, help="where the recipe decoded the photos")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--readouts", action="store_true", help="both readouts on the validation photos")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[1, 2, 4, 8], help="of the readouts")
    parser.add_argument("--kodak", type=Path, help="ladders of degradations over these PNG photos")
    parser.add_argument("--model", default="mini", help="of the ladders")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.readouts:
        found = evaluate_readouts(arguments.biq2021, arguments.cache, arguments.timesteps)
    elif arguments.biq2021:
        found = evaluate_biq2021(arguments.biq2021, arguments.cache, arguments.split)
    else:
        found = evaluate_ladders(arguments.kodak, arguments.model)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
