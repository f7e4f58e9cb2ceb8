"""Exports in integers of eight bits: the same scores within a fifth of a point, or none."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import genzqa
from genzqa.cli import app
from genzqa.engine import openvino_engine
from genzqa.engine.integers import adds_exactly, to_integers
from genzqa.engine.open import pass_of
from genzqa.engine.openvino_engine import READER, shared_core, write_graphs
from genzqa.errors import ConfigError, InputError, ModelCorruptError
from genzqa.media.prepare import prepare_photo
from genzqa.media.preprocess import to_network
from genzqa.model.adapter import load_scorer
from genzqa.scoring import export as export_module
from genzqa.scoring import parity
from genzqa.scoring.calibration import calibrate
from genzqa.scoring.export import export_model

EXAMPLES = sorted((Path(__file__).parents[1] / "examples" / "photos").iterdir())

pytestmark = pytest.mark.skipif(
    not adds_exactly(shared_core()), reason="this processor cuts off sums of eight-bit products"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with quarters of the example photos."""
    folder = tmp_path_factory.mktemp("quarters")
    for file in EXAMPLES:
        with Image.open(file) as photo:
            width, height = photo.width // 2, photo.height // 2
            for number, (left, top) in enumerate([(0, 0), (width, 0), (0, height), (width, height)]):
                photo.crop((left, top, left + width, top + height)).save(folder / f"{file.stem}-{number}.png")
    return folder


