"""Ladders of temporal faults and of real encoders over whole clips, scored by the installed model as a user's videos are.

``python training/video/ladders.py --clips DIR --kodak DIR --out results/ladders.json``

Beside the score stands what the frames alone would give, so that the worth of the motion path can be read off.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoders import CODECS, NEARLY_LOSSLESS, encoded
from faults import FAULTS, Frames
from graded import clip_frames, panned
from PIL import Image

import genzqa
from genzqa.model.adapter import load_scorer
from genzqa.scoring.calibration import calibrate

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def ladders(frames: Frames) -> Iterator[tuple[str, list[bytes]]]:
    """Name and videos of every ladder; the intact video comes first in each."""
    intact = encoded(frames, *NEARLY_LOSSLESS)
    for name, fault in FAULTS.items():
        steps = [fault(frames, strength, np.random.default_rng(7))[0] for strength in STRENGTHS]
        yield name, [intact, *(encoded(step, *NEARLY_LOSSLESS) for step in steps)]
    for name, (codec, options, rates) in CODECS.items():
        yield name, [intact, *(encoded(frames, codec, options, crf) for crf in rates)]


def scored(frames: Frames) -> dict[str, tuple[list[float], list[float]]]:
    """Of every ladder the scores of its videos, and what their frames alone would give."""
    torch.set_num_threads(1)  # the sources are shared out among processes
    scorer, calibration = genzqa.load(), load_scorer("mini").config.calibration
    assert calibration is not None
    known: dict[bytes, tuple[float, float]] = {}
    found = {}
    for name, videos in ladders(frames):
        for video in videos:
            if video not in known:
                result = scorer.score(video)
                alone = float(np.mean([frame.raw for frame in result.frames]))
                known[video] = result.score, calibrate(alone, calibration)[0]
        steps = [known[video] for video in videos]
        found[name] = [score for score, _ in steps], [alone for _, alone in steps]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--kodak", type=Path, help="folder of photos to move a camera over")
    parser.add_argument("--photos", type=int, default=6, help="how many of them")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sources = {
        path.name: clip_frames(path) for path in sorted(arguments.clips.iterdir()) if path.suffix in (".mp4", ".y4m")
    }
    if arguments.kodak:
        photos = sorted(arguments.kodak.glob("*.png"))[:: max(1, 24 // arguments.photos)][: arguments.photos]
        sources |= {
            path.name: panned(Image.open(path).convert("RGB"), np.random.default_rng(number))
            for number, path in enumerate(photos)
        }
    scores: dict[str, list[tuple[list[float], list[float]]]] = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("forkserver")) as pool:
        for found in pool.map(scored, sources.values()):
            for name, steps in found.items():
                scores.setdefault(name, []).append(steps)
    report: dict[str, Any] = {"clips": sorted(sources), "strengths": STRENGTHS,
                              "crf": {name: rates for name, (_, _, rates) in CODECS.items()}, "ladders": {}}  # fmt: skip
    for name, found in scores.items():
        means = {
            "score": np.mean([one for one, _ in found], 0),
            "frames_alone": np.mean([other for _, other in found], 0),
        }
        report["ladders"][name] = {kind: {"mean": np.round(mean, 2).tolist(), "falls": bool(np.all(np.diff(mean) < 0))}
                                   for kind, mean in means.items()}  # fmt: skip
        print(name, json.dumps(report["ladders"][name]), flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
