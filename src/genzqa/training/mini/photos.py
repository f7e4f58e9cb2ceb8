"""BIQ2021 as a memory map of pixels and a table of MOS, and the batches cut from it.

The photos are 512x512 with MOS in 0..1 (Ahmed & Asif, J. Electron. Imaging 31(5) 053010, 2022). Scores here are 0..100.
"""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from genzqa.errors import DataError
from genzqa.media.preprocess import resize_square
from genzqa.training.mini.degradations import DEGRADATIONS, DRAW_WEIGHT, graded_target, grain

SIDE = 512
GRAINY = 0.3  # share of the views that get a faint grain of their own, before anything else happens to them
TABLES = {"train": "Train (Images and MOS).csv", "test": "Test (Images and MOS).csv"}


@dataclass(frozen=True)
class Photos:
    """Pixels ``(N, 512, 512, 3) uint8`` (memory mapped), MOS 0..100 ``(N,)``, split and name of each photo."""

    pixels: npt.NDArray[np.uint8]
    mos: npt.NDArray[np.float32]
    split: npt.NDArray[np.str_]
    name: npt.NDArray[np.str_]

    def indices(self, split: str) -> npt.NDArray[np.int64]:
        """Where the photos of this split are."""
        return np.flatnonzero(self.split == split)

    def __reduce__(self) -> tuple[Any, ...]:  # a worker process maps the pixels itself
        assert isinstance(self.pixels, np.memmap)
        return _reopen, (str(self.pixels.filename), self.mos, self.split, self.name)


def _reopen(path: str, *columns: npt.NDArray[Any]) -> Photos:
    return Photos(np.load(path, mmap_mode="r"), *columns)


def open_biq2021(root: Path, cache: Path, validation: int, seed: int) -> Photos:
    """Decode once into ``cache``; ``validation`` photos of the official training split are set aside by seed."""
    rows: list[tuple[str, float, str]] = []
    for split_name, table in TABLES.items():
        with (root / table).open(newline="") as file:
            rows += [(row[0], float(row[1]), split_name) for row in list(csv.reader(file))[1:] if row and row[0]]
    path = cache / "biq2021.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _decode_all(root / "Images", [row[0] for row in rows], path)
    split = np.array([row[2] for row in rows], dtype="U10")
    train = np.flatnonzero(split == "train")
    split[np.random.default_rng(seed).permutation(train)[:validation]] = "validation"
    mos = np.array([100 * row[1] for row in rows], np.float32)
    return Photos(np.load(path, mmap_mode="r"), mos, split, np.array([row[0] for row in rows]))


def read_rgb(path: Path) -> Image.Image:
    """One photo.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of them for damaged files
        raise DataError(f"cannot be read: {error}", subject=str(path)) from error


def _decode_all(folder: Path, names: list[str], path: Path) -> None:
    on_disk = {file.name.lower(): file for file in folder.iterdir()}  # one name differs in case
    partial = path.with_suffix(".partial.npy")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(names), SIDE, SIDE, 3))

    def decode(index: int) -> None:
        image = read_rgb(on_disk[names[index].lower()])
        if image.size != (SIDE, SIDE):  # eleven photos are smaller; scoring would enlarge them too
            image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels[index] = np.asarray(image)

    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, range(len(names))))
    pixels.flush()
    partial.rename(path)


@dataclass
class Batch:
    """``clean`` photos first, then pairs (mild, strong) of degraded copies of the first ``pairs`` photos.

    inputs: latents ``(N, C, h, w)``; target ``(N,)`` 0..100; kind ``(N,)`` 0 = none; strength ``(N,)`` 0..1; taught: what
    teachers say of every row, ``(N,)`` 0..100, where there are any.
    """

    inputs: torch.Tensor
    target: torch.Tensor
    kind: torch.Tensor
    strength: torch.Tensor
    clean: int
    pairs: int
    taught: torch.Tensor | None = None

    def to(self, device: str) -> Batch:
        """The same on this device."""
        inputs, target, kind, strength = (
            one.to(device) for one in (self.inputs, self.target, self.kind, self.strength)
        )
        taught = None if self.taught is None else self.taught.to(device)
        return Batch(inputs, target, kind, strength, self.clean, self.pairs, taught)


KINDS = list(DEGRADATIONS)
_WEIGHTS = np.array([DRAW_WEIGHT[kind] for kind in KINDS])
DRAW_SHARE = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Copies:
    """How degraded copies are drawn: of these kinds, each as often as it is named, or by `DRAW_WEIGHT`; the mild one of a strength
    up to ``mildest``, small ones most, the strong one up to ``reach`` beyond it."""

    kinds: tuple[str, ...] = ()
    mildest: float = 0.8
    reach: float = 1.0

    def draw(self, rng: np.random.Generator) -> tuple[int, float, float]:
        """Number of the kind in `KINDS`, and the two strengths."""
        if self.kinds:
            kind = KINDS.index(self.kinds[int(rng.integers(len(self.kinds)))])
        else:
            kind = int(rng.choice(len(KINDS), p=DRAW_SHARE))
        mild = min(0.95, self.mildest * float(rng.random()) ** 2)  # what is hardest to see is shown most
        return kind, mild, float(rng.uniform(mild + 0.05, min(1.0, mild + self.reach)))


def make_group(
    photo: npt.NDArray[np.uint8], copies: Copies | None, size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], ...]:
    """A photo as scoring sees it, or with ``copies`` the photo and a mild and a strong degradation of it; half of them mirrored.

    Degradations act on the photo's own pixels, before scoring's resize, as they do in the world. Returns pixels
    ``(n, size, size, 3) float32`` in [0, 1], the share of the photo's MOS that each is to keep, kinds and strengths.
    """
    photo = np.ascontiguousarray(photo[:, ::-1] if rng.random() < 0.5 else photo)
    photo = grain(photo, rng) if rng.random() < GRAINY else photo
    shown, shares, kinds, strengths = [photo], [1.0], [0], [0.0]
    if copies is not None:
        kind, *both = copies.draw(rng)
        for strength in both:
            shown.append(DEGRADATIONS[KINDS[kind]](photo, strength, rng))
            shares.append(graded_target(1.0, KINDS[kind], strength))
            kinds.append(kind + 1)
            strengths.append(strength)
    return (
        np.stack([resize_square(one, size) for one in shown]), np.array(shares, np.float32), np.array(kinds, np.int64),
        np.array(strengths, np.float32),
    )  # fmt: skip
