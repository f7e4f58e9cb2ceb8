"""A model opened for scoring: whatever kind it is and whatever runs it, scoring sees the same few things."""

from __future__ import annotations

import functools
import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from genzqa import __version__
from genzqa.engine.engine import INT8, Engine, EngineOptions, Precision
from genzqa.errors import ConfigError
from genzqa.model.adapter import LoadedScorer, is_wide, load_scorer, locate_adapter
from genzqa.model.cross_attention import Block
from genzqa.model.diffusion import scoring_timesteps
from genzqa.model.names import parse_name
from genzqa.student.config import StudentConfig
from genzqa.student.folder import find_student

if TYPE_CHECKING:
    from genzqa.engine.scoring_pass import ScoringPass
    from genzqa.model.config import ScorerConfig
    from genzqa.model.genziqa import GenzIQA
    from genzqa.model.modulator import TemporalQualityModulator
    from genzqa.model.slowfast import SlowFast

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class OpenModel:
    """What scoring needs of a model.

    Attributes:
        photos: Reads photos.
        frames: Gives the engine that reads frames of videos: the same, or one with a video's timesteps.
        blocks: Its cross-attention layers; of a student, the names of its teacher's.
        modulator, motion: Of its temporal part, if it has one in its own files.
        motion_sha256: Of a motion network that has a file of its own.
        network: Gives the network itself, for quality maps; None if only its graph is here, or of a student.
    """

    config: ScorerConfig | StudentConfig
    name: str
    weights_sha256: str
    base_sha256: str
    blocks: Sequence[Block | str]
    photos: Engine
    frames: Callable[[], Engine]
    modulator: TemporalQualityModulator | None = None
    motion: SlowFast | None = None
    motion_sha256: str | None = None
    network: Callable[[], GenzIQA] | None = None
    options: EngineOptions = field(default_factory=EngineOptions)

    def require_drawing(self) -> GenzIQA:
        """The network, for quality maps.

        Raises:
            ConfigError: If only its graph is here, or it is a student.
            ModelError: If it has to be loaded again and its files are damaged or gone.
        """
        if self.network is None:
            what, whose = ("a student", "its teacher") if isinstance(self.config, StudentConfig) else (
                "an exported graph", "the model it was exported from")  # fmt: skip
            raise ConfigError(f"this model cannot draw quality maps: it is {what}", subject=self.name,
                              hint=f"score with {whose}")  # fmt: skip
        return self.network()

    @property
    def timesteps(self) -> tuple[int, ...]:
        """At which a photo is read; none for a student."""
        return () if isinstance(self.config, StudentConfig) else scoring_timesteps(self.config.timesteps)


def open_model(name: str, options: EngineOptions, *, offline: bool = False) -> OpenModel:
    """Load a model to score with.

    Args:
        name: See `genzqa.load`.
        options: How to run it.
        offline: Never open a connection.

    Raises:
        NotTrainedError, ModelError, ConfigError: As `genzqa.errors` says.
    """
    from genzqa.engine.exported import is_export, open_export

    if (student := find_student(name)) is not None:
        from genzqa.student.engine import open_student

        return open_student(student, name, options)
    if is_export(locate_adapter(parse_name(name))):
        return open_export(name, options)
    if options.precision == "int8":
        raise ConfigError("only an exported model runs in int8", subject=name, hint=INT8)
    on_torch = options.backend == "torch"
    device = options.torch_device()
    dtype = _DTYPES[options.precision] if on_torch else torch.float32
    loaded = load_scorer(name, offline=offline, trainable=False, dtype=dtype)
    loaded.model.to(device)
    if loaded.motion is not None:
        loaded.motion.to(device)
    options = replace(options, precision=kept_precision(loaded.model, options.precision))
    start = _prepared(loaded, options)
    config, blocks, other_pass = loaded.config, loaded.model.blocks, other_pass_for_frames(loaded.config)
    weights_sha256, base_sha256 = loaded.weights_sha256, loaded.base_sha256
    modulator, motion = loaded.video.modulator if loaded.video else None, loaded.motion
    kept = loaded if on_torch else None
    del loaded  # a graph has weights of its own: those of a large base would stand in memory twice
    if not on_torch:
        gc.collect()
    photos = start()

    @functools.cache
    def again() -> LoadedScorer:
        return kept or load_scorer(name, offline=offline, trainable=False, dtype=dtype)

    @functools.cache
    def frames() -> Engine:
        return _prepared(again(), options, frames=True)() if other_pass else photos

    return OpenModel(
        config=config, name=config.name, weights_sha256=weights_sha256, base_sha256=base_sha256, blocks=blocks, photos=photos,
        frames=frames, modulator=modulator, motion=motion, network=lambda: again().model, options=options,
    )  # fmt: skip


