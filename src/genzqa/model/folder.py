"""A base on disk, in diffusers layout: which files decide a score, whether they are all there, and their checksums.

Nothing here loads weights or imports torch, so that a download can be judged by its configuration before its gigabytes
come, and a damaged one can be told without loading it.

    unet/ vae/ text_encoder/     config.json and safetensors weights
    scheduler/                   scheduler_config.json
    tokenizer/                   CLIP vocabulary and merges
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genzqa.errors import ModelCorruptError, ModelNotFoundError

WEIGHT_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
CONFIG_FILES = (*(f"{part}/config.json" for part in WEIGHT_STEMS), "scheduler/scheduler_config.json")
TOKENIZER_FILES = tuple(
    f"tokenizer/{name}"
    for name in (
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    )
)
ENCODERS = (
    "AutoencoderKL",
    "FeatureEncoder",
)  # classes of what lies in vae/; the second is `genzqa.model.feature_encoder`'s
PREDICTION_TYPES = ("epsilon", "v_prediction")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
TO_SAFETENSORS = "load it where you trust it and write it again with save_pretrained(FOLDER, safe_serialization=True)"


@dataclass(frozen=True)
class Layout:
    """A complete base folder.

    Attributes:
        files: Every file that decides a score, relative to the folder, sorted.
        variants: Component to the weight variant that will be loaded: None for the plain files, else ``fp16``.
        scheduler: The scheduler configuration.
        encoder: Class of the image encoder, one of `ENCODERS`.
    """

    files: tuple[str, ...]
    variants: Mapping[str, str | None]
    scheduler: Mapping[str, Any]
    encoder: str


def read_layout(folder: Path) -> Layout:
    """Check that a folder is a complete base of Stable Diffusion topology and list the files that decide a score.

    Raises:
        ModelNotFoundError: No such folder.
        ModelCorruptError: A part is missing, only pickle weights are there, or the model is of another family.
    """
    scheduler = check_configs(folder)
    variants: dict[str, str | None] = {}
    files = config_files(folder)
    for part in WEIGHT_STEMS:
        variants[part], weights = weight_files(folder, part)
        files += weights
    encoder = str(read_config(folder, "vae/config.json")["_class_name"])
    return Layout(tuple(sorted(files)), variants, scheduler, encoder)


def config_files(folder: Path) -> list[str]:
    """The configurations and those tokenizer files that are there."""
    return [*CONFIG_FILES, *(name for name in TOKENIZER_FILES if (folder / name).is_file())]


def weight_files(folder: Path, part: str) -> tuple[str | None, list[str]]:
    """Variant and weight files of one component; half precision (``fp16``) only where the plain weights are missing.

    Raises:
        ModelCorruptError: There are no safetensors weights for it.
    """
    stem = f"{part}/{WEIGHT_STEMS[part]}"
    plain, index, half = f"{stem}.safetensors", f"{stem}.safetensors.index.json", f"{stem}.fp16.safetensors"
    if (folder / plain).is_file():
        return None, [plain]
    if (folder / index).is_file():
        shards = sorted({f"{part}/{shard}" for shard in _object(read_config(folder, index), "weight_map").values()})
        if missing := [shard for shard in shards if Path(shard).parent != Path(part) or not (folder / shard).is_file()]:
            raise ModelCorruptError(f"{index} names weights that are missing: {missing[0]}", subject=str(folder))
        return None, [index, *shards]
    if (folder / half).is_file():
        return "fp16", [half]
    if any((folder / part).glob("*.bin")):
        raise ModelCorruptError(f"{part}/ has only pickle weights (.bin)", subject=str(folder), hint=TO_SAFETENSORS)
    raise ModelCorruptError(f"{plain} is missing", subject=str(folder))


def check_configs(folder: Path) -> Mapping[str, Any]:
    """Check everything that can be judged before the weights are there; returns the scheduler configuration.

    Raises:
        ModelNotFoundError: No such folder.
        ModelCorruptError: A configuration is missing or broken, or the model is not of Stable Diffusion topology.
    """
    if not folder.is_dir():
        raise ModelNotFoundError("no such folder", subject=str(folder))
    _refuse_other_families(folder)
    if missing := [name for name in CONFIG_FILES if not (folder / name).is_file()]:
        raise ModelCorruptError(
            f"not a complete base; missing: {', '.join(missing)}",
            subject=str(folder),
            hint="give the folder that contains unet, vae, text_encoder, tokenizer and scheduler",
        )
    words = ("tokenizer/vocab.json", "tokenizer/merges.txt")
    if not (folder / "tokenizer/tokenizer.json").is_file() and not all((folder / name).is_file() for name in words):
        raise ModelCorruptError(f"the tokenizer is missing ({' and '.join(words)})", subject=str(folder))
    unet, vae, text, scheduler = (read_config(folder, name) for name in CONFIG_FILES)
    if reason := _unet_problem(unet) or _fit_problem(unet, vae, text) or _scheduler_problem(scheduler):
        raise ModelCorruptError(reason, subject=str(folder), hint="bases are Stable Diffusion 1.x, 2.x or SD-Turbo")
    for part, config in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        # Each of these makes the loader read other files than the ones we check and take the checksum of.
        redirected = [key for key in ("quantization_config", "transformers_weights") if config.get(key)]
        if redirected or (folder / part / "adapter_config.json").exists():
            what = redirected[0] if redirected else "adapter_config.json"
            raise ModelCorruptError(
                f"{part} is not plain weights ({what})",
                subject=str(folder),
                hint="merge or dequantise it and save again",
            )
    return scheduler


def _refuse_other_families(folder: Path) -> None:
    """Name the well-known neighbours, whose folders would otherwise fail on some missing file."""
    if (folder / "text_encoder_2").exists():
        reason = "this is Stable Diffusion XL or later (two text encoders)"
    elif (folder / "transformer").exists() and not (folder / "unet").exists():
        reason = "this model is built on a transformer, not on a UNet"
    else:
        return
    raise ModelCorruptError(reason, subject=str(folder), hint="bases are Stable Diffusion 1.x, 2.x or SD-Turbo")


def _unet_problem(unet: Mapping[str, Any]) -> str:
    if unet.get("_class_name") != "UNet2DConditionModel":
        return f"the UNet is a {unet.get('_class_name')}, not a UNet2DConditionModel"
    if unet.get("addition_embed_type") is not None:
        return "the UNet takes additional embeddings (Stable Diffusion XL)"
    blocks = [*(unet.get("down_block_types") or ()), *(unet.get("up_block_types") or ()), unet.get("mid_block_type")]
    if not any("CrossAttn" in str(block) for block in blocks):
        return "the UNet has no cross-attention, so no prompt can be compared with the image"
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        return "the UNet takes class labels (an upscaler or unCLIP model)"
    if unet.get("in_channels") != unet.get("out_channels"):
        return (
            f"the UNet reads {unet.get('in_channels')} channels and predicts {unet.get('out_channels')} (inpainting?)"
        )
    return ""


def _fit_problem(unet: Mapping[str, Any], vae: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    if vae.get("_class_name") not in ENCODERS:
        return f"the VAE is a {vae.get('_class_name')}, not an AutoencoderKL"
    if vae.get("latent_channels") != unet.get("in_channels"):
        return f"the VAE makes {vae.get('latent_channels')} channels, the UNet reads {unet.get('in_channels')}"
    if "CLIPTextModel" not in (text.get("architectures") or ["CLIPTextModel"]):
        return f"the text encoder is {text.get('architectures')}, not a CLIPTextModel"
    if text.get("hidden_size") != unet.get("cross_attention_dim"):
        return f"text width {text.get('hidden_size')} does not fit the UNet's {unet.get('cross_attention_dim')}"
    return ""


def _scheduler_problem(scheduler: Mapping[str, Any]) -> str:
    # The libraries' fallbacks (0.0001 to 0.02, linear) are not what any of these bases was trained with.
    needed = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")
    if missing := [key for key in needed if scheduler.get(key) is None]:
        return f"scheduler_config.json lacks {', '.join(missing)}"
    if scheduler["beta_schedule"] not in BETA_SCHEDULES:
        return f"unknown beta_schedule {scheduler['beta_schedule']!r}"
    steps = scheduler["num_train_timesteps"]
    if not isinstance(steps, int) or not 1 <= steps <= 100_000:
        return f"num_train_timesteps is {steps!r}"
    if scheduler.get("prediction_type", "epsilon") not in PREDICTION_TYPES:
        return f"unknown prediction_type {scheduler['prediction_type']!r}"
    return ""


def file_digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """File to SHA-256, read in pieces.

    Raises:
        ModelCorruptError: A file is missing or cannot be read.
    """
    return {name: file_sha256(folder / name) for name in files}


def file_sha256(path: Path) -> str:
    """SHA-256 of one regular file. Raises `ModelCorruptError` when there is none or reading fails."""
    if not path.is_file():  # a fifo would wait for ever
        raise ModelCorruptError("the file is missing", subject=str(path))
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelCorruptError(f"cannot be read: {error.strerror}", subject=str(path)) from error


def combined_sha256(digests: Mapping[str, str]) -> str:
    """One digest of many, in the form `sha256sum` prints them, sorted by file name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def base_sha256(folder_or_file: Path) -> str:
    """One digest over the weights and configurations that decide a score; where they lie does not enter.

    Raises:
        ModelNotFoundError: No such folder or file.
        ModelCorruptError: The folder is not a complete base, or a file cannot be read.
    """
    if folder_or_file.is_file():
        return combined_sha256({"checkpoint.safetensors": file_sha256(folder_or_file)})
    return combined_sha256(file_digests(folder_or_file, read_layout(folder_or_file).files))


def read_config(folder: Path, name: str) -> Mapping[str, Any]:
    """One JSON object of a base folder. Raises `ModelCorruptError` when it cannot be read as one."""
    try:
        content = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelCorruptError(f"{name} cannot be read: {error}", subject=str(folder)) from error
    if not isinstance(content, dict):
        raise ModelCorruptError(f"{name} is not a JSON object", subject=str(folder))
    return content


def _object(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}
