"""A student distilled from a small teacher: what it leaves, that no mishap changes the result, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import genzqa
from genzqa import ConfigError, DataError, ModelCorruptError, ModelNotFoundError, TrainingError
from genzqa.cli import app
from genzqa.engine.engine import EngineOptions
from genzqa.engine.open import open_model
from genzqa.media.preprocess import resize_square, to_network
from genzqa.model.adapter import load_scorer
from genzqa.model.genzvqa import FrameReadings
from genzqa.scoring.export import export_model
from genzqa.student import onnx_file
from genzqa.student.config import BEHIND_ENCODER, NetworkSizes
from genzqa.student.folder import load_student
from genzqa.student.make import Made, Told, make_student, new_network
from genzqa.student.network import StudentNetwork
from genzqa.student.plan import DistillPlan
from genzqa.student.readings import ReadingsCache, read_teacher
from videos import encode, noise_frames

PROGRAM = [sys.executable, "-c", "from genzqa.cli import main; main()"]
SIZES = {"stem": 4, "widths": [4, 6, 8], "depths": [1, 1, 1], "hidden": 8}
PLAN = DistillPlan.model_validate(
    {"epochs": 3, "size": 64, "copies": 1, "seed": 5, "network": SIZES, "batch_size": 2, "save_every": 2}
)
FILES = ("config.json", "student.safetensors", "student.onnx")

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight pictures of noise, ever more blurred, of several sizes and formats, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(8):
        pixels = rng.integers(0, 256, (90 + 10 * number, 140, 3), dtype=np.uint8)
        path = folder / ("below" if number == 4 else "") / f"{number}.{'png' if number % 2 else 'jpg'}"
        Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(number / 2)).save(path)
        paths.append(path)
    return sorted(paths)


@pytest.fixture(scope="module")
def teacher(small_scorer: Path) -> str:
    return f"local-dir:{small_scorer}"


def told(**calls: object) -> Told:
    def quiet(*_: object) -> None:
        """Nobody asked."""

    return Told(**{name: calls.get(name, quiet) for name in ("read", "refused", "start", "step")})  # type: ignore[arg-type]


def make(teacher: str, photos: list[Path], out: Path, cache: Path, plan: DistillPlan = PLAN, **calls: object) -> Made:
    loaded = load_scorer(teacher, trainable=False)
    return make_student(loaded, photos, plan, out, cache, told(**calls), source="pictures of noise")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readings")


@pytest.fixture(scope="module")
def student(teacher: str, photos: list[Path], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("students") / "small-student"
    make(teacher, photos, out, cache)
    return out


@pytest.fixture
def damaged(student: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(student, tmp_path / "damaged"))


def test_readings_are_the_teachers_own(teacher: str, photos: list[Path], cache: Path, student: Path) -> None:
    model = load_scorer(teacher, trainable=False).model
    store = ReadingsCache(cache, photos, model, size=64, copies=1, seed=5)
    assert store.missing() == []
    readings, refused = store.readings()
    assert refused == {}
    scorer = genzqa.load(teacher)
    for row, path in enumerate(photos):
        assert float(readings.values[row, 0, 0]) == pytest.approx(scorer.score(path).raw, abs=1e-4)
    assert not torch.allclose(readings.values[:, 0], readings.values[:, 1], atol=1e-3)
    pixels = to_network(resize_square(np.asarray(Image.open(photos[0])), 128))[None]
    with torch.inference_mode():
        scored = model(pixels)
    expected = scored.trace.block_scores.mean(1) - model.resolution_shift(scored.trace.positions, (16, 16))
    torch.testing.assert_close(read_teacher(model, pixels)[:, 1:], expected)


def test_readings_are_made_once_and_again_only_for_another_question(
    teacher: str, photos: list[Path], cache: Path, student: Path, tmp_path: Path
) -> None:
    read: list[tuple[int, int]] = []
    again = tmp_path / "small-student"
    make(teacher, photos, again, cache, read=lambda *count: read.append(count))
    assert read == []
    assert [(again / name).read_bytes() for name in FILES] == [(student / name).read_bytes() for name in FILES]
    folders = set(cache.iterdir())
    other = PLAN.model_copy(update={"seed": 6, "epochs": 1})
    make(teacher, photos, tmp_path / "other", cache, other, read=lambda *count: read.append(count))
    assert read[-1] == (8, 8)
    assert len(set(cache.iterdir()) - folders) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_student as t
out, cache, step = Path({out!r}), Path({cache!r}), {step}
def count(done, total):
    if step < 0 and done == -step:
        os.kill(os.getpid(), signal.SIGKILL)
def go(done, steps, figures):
    if done == step:
        os.kill(os.getpid(), signal.SIGKILL)
t.make({teacher!r}, [Path(one) for one in {photos!r}], out, cache, read=count, step=go)
"""


