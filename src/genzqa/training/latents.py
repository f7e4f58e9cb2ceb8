"""Latents of a set of photos, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from genzqa.errors import InputError
from genzqa.media.image import decode_image
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.genziqa import GenzIQA
from genzqa.training.cache import FLIPS, ShardedCache, unusable

SHARD = 128  # photos
_BATCH = 4  # photos encoded together


class LatentCache(ShardedCache):
    """Latents ``(4, h, w) float32`` of photos.

    Args:
        folder: Where caches are kept.
        paths: The photos.
        model: Encodes them; its base and preprocessing are part of the cache's name.
        base_sha256: Of the model's base.
        flips: Whether the three flipped forms are kept too.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], model: GenzIQA, base_sha256: str, *, flips: bool) -> None:
        super().__init__(folder, paths, [base_sha256, model.config.preprocessing.name], shard=SHARD, flips=flips)
        self._model = model

    def read(self, index: int, form: int = 0) -> Tensor:
        """The latent of one photo in one of its forms.

        Raises:
            DataError: If its shard is missing or damaged.
        """
        return self._read("latents", index, form)

    def _encoded(self, paths: Sequence[Path], progress: Callable[[], object]) -> list[dict[str, Tensor]]:
        made: list[dict[str, Tensor]] = []
        with ThreadPoolExecutor() as pool:
            for first in range(0, len(paths), _BATCH):
                photos = torch.stack(list(pool.map(self._photo, paths[first : first + _BATCH])))
                forms = torch.stack([encode(self._model, photos.flip(axes)) for axes in FLIPS[: self.forms]], 1)
                made += [{"latents": latents} for latents in forms]
                for _ in photos:
                    progress()
        return made

    def _photo(self, path: Path) -> Tensor:
        try:
            return to_network(resize_square(decode_image(path).pixels, self._model.config.preprocessing.size))
        except InputError as error:
            raise unusable(path, error.reason) from error


@torch.inference_mode()
def encode(model: GenzIQA, pixels: Tensor) -> Tensor:
    """Latents ``(B, 4, h, w) float32``, on the CPU, of pixels ``(B, 3, H, W)`` in [-1, 1]."""
    return model.encode(pixels.to(next(model.vae.parameters()))).float().cpu()
