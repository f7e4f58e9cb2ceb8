"""The photos for a student of `mini`, as folders of links for ``genzqa distill``: what `mini` itself was trained on.

``python training/student/biq2021.py --biq2021 DIR [--pristine DIR] --out FOLDER``

Of BIQ2021 the official training split without the validation photos of ``configs/mini.yaml``, in parts of 1,024
drawn at random; its test split is never looked at. Of ``--pristine`` every PNG file.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from genzqa.training.mini.plan import read_mini_plan

PART = 1024
MINI = Path(__file__).parents[2] / "configs" / "mini.yaml"


def training_names(biq2021: Path, validation: int, seed: int) -> tuple[list[str], list[str]]:
    """Names of the photos trained on, and of those set aside, drawn as ``training/mini/photos.py`` draws them."""
    with (biq2021 / "Train (Images and MOS).csv").open(newline="") as file:
        names = [row[0] for row in list(csv.reader(file))[1:] if row and row[0]]
    aside = set(np.random.default_rng(seed).permutation(len(names))[:validation].tolist())
    return [n for i, n in enumerate(names) if i not in aside], [n for i, n in enumerate(names) if i in aside]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--biq2021", type=Path, required=True)
    parser.add_argument("--pristine", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plan = read_mini_plan(MINI)
    names, _ = training_names(arguments.biq2021, plan.validation, plan.seed)
    on_disk = {file.name.lower(): file for file in (arguments.biq2021 / "Images").iterdir()}  # one name differs in case
    drawn = [on_disk[names[place].lower()] for place in np.random.default_rng(plan.seed).permutation(len(names))]
    wanted = {f"biq2021-{first // PART}": drawn[first : first + PART] for first in range(0, len(drawn), PART)}
    if arguments.pristine:
        wanted["pristine"] = sorted(arguments.pristine.glob("*.png"))
    for folder, files in wanted.items():
        (arguments.out / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            (arguments.out / folder / file.name).symlink_to(file.resolve())
        print(f"{folder}: {len(files)} photos")


if __name__ == "__main__":
    main()
