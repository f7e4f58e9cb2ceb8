"""Exporting a model: a graph that other runtimes execute, checked against torch before anything is left behind."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from genzqa import __version__
from genzqa.engine import graph
from genzqa.engine.engine import EngineOptions, Precision
from genzqa.engine.exported import CARD, FRAMES, PARITY, ExportCard, Layer, digests, engine_of, is_export
from genzqa.engine.onnx_engine import MODEL
from genzqa.engine.open import kept_precision, other_pass_for_frames, pass_of
from genzqa.engine.openvino_engine import write_graphs
from genzqa.errors import ConfigError, ModelCorruptError, OutputError
from genzqa.model.adapter import CONFIG, VIDEO_PARTS, WEIGHTS, LoadedScorer, load_scorer, locate_adapter, read_weights
from genzqa.model.config import Calibration, ScorerConfig
from genzqa.model.genzvqa import FrameReadings, GenzVQA
from genzqa.model.names import parse_name
from genzqa.scoring.calibration import calibrate
from genzqa.student.config import ONNX
from genzqa.student.folder import find_student

CLOSE = 1e-3  # raw units that a graph in fp32 may be off
CLOSE_BF16 = 0.1  # score points that a graph in bf16 may be off
PROBES = 4  # images on which that is measured


def export_model(name: str, to: Literal["openvino", "onnx"], folder: Path, *, precision: Precision = "fp32",
                 offline: bool = False) -> dict[str, float]:  # fmt: skip
    """Write a trained scorer as a graph that other runtimes execute, checked against torch.

    Args:
        name: See `genzqa.load`.
        to: What for.
        folder: Written whole or not at all; must not exist, or be empty.
        precision: In which it is to be run; OpenVINO alone knows ``bf16``, and a model too narrow for it stays in fp32.
        offline: Never open a connection.

    Returns:
        The largest differences from torch in fp32, also in ``parity.json``.

    Raises:
        ConfigError: The extra is missing, or the model is an export or a student already.
        ModelError: The graph does not give the model's scores; nothing is written.
        OutputError: The folder cannot be written.
    """
    EngineOptions(backend=to, precision=precision)  # refuses what cannot be run
    if (student := find_student(name)) is not None:
        raise ConfigError("this is a student, which is an ONNX file as well", subject=name,
                          hint=f"copy {student / ONNX}; no other graph is made of it")  # fmt: skip
    if is_export(locate_adapter(parse_name(name))):
        raise ConfigError("this is an exported model already", subject=name, hint="export the model it was made from")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("is in the way", subject=str(folder), hint="give a new folder")
    loaded = load_scorer(name, offline=offline, trainable=False)
    precision = kept_precision(loaded.model, precision)
    with _made_whole(folder) as made:
        for frames in _passes(loaded.config):
            place = made / FRAMES if frames else made
            place.mkdir(exist_ok=True)
            plan = pass_of(loaded.model, loaded.config, frames=frames)
            if to == "onnx":
                graph.to_onnx(plan, place / MODEL)
            else:
                write_graphs(plan, place)
        (made / CONFIG).write_text(loaded.config.model_dump_json(indent=2) + "\n", "utf-8")
        weights, _ = read_weights(locate_adapter(parse_name(name)) / WEIGHTS)
        save_file({key: value for key, value in weights.items() if key.startswith(VIDEO_PARTS)}, made / WEIGHTS)
        card = _card(made, loaded, to, precision)
        (made / CARD).write_text(card.model_dump_json(indent=2) + "\n", "utf-8")
        found = _parity(made, card, loaded)
        (made / PARITY).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        _require_close(found, precision, name)
    return found


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` that becomes it when the block ends well."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".exporting-"))
        try:
            yield made
            made.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject=str(folder)) from None


def _passes(config: ScorerConfig) -> tuple[bool, ...]:
    return (False, True) if other_pass_for_frames(config) else (False,)


def _card(folder: Path, loaded: LoadedScorer, to: Literal["openvino", "onnx"], precision: Precision) -> ExportCard:
    return ExportCard(
        backend=to, precision=precision, model=loaded.config.name,
        weights_sha256=loaded.weights_sha256, base_sha256=loaded.base_sha256, genzqa=__version__,
        blocks=[Layer(**vars(block)) for block in loaded.model.blocks], files=digests(folder),
    )  # fmt: skip


def _parity(folder: Path, card: ExportCard, loaded: LoadedScorer) -> dict[str, float]:
    """The largest differences between the graphs as they lie in the folder and torch in fp32."""
    found: dict[str, float] = {"images": PROBES}
    config, passes = loaded.config, _passes(loaded.config)
    for frames in passes:
        engine = engine_of(folder / FRAMES if frames else folder, card, config)
        pixels = probe_images(config.preprocessing.size)
        with torch.inference_mode():
            raw, blocks, queries = pass_of(loaded.model, config, frames=frames)(pixels)
        ours = engine.run(pixels)
        one = FrameReadings.joined([engine.run(pixels[:1]), engine.run(pixels[1:])])
        prefix = "frames_" if frames else ""
        found[f"{prefix}raw"] = _largest(ours.raw, raw)
        found[f"{prefix}blocks"] = _largest(ours.block_scores, blocks)
        found[f"{prefix}queries"] = max(map(_largest, ours.queries, queries))
        found[f"{prefix}raw_one_by_one"] = _largest(one.raw, ours.raw)
        if config.calibration is not None:
            found[f"{prefix}score"] = _points(ours.raw, raw, config.calibration)
        if loaded.video is not None and frames == passes[-1]:  # what videos are read by
            found["video"] = _video_difference(loaded.video, FrameReadings(raw, blocks, queries), ours)
    return found


def _require_close(found: dict[str, float], precision: Precision, name: str) -> None:
    """Raise `ModelCorruptError` if a graph is not what it was made from."""
    for prefix in ("", "frames_"):
        if f"{prefix}raw" not in found:
            continue
        measure, most = ("score", CLOSE_BF16) if precision == "bf16" and f"{prefix}score" in found else ("raw", CLOSE)
        value = found[f"{prefix}{measure}"]
        _require(value, most, measure, name)
    if precision == "fp32":
        _require(found.get("video", 0.0), CLOSE, "of a video", name)


def _require(value: float, most: float, measure: str, name: str) -> None:
    if not value <= most:
        raise ModelCorruptError(f"the exported graph is off by {value:.4g} ({measure}), {most:g} is allowed", subject=name,
                                hint="export it in fp32, or to another format")  # fmt: skip


@torch.inference_mode()
def _video_difference(video: GenzVQA, theirs: FrameReadings, ours: FrameReadings) -> float:
    """How far apart the raw scores of one video are, of these frames and of a motion that is always the same."""
    chances, (slow, fast) = torch.Generator().manual_seed(0), video.modulator.feature_sizes
    motion = [torch.randn(PROBES, size, generator=chances) for size in (slow, fast)]
    return _largest(video.modulate(ours, *motion).score, video.modulate(theirs, *motion).score)


def _largest(ours: Tensor, theirs: Tensor) -> float:
    return round(float((ours - theirs).abs().max()), 6)


def _points(ours: Tensor, theirs: Tensor, calibration: Calibration) -> float:
    both = zip(ours.tolist(), theirs.tolist(), strict=True)
    return round(max(abs(calibrate(one, calibration)[0] - calibrate(other, calibration)[0]) for one, other in both), 6)


def probe_images(size: int) -> Tensor:
    """Images ``(PROBES, 3, size, size)`` in [-1, 1] with spectra like those of photos, from smooth to noisy; always the same."""
    rng = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1 / size
    images = []
    for number in range(PROBES):
        noise = np.fft.rfft2(rng.standard_normal((3, size, size)))
        image = np.fft.irfft2(noise / radius ** (1.3 - 0.3 * number), (size, size))
        images.append(np.tanh(image / image.std() / 2))
    return torch.from_numpy(np.stack(images).astype(np.float32))
