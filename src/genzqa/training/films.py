"""What a training needs of a set of videos, made once: latents of their frames, and motion features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genzqa.errors import InputError
from genzqa.media.preprocess import resize_square, to_network
from genzqa.media.video import open_video, uniform_times
from genzqa.model.genziqa import GenzIQA
from genzqa.model.motion import clip_features, weights_digest
from genzqa.model.slowfast import SlowFast
from genzqa.scoring.video import counted_clips, distinct, motion_of
from genzqa.training.cache import FLIPS, ShardedCache, unusable
from genzqa.training.latents import encode

SHARD = 8  # videos
_FRAMES_ENCODED = 4  # together


class FilmCache(ShardedCache):
    """Of each video the latents ``(F, 4, h, w)`` of frames spread evenly over it, and of the clips begun at them the slow
    ``(K, S)`` and fast ``(K, s)`` features; all float32, as scoring takes them. F and K are fewer for a short video.

    Args:
        folder: Where caches are kept.
        paths: The videos.
        model: Encodes the frames; its base, preprocessing and video settings are part of the cache's name.
        motion: Its weights are, too.
        base_sha256: Of the model's base.
        frames: How many are spread over a video.
        flips: Whether the three flipped forms are kept too; a video is flipped as a whole.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], model: GenzIQA, motion: SlowFast, base_sha256: str, *,
                 frames: int, flips: bool) -> None:  # fmt: skip
        video = model.config.video
        assert video is not None
        encoding = [base_sha256, model.config.preprocessing.name, frames, video.motion_size, video.motion_rate,
                    weights_digest(motion).hex()]  # fmt: skip
        super().__init__(folder, paths, encoding, shard=SHARD, flips=flips)
        self._model, self._motion, self._frames, self._video = model, motion, frames, video

    def read(self, index: int, form: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, slow and fast features of one video in one of its forms.

        Raises:
            DataError: If its shard is missing or damaged.
        """
        latents, slow, fast = (self._read(name, index, form) for name in ("latents", "slow", "fast"))
        return latents, slow, fast

    def _encoded(self, paths: Sequence[Path], progress: Callable[[], object]) -> list[dict[str, Tensor]]:
        made = []
        for path in paths:
            try:
                made.append(self._film(path))
            except InputError as error:
                raise unusable(path, error.reason) from error
            progress()
        return made

    def _film(self, path: Path) -> dict[str, Tensor]:
        size, network = self._model.config.preprocessing.size, self._motion.config
        latents: list[list[Tensor]] = [[] for _ in range(self.forms)]
        clips: list[np.ndarray] = []
        real: list[int] = []
        waiting: list[Tensor] = []

        def encode_waiting() -> None:
            pixels = torch.stack(waiting)
            for kept, axes in zip(latents, FLIPS, strict=False):
                kept.append(encode(self._model, pixels.flip(axes)))
            waiting.clear()

        with open_video(path) as reader:
            times = uniform_times(reader.facts.duration, self._frames)
            moments = reader.moments(times, clip_frames=network.frames, clip_side=self._video.motion_size,
                                     clip_rate=self._video.motion_rate)  # fmt: skip
            for moment, _, _ in distinct(moments, [(time, True, False) for time in times]):
                waiting.append(to_network(resize_square(moment.pixels, size)))
                if len(waiting) == _FRAMES_ENCODED:
                    encode_waiting()
                if moment.clip is not None:
                    clips.append(moment.clip)
                    real.append(moment.clip_frames)
        if waiting:
            encode_waiting()
        counted, seen = counted_clips(real, network.frames), []
        for axes in FLIPS[: self.forms]:
            across = tuple(axis - 1 for axis in axes)  # of (n, h, w, 3)
            found = [clip_features(self._motion, np.flip(clips[number], across)) for number in counted]
            seen.append(motion_of(found, network))
        slow, fast = (torch.stack([form[part] for form in seen]) for part in (0, 1))
        return {"latents": torch.stack([torch.cat(form) for form in latents]), "slow": slow, "fast": fast}