@pytest.mark.parametrize("step", [-5, 1, 5], ids=["reading", "before a checkpoint", "after one"])
def test_killed_and_started_again_it_gives_the_same(
    teacher: str, photos: list[Path], student: Path, tmp_path: Path, step: int
) -> None:
    out, cache = tmp_path / "small-student", tmp_path / "cache"
    script = KILLED.format(tests=str(Path(__file__).parent), out=str(out), cache=str(cache), step=step, teacher=teacher,
                           photos=[str(one) for one in photos])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "config.json").exists()
    make(teacher, photos, out, cache)
    for name in FILES:
        assert (out / name).read_bytes() == (student / name).read_bytes(), name
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_another_training_is_not_gone_on_from(
    teacher: str, photos: list[Path], student: Path, cache: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(student, tmp_path / "small-student"))
    with pytest.raises(TrainingError, match="other settings"):
        make(teacher, photos, out, cache, PLAN.model_copy(update={"epochs": 4}))
    assert (out / "student.safetensors").read_bytes() == (student / "student.safetensors").read_bytes()


def test_it_learns_what_its_teacher_says(teacher: str, photos: list[Path], cache: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    plan = PLAN.model_copy(update={"epochs": 60, "cropped": 0.0, "batch_size": 4})
    made = make(
        teacher, photos, tmp_path / "long", cache, plan, step=lambda at, of, figures: seen.append(figures["raw"])
    )
    assert np.mean(seen[-5:]) < 0.5 * np.mean(seen[:5])
    assert made.config.agreement is not None
    assert made.config.agreement.photos == 3  # five readings are the least that agreement is measured on


def test_behind_an_encoder_its_blocks_stay_as_they_are(photos: list[Path], tmp_path: Path) -> None:
    import onnxruntime

    sizes = {"encoder_blocks": 3, "widths": [8], "depths": [1], "hidden": 8}
    plan = DistillPlan.model_validate(PLAN.model_dump() | {"network": sizes, "epochs": 1})
    made = make("mini", photos, tmp_path / "seeing", tmp_path / "cache", plan)
    assert made.config.network.encoder_blocks == 3
    kept = load_file(tmp_path / "seeing" / "student.safetensors")
    encoder = load_scorer("mini", trainable=False).model.vae.state_dict()
    taken = {name.removeprefix("encoder."): value for name, value in kept.items() if name.startswith("encoder.blocks")}
    assert len(taken) == sum(name.startswith(("blocks.0.", "blocks.1.", "blocks.2.")) for name in encoder)
    assert all(torch.equal(value, encoder[name].to(value.dtype)) for name, value in taken.items())
    session = onnxruntime.InferenceSession(
        str(tmp_path / "seeing" / "student.onnx"), providers=["CPUExecutionProvider"]
    )
    assert [one.shape[1:] for one in session.get_inputs()] == [[3, 64, 64]]
    assert len({one.raw for one in genzqa.load(f"local-dir:{tmp_path / 'seeing'}").score_many(photos)}) > 1


def test_a_student_begins_with_the_encoder_of_a_teacher_that_has_one(teacher: str) -> None:
    plan = DistillPlan()
    without, having = (load_scorer(name, trainable=False).model for name in (teacher, "mini"))
    assert plan.sizes_for(without) == NetworkSizes()
    assert plan.sizes_for(having) == BEHIND_ENCODER
    asking = DistillPlan(network=NetworkSizes(encoder_blocks=2))
    with pytest.raises(ConfigError, match="no encoder whose blocks"):
        new_network(asking, without)


def test_a_photo_scores_the_same_alone_in_company_and_in_another_process(student: Path, photos: list[Path]) -> None:
    scorer = genzqa.load(f"local-dir:{student}")
    alone = [scorer.score(path) for path in photos]
    together = list(scorer.score_many(photos, batch_size=len(photos)))
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, genzqa.ImageResult)
        assert other.raw == pytest.approx(one.raw, abs=1e-5)
    assert len({round(one.raw, 6) for one in alone}) > 1
    command = [*PROGRAM, "score", "--json", "--model", f"local-dir:{student}", *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line, one in zip(done.stdout.splitlines(), alone, strict=True):
        record = json.loads(line)
        assert record["raw"] == pytest.approx(one.raw, abs=1e-5)
        assert (record["model"], record["timesteps"]) == ("small-student", [])
        assert record["base_sha256"] == load_student(student, "").config.teacher.weights_sha256


def test_as_an_engine_it_reads_frames_without_queries(student: Path) -> None:
    opened = open_model(f"local-dir:{student}", EngineOptions())
    pixels = torch.rand(6, 3, 64, 64) * 2 - 1
    read = opened.frames().read(pixels)  # in calls of four, then of two
    assert (read.raw.shape, read.block_scores.shape, read.queries) == ((6,), (6, len(opened.blocks)), [])
    torch.testing.assert_close(read.raw, load_student(student, "").model.read(pixels).raw, rtol=0, atol=1e-5)
    for options in (EngineOptions(backend="openvino"), EngineOptions(precision="bf16")):
        with pytest.raises(ConfigError, match="runs by torch in fp32"):
            open_model(f"local-dir:{student}", options)
    first, second = read.split([1, 5])
    joined = FrameReadings.joined([first, second])
    assert torch.equal(joined.raw, read.raw)
    assert torch.equal(joined.block_scores, read.block_scores)


def test_folding_changes_nothing_but_the_units() -> None:
    torch.manual_seed(0)
    network = StudentNetwork(NetworkSizes.model_validate(SIZES), ["a", "b"], folded=False)
    for _ in range(5):
        network(torch.randn(8, 3, 64, 64))
    pixels, mean, spread = torch.randn(4, 3, 64, 64), torch.tensor([60.0, 1.0, -2.0]), torch.tensor([9.0, 0.5, 3.0])
    before = network.eval()(pixels)
    network.fold(mean, spread)
    after = network(pixels)
    torch.testing.assert_close(after.raw, before.raw * 9 + 60, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.block_scores, before.block_scores * spread[1:] + mean[1:], rtol=0, atol=1e-4)


def onnx_kernels(path: Path) -> set[np.dtype[Any]]:
    import onnx

    stored = (onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer)
    return {values.dtype for values in stored if values.ndim == 4}


def test_onnx_scores_as_torch_does(student: Path, photos: list[Path]) -> None:
    import onnxruntime

    parity = json.loads((student / "parity.json").read_text())
    assert parity["largest_difference_raw"] <= parity["tolerance"] == 1e-3
    session = onnxruntime.InferenceSession(str(student / "student.onnx"), providers=["CPUExecutionProvider"])
    pixels = torch.stack([to_network(resize_square(np.asarray(Image.open(path)), 64)) for path in photos])
    raw, blocks = session.run(["raw", "block_scores"], {"pixels": pixels.numpy()})
    scorer = genzqa.load(f"local-dir:{student}")
    assert raw == pytest.approx([scorer.score(path).raw for path in photos], abs=1e-3)
    assert blocks.shape == (len(photos), len(scorer.model.blocks))
    assert onnx_kernels(student / "student.onnx") == {np.dtype(np.float16)}  # as large as the student itself
    inside = session.get_modelmeta().custom_metadata_map["genzqa"]
    assert json.loads(inside) == json.loads((student / "config.json").read_text())


def test_onnx_that_differs_is_refused_and_leaves_nothing(
    teacher: str, photos: list[Path], cache: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)  # no difference is small enough
    with pytest.raises(ModelCorruptError, match="differs from torch"):
        make(teacher, photos, tmp_path / "small-student", cache)
    assert {path.name for path in (tmp_path / "small-student").iterdir()} == {"checkpoint.safetensors", "log.jsonl"}


def test_maps_are_refused_before_work_begins(student: Path, photos: list[Path], tmp_path: Path) -> None:
    scorer = genzqa.load(f"local-dir:{student}")
    assert not scorer.draws_maps
    with pytest.raises(ConfigError, match="cannot draw quality maps: it is a student"):
        scorer.score(photos[0], quality_map=True)
    with pytest.raises(ConfigError, match="cannot draw quality maps: it is a student"):
        next(scorer.score_many(photos, quality_map=True))
    command = ["score", str(photos[0]), "--model", f"local-dir:{student}", "--map", str(tmp_path / "maps")]
    result = CliRunner().invoke(app, [*command, "--csv", str(tmp_path / "scores.csv")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot draw quality maps" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_video_scores_as_its_frames_do_and_says_so(student: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(encode(noise_frames(12)))
    page = tmp_path / "page.html"
    scorer = genzqa.load(f"local-dir:{student}")
    result = scorer.score(clip, video=genzqa.VideoOptions(frames=4, worst_frames=2))
    assert isinstance(result, genzqa.VideoResult)
    assert result.raw == pytest.approx(np.mean([frame.raw for frame in result.frames]), abs=1e-6)
    assert "frames_only" in {note.code for note in result.notes}
    assert [kept.quality_map for kept in result.worst_frames] == [None, None]
    shown = CliRunner().invoke(app, ["score", str(clip), "--model", f"local-dir:{student}", "--report", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "clip.mp4" in page.read_text()


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "error", "why"),
    [
        (lambda folder: (folder / "student.safetensors").unlink(), ModelNotFoundError, "no student.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), ModelNotFoundError, "no config.json"),
        (lambda folder: (folder / "student.safetensors").write_bytes(b"nothing"), ModelCorruptError, "cannot be read"),
        (lambda folder: save_file({"a": torch.zeros(1)}, folder / "student.safetensors"), ModelCorruptError, "sha256"),
        (lambda folder: edit(folder, version=2), ConfigError, "version 2"),
        (lambda folder: edit(folder, kind="pupil"), ConfigError, "kind"),
        (lambda folder: edit(folder, colour="red"), ConfigError, "colour"),
        (lambda folder: edit(folder, blocks=["one"]), ModelCorruptError, "shape"),
        (lambda folder: edit(folder, network=SIZES | {"depths": [1]}), ConfigError, "one length"),
        (lambda folder: edit(folder, network=SIZES | {"depths": [1, 1, 2]}), ModelCorruptError, "lacks tensor"),
        (lambda folder: (folder / "config.json").write_text("{"), ConfigError, "not valid JSON"),
    ],
)
def test_a_damaged_folder_is_refused(damaged: Path, damage: object, error: type[Exception], why: str) -> None:
    damage(damaged)  # type: ignore[operator]
    with pytest.raises(error, match=why):
        genzqa.load(f"local-dir:{damaged}")


def test_weights_that_are_no_numbers_are_refused(damaged: Path) -> None:
    import hashlib

    weights = load_file(damaged / "student.safetensors")
    weights["quantities.bias"][0] = float("nan")
    save_file(weights, damaged / "student.safetensors")
    edit(damaged, weights_sha256=hashlib.sha256((damaged / "student.safetensors").read_bytes()).hexdigest())
    with pytest.raises(ModelCorruptError, match="NaN"):
        genzqa.load(f"local-dir:{damaged}")


def test_a_student_is_no_teacher_and_no_start_of_a_training(student: Path) -> None:
    with pytest.raises(ConfigError, match="this is a student"):
        load_scorer(f"local-dir:{student}")
    with pytest.raises(ConfigError, match="an ONNX file as well") as refused:
        export_model(f"local-dir:{student}", "onnx", student.parent / "exported")
    assert str(student / "student.onnx") in refused.value.hint


def test_the_program_names_what_it_leaves_out_and_prints_the_agreement(
    teacher: str, photos: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photos[0].parent, tmp_path / "photos"))
    (folder / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "out" / "mine"
    command = [
        "distill",
        "--teacher",
        teacher,
        "--photos",
        str(folder),
        "--out",
        str(out),
        "--epochs",
        "1",
        "--size",
        "64",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "broken.jpg: left out" in result.stderr
    assert "SRCC" in result.stdout
    config = load_student(out, "mine").config
    assert config.name == "mine"
    assert config.training_data[0] == "9 photos of photos"
    assert "SRCC" in CliRunner().invoke(app, command).stdout  # again: nothing is left to do but to measure


@pytest.mark.parametrize(
    ("files", "options", "error"),
    [
        ({}, [], "error[config]: photos: no photos"),
        ({"a.jpg": b"no photo"}, [], "error[data]: none of 1 photos can be read"),
        ({"a.jpg": b"no photo"}, ["--size", "100"], "error[config]: --size 100"),
        ({"a.jpg": b"no photo"}, ["--precision", "fp8"], "error[config]: --precision fp8"),
    ],
)
def test_nothing_to_learn_from(
    teacher: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
    options: list[str],
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, content in files.items():
        (Path("photos") / name).write_bytes(content)
    result = CliRunner().invoke(app, ["distill", "--teacher", teacher, "--photos", "photos", "--out", "out", *options])
    assert result.exit_code == 2
    assert error in result.stderr
    assert not Path("out/config.json").exists()


def test_too_few_photos_are_refused(teacher: str, photos: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="4 readable photos are too few"):
        make(teacher, photos[:4], tmp_path / "few", tmp_path / "cache")


def test_without_the_extra_it_says_so_before_it_reads_a_photo(
    teacher: str, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match="no_such_package"):
        make(teacher, photos, tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_cached_reading_that_is_damaged_is_named(
    teacher: str, photos: list[Path], cache: Path, student: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(cache, tmp_path / "cache"))
    for shard in copy.rglob("*.safetensors"):
        shard.write_bytes(os.urandom(100))
    with pytest.raises(DataError, match="cannot be read"):
        make(teacher, photos, tmp_path / "out", copy)
