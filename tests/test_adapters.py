"""Adapter folders and the second topology: what loads, what is refused, and that SD 1.5's shape works throughout."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import genzqa
from genzqa import GenzIQA
from genzqa.model.adapter import PROMPTS, build, load_scorer, save_adapter, trained_parameters
from genzqa.model.base import load_base
from genzqa.model.config import ScorerConfig
from genzqa.model.lora import add_lora, cross_attention_targets
from genzqa.model.pickles import plain_tensors
from genzqa.model.prompts import StoredPrompts
from genzqa.model.reference import import_reference


@pytest.fixture(scope="module")
def sd15(sd15_small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter folder with random trained parts on SD 1.5's topology."""
    name = f"local-dir:{sd15_small_base}"
    base = load_base(name)
    config = ScorerConfig(name="sd15-small", base=name, base_sha256=base.sha256, timesteps=2)
    model = GenzIQA(base, config)
    add_lora(model.unet, cross_attention_targets(block.path for block in model.blocks), config.lora_rank)
    generator = torch.Generator().manual_seed(5)
    weights = {name: 0.05 * torch.randn(p.shape, generator=generator) for name, p in trained_parameters(model).items()}
    out = tmp_path_factory.mktemp("adapters") / "sd15-small"
    save_adapter(out, weights, config)
    return out


def naive_block_scores(model: GenzIQA, latents: torch.Tensor, noise: torch.Tensor, timestep: int) -> list[float]:
    """a_p(t) of one image by hooks on the projections alone, in double precision, prompt by prompt."""
    caught: dict[str, dict[str, torch.Tensor]] = {block.path: {} for block in model.blocks}
    hooks = []
    for block in model.blocks:
        for part in ("to_q", "to_k"):
            module = model.unet.get_submodule(f"{block.path}.{part}")
            hooks.append(module.register_forward_hook(
                lambda _m, _i, out, path=block.path, part=part: caught[path].__setitem__(part, out.double())))  # fmt: skip
    sums = [0.0] * len(model.blocks)
    abar = model.alphas_cumprod[timestep]
    noisy = abar.sqrt() * latents + (1 - abar).sqrt() * noise
    for prompt in model.prompts():
        model.unet(noisy, timestep, encoder_hidden_states=prompt[None])
        for index, block in enumerate(model.blocks):
            query, key = (caught[block.path][part][0].unflatten(-1, (block.heads, -1)) for part in ("to_q", "to_k"))
            logits = torch.einsum("nhd,lhd->hnl", query, key) / query.shape[-1] ** 0.5
            sums[index] += float((torch.logsumexp(0.14 * logits, 1) / 0.14).mean()) / 2
    for hook in hooks:
        hook.remove()
    return sums


