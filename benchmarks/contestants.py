"""What ``speed.py`` measures, each in a process of its own: ``contestants.py '{"measure": NAME, ...}'`` prints one JSON object.

A process loads a model, scores once to warm up, then scores again until a second has passed, at least once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import MEBIBYTE, peak_mib

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from genzqa import Scorer
    from genzqa.media.prepare import PreparedPhoto

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
LONG_ENOUGH = 1.0  # seconds; a shorter measurement is repeated
CEILING_SIDE = {"cpu": 4096, "cuda": 8192}  # of the matrices whose product is the ceiling
CEILING_SECONDS = 3.0
EXPORTING, ELSEWHERE = 8, 60  # photos that integers are fitted to and checked on, none of them one that is measured on
CLIP = (8, 960, 540)  # seconds, width, height of the video


def build(folder: str, weights: str) -> dict[str, Any]:
    """The base as large as Stable Diffusion 2.1, if it is not there yet."""
    import full_size

    return {"adapter": str(full_size.build(Path(folder), weights))}


def export(adapter: str, folder: str) -> dict[str, Any]:
    """The package's export in integers, which takes minutes once and is not measured."""
    from genzqa.scoring.export import export_model

    views = [view(number) for number in range(ELSEWHERE, ELSEWHERE + EXPORTING)]
    return export_model(f"local-dir:{adapter}", "openvino", Path(folder), precision="int8", photos=views, offline=True)


def clip(path: str) -> dict[str, Any]:
    """The video that is scored for growth with the number of frames."""
    import clips

    clips.encode(Path(path), *CLIP)
    return {}


def ceiling(device: str, precision: str) -> dict[str, Any]:
    """FLOP/s of a product of two large square matrices: the best of several."""
    import torch

    side = CEILING_SIDE[device]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    left @ right  # warms up
    seconds, _ = _repeatedly(lambda: left @ right, device, CEILING_SECONDS)
    surroundings: dict[str, Any] = {"threads": torch.get_num_threads()}
    if device == "cuda":
        surroundings["gpu"] = torch.cuda.get_device_name()
    return {"flop_per_second": 2 * side**3 / min(seconds), **surroundings}


def plain(adapter: str, device: str, first: int) -> dict[str, Any]:
    """The published procedure, of one photo; also how many FLOP its matrix products and convolutions take."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    from plain import TIMESTEPS, Plain

    started = time.perf_counter()
    model = Plain.from_adapter(Path(adapter), device)
    loaded = time.perf_counter() - started
    from genzqa.media.preprocess import to_network

    pixels = to_network(photos(first, 1, model.config.preprocessing.size)[0].pixels)
    counts = _count_flop(model, pixels)  # and so everything has run once
    seconds, raw = _repeatedly(lambda: model.score(pixels), device)
    return {
        "load_seconds": loaded,
        "seconds": seconds,
        "raw": [raw],
        "peak_mib": _peak(device),
        "flop": counts["encode"] + len(TIMESTEPS[model.config.timesteps]) * counts["step"],
        "flop_prompts": counts["prompts"],
    }


def _count_flop(model: Any, pixels: Any) -> dict[str, int]:
    """Of the VAE's encoder, of one UNet call with both prompts, and of the text encoder."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    def count(work: Callable[[], Any]) -> tuple[Any, int]:
        with FlopCounterMode(display=False) as counter:
            done = work()
        return done, counter.get_total_flops()

    latent, encode = count(lambda: model.encode(pixels))
    prompts, text = count(model.prompts)
    _, step = count(lambda: model.step(latent, prompts, torch.zeros_like(latent), 50))
    return {"encode": encode, "prompts": text, "step": step}


def engine(adapter: str, device: str, backend: str, precision: str, batch: int, first: int,
           compiled: bool = False) -> dict[str, Any]:  # fmt: skip
    """The package's scoring, of a batch of photos in one call; ``compiled`` as it is on a GPU once many have come."""
    started = time.perf_counter()
    scorer = _load(adapter, device, backend, precision)
    loaded = time.perf_counter() - started
    prepared = photos(first, batch, scorer.config.preprocessing.size)
    photo_engine: Any = scorer.model.photos
    from genzqa.engine.batch_size import Way

    if compiled or device == "cuda":
        photo_engine._way = Way(batch)  # one call, as asked
    if compiled:
        photo_engine.compile(batch)
    warm, _ = _seconds(lambda: scorer.score_prepared(prepared), device)
    seconds, results = _repeatedly(lambda: scorer.score_prepared(prepared), device)
    return {
        "load_seconds": loaded,
        "first_seconds": warm,
        "seconds": seconds,
        "raw": [result.raw for result in results],
        "peak_mib": _peak(device),
    }


def video(adapter: str, device: str, backend: str, precision: str, path: str, frames: int) -> dict[str, Any]:
    """The package's scoring of a whole video, decoding included."""
    from genzqa.scoring.video_options import VideoOptions

    scorer = _load(adapter, device, backend, precision)
    options = VideoOptions(frames=frames)
    scorer.score(path, video=options)
    seconds, result = _repeatedly(lambda: scorer.score(path, video=options), device)
    return {"seconds": seconds, "score": result.score, "peak_mib": _peak(device)}


def photos(first: int, count: int, size: int) -> list[PreparedPhoto]:
    """Views of the example photos, number ``first`` and those after it: other photos for other numbers."""
    from genzqa.media.prepare import prepare_photo

    return [prepare_photo(view(number), size) for number in range(first, first + count)]


def view(number: int) -> npt.NDArray[np.uint8]:
    """One view of one example photo."""
    import numpy as np
    from PIL import Image

    sources = sorted(PHOTOS.glob("*.jpg"))
    with Image.open(sources[number % len(sources)]) as photo:
        return np.asarray(photo.convert("RGB"))[8 * (number // len(sources)) :]


@lru_cache(1)  # for several measurements in one process
def _load(adapter: str, device: str, backend: Any, precision: Any) -> Scorer:
    import genzqa

    return genzqa.load(f"local-dir:{adapter}", offline=True, backend=backend, precision=precision, device=device)


def clear(device: str) -> None:
    """Give back what the last measurement left on a GPU, but for the model loaded last."""
    if device == "cuda":
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _repeatedly(work: Callable[[], Any], device: str, enough: float = LONG_ENOUGH) -> tuple[list[float], Any]:
    """Seconds of every run, and what the last one returned; runs until they make ``enough`` seconds, once at least."""
    seconds: list[float] = []
    while sum(seconds) < enough:
        taken, done = _seconds(work, device)
        seconds.append(taken)
    return seconds, done


def _seconds(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Of one run, with everything a GPU still has to do."""
    import torch

    settle = torch.cuda.synchronize if device == "cuda" else lambda: None
    settle()
    started = time.perf_counter()
    done = work()
    settle()
    return time.perf_counter() - started, done


def _peak(device: str) -> float:
    """MiB; on a GPU of its own memory, as torch gave it out since the last time."""
    if device != "cuda":
        return peak_mib()
    import torch

    peak = torch.cuda.max_memory_allocated() / MEBIBYTE
    torch.cuda.reset_peak_memory_stats()
    return peak


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each for each in (build, export, clip, ceiling, plain, engine, video)
}

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    print(json.dumps(MEASURES[request.pop("measure")](**request)))
