"""Carry the temporal part of one scorer over to another whose image part is new, without any video.

``python training/video/carry.py --before local-dir:OLD/adapter --photos DIR --embedded src/genzqa/embedded/mini``

While every gamma is above 0, their mean, which is what weighs a video where each layer carries the frame's own quality (a learned
readout), is linear in the normalised motion features and in the frames' mean queries. Photos tell what these queries are on
average, for the old image part and for the new. Every layer of the new modulator then sees the motion along the one direction
that the old layers saw together, and its keys point where the new queries differ least from photo to photo. `temporal.py`
trains a temporal part for the new image part instead, which takes hours and clips; this takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from temporal import TEMPORAL
from torch import Tensor

from genzqa.errors import ConfigError
from genzqa.media.image import decode_image
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import WEIGHTS, LoadedScorer, load_scorer, save_adapter
from genzqa.model.genzvqa import FRAMES_AT_ONCE, GenzVQA
from genzqa.model.modulator import TemporalQualityModulator
from genzqa.training.mini.export import HALF, write_manifest

SHRINK = 0.05  # of the mean variance, added to that of the queries


@torch.inference_mode()
def mean_queries(model: GenzVQA, paths: list[Path]) -> list[Tensor]:
    """Per layer ``(photos, C)``."""
    size = model.image.config.preprocessing.size
    found: list[list[Tensor]] = []
    for first in range(0, len(paths), FRAMES_AT_ONCE):
        pixels = [
            to_network(resize_square(decode_image(path).pixels, size)) for path in paths[first : first + FRAMES_AT_ONCE]
        ]
        found.append([query.mean(1) for query in model.read_frames(torch.stack(pixels)).queries])
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def seen_together(modulator: TemporalQualityModulator, queries: list[Tensor]) -> tuple[dict[str, Tensor], float]:
    """Of the mean gamma: its slope along the normalised features of each pathway, and what it is without any."""
    slopes: dict[str, Tensor] = {}
    constant = 0.0
    for name, heads, query in zip(modulator.names, modulator.heads, queries, strict=True):
        mean = query.mean(0) * (modulator.scale / heads)
        linear = modulator.linear[name]
        constant += float(linear.bias)
        for number, (pathway, keys) in enumerate((("slow", modulator.slow[name]), ("fast", modulator.fast[name]))):
            weight = linear.weight[0, number]
            narrow = keys.k_up.weight.T @ mean
            slopes[pathway] = slopes.get(pathway, 0) + weight * keys.norm.weight * (keys.k_down.weight.T @ narrow)
            constant += float(
                weight * (keys.k_up.bias @ mean + narrow @ (keys.k_down.weight @ keys.norm.bias + keys.k_down.bias))
            )
    count = len(modulator.names)
    return {name: slope / count for name, slope in slopes.items()}, constant / count


def steady(queries: Tensor) -> Tensor:
    """The direction along which queries ``(photos, C)`` have mean 1 and vary least."""
    mean, variance = queries.mean(0), queries.T.cov()
    direction = torch.linalg.solve(variance + SHRINK * variance.diagonal().mean() * torch.eye(len(mean)), mean)
    return direction / (direction @ mean)


@torch.no_grad()
def carried(
    before: TemporalQualityModulator, old: list[Tensor], after: TemporalQualityModulator, new: list[Tensor]
) -> None:
    """Set the weights of ``after``."""
    slopes, constant = seen_together(before, old)
    for name, heads, queries in zip(after.names, after.heads, new, strict=True):
        for number, (pathway, keys) in enumerate((("slow", after.slow[name]), ("fast", after.fast[name]))):
            length = slopes[pathway].norm()
            for weight in keys.parameters():
                weight.zero_()
            keys.norm.weight.fill_(1)
            keys.k_down.weight[0] = slopes[pathway] / length
            keys.k_up.weight[:, 0] = steady(queries) * (heads / after.scale)
            after.linear[name].weight[0, number] = length
        after.linear[name].bias.fill_(constant)


def carry(before: LoadedScorer, photos: list[Path], embedded: Path) -> None:
    adapter = embedded / "adapter"
    after = load_scorer(f"local-dir:{adapter}")
    if before.video is None or before.config.video is None or before.config.video.tqm != "published":
        raise ConfigError("has no temporal part of the published form", subject=before.name)
    if before.model.readout is None or after.model.readout is None:
        raise ConfigError("only a learned readout gives every layer the same quality", subject=before.name)
    slow, fast = before.video.modulator.feature_sizes
    video = GenzVQA(after.model, before.config.video, slow_features=slow, fast_features=fast)
    carried(before.video.modulator, mean_queries(before.video, photos), video.modulator, mean_queries(video, photos))
    weights = {
        name: value for name, value in load_file(adapter / WEIGHTS).items() if not name.startswith(("tqm.", "motion."))
    }
    assert before.motion is not None
    for part, state in (("motion", before.motion.state_dict()), ("tqm", video.modulator.state_dict())):
        weights |= {
            f"{part}.{name}": value.to(HALF) if value.is_floating_point() else value for name, value in state.items()
        }
    data = [entry for entry in after.config.training_data if not entry.startswith(TEMPORAL)]
    data += [entry for entry in before.config.training_data if entry.startswith(TEMPORAL)]
    update = {"video": before.config.video, "training_data": data}
    save_adapter(adapter, weights, after.config.model_copy(update=update))
    write_manifest(embedded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the scorer whose temporal part is carried over")
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos; some hundred will do")
    parser.add_argument(
        "--embedded", type=Path, required=True, help="folder with adapter/, which gets the temporal part"
    )
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    carry(load_scorer(arguments.before), photos, arguments.embedded)


if __name__ == "__main__":
    main()
