"""Pristine photos: squares cut from large PNG files that no lossy codec has touched.

A database of JPEG files cannot teach what a first, mild compression does to a photo without any. Nobody has scored these
squares, so an opinion of ours stands for their MOS (`genzqa.training.mini.opinions`). Where there are no such files, the
database's own best photos stand in for them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from genzqa.training.mini.photos import SIDE, Photos, read_rgb

STAND_INS = 250  # photos
PIXELS, TABLE = "pristine.npy", "pristine.json"
SQUARES = 12  # of a photo of 1024 pixels and more; smaller ones give one


def open_pristine(folder: Path, cache: Path, seed: int) -> Photos:
    """Cut squares of 512 pixels to the photo's whole height, reduced to 512x512, once into ``cache``."""
    if not (cache / TABLE).exists():
        files = sorted(folder.glob("*.png"))
        cut = [squares_of(file, seed + number) for number, file in enumerate(files)]
        names = [
            f"{file.stem} {number}" for file, squares in zip(files, cut, strict=True) for number in range(len(squares))
        ]
        _keep(cache, np.stack([square for squares in cut for square in squares]), names)
    return _opened(cache)


def best_scored(photos: Photos, cache: Path) -> Photos:
    """The training photos with the highest MOS, as they are, kept once in ``cache``."""
    if not (cache / TABLE).exists():
        train = photos.indices("train")
        best = np.sort(train[np.argsort(-photos.mos[train], kind="stable")[:STAND_INS]])
        _keep(cache, photos.pixels[best], photos.name[best].tolist())
    return _opened(cache)


def _keep(cache: Path, squares: npt.NDArray[np.uint8], names: list[str]) -> None:
    np.save(cache / PIXELS, squares)
    (cache / TABLE).write_text(json.dumps(names) + "\n")


def _opened(cache: Path) -> Photos:
    pixels = np.load(cache / PIXELS, mmap_mode="r")
    known = np.array(json.loads((cache / TABLE).read_text()))
    unscored = np.full(len(pixels), np.nan, np.float32)
    return Photos(pixels, unscored, np.full(len(pixels), "train", "U10"), known)


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
