"""Latents of a set of photos, encoded once and kept on disk in shards; what is read of them is never all in memory.

A flip of the photo is not a flip of its latent, so each flipped form is encoded for itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from genzqa.errors import DataError, InputError
from genzqa.files import write_atomically
from genzqa.media.image import decode_image
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.genziqa import GenzIQA

SHARD = 128  # photos
_BATCH = 4  # photos encoded together
_FLIPS: tuple[tuple[int, ...], ...] = (
    (),
    (2,),
    (1,),
    (1, 2),
)  # axes of a (3, H, W) photo: as it is, mirrored, upside down, both


class LatentCache:
    """Latents ``(4, h, w) float32`` of photos, in one folder for each base, preprocessing and list of files.

    Args:
        folder: Where caches are kept.
        paths: The photos, in the order by which they are asked for.
        model: Encodes them; its base and preprocessing are part of the cache's name.
        base_sha256: Of the model's base.
        flips: Whether the three flipped forms are kept too.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], model: GenzIQA, base_sha256: str, *, flips: bool) -> None:
        self._paths, self._model = list(paths), model
        self.forms = len(_FLIPS) if flips else 1
        what = [base_sha256, model.config.preprocessing.name, self.forms, *map(_identity, self._paths)]
        self.folder = folder / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
        self._open: dict[int, Any] = {}

    @property
    def shards(self) -> int:
        """How many files there are when it is complete."""
        return -(-len(self._paths) // SHARD)

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [number for number in range(self.shards) if not self._shard(number).exists()]

    def photos_in(self, numbers: Sequence[int]) -> int:
        """How many photos these shards hold."""
        return sum(len(self._paths[number * SHARD : (number + 1) * SHARD]) for number in numbers)

    def build(self, numbers: Sequence[int], progress: Callable[[], object] = lambda: None) -> None:
        """Encode these shards; each appears whole or not at all, so that building can be stopped and gone on with.

        Raises:
            DataError: If a photo cannot be decoded.
            OutputError: If a shard cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            for number in numbers:
                paths = self._paths[number * SHARD : (number + 1) * SHARD]
                latents = []
                for first in range(0, len(paths), _BATCH):
                    part = list(pool.map(self._photo, paths[first : first + _BATCH]))
                    forms = [
                        torch.stack([photo.flip(axes) if axes else photo for photo in part])
                        for axes in _FLIPS[: self.forms]
                    ]
                    with torch.inference_mode():
                        latents.append(torch.stack([self._encode(form) for form in forms], 1))
                    for _ in part:
                        progress()
                write_atomically(self._shard(number), save({"latents": torch.cat(latents).contiguous()}))

    def read(self, index: int, form: int = 0) -> Tensor:
        """The latent of one photo in one of its forms.

        Raises:
            DataError: If its shard is missing or damaged.
        """
        number, row = divmod(index, SHARD)
        try:
            if number not in self._open:
                self._open[number] = safe_open(self._shard(number), framework="pt")
            return torch.as_tensor(self._open[number].get_slice("latents")[row, form])
        except (OSError, SafetensorError) as error:
            raise DataError(f"cached latents cannot be read: {error}", subject=str(self._shard(number)),
                            hint="delete the file; it is made again") from None  # fmt: skip

    def _encode(self, pixels: Tensor) -> Tensor:
        parameter = next(self._model.vae.parameters())
        return self._model.encode(pixels.to(parameter)).float().cpu()

    def _photo(self, path: Path) -> Tensor:
        try:
            return to_network(resize_square(decode_image(path).pixels, self._model.config.preprocessing.size))
        except InputError as error:
            raise DataError(f"cannot be trained on: {error.reason}", subject=str(path),
                            hint="genzqa data check finds all such files") from error  # fmt: skip

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"


def _identity(path: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"cannot be trained on: {error.strerror}", subject=str(path),
                        hint="genzqa data check finds all such files") from None  # fmt: skip
    return [str(path.absolute()), found.st_size, found.st_mtime_ns]