@pytest.fixture(scope="module")
def exported(wide_scorer: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "int8"
    done = export(wide_scorer, out, "--photos", str(photos))
    assert done.exit_code == 0, done.output
    assert "score points" in done.stderr
    return out


def export(adapter: Path, out: Path, *options: str) -> Result:
    command = ["export", str(out), "--to", "openvino", "--model", f"local-dir:{adapter}", "--precision", "int8"]
    return CliRunner().invoke(app, [*command, *options])


@pytest.mark.parametrize("kind", ["convolution", "product"])
def test_a_layer_gives_what_it_gave_but_for_its_steps(kind: str) -> None:
    """On inputs that lie as far on one side as those of a network do, with channels of very different size, and with padding."""
    import openvino as ov
    from openvino import opset13 as op

    rng, core, side = np.random.default_rng(0), shared_core(), 64
    sizes = np.geomspace(0.01, 10, side, dtype=np.float32)
    if kind == "convolution":
        given = op.parameter([-1, side, 8, 8], ov.Type.f32)
        weight = rng.standard_normal((side, side, 3, 3), np.float32) * sizes[:, None, None, None]
        layer = op.convolution(given, op.constant(weight), [1, 1], [1, 1], [1, 1], [1, 1])
        inputs, channels = rng.standard_normal((4, 1, side, 8, 8), np.float32), (0, 2, 3)
    else:
        given = op.parameter([-1, 32, side], ov.Type.f32)
        layer = op.matmul(
            given, op.constant(rng.standard_normal((side, side), np.float32) * sizes[:, None]), False, True
        )
        inputs, channels = rng.standard_normal((4, 1, 32, side), np.float32), (0, 1)
    inputs = inputs / (1 + np.exp(-inputs))  # from -0.28 to some 4
    model = ov.Model([op.result(layer)], [given])
    exactly = {"INFERENCE_PRECISION_HINT": "f32"}
    before = [core.compile_model(model, "CPU", exactly)(one)[0].copy() for one in inputs]
    assert to_integers(model, inputs[:3], core) == 1
    after = core.compile_model(model, "CPU", exactly)
    for one, wanted in zip(inputs, before, strict=True):
        off = (after(one)[0] - wanted).std(channels) / wanted.std(channels)
        assert 0 < off.max() < 0.02  # of every channel, small or large
    nothing = np.abs(after(np.zeros_like(inputs[0]))[0]).max()  # what a convolution pads with is one of the steps
    assert nothing < 1e-4 * before[0].std()
    assert sum(node.get_element_type() == ov.Type.i8 for node in model.get_ops()) == 1


def test_scores_move_by_less_than_a_fifth_of_a_point(exported: Path, wide_scorer: Path) -> None:
    ours, theirs = genzqa.load(f"local-dir:{exported}"), genzqa.load(f"local-dir:{wide_scorer}")
    moved = [ours.score(photo).score - theirs.score(photo).score for photo in EXAMPLES]
    assert 0 < np.abs(moved).max() < 0.02  # of random weights, whose scores lie close together
    assert (ours.provenance.backend, ours.provenance.precision) == ("openvino", "int8")
    assert genzqa.load(f"local-dir:{exported}", precision="int8").provenance == ours.provenance
    told = json.loads((exported / "parity.json").read_text())
    assert told["images"] == len(EXAMPLES) * 4 // 2  # the others were taken for the ranges
    assert 0 < told["score"] < 0.2


def test_a_score_is_the_same_again_and_whatever_it_is_scored_with(exported: Path) -> None:
    scorer = genzqa.load(f"local-dir:{exported}")
    alone = [scorer.score(photo).raw for photo in EXAMPLES]
    assert [scorer.score(photo).raw for photo in EXAMPLES] == alone
    together = [one.raw for one in scorer.score_many(EXAMPLES)]
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert [genzqa.load(f"local-dir:{exported}").score(photo).raw for photo in EXAMPLES] == alone


def test_the_weights_are_stored_as_integers(exported: Path, wide_scorer: Path, tmp_path: Path) -> None:
    other = tmp_path / "bf16"
    done = CliRunner().invoke(app, ["export", str(other), "--to", "openvino", "--model", f"local-dir:{wide_scorer}"])
    assert done.exit_code == 0, done.output
    assert (exported / "reader.bin").stat().st_size < 0.4 * (other / "reader.bin").stat().st_size
    assert (exported / "encoder.bin").stat().st_size < 0.4 * (other / "encoder.bin").stat().st_size
    assert json.loads((exported / "export.json").read_text())["integers"] == ["encoder", "reader"]


def test_where_the_encoder_loses_too_much_it_stays_as_it_is(
    wide_scorer: Path, photos: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both in integers it is refused once, as if the photos were such."""
    attempts: list[float] = []

    def refuse_first(found: dict[str, float], *_: object) -> None:
        attempts.append(found["score"])
        if len(attempts) == 1:
            raise ModelCorruptError("it is off")

    monkeypatch.setattr(export_module, "require_close", refuse_first)
    found = export_model(f"local-dir:{wide_scorer}", "openvino", tmp_path / "out" / "int8", precision="int8",
                         photos=sorted(photos.iterdir()))  # fmt: skip
    assert [found["score"]] == attempts[1:]
    assert attempts[0] != attempts[1]
    assert json.loads((tmp_path / "out" / "int8" / "export.json").read_text())["integers"] == ["reader"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["int8"]
    ours, theirs = (genzqa.load(f"local-dir:{one}") for one in (tmp_path / "out" / "int8", exported))
    assert ours.score(EXAMPLES[0]).raw != theirs.score(EXAMPLES[0]).raw
    assert ours.provenance.weights_sha256 != theirs.provenance.weights_sha256  # another model to whoever keeps scores


def test_the_denoiser_of_a_trained_model_keeps_its_scores_in_integers(photos: Path, tmp_path: Path) -> None:
    """`mini` is too narrow to be offered in integers, and the one trained network there is: on its own photos it moves further than a
    wide one may."""
    loaded = load_scorer("mini", trainable=False)
    size, calibration = loaded.config.preprocessing.size, loaded.config.calibration
    assert calibration is not None
    plan = pass_of(loaded.model, loaded.config)
    write_graphs(plan, tmp_path)
    core, exactly = shared_core(), {"INFERENCE_PRECISION_HINT": "f32"}
    pixels = [to_network(prepare_photo(file, size).pixels)[None] for file in sorted(photos.iterdir())]
    with torch.inference_mode():
        latents = [plan.encode(one).numpy() for one in pixels]
    model = core.read_model(str(tmp_path / READER))
    before = core.compile_model(core.read_model(str(tmp_path / READER)), "CPU", exactly)
    assert to_integers(model, latents[::2], core) > 50
    after = core.compile_model(model, "CPU", exactly)
    assert len(model.outputs) == len(before.outputs)
    moved = [
        np.subtract(*(calibrate(float(graph(one)["raw"][0]), calibration)[0] for graph in (after, before)))
        for one in latents[1::2]
    ]
    assert 0 < np.abs(moved).mean() < 0.15
    assert np.abs(moved).max() < 0.5


def test_one_that_is_off_by_more_is_refused_and_leaves_nothing(
    wide_scorer: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.CLOSE_POINTS, "int8", 1e-9)
    with pytest.raises(ModelCorruptError, match="1e-09 is allowed"):
        export_model(f"local-dir:{wide_scorer}", "openvino", tmp_path / "out" / "int8", precision="int8",
                     photos=sorted(photos.iterdir()))  # fmt: skip
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("options", [(), ("--photos", str(EXAMPLES[0]))])
def test_too_few_photos_are_refused(wide_scorer: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = export(wide_scorer, tmp_path / "out", *options)
    assert done.exit_code == 2
    assert "give 8 or more" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_photo_is_named(wide_scorer: Path, photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "parrots-0.png").write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"parrots-0\.png"):
        export_model(f"local-dir:{wide_scorer}", "openvino", tmp_path / "out", precision="int8",
                     photos=sorted(folder.iterdir()))  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_in_integers_is_refused(wide_scorer: Path, photos: Path, tmp_path: Path) -> None:
    files, wide = sorted(photos.iterdir()), f"local-dir:{wide_scorer}"
    with pytest.raises(ConfigError, match="too narrow"):
        export_model("mini", "openvino", tmp_path / "out", precision="int8", photos=files)
    with pytest.raises(ConfigError, match="onnx runs in fp32"):
        export_model(wide, "onnx", tmp_path / "out", precision="int8", photos=files)
    with pytest.raises(ConfigError, match="bf16 takes nothing from photos"):
        export_model(wide, "openvino", tmp_path / "out", precision="bf16", photos=files)
    with pytest.raises(ConfigError, match="only an exported model") as refused:
        genzqa.load(wide, backend="openvino", precision="int8")
    assert "--precision int8 --photos" in str(refused.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86 alone")
def test_a_processor_without_exact_sums_refuses_it(exported: Path) -> None:
    """The library is told to do without the newer instructions, and then really adds up in 16 bits."""
    program = "import sys, genzqa; genzqa.load(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, f"local-dir:{exported}"], capture_output=True, text=True,
                          env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"})  # fmt: skip
    assert done.returncode != 0
    assert "does not add up products of eight-bit integers" in done.stderr


def test_the_library_missing_is_said(wide_scorer: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(openvino_engine, "_core", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match="needs openvino"):
        export_model(f"local-dir:{wide_scorer}", "openvino", tmp_path / "out", precision="int8", photos=EXAMPLES * 2)
