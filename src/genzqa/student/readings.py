"""What the teacher says of photos and of degraded copies of them, on disk beside the squares that the student will see."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from genzqa.errors import InputError
from genzqa.limits import DEFAULT_LIMITS, Limits
from genzqa.media.image import decode_image
from genzqa.media.pixels import Pixels
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.genziqa import GenzIQA
from genzqa.student.degradations import degraded
from genzqa.training.cache import ShardedCache

SHARD = 32  # photos
COPY_SIDE = (
    1024  # pixels: larger photos are reduced before a copy is degraded, or most faults would vanish in the square
)
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Readings:
    """Of N photos that could be read, with V views each: the photo itself, then its copies.

    Attributes:
        index: Their numbers in the list of files ``(N,)``.
        values: Raw score and quantities of every block ``(N, V, 1 + P)``.
    """

    index: npt.NDArray[np.int64]
    values: Tensor


class ReadingsCache(ShardedCache):
    """The teacher's readings of a list of files, each computed once.

    Args:
        folder: Where caches are kept.
        paths: The photos.
        teacher: Reads them.
        size: Side of the student's square, pixels.
        copies: Degraded copies of every photo.
        seed: Of their faults.
        precision: ``bf16`` is about 1.5 times as fast on processors that have it, and moves a reading by some 0.2.
        limits: What a photo may be at most.

    Raises:
        DataError: If a file is not there.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], teacher: GenzIQA, *, size: int, copies: int, seed: int,
                 precision: Precision = "fp32", limits: Limits = DEFAULT_LIMITS) -> None:  # fmt: skip
        self._teacher, self._size, self._copies, self._seed = teacher, size, copies, seed
        self._precision, self._limits = precision, limits
        encoding = ["student", teacher_digest(teacher), size, copies, seed, precision, limits.max_pixels]
        super().__init__(folder, paths, encoding, shard=SHARD, flips=False)

    def readings(self) -> tuple[Readings, dict[Path, str]]:
        """All readings, and of the photos that could not be read the reason.

        Raises:
            DataError: If a shard is missing or damaged.
        """
        index, values, refused = [], [], {}
        for number, path in enumerate(self._paths):
            if reason := bytes(self._read("refusal", number, 0).tolist()).decode():
                refused[path] = reason
                continue
            index.append(number)
            views = [self._read("values", number, view) for view in range(1 + self._copies)]
            values.append(torch.stack(views))
        return Readings(np.array(index, np.int64), torch.stack(values) if values else torch.zeros(0)), refused

    def square(self, index: int, view: int) -> Tensor:
        """The student's square of a photo or copy, ``(size, size, 3) uint8``; rounded, for there are many of them."""
        return self._read("squares", index, view)

    def _encoded(self, paths: Sequence[Path], progress: Callable[[], object]) -> list[dict[str, Tensor]]:
        rows = []
        with ThreadPoolExecutor(1, "genzqa-decode") as decoder:
            for seen in decoder.map(self._views, paths):
                rows.append({"refusal": _text(seen)} if isinstance(seen, str) else self._row(*seen))
                progress()
        return rows

    def _views(self, path: Path) -> tuple[Tensor, Tensor] | str:
        """The teacher's squares ``(V, 3, H, W)`` and the student's; of what cannot be read, the reason."""
        try:
            pixels = decode_image(path, limits=self._limits).pixels
        except InputError as error:
            return error.reason
        views: list[Pixels] = [pixels]
        if self._copies:
            small = _reduced(pixels)
            # by the picture alone, so that a photo keeps its copies when others come or go
            drawn = int.from_bytes(hashlib.sha256(small.tobytes()).digest()[:8], "big")
            rng = np.random.default_rng((self._seed, drawn))
            views += [degraded(small, rng) for _ in range(self._copies)]
        size = self._teacher.config.preprocessing.size
        shown = torch.stack([to_network(resize_square(view, size)) for view in views])
        squares = [np.rint(255 * resize_square(view, self._size)).astype(np.uint8) for view in views]
        return shown, torch.from_numpy(np.stack(squares))

    def _row(self, shown: Tensor, squares: Tensor) -> dict[str, Tensor]:
        return {"values": read_teacher(self._teacher, shown, self._precision), "squares": squares, "refusal": _text("")}


def read_teacher(teacher: GenzIQA, pixels: Tensor, precision: Precision = "fp32") -> Tensor:
    """Raw score and a_p of every block, mean over timesteps and shifted for resolution: ``(B, 1 + P)``.

    Args:
        teacher: A trained scorer.
        pixels: ``(B, 3, H, W)`` in [-1, 1].
        precision: Of the arithmetic.
    """
    with torch.inference_mode(), torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bf16"):
        scored = teacher(pixels)
    shift = teacher.resolution_shift(scored.trace.positions, scored.trace.eps.shape[-2:])
    return torch.cat([scored.raw[:, None], scored.trace.block_scores.mean(1) - shift], 1).float()


def teacher_digest(teacher: GenzIQA) -> str:
    """Of all that its readings depend on; what a model does with videos, and its calibration, are no part of it."""
    settings = teacher.config.model_dump(mode="json", exclude={
        "name", "base", "base_sha256", "calibration", "video", "training_data", "licences",
    })  # fmt: skip
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    # the prompts as the UNet sees them, be they stored or computed
    tensors = {name: value for name, value in teacher.state_dict().items() if not name.startswith("prompts.")}
    with torch.inference_mode():
        tensors["prompts"] = teacher.prompts()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _reduced(pixels: Pixels) -> npt.NDArray[np.uint8]:
    eight_bit = pixels if pixels.dtype == np.uint8 else np.rint(255 * pixels)
    picture = Image.fromarray(np.asarray(eight_bit, np.uint8))
    picture.thumbnail((COPY_SIDE, COPY_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _text(text: str) -> Tensor:
    """As bytes, with the axis of the views first, as all that the cache holds."""
    return torch.tensor([list(text.encode())], dtype=torch.uint8)