def other_pass_for_frames(config: ScorerConfig) -> bool:
    """Whether frames of videos are read at other timesteps than photos."""
    video = config.video
    return video is not None and (
        video.timesteps != config.timesteps or (video.tqm_queries == "last" and video.timesteps > 1)
    )


def pass_of(model: GenzIQA, config: ScorerConfig, *, frames: bool = False) -> ScoringPass:
    """The pass for photos, or for frames of videos.

    Raises:
        ConfigError: If the base is not of Stable Diffusion's topology.
    """
    from genzqa.engine.scoring_pass import ScoringPass

    if frames and config.video is not None:
        return ScoringPass(model, config.video.timesteps, config.video.tqm_queries)
    return ScoringPass(model)


def pass_key(loaded: LoadedScorer, *, frames: bool) -> str:
    """Names everything that decides what a pass computes."""
    kind = "frames" if frames else "photos"
    config = hashlib.sha256(loaded.config.model_dump_json(exclude={"calibration"}).encode()).hexdigest()
    return f"{__version__}/{loaded.weights_sha256}/{loaded.base_sha256}/{config}/{kind}"


def _prepared(loaded: LoadedScorer, options: EngineOptions, *, frames: bool = False) -> Callable[[], Engine]:
    """Starts an engine; one that runs a graph has made it by then, and needs the network no more."""
    config, graph = loaded.config, pass_key(loaded, frames=frames)
    key = f"{graph}/{options.backend}/{options.precision}/{options.torch_device()}"
    if options.backend == "torch":
        return lambda: _on_torch(loaded, options, key, frames=frames)
    if options.backend == "onnx":
        raise ConfigError("the backend onnx runs exported models", subject=loaded.name,
                          hint="`genzqa export --to onnx DIR`, then score with --model local-dir:DIR")  # fmt: skip
    from genzqa.engine.openvino_engine import OpenVINOEngine, converted

    encoder, reader = converted(lambda: pass_of(loaded.model, config, frames=frames), graph)
    return functools.partial(OpenVINOEngine, encoder, reader, loaded.model.blocks, config.preprocessing.size, key,
                             precision=options.precision)  # fmt: skip


def _on_torch(loaded: LoadedScorer, options: EngineOptions, key: str, *, frames: bool) -> Engine:
    from genzqa.engine.torch_engine import PlainEngine, TorchEngine

    config = loaded.config
    try:
        plan = pass_of(loaded.model, config, frames=frames)
    except ConfigError:  # another topology: slower, and as right
        video = config.video
        steps = video.timesteps if frames and video is not None else config.timesteps
        last = frames and video is not None and video.tqm_queries == "last"
        return PlainEngine(loaded.model, steps, last, key)
    return TorchEngine(plan.to(options.torch_device()), key)


def kept_precision(model: GenzIQA, precision: Precision) -> Precision:
    """The precision a model runs in where this one is asked for: the scores of one too narrow for bf16 would move
    (`genzqa.model.adapter.WIDE`)."""
    return precision if is_wide(model.vae, model.unet) else "fp32"
