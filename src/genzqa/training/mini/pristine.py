"""Pristine photos: squares cut from large PNG files that no lossy codec has touched.

A database of JPEG files cannot teach what a first, mild compression does to a photo without any. Nobody has scored these
squares, so the teacher's opinion of each stands for its MOS.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from genzqa.media.preprocess import resize_square
from genzqa.training.mini.photos import SIDE, Photos, read_rgb
from genzqa.training.mini.teacher import Features, TeacherHead

SQUARES = 12  # of a photo of 1024 pixels and more; smaller ones give one


def open_pristine(folder: Path, cache: Path, *, teacher: TeacherHead, features: Features, scoring_size: int,
                  seed: int) -> Photos:  # fmt: skip
    """Cut squares of 512 pixels to the photo's whole height, reduced to 512x512, once into ``cache``."""
    files = sorted(folder.glob("*.png"))
    path, table = cache / "pristine.npy", cache / "pristine.json"
    if not table.exists():
        cut = [squares_of(file, seed + number) for number, file in enumerate(files)]
        np.save(path, np.stack([square for squares in cut for square in squares]))
        names = [
            f"{file.stem} {number}" for file, squares in zip(files, cut, strict=True) for number in range(len(squares))
        ]
        table.write_text(json.dumps(names) + "\n")
    pixels = np.load(path, mmap_mode="r")
    shown = (np.rint(255 * resize_square(square, scoring_size)).astype(np.uint8) for square in pixels)
    seen = np.concatenate([features(square[None]) for square in shown])
    with torch.no_grad():
        opinion = teacher.opinion(teacher.know(torch.from_numpy(seen)))
    known = np.array(json.loads(table.read_text()))
    return Photos(pixels, opinion.numpy(), np.full(len(pixels), "train", "U10"), known)


def squares_of(file: Path, seed: int) -> list[npt.NDArray[np.uint8]]:
    """Squares ``(SIDE, SIDE, 3)`` of one photo, drawn by the seed."""
    rng = np.random.default_rng(seed)
    image = read_rgb(file)
    width, height = image.size
    squares = []
    for _ in range(SQUARES if min(width, height) >= 2 * SIDE else 1):
        side = int(rng.integers(SIDE, min(width, height) + 1))
        left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        cut = image.crop((left, top, left + side, top + side))
        squares.append(np.asarray(cut if side == SIDE else cut.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return squares
