"""Loading a base: the VAE, UNet, text encoder, tokenizer and noise schedule of a latent diffusion model.

The libraries' own classes do the loading, from safetensors only and from local files only; what a download is, and when
one is allowed, is `genzqa.model.hub`'s business.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from genzqa.errors import ConfigError, ModelCorruptError, ModelNotFoundError
from genzqa.model import hub, late_imports
from genzqa.model.checksums import check_recorded
from genzqa.model.folder import base_sha256, combined_sha256, file_digests, read_layout
from genzqa.model.names import ModelName, parse_name

late_imports.import_diffusers()
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: E402
from diffusers.utils import logging as diffusers_logging  # noqa: E402

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

from genzqa.model.feature_encoder import FeatureEncoder  # noqa: E402

__all__ = ["Base", "base_sha256", "load_base", "locate_base"]

# What the libraries raise on damaged weights and nonsensical configurations; MemoryError and interrupts pass through.
LOADING_ERRORS = (
    OSError, ValueError, RuntimeError, TypeError, AttributeError, AssertionError, LookupError, ArithmeticError,
    SafetensorError,
)  # fmt: skip

ENCODERS = {"AutoencoderKL": AutoencoderKL, "FeatureEncoder": FeatureEncoder}

_CACHE_LINE = 64  # bytes; torch allocates on such boundaries

# Saved by old versions of the libraries, or used for other tasks than ours; not having a place for them is no damage.
_HARMLESS = ("position_ids", "text_projection.weight", "logit_scale")

# The keys of a scheduler configuration that describe training; the rest is about sampling images, which we never do.
_TRAINING_SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"
)  # fmt: skip


@dataclass
class Base:
    """A loaded latent diffusion model, frozen and in evaluation mode, on the CPU.

    Attributes:
        alphas_cumprod: abar of the noise schedule, (num_train_timesteps,) float32.
        name: The spelling it was asked for by.
        sha256: One digest of everything that decides a score; see `base_sha256`.
        prediction_type: What the UNet predicts, ``epsilon`` or ``v_prediction``.
        folder: Where the parts lie; None for a one-file checkpoint.
        text_encoder, tokenizer: None in a base that was loaded without text.
    """

    vae: AutoencoderKL | FeatureEncoder
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel | None
    tokenizer: CLIPTokenizer | None
    alphas_cumprod: torch.Tensor
    name: str
    sha256: str
    prediction_type: str
    folder: Path | None


def load_base(name: str, *, offline: bool = False, dtype: torch.dtype = torch.float32, text: bool = True) -> Base:
    """Load a base by name, downloading it first when it is a hub model that is not here yet.

    Args:
        name: See `genzqa.model.names`.
        offline: Never open a connection; also switched on by ``GENZQA_OFFLINE=1`` or ``HF_HUB_OFFLINE=1``.
        dtype: Of all weights. Half precision is for accelerators.
        text: Whether the text encoder and the tokenizer are needed. A one-file checkpoint always comes with them.

    Raises:
        ConfigError: The name is malformed.
        ModelNotFoundError: Nothing there, or no source could be downloaded.
        OfflineError: It would have to be downloaded, and that is not allowed.
        ModelCorruptError: Incomplete, damaged, changed since it was recorded, or not of Stable Diffusion topology.
    """
    model = parse_name(name)
    path = _locate(model, offline=offline)
    if model.kind == "file":
        from genzqa.model.single_file import load_single_file  # it assembles a Base, so it reads this module

        return load_single_file(path, dtype=dtype)
    layout = read_layout(path)
    if text:
        import transformers  # noqa: F401 - slow, and scoring can do without; before `loading`, which quiets what is there

    # the digest of gigabytes takes seconds of one core, so it is found beside the loading
    with ThreadPoolExecutor(1, "genzqa-digest") as beside:
        found = beside.submit(file_digests, path, layout.files)
        try:
            with loading(str(model)):
                unet = _load(UNet2DConditionModel, path, "unet", variant=layout.variants["unet"], torch_dtype=dtype)
                vae = _load(ENCODERS[layout.encoder], path, "vae", variant=layout.variants["vae"], torch_dtype=dtype)
                encoder, tokenizer = _load_text(path, layout.variants["text_encoder"], dtype) if text else (None, None)
        except ModelCorruptError:
            check_recorded(model, path, found.result())  # says more, where this is why
            raise
        digests = found.result()
    check_recorded(model, path, digests)
    with loading(str(model)):
        return assemble(vae, unet, encoder, tokenizer, layout.scheduler, str(model), combined_sha256(digests), path)


def _load_text(path: Path, variant: str | None, dtype: torch.dtype) -> tuple[CLIPTextModel, CLIPTokenizer]:
    from transformers import CLIPTextModel, CLIPTokenizer

    encoder = _load(CLIPTextModel, path, "text_encoder", variant=variant, dtype=dtype)
    return encoder, CLIPTokenizer.from_pretrained(str(path / "tokenizer"), local_files_only=True)


def locate_base(name: str, *, offline: bool = False) -> Path:
    """The local folder (or one-file checkpoint) a name stands for, downloaded when needed and allowed.

    Raises:
        ConfigError, ModelNotFoundError, OfflineError: As `load_base`.
    """
    return _locate(parse_name(name), offline=offline)


def _locate(model: ModelName, *, offline: bool) -> Path:
    if model.kind in ("hf-hub", "registry"):
        return hub.locate(model, offline=offline)
    path = Path(model.value).expanduser()
    if not path.exists():
        raise ModelNotFoundError("no such file or folder", subject=str(model))
    if model.kind == "local-dir" and not path.is_dir():
        hint = (
            f"write file:{model.value}"
            if path.suffix == ".safetensors"
            else "give the folder that contains unet and vae"
        )
        raise ConfigError("not a folder", subject=str(model), hint=hint)
    if model.kind == "file" and not path.is_file():
        hint = f"write local-dir:{model.value}" if path.is_dir() else ""
        raise ConfigError("not a regular file", subject=str(model), hint=hint)
    return path


def first_line(error: BaseException) -> str:
    """What a library said, without its advice."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def loading(subject: str) -> Iterator[None]:
    """Turn what the libraries raise into `ModelCorruptError`, and keep their progress bars and reports off stderr."""
    loggings = [diffusers_logging]
    if "transformers" in sys.modules:  # else it has nothing to report
        from transformers.utils import logging as transformers_logging

        loggings.append(transformers_logging)
    before = [(logging, logging.is_progress_bar_enabled(), logging.get_verbosity()) for logging in loggings]
    for logging in loggings:
        logging.disable_progress_bar()
        logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    except LOADING_ERRORS as error:
        raise ModelCorruptError(f"cannot be loaded: {first_line(error)}", subject=subject) from error
    finally:
        for logging, bar, level in before:
            logging.set_verbosity(level)
            if bar:
                logging.enable_progress_bar()