@torch.no_grad()
def test_sd15_topology_equals_the_plain_formula(sd15: Path) -> None:
    model = GenzIQA.from_pretrained(f"local-dir:{sd15}")
    assert len(model.blocks) == 16
    assert {block.heads for block in model.blocks} == {8}
    latents, noise = (torch.randn(1, 4, 24, 16, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    trace = model.trace(latents, noise, [40])
    wanted = torch.tensor(naive_block_scores(model, latents, noise, 40))
    torch.testing.assert_close(trace.block_scores[0, 0], wanted, rtol=0, atol=1e-4)


@torch.no_grad()
def test_prompt_padding_is_the_base_s_own(sd15: Path) -> None:
    model = GenzIQA.from_pretrained(f"local-dir:{sd15}")
    assert model.prompts.input_ids[0, -1] == 539  # end of text, not "!"
    assert model.prompts.attention_mask.sum(1).tolist() == [21, 21]


@torch.no_grad()
def test_resolution_shift_is_zero_at_512_and_keeps_other_sizes_comparable(sd15: Path) -> None:
    model = GenzIQA.from_pretrained(f"local-dir:{sd15}")
    assert model.resolution_shift([4096, 1024, 256, 64], (64, 64)).tolist() == [0.0] * 4
    flat = torch.zeros(1, 4, 32, 32)
    trace = model.trace(flat, torch.zeros(1, 4, 32, 32), [40])
    raw = model.score_trace(trace, (32, 32)).raw
    published = (trace.block_scores + trace.bias[..., None]).mean()
    assert float(raw - published) == pytest.approx(math.log(4) / 0.14, abs=1e-3)


def test_only_trained_parts_ask_for_gradients(sd15: Path) -> None:
    model = GenzIQA.from_pretrained(f"local-dir:{sd15}")
    asking = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert asking == {id(parameter) for parameter in trained_parameters(model).values()}


def test_self_attention_stays_on_the_library_s_processor(sd15: Path) -> None:
    model = GenzIQA.from_pretrained(f"local-dir:{sd15}")
    kinds = {
        path.rpartition(".processor")[0].rpartition(".")[2]: type(p).__name__
        for path, p in model.unet.attn_processors.items()
    }
    assert kinds == {"attn1": "AttnProcessor2_0", "attn2": "RecordingProcessor"}


def test_a_model_without_calibration_does_not_score(sd15: Path) -> None:
    with pytest.raises(genzqa.NotTrainedError, match="calibration"):
        genzqa.load(f"local-dir:{sd15}")


def test_a_relative_base_is_found_from_the_adapter_folder(sd15: Path, sd15_small_base: Path, tmp_path: Path) -> None:
    shutil.copytree(sd15, tmp_path / "run")
    (tmp_path / "base").symlink_to(sd15_small_base)
    config = json.loads((tmp_path / "run" / "config.json").read_text()) | {"base": "local-dir:../base"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert len(GenzIQA.from_pretrained(f"local-dir:{tmp_path / 'run'}").blocks) == 16


def test_another_base_is_refused(sd15: Path, conformance_base: Path, tmp_path: Path) -> None:
    shutil.copytree(sd15, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text()) | {"base": f"local-dir:{conformance_base}"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(genzqa.ModelCorruptError, match="not the one"):
        GenzIQA.from_pretrained(f"local-dir:{tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: (d / "config.json").unlink(), genzqa.ModelNotFoundError, "config.json"),
        (lambda d: (d / "adapter.safetensors").unlink(), genzqa.ModelNotFoundError, "adapter.safetensors"),
        (lambda d: (d / "adapter.safetensors").write_bytes(b"\0" * 64), genzqa.ModelCorruptError, "cannot be read"),
        (lambda d: (d / "config.json").write_text("{"), genzqa.ConfigError, "JSON"),
        (lambda d: (d / "config.json").write_text('{"version": 9}'), genzqa.ConfigError, "version"),
        (lambda d: _edit(d, "timesteps", 3), genzqa.ConfigError, "timesteps"),
        (lambda d: _edit(d, "colour", "red"), genzqa.ConfigError, "colour"),
        (lambda d: _tensor(d, "context", None), genzqa.ModelCorruptError, "context"),
        (lambda d: _tensor(d, "context", torch.zeros(16, 7)), genzqa.ModelCorruptError, "shape"),
        (lambda d: _tensor(d, "context", torch.full((16, 64), float("nan"))), genzqa.ModelCorruptError, "NaN"),
        (lambda d: _tensor(d, "lora.no.such.to_q.down", torch.zeros(4, 4)), genzqa.ModelCorruptError, "no layer"),
    ],
)
def test_damaged_adapters(sd15: Path, tmp_path: Path, change, error: type[Exception], says: str) -> None:
    shutil.copytree(sd15, tmp_path / "run")
    change(tmp_path / "run")
    with pytest.raises(error, match=says):
        GenzIQA.from_pretrained(f"local-dir:{tmp_path / 'run'}")


def _edit(folder: Path, field: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))


def _tensor(folder: Path, name: str, value: torch.Tensor | None) -> None:
    tensors = load_file(folder / "adapter.safetensors")
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    save_file(tensors, folder / "adapter.safetensors")


@torch.no_grad()
def test_a_v_prediction_base_is_converted(sd15_small_base: Path, tmp_path: Path) -> None:
    shutil.copytree(sd15_small_base, tmp_path / "v")
    path = tmp_path / "v" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    config = ScorerConfig(base="local-dir:x", lora_rank=0)
    latents, noise = (torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    traces = []
    for folder in (sd15_small_base, tmp_path / "v"):
        base = load_base(f"local-dir:{folder}")
        context = {"context": torch.zeros(16, 64)}
        traces.append(build(base, config, context).trace(latents, noise, [40]))
        abar = base.alphas_cumprod[40]
    noisy = abar.sqrt() * latents + (1 - abar).sqrt() * noise
    wanted = abar.sqrt() * traces[0].eps[0, 0] + (1 - abar).sqrt() * noisy
    torch.testing.assert_close(traces[1].eps[0, 0], wanted, rtol=0, atol=1e-5)


def test_stored_prompts_spare_the_text_encoder_and_change_no_score(small_scorer: Path) -> None:
    computed = load_scorer(f"local-dir:{small_scorer}")
    stored = load_scorer(f"local-dir:{small_scorer}", trainable=False)
    assert isinstance(stored.model.prompts, StoredPrompts)
    assert not isinstance(computed.model.prompts, StoredPrompts)
    pixels = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        assert float(stored.model(pixels).raw) == pytest.approx(float(computed.model(pixels).raw), abs=1e-4)
        torch.testing.assert_close(stored.model.prompts(), computed.model.prompts(), rtol=0, atol=1e-6)
    assert torch.equal(stored.model.prompts.context, computed.model.prompts.context)


def test_an_adapter_without_stored_prompts_still_scores(small_scorer: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(small_scorer, old)
    weights = load_file(old / "adapter.safetensors")
    save_file({name: value for name, value in weights.items() if name != PROMPTS}, old / "adapter.safetensors")
    loaded = load_scorer(f"local-dir:{old}", trainable=False)
    assert not isinstance(loaded.model.prompts, StoredPrompts)


def _with(
    folder: Path,
    out: Path,
    config: dict[str, object] | None = None,
    weights: dict[str, torch.Tensor | None] | None = None,
) -> str:
    shutil.copytree(folder, out)
    if config:
        kept = json.loads((out / "config.json").read_text())
        for path, value in config.items():
            *parents, last = path.split(".")
            part = kept
            for parent in parents:
                part = part[parent]
            part[last] = value
        (out / "config.json").write_text(json.dumps(kept))
    if weights:
        tensors = {**load_file(out / "adapter.safetensors"), **weights}
        save_file({name: value for name, value in tensors.items() if value is not None}, out / "adapter.safetensors")
    return f"local-dir:{out}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("raw_knots", [1.0]),
        ("raw_knots", [300.0, -300.0]),
        ("score_knots", []),
        ("score_knots", [0.0, math.nan]),
        ("score_knots", [-50.0, 500.0]),
        ("interval_low", [1.0]),
        ("interval_low", [5.0, 5.0]),
        ("reference_quantiles", []),
        ("reference_quantiles", [5.0, 1.0]),
    ],
)
def test_a_calibration_that_is_no_scale_is_refused(
    small_scorer: Path, tmp_path: Path, field: str, value: list[float]
) -> None:
    with pytest.raises(genzqa.ConfigError, match="calibration"):
        genzqa.load(_with(small_scorer, tmp_path / "a", {f"calibration.{field}": value}), offline=True)


@pytest.mark.parametrize("shape", [(2, 77, 32), (3, 77, 64), (77, 64), (2, 76, 64)])
def test_stored_prompts_of_another_shape_are_refused(
    small_scorer: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    name = _with(small_scorer, tmp_path / "a", weights={PROMPTS: torch.zeros(shape)})
    with pytest.raises(genzqa.ModelCorruptError, match=PROMPTS):
        genzqa.load(name, offline=True)


def test_weights_that_do_not_belong_are_refused(small_scorer: Path, tmp_path: Path) -> None:
    odd = _with(small_scorer, tmp_path / "a", weights={f"{PROMPTS}_junk": torch.zeros(2)})
    with pytest.raises(genzqa.ModelCorruptError, match="junk"):
        genzqa.load(odd, offline=True)
    lora = [name for name in load_file(small_scorer / "adapter.safetensors") if name.startswith("lora.")]
    bare = _with(small_scorer, tmp_path / "b", weights=dict.fromkeys(lora))
    with pytest.raises(genzqa.ModelCorruptError, match="holds no LoRA"):
        genzqa.load(bare, offline=True)
    with pytest.raises(genzqa.ModelCorruptError, match="holds a LoRA"):
        genzqa.load(_with(small_scorer, tmp_path / "c", {"lora_rank": 0}), offline=True)
    astray = {"lora.mid_block.down": torch.zeros(4, 8), "lora.mid_block.up": torch.zeros(8, 4)}
    with pytest.raises(genzqa.ModelCorruptError, match="no projection"):
        genzqa.load(_with(small_scorer, tmp_path / "d", weights=astray), offline=True)
    context = _with(small_scorer, tmp_path / "e", weights={"context": torch.zeros(5, 3)})
    with pytest.raises(genzqa.ModelCorruptError, match="context"):
        genzqa.load(context, offline=True)


@pytest.mark.parametrize("size", [(9, 9), (10, 10), (11, 11), (1, 64), (57, 64)])
def test_the_shift_for_resolution_counts_halvings_as_the_unet_does(sd15: Path, size: tuple[int, int]) -> None:
    model = GenzIQA.from_pretrained(f"local-dir:{sd15}")
    latents, noise = torch.zeros(1, 4, *size), torch.zeros(1, 4, *size)
    with torch.inference_mode():
        positions = model.trace(latents, noise, [50]).positions
    shift = model.resolution_shift(positions, size)
    for block, count, found in zip(model.blocks, positions, shift.tolist(), strict=True):
        level = 3 if block.name.startswith("mid") else int(block.path.split(".")[1])
        level = 3 - level if block.path.startswith("up_blocks") else level
        there = (64 // 2**level) ** 2
        assert found == pytest.approx((math.log(count) - math.log(there)) / 0.14, abs=1e-4), block.path


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("lora", lambda key: {key.replace("down", "up"): torch.zeros(8, 4)}, "`down`"),
        ("lora", lambda key: {key: torch.tensor(1.0)}, "no matrix"),
        ("context", lambda _: {"ctx": torch.zeros(100, 64)}, "has room"),
        ("context", lambda _: {"ctx": torch.zeros(0, 64)}, "has room"),
        ("context", lambda _: {"ctx": torch.full((16, 64), math.nan)}, "NaN"),
    ],
)
def test_damaged_reference_weights_are_refused(
    conformance_base: Path, tmp_path: Path, file: str, content, says: str
) -> None:
    reference = conformance_base / "reference"
    files = {"lora": reference / "pytorch_model.bin", "context": reference / "coop_Model_state_dict.pth"}
    key = next(name for name in torch.load(files["lora"], weights_only=True) if "attn2" in name and "down" in name)
    files[file] = tmp_path / "damaged.pth"
    torch.save(content(key), files[file])
    with pytest.raises(genzqa.ModelCorruptError, match=says):
        import_reference(base=f"local-dir:{conformance_base}", unet_lora=files["lora"], context=files["context"],
                         out=tmp_path / "out", offline=True)  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_file_that_could_run_code_gets_no_advice_to_open_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"ctx": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(genzqa.ModelCorruptError, match="could run code") as caught:
        plain_tensors(tmp_path / "evil.pth")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
