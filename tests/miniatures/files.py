"""What miniatures are made of. Files of photos and videos are small and real."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from videos import encode


@dataclass(frozen=True)
class Expected:
    """What the reader should make of one file; ``file`` is relative to the root."""

    file: str
    mos: float
    std: float | None = None
    split: str | None = None
    group: str = ""


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def video(path: Path, seed: int = 0) -> None:
    """Eight frames, in the container of the file's suffix; raw YUV 4:2:0 for ``.yuv``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).integers(0, 256, (8, 32, 48, 3), dtype=np.uint8)
    if path.suffix == ".yuv":
        path.write_bytes(frames[:, :, :, :1].tobytes() + frames[:, :16, :24, 1:].tobytes())
        return
    path.write_bytes(encode(list(frames), rate=8))


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
