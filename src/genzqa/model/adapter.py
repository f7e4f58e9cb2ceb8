"""Adapter folders: ``adapter.safetensors`` (what was trained) and ``config.json`` (everything else a score depends on)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from genzqa.errors import ConfigError, ModelCorruptError, ModelNotFoundError, NotTrainedError, OutputError
from genzqa.files import write_atomically
from genzqa.model.base import Base, load_base
from genzqa.model.config import MotionSizes, ScorerConfig, VideoConfig, read_config
from genzqa.model.cross_attention import Block
from genzqa.model.genziqa import GenzIQA
from genzqa.model.genzvqa import GenzVQA
from genzqa.model.lora import load_lora, lora_parameters, merge_lora
from genzqa.model.modulator import TemporalQualityModulator
from genzqa.model.names import ModelName, parse_name
from genzqa.model.prompts import StoredPrompts
from genzqa.model.registry import embedded_folder, lookup
from genzqa.model.slowfast import SlowFast, SlowFastConfig
from genzqa.student.config import is_student

WEIGHTS, CONFIG = "adapter.safetensors", "config.json"
WIDE = 128  # channels; over fewer, what bf16 rounds away does not average out (of `mini`, 0.24 score points on one of four photos)
TOKENS = 77  # of a prompt, padding included (CLIP)
PROMPTS = "prompt_embeds"  # of both prompts as computed when the adapter was written; spares scoring the text encoder
VIDEO_PARTS = ("tqm.", "motion.")  # of an adapter's tensor names


@dataclass(frozen=True)
class LoadedScorer:
    """A model ready to score, with what identifies it in results; ``video`` shares its image part."""

    model: GenzIQA
    video: GenzVQA | None
    motion: SlowFast | None
    config: ScorerConfig
    name: str
    weights_sha256: str
    base_sha256: str


def load_scorer(
    name: str, *, offline: bool = False, trainable: bool = True, dtype: torch.dtype = torch.float32
) -> LoadedScorer:
    """Load a trained scorer: an adapter folder or a registry name of kind "scorer", with its base.

    Args:
        name: See `genzqa.model.names`.
        offline: Never open a connection.
        trainable: Whether the prompts must be computed anew from their context, and the LoRA stay by itself. If not, the
            prompts stored in the adapter serve, the text encoder is not even loaded, and the LoRA is merged.
        dtype: Of the base's weights. A base too narrow for it (`is_wide`) is loaded in single precision.

    Raises:
        NotTrainedError: If the name is a base without trained parts.
        ModelNotFoundError, ModelCorruptError, OfflineError, ConfigError: As `genzqa.errors` says.
    """
    folder = locate_adapter(parse_name(name))
    if is_student(folder):
        raise ConfigError("this is a student: it scores, but cannot be trained or taught from", subject=name,
                          hint="name its teacher, or another adapter")  # fmt: skip
    config = read_config(folder / CONFIG)
    weights, digest = read_weights(folder / WEIGHTS)
    stored = None
    if not trainable and PROMPTS in weights and "context" in weights:
        stored = StoredPrompts(weights["context"], weights[PROMPTS])
    base = load_base(_base_name(config.base, folder), offline=offline, text=stored is None, dtype=dtype)
    if dtype != torch.float32 and not is_wide(base.vae, base.unet):
        base = load_base(_base_name(config.base, folder), offline=offline, text=stored is None)
    if stored is not None:
        _check_prompts(stored, config, base)
    if config.base_sha256 and base.sha256 != config.base_sha256:
        raise ModelCorruptError(
            f"the base {config.base} is not the one this adapter was trained on (sha256 {base.sha256[:12]}, "
            f"expected {config.base_sha256[:12]})",
            subject=str(folder),
            hint="fetch the base again, or train an adapter on this one",
        )
    model = build(base, config, weights, stored, merged=not trainable)
    video, motion = build_video(model, config, weights)
    return LoadedScorer(model.eval(), video, motion, config, name, digest, base.sha256)


def is_wide(vae: Any, unet: Any) -> bool:
    """Whether a base keeps its scores in half the precision: encoder and denoiser have `WIDE` channels at least, as every
    Stable Diffusion has."""
    return bool(min(vae.config.block_out_channels[0], unet.config.block_out_channels[0]) >= WIDE)


def locate_adapter(name: ModelName) -> Path:
    """The folder of an adapter.

    Raises:
        ModelNotFoundError: If there is no such folder.
        NotTrainedError: If the name is that of a base.
    """
    untrained = NotTrainedError("this is a base without a trained adapter; a score of it would mean nothing",
                                subject=name.value, hint="train an adapter on it, or use the embedded model `mini`")  # fmt: skip
    if name.kind == "registry":
        folder = embedded_folder(name.value)
        if folder is None:
            raise untrained
        return folder if lookup(name.value).kind == "student" else folder / "adapter"
    if name.kind != "local-dir":
        raise untrained
    folder = Path(name.value).expanduser()
    if not folder.is_dir():
        raise ModelNotFoundError("no such folder", subject=name.value)
    if (folder / "model_index.json").exists() and not (folder / WEIGHTS).exists():
        raise untrained
    return folder


def build(
    base: Base,
    config: ScorerConfig,
    weights: dict[str, Tensor],
    prompts: StoredPrompts | None = None,
    *,
    merged: bool = False,
) -> GenzIQA:
    """A model from its base and the trained tensors; trained parts require gradients, all else is frozen. With ``merged``, the
    LoRA becomes part of the base's weights.

    Raises:
        ModelCorruptError: If a tensor is missing, unknown or of another shape.
    """
    model = GenzIQA(base, config, prompts)
    model.requires_grad_(False)
    (merge_lora if merged else load_lora)(model.unet, weights, config.lora_rank)
    wanted = {name: value for name, value in trained_parameters(model).items() if not name.startswith("lora.")}
    given = {
        name: value
        for name, value in weights.items()
        if not name.startswith(("lora.", *VIDEO_PARTS)) and name != PROMPTS
    }
    fill(wanted, given)
    for parameter in trained_parameters(model).values():
        parameter.requires_grad_(True)
    return model


def build_video(
    model: GenzIQA, config: ScorerConfig, weights: dict[str, Tensor]
) -> tuple[GenzVQA | None, SlowFast | None]:
    """The video model and, if the adapter holds one, its motion network; ``(None, None)`` for images alone.

    Raises:
        ModelCorruptError: If a tensor of either is missing, unknown or of another shape.
    """
    given = {name: value for name, value in weights.items() if name.startswith(VIDEO_PARTS)}
    if config.video is None:
        fill({}, given)
        return None, None
    sizes = _motion_sizes(config.video)
    video = GenzVQA(model, config.video, slow_features=sizes.slow_features, fast_features=sizes.fast_features).eval()
    return video, _fill_temporal(video.modulator, config.video, given)


def build_temporal(
    blocks: Sequence[Block], config: ScorerConfig, weights: dict[str, Tensor]
) -> tuple[TemporalQualityModulator | None, SlowFast | None]:
    """As `build_video`, without the image model: modulator and motion network alone.

    Raises:
        ModelCorruptError: As `build_video`.
    """
    given = {name: value for name, value in weights.items() if name.startswith(VIDEO_PARTS)}
    if config.video is None:
        fill({}, given)
        return None, None
    sizes = _motion_sizes(config.video)
    modulator = TemporalQualityModulator(blocks, sizes.slow_features, sizes.fast_features, form=config.video.tqm,
                                         scale=config.video.tqm_scale).eval()  # fmt: skip
    return modulator, _fill_temporal(modulator, config.video, given)


def _motion_sizes(video: VideoConfig) -> SlowFastConfig:
    if isinstance(video.motion, MotionSizes):
        return SlowFastConfig(**video.motion.model_dump(), classes=1)
    return SlowFastConfig()


def _fill_temporal(
    modulator: TemporalQualityModulator, video: VideoConfig, given: dict[str, Tensor]
) -> SlowFast | None:
    """Fill the modulator and, if the adapter holds one, its motion network."""
    wanted = {f"tqm.{name}": value for name, value in modulator.state_dict().items()}
    motion = None
    if isinstance(video.motion, MotionSizes):
        motion = SlowFast(_motion_sizes(video)).eval().requires_grad_(False)
        wanted |= {f"motion.{name}": value for name, value in motion.state_dict().items()}
    fill(wanted, given)
    return motion


def _check_prompts(stored: StoredPrompts, config: ScorerConfig, base: Base) -> None:
    """Of another shape they would fit nothing, or, worse, something."""
    width = int(base.unet.config.cross_attention_dim)
    for name, value, shape in (("context", stored.context, (config.context_length, width)),
                               (PROMPTS, stored.embeds, (2, TOKENS, width))):  # fmt: skip
        if tuple(value.shape) != shape:
            raise ModelCorruptError(f"{name!r} has shape {tuple(value.shape)}, the model needs {shape}",
                                    hint="its config, weights and base do not belong together")  # fmt: skip


def fill(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], kind: str = "adapter") -> None:
    """Copy the file's tensors into the model's, name by name, none left over on either side.

    Raises:
        ModelCorruptError: If a tensor is missing, unknown or of another shape; ``kind`` is what the file is called then.
    """
    if set(wanted) != set(given):
        odd = sorted(set(wanted) ^ set(given))[0]
        state = "lacks" if odd in wanted else "holds an unknown"
        raise ModelCorruptError(
            f"the {kind} {state} tensor {odd!r}", hint="its config and weights do not belong together"
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            if tensor.shape != given[name].shape:
                raise ModelCorruptError(
                    f"{name!r} has shape {tuple(given[name].shape)}, the model needs {tuple(tensor.shape)}"
                )
            tensor.copy_(given[name])


def trained_parameters(model: GenzIQA) -> dict[str, torch.nn.Parameter]:
    """Name in an adapter file -> the live parameter: ``context``, ``lora.*`` and, if learned, ``readout.*``."""
    named = {"context": model.prompts.context, **lora_parameters(model.unet)}
    if model.readout is not None:
        named |= {f"readout.{name}": parameter for name, parameter in model.readout.named_parameters()}
    return named


def with_prompts(model: GenzIQA, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's tensors with the prompts' embeddings beside them, as this model computes them."""
    with torch.inference_mode():
        return {**weights, PROMPTS: model.prompts().float().clone()}