def _load(component: type[Any], folder: Path, part: str, **options: Any) -> Any:
    """One component through its own class; given the folder of the part, so that it is never taken for a repository.

    Raises:
        ModelCorruptError: Unreadable, or a weight is missing, left over or of another shape.
    """
    try:
        model, info = component.from_pretrained(
            str(folder / part), local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
    except LOADING_ERRORS as error:
        raise ModelCorruptError(f"the {part} cannot be loaded: {first_line(error)}", subject=str(folder)) from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        _refuse_keys(part, problem.removesuffix("_keys"), info[problem], str(folder))
    return model


def _refuse_keys(part: str, problem: str, keys: Iterable[Any], subject: str) -> None:
    """Raise `ModelCorruptError` naming the first of the weights that did not find their place."""
    matter = sorted(str(key) for key in keys if not str(key).endswith(_HARMLESS))
    if matter:
        first = ", ".join(matter[:3]) + (", ..." if len(matter) > 3 else "")
        raise ModelCorruptError(f"{len(matter)} {problem} weights in the {part}: {first}", subject=subject)


def assemble(
    vae: AutoencoderKL | FeatureEncoder,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel | None,
    tokenizer: CLIPTokenizer | None,
    scheduler: Mapping[str, Any],
    name: str,
    sha256: str,
    folder: Path | None,
) -> Base:
    """Freeze the loaded parts and compute the noise schedule.

    Raises:
        ModelCorruptError: The tokenizer has more tokens than the text encoder knows.
    """
    if text_encoder is not None and len(tokenizer or ()) > text_encoder.config.vocab_size:
        reason = (
            f"the tokenizer has {len(tokenizer or ())} tokens, the text encoder knows {text_encoder.config.vocab_size}"
        )
        raise ModelCorruptError(reason, subject=name)
    for module in (vae, unet, text_encoder):
        if module is not None:
            module.eval().requires_grad_(False)
            _align(module)
    return Base(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        alphas_cumprod=training_schedule(scheduler),
        name=name,
        sha256=sha256,
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        folder=folder,
    )


def _align(module: torch.nn.Module) -> None:
    """Copy weights out of the mapped file where they do not start on a cache line.

    Where they start depends on the length of the file's header, and the CPU's matrix kernels sum in another order for
    another alignment: the same weights in two files gave noise predictions 1e-5 (relative) apart.
    """
    for weight in [*module.parameters(), *module.buffers()]:
        if weight.data_ptr() % _CACHE_LINE:
            weight.data = weight.data.clone()


def training_schedule(scheduler: Mapping[str, Any]) -> torch.Tensor:
    """abar_t for every training timestep, (num_train_timesteps,) float32, by diffusers' own DDPM scheduler.

    The sampler a repository names (PNDM, Euler) and its spacing do not matter: all are built on this one schedule.
    """
    known = {key: scheduler[key] for key in _TRAINING_SCHEDULE if scheduler.get(key) is not None}
    alphas: torch.Tensor = DDPMScheduler(**known).alphas_cumprod
    return alphas
