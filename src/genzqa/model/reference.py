"""Convert trained parts in the formats of the method's research release into an adapter folder.

The formats: ``pytorch_model.bin`` (LoRA of the UNet), ``coop_Model_state_dict.pth`` (prompt context), and for video
``slowAttn.pth``, ``fastAttn.pth``, ``linearBlocks.pth``. They are opened by `genzqa.model.pickles`, which executes
nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from genzqa.errors import ConfigError, ModelCorruptError
from genzqa.model.adapter import build, build_video, save_adapter, with_prompts
from genzqa.model.base import load_base
from genzqa.model.config import ScorerConfig, VideoConfig
from genzqa.model.pickles import plain_tensors
from genzqa.model.prompts import LONGEST_CONTEXT

_LORA = re.compile(
    r"(?P<layer>.+\.attn(?P<kind>[12]))\.processor\.(?P<projection>to_(?:q|k|v|out))_lora\.(?P<part>down|up)\.weight"
)


def import_reference(*, base: str, unet_lora: Path, context: Path, out: Path, slow: Path | None = None,
                     fast: Path | None = None, linear: Path | None = None, offline: bool = False) -> ScorerConfig:  # fmt: skip
    """Write ``out`` as an adapter folder on ``base`` and return its config.

    Of the LoRA on self-attention layers (``attn1``) the research code applies the query's alone; the others are
    dropped, so that the result is what that code computed.

    Raises:
        ModelNotFoundError, ModelCorruptError: If a file is missing, damaged, or does not fit the base.
        ConfigError: If one or two of the modulator's three files are given.
    """
    weights = {"context": _context(context), **_lora(unet_lora)}
    rank = next((value.shape[0] for name, value in weights.items() if name.endswith(".down")), 0)
    if not rank:
        raise ModelCorruptError("holds no LoRA weights `down` of any rank", subject=str(unet_lora))
    for path, kind in ((slow, "slow"), (fast, "fast"), (linear, "linear")):
        if path is not None:
            weights |= {f"tqm.{kind}.{name}": value for name, value in _tensors(path).items()}
    given = [path for path in (slow, fast, linear) if path is not None]
    if len(given) not in (0, 3):
        raise ConfigError(
            "the temporal modulator comes in three files", hint="give --slow, --fast and --linear, or none"
        )
    loaded = load_base(base, offline=offline)
    # what the research code computed: no correction for resolution (there is none at its 512x512 anyway), and for video it
    # multiplies by 8 where the paper divides and takes the queries of the last timestep
    video = VideoConfig(tqm_scale=8.0, tqm_queries="last") if given else None
    config = ScorerConfig(name=out.name, base=_portable(base), base_sha256=loaded.sha256, lora_rank=rank,
                          resolution_invariant=False, video=video, context_length=len(weights["context"]),
                          training_data=["imported; not stated"])  # fmt: skip
    model = build(loaded, config, weights)
    build_video(model, config, weights)  # refuses parts that do not fit, before anything is written
    save_adapter(out, with_prompts(model, weights), config)
    return config


def _portable(base: str) -> str:
    """Local names are stored absolute: the adapter folder may lie anywhere."""
    kind, _, path = base.partition(":")
    return f"{kind}:{Path(path).expanduser().resolve()}" if kind in ("local-dir", "file") else base


def _lora(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in _tensors(path).items():
        match = _LORA.fullmatch(name)
        if match is None:
            raise ModelCorruptError(f"{name!r} is no LoRA weight", subject=str(path))
        if match["kind"] == "1" and match["projection"] != "to_q":
            continue
        if value.ndim != 2:
            raise ModelCorruptError(f"{name!r} is no matrix", subject=str(path))
        projection = "to_out.0" if match["projection"] == "to_out" else match["projection"]
        found[f"lora.{match['layer']}.{projection}.{match['part']}"] = value
    if not found:
        raise ModelCorruptError("holds no LoRA weights", subject=str(path))
    return found


def _context(path: Path) -> Tensor:
    value = _tensors(path).get("ctx")
    if value is None or value.ndim != 2:
        raise ModelCorruptError("holds no context `ctx` (length, width)", subject=str(path))
    if not 1 <= len(value) <= LONGEST_CONTEXT:
        raise ModelCorruptError(f"a context of {len(value)} vectors; a prompt has room for 1 to {LONGEST_CONTEXT}",
                                subject=str(path))  # fmt: skip
    return value


def _tensors(path: Path) -> dict[str, Tensor]:
    found = {name: value.float() for name, value in plain_tensors(path).items()}
    for name, value in found.items():
        if not value.isfinite().all():
            raise ModelCorruptError(f"tensor {name!r} holds NaN or infinity", subject=str(path))
    return found