def save_adapter(folder: Path, weights: dict[str, Tensor], config: ScorerConfig) -> None:
    """Write an adapter folder; each file appears whole or not at all.

    Raises:
        OutputError: If the folder or a file cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
        write_atomically(folder / CONFIG, (config.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror or error}", subject=str(folder)) from None


def _base_name(base: str, folder: Path) -> str:
    """A relative ``local-dir:`` or ``file:`` base is meant from the adapter folder, so that the pair can be moved."""
    name = parse_name(base)
    if name.kind in ("local-dir", "file"):
        path = Path(name.value).expanduser()
        return f"{name.kind}:{path if path.is_absolute() else (folder / path).resolve()}"
    return base


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a weights file in single precision, and the file's SHA-256.

    Raises:
        ModelNotFoundError, ModelCorruptError: If there is none, or it cannot be read.
    """
    try:
        content = path.read_bytes()
        tensors = load_file(path)
    except FileNotFoundError:
        raise ModelNotFoundError(f"no {path.name} here", subject=str(path.parent)) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelCorruptError(f"cannot be read: {error}", subject=str(path), hint="fetch or train it again") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ModelCorruptError(f"tensor {name!r} holds NaN or infinity", subject=str(path))
    return {name: tensor.float() for name, tensor in tensors.items()}, hashlib.sha256(content).hexdigest()
