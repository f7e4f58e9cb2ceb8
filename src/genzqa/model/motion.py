"""Motion features: from the frames of a clip to the two vectors that the temporal quality modulator reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from genzqa.files import write_atomically
from genzqa.model.slowfast import DEVIATION, MEAN, SlowFast

Clip = npt.NDArray[np.uint8]


def clip_features(network: SlowFast, clip: Clip) -> tuple[Tensor, Tensor]:
    """Slow ``(2048,)`` and fast ``(256,)`` features of one clip ``(frames, h, w, 3) uint8 sRGB``, frames in order.

    Raises:
        ValueError: If the clip has another number of frames than the network's.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(clip)).permute(3, 0, 1, 2).float() / 255
    parameter = next(network.parameters())
    with torch.inference_mode():
        slow, fast = network(((pixels - MEAN) / DEVIATION)[None].to(parameter))
    return slow[0].float().cpu(), fast[0].float().cpu()


def weights_digest(network: SlowFast) -> bytes:
    """SHA-256 of all that decides a network's features: its sizes and its weights."""
    digest = hashlib.sha256(repr(network.config).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


class FeatureCache:
    """A folder of motion features, one small file a clip, found again by the clip's pixels and the network's weights.

    Args:
        folder: Created with the first clip.
        network: Whose features are kept; another network's never mix with them.
    """

    def __init__(self, folder: Path, network: SlowFast) -> None:
        self.folder, self._network = folder, network
        self._weights = weights_digest(network)

    def features(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """As `clip_features`, from the folder if they are there; a damaged file is made anew.

        Raises:
            OutputError: If a new file cannot be written.
        """
        pixels = np.ascontiguousarray(clip)
        digest = hashlib.sha256(self._weights + repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        path = self.folder / f"{digest}.safetensors"
        try:
            stored = load_file(path)
            return stored["slow"], stored["fast"]
        except (OSError, SafetensorError, KeyError):
            slow, fast = clip_features(self._network, clip)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save({"slow": slow, "fast": fast}))
            return slow, fast
