"""The figures of a student's card: agreement with its teacher and with people on a split of BIQ2021; how long a photo takes.

``python training/student/evaluate.py --biq2021 DIR --student local-dir:STUDENT --split validation --out results/FILE.json``
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import genzqa
from biq2021 import MINI, training_names
from genzqa.allocator import keep_freed_memory
from genzqa.evaluation.statistics import Figure, agreement, compare, measure
from genzqa.student.folder import find_student, load_student
from genzqa.training.mini.plan import read_mini_plan

CALLS, WARMING = 50, 5  # timed, one photo each, and those before them


def labelled(biq2021: Path, split: str) -> tuple[list[Path], np.ndarray]:
    """Photos and MOS 0..100 of ``validation`` or ``test``."""
    table = "Train" if split == "validation" else "Test"
    with (biq2021 / f"{table} (Images and MOS).csv").open(newline="") as file:
        rows = {row[0]: 100 * float(row[1]) for row in list(csv.reader(file))[1:] if row and row[0]}
    names = list(rows)
    if split == "validation":
        plan = read_mini_plan(MINI)
        _, names = training_names(biq2021, plan.validation, plan.seed)
    on_disk = {file.name.lower(): file for file in (biq2021 / "Images").iterdir()}
    return [on_disk[name.lower()] for name in names], np.array([rows[name] for name in names])


def record(found: dict[str, Figure]) -> dict[str, list[float]]:
    """Value and ends of the interval."""
    return {name: [round(x, 4) for x in (one.value, one.low, one.high)] for name, one in found.items()}


def scores(scorer: genzqa.Scorer, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    results = [one for one in scorer.score_many(paths, batch_size=8) if isinstance(one, genzqa.ImageResult)]
    return np.array([one.score for one in results]), np.array([one.interval for one in results])


def milliseconds(student: str, paths: list[Path]) -> dict[str, float]:
    """Median time of a photo from its file to its score, one after another, and of the network in it; as in the program."""
    keep_freed_memory()
    folder, scorer = find_student(student), genzqa.load(student)
    assert folder is not None
    network, size = load_student(folder, student).model, scorer.config.preprocessing.size
    pixels = torch.rand(1, 3, size, size) * 2 - 1
    kinds: dict[str, list[Callable[[], object]]] = {
        "photo_ms": [partial(scorer.score, path) for path in paths[: CALLS + WARMING]],
        "network_ms": [partial(network.read, pixels)] * (CALLS + WARMING),
    }
    found = {"threads": torch.get_num_threads(), "photos": CALLS}
    for name, calls in kinds.items():
        took = []
        for call in calls:
            started = time.perf_counter()
            call()
            took.append(1000 * (time.perf_counter() - started))
        found[name] = round(statistics.median(took[WARMING:]), 2)
    return found


def evaluate(biq2021: Path, student: str, teacher: str, split: str) -> dict[str, Any]:
    paths, mos = labelled(biq2021, split)
    mine, bounds = scores(genzqa.load(student), paths)
    theirs, teachers = scores(genzqa.load(teacher), paths)
    less = compare(mine, theirs, mos)
    return {
        "split": split,
        "photos": len(paths),
        "with_teacher": record(agreement(mine, theirs)),
        "with_mos": record(measure(mine, mos)),
        "teacher_with_mos": record(measure(theirs, mos)),
        "srcc_less_teachers": [round(x, 4) for x in (less.value, less.low, less.high)],
        "interval_coverage": round(float(np.mean((bounds[:, 0] <= mos) & (mos <= bounds[:, 1]))), 4),
        "interval_mean_width": round(float(np.mean(bounds[:, 1] - bounds[:, 0])), 2),
        "teacher_interval_mean_width": round(float(np.mean(teachers[:, 1] - teachers[:, 0])), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--biq2021", type=Path, required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--teacher", default="mini")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--time", action="store_true", help="how long a photo takes, instead")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.time:
        found = milliseconds(arguments.student, labelled(arguments.biq2021, arguments.split)[0])
    else:
        found = evaluate(arguments.biq2021, arguments.student, arguments.teacher, arguments.split)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
