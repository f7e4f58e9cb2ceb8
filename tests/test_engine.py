"""The scoring engines: whatever runs a model, the readings are those of the plain pass that training uses."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import genzqa
from genzqa.cli import app
from genzqa.engine import batch_size
from genzqa.engine.batch_size import Way
from genzqa.engine.engine import MANY, Engine, EngineOptions
from genzqa.engine.open import open_model, pass_of
from genzqa.engine.scoring_pass import ScoringPass
from genzqa.engine.torch_engine import PlainEngine, TorchEngine, memory_errors
from genzqa.engine.unet import UNetPass
from genzqa.errors import ConfigError, ModelCorruptError, ModelError, OutputError
from genzqa.model.adapter import LoadedScorer, load_scorer
from genzqa.model.genziqa import GenzIQA
from genzqa.model.genzvqa import FrameReadings, readings
from genzqa.scoring import export, parity
from videos import encode, noise_frames


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZQA_CACHE", str(tmp_path / "cache"))


def images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, 3, size, size)).astype(np.float32))


def changed(folder: Path, into: Path, **settings: object) -> str:
    """A copy of an adapter with other settings."""
    shutil.copytree(folder, into)
    config = json.loads((into / "config.json").read_text())
    if config["base"].startswith("local-dir:") and not Path(config["base"].removeprefix("local-dir:")).is_absolute():
        config["base"] = f"local-dir:{(folder / config['base'].removeprefix('local-dir:')).resolve()}"
    (into / "config.json").write_text(json.dumps(config | settings))
    return f"local-dir:{into}"


def plain(
    loaded: LoadedScorer, pixels: torch.Tensor, timesteps: int | None = None, last: bool = False
) -> FrameReadings:
    with torch.inference_mode():
        return readings(loaded.model, loaded.model(pixels, timesteps=timesteps), last_queries=last)


def assert_alike(found: FrameReadings, wanted: FrameReadings, tolerance: float = 1e-4) -> None:
    for ours, theirs in ((found.raw, wanted.raw), (found.block_scores, wanted.block_scores),
                         *zip(found.queries, wanted.queries, strict=True)):  # fmt: skip
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=3e-6, atol=tolerance)


SETTINGS = {
    "one timestep": {"timesteps": 1},
    "four timesteps": {"timesteps": 4},
    "no bias, so that it ends at the last layer": {"use_bias": False, "timesteps": 2},
    "odd latents": {"preprocessing": {"size": 88}, "timesteps": 2},
    "chroma softened": {"preprocessing": {"size": 64, "chroma_blur": 1.5}},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_pass_reads_what_the_plain_one_does(small_scorer: Path, tmp_path: Path, settings: dict) -> None:
    name = changed(small_scorer, tmp_path / "adapter", **settings)
    pixels = images(3, settings.get("preprocessing", {}).get("size") or genzqa.load(name).config.preprocessing.size)
    wanted = plain(load_scorer(name), pixels)  # with its LoRA apart
    engine = open_model(name, EngineOptions()).photos
    assert isinstance(engine, TorchEngine)
    assert_alike(engine.read(pixels), wanted)
    one_by_one = FrameReadings.joined([engine.read(one[None]) for one in pixels])
    assert_alike(one_by_one, wanted)


def test_so_it_does_with_convolutional_projections(sd15_small_base: Path) -> None:
    from genzqa.model.base import load_base
    from genzqa.model.config import ScorerConfig
    from genzqa.model.genziqa import GenzIQA

    base = load_base(f"local-dir:{sd15_small_base}")
    config = ScorerConfig(base=f"local-dir:{sd15_small_base}", preprocessing={"size": 128}, timesteps=2, lora_rank=0)  # type: ignore[arg-type]
    model = GenzIQA(base, config).eval()
    pixels = images(2, 128)
    with torch.inference_mode():
        wanted = readings(model, model(pixels), last_queries=False)
    assert_alike(TorchEngine(ScoringPass(model), "sd15").read(pixels), wanted)


def test_so_it_does_with_a_learned_readout_on_real_photos() -> None:
    wanted = load_scorer("mini")
    pixels = torch.nn.functional.interpolate(images(3, 56), 448, mode="bicubic").clamp(-1, 1)
    assert_alike(genzqa.load().model.photos.read(pixels), plain(wanted, pixels), 2e-4)


def test_frames_are_read_at_the_timesteps_of_videos(small_video_scorer: Path, tmp_path: Path) -> None:
    video = json.loads((small_video_scorer / "config.json").read_text())["video"]
    name = changed(
        small_video_scorer, tmp_path / "adapter", timesteps=1, video=video | {"timesteps": 2, "tqm_queries": "last"}
    )
    model = open_model(name, EngineOptions())
    pixels = images(2, model.config.preprocessing.size)
    assert model.frames() is model.frames()
    assert_alike(model.frames().read(pixels), plain(load_scorer(name), pixels, 2, last=True))
    assert_alike(model.photos.read(pixels), plain(load_scorer(name), pixels))


def test_a_base_of_another_topology_is_read_the_plain_way(small_scorer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"local-dir:{small_scorer}"
    pixels = images(2, genzqa.load(name).config.preprocessing.size)
    wanted = genzqa.load(name).model.photos.read(pixels)

    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("a UNet with class_embed_type is not of Stable Diffusion's topology")

    monkeypatch.setattr("genzqa.engine.unet.require_topology", refuse)  # no such base is small enough to ship
    engine = open_model(name, EngineOptions()).photos
    assert isinstance(engine, PlainEngine)
    assert_alike(engine.read(pixels), wanted)


def test_nothing_runs_after_the_last_layer_without_bias(small_scorer: Path, tmp_path: Path) -> None:
    name = changed(small_scorer, tmp_path / "adapter", use_bias=False)
    loaded = load_scorer(name, trainable=False)
    plan, ran = pass_of(loaded.model, loaded.config), []
    loaded.model.unet.conv_out.register_forward_hook(lambda *_: ran.append("conv_out"))
    plan(images(1, loaded.config.preprocessing.size))
    assert not ran
    assert isinstance(plan.unet, UNetPass)


def test_nothing_of_the_pass_stays_behind_when_the_model_is_on_another_device(small_scorer: Path) -> None:
    for loaded in (load_scorer("mini", trainable=False), load_scorer(f"local-dir:{small_scorer}", trainable=False)):
        loaded.model.to("meta")  # what mixes devices fails there as on a GPU
        plan, size = pass_of(loaded.model, loaded.config).eval(), loaded.config.preprocessing.size
        with torch.inference_mode():
            raw, blocks, queries = plan(torch.zeros(2, 3, size, size, device="meta"))
        assert {one.device.type for one in (raw, blocks, *queries)} == {"meta"}


def test_a_compiled_pass_is_used_for_calls_of_its_size(small_scorer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_model(f"local-dir:{small_scorer}", EngineOptions()).photos
    assert isinstance(engine, TorchEngine)
    pixels = images(3, engine.size)
    wanted, calls = engine.run(pixels), []

    def compiled(plan: ScoringPass, **options: object) -> Callable[[torch.Tensor], object]:
        return lambda given: (calls.append(len(given)), plan(given))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    engine.compile(2)
    assert_alike(FrameReadings.joined([engine.run(pixels[:2]), engine.run(pixels[2:])]), wanted)
    assert calls == [2]


def test_without_a_compiler_scoring_goes_on(
    small_scorer: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_model(f"local-dir:{small_scorer}", EngineOptions()).photos
    assert isinstance(engine, TorchEngine)
    pixels = images(2, engine.size)
    wanted = engine.run(pixels)

    def broken(given: torch.Tensor) -> object:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(torch, "compile", lambda plan, **options: broken)
    engine.compile(2)
    for _ in range(2):
        assert_alike(engine.run(pixels), wanted)
    assert [record.getMessage() for record in caplog.records] == [
        "this machine cannot compile the model, which stays slower: Failed to find C compiler."
    ]


def test_the_pass_is_one_graph_for_the_compiler(small_scorer: Path) -> None:
    loaded = load_scorer(f"local-dir:{small_scorer}", trainable=False)
    plan = pass_of(loaded.model, loaded.config).eval()
    pixels = images(2, loaded.config.preprocessing.size)
    with torch.inference_mode():
        compiled = torch.compile(plan, backend="eager", fullgraph=True)  # what a GPU's kernels are made from
        np.testing.assert_allclose(compiled(pixels)[0].numpy(), plan(pixels)[0].numpy(), rtol=0, atol=1e-4)


class Forgetful(Engine):
    """Reads the mean of an image, with memory for so many at a time."""

    def __init__(self, room: int) -> None:
        super().__init__([], 8, "forgetful")
        self.room, self.calls = room, list[int]()

    def run(self, pixels: torch.Tensor) -> FrameReadings:
        self.calls.append(len(pixels))
        if len(pixels) > self.room:
            raise MemoryError
        return FrameReadings(pixels.mean((1, 2, 3)), pixels.new_zeros(len(pixels), 0), [])


def test_where_memory_runs_out_calls_get_half_as_large() -> None:
    engine, pixels = Forgetful(room=1), images(5, 8)
    assert torch.equal(engine.read(pixels).raw, pixels.mean((1, 2, 3)))
    assert engine.calls == [4, 2, 1, 1, 1, 1, 1]
    engine.calls.clear()
    engine.read(pixels[:2])
    assert engine.calls == [1, 1]  # it has learned
    with pytest.raises(ModelError, match="too little memory"):
        Forgetful(room=0).read(pixels)
    with pytest.raises(ModelError, match="too little memory"):
        Forgetful(room=0).read(images(MANY, 8))  # while it looks for the fastest size


def test_torch_says_in_its_own_way_that_memory_ran_out() -> None:
    with pytest.raises(MemoryError), memory_errors():
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="shape"), memory_errors():  # and this is something else
        torch.zeros(2).view(3)


@pytest.mark.parametrize(("seconds", "found"), [
    (lambda way: 1.0 * way.together, Way(1)),  # nothing gained
    (lambda way: 1 + 0.1 * way.together, Way(16)),
    (lambda way: 1 + way.together if way.together > 4 else 1, Way(4)),
    (lambda way: (1.95 if way.calls == 2 else 1.0) * way.photos, Way(1)),  # two calls at once are hardly faster
    (lambda way: (1 + way.photos) * (1 if way.calls == 2 else 2.5), Way(2, 2)),  # no more than two a core
    (lambda way: (1 + way.photos if way.photos < 2 else 99) * (1 if way.calls == 2 else 1.9), Way(1, 2)),
])  # fmt: skip
def test_the_fastest_way_is_found(seconds: Callable[[Way], float], found: Way) -> None:
    clock = [0.0]

    def call(way: Way) -> None:
        clock[0] += seconds(way)

    assert batch_size.fastest(call, 16, (1, 2), lambda: clock[0]) == found


def test_and_remembered_on_this_machine() -> None:
    first = Forgetful(room=100)
    first.read(images(MANY, 8))
    assert batch_size.remembered(first._key) == first._way is not None
    second = Forgetful(room=100)
    second.read(images(MANY, 8))
    assert set(second.calls) == {first._way.photos}  # no search
    many = Forgetful(room=100)
    many._key = "many"
    many._way = None
    many.read(images(2 * batch_size.LARGEST, 8))
    assert (
        batch_size.remembered("many") == many._way is not None
    )  # not more than is taken for sound when it is read again
    for damaged in (
        "{ not JSON",
        f'{{"{first._key}": 4}}',
        f'{{"{first._key}": [0, 1]}}',
        f'{{"{first._key}": [4, "2"]}}',
    ):
        batch_size._file().write_text(damaged)
        assert batch_size.remembered(first._key) is None


@pytest.mark.parametrize("way", [Way(2, 2), Way(1, 3), Way(8, 2)])
def test_calls_at_the_same_time_give_the_same_readings(small_scorer: Path, way: Way) -> None:
    engine = open_model(f"local-dir:{small_scorer}", EngineOptions()).photos
    assert isinstance(engine, TorchEngine)
    pixels, threads = images(7, engine.size), torch.get_num_threads()
    wanted = FrameReadings.joined([engine.run(one) for one in pixels.split(1)])
    seen: list[int] = []
    run = engine.run
    engine.run = lambda given: (seen.append(torch.get_num_threads()), run(given))[1]  # type: ignore[method-assign]
    engine._way = way
    assert_alike(engine.read(pixels), wanted)
    assert seen.count(1) >= len(seen) - 1  # but for one that is left over, which gets all cores
    assert torch.get_num_threads() == threads
    assert_alike(
        engine.read(pixels[:1]),
        FrameReadings(wanted.raw[:1], wanted.block_scores[:1], [one[:1] for one in wanted.queries]),
    )


def test_a_small_network_gets_a_call_per_core_from_the_start(small_scorer: Path) -> None:
    engine = open_model(f"local-dir:{small_scorer}", EngineOptions()).photos
    threads = torch.get_num_threads()
    try:
        for number, way in {1: Way(4), 2: Way(2, 2), 4: Way(1, 4), 8: Way(4)}.items():
            torch.set_num_threads(number)
            assert engine.first_way == way
    finally:
        torch.set_num_threads(threads)


def test_one_of_them_without_memory_makes_them_fewer(small_scorer: Path) -> None:
    engine = open_model(f"local-dir:{small_scorer}", EngineOptions()).photos
    pixels, run, threads = images(4, engine.size), engine.run, torch.get_num_threads()
    wanted = run(pixels)

    def forgetful(given: torch.Tensor) -> FrameReadings:
        if torch.get_num_threads() == 1 and threads > 1:
            raise MemoryError
        return run(given)

    engine.run, engine._way = forgetful, Way(2, 2)  # type: ignore[method-assign]
    assert_alike(engine.read(pixels), wanted)
    assert engine._way.calls == 1 or threads == 1
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("options", [
    {"backend": "cuda"}, {"precision": "int4"}, {"precision": "int8"}, {"backend": "openvino", "device": "cuda"},
    {"backend": "onnx", "precision": "bf16"}, {"backend": "onnx", "precision": "int8"}, {"device": "tpu"}, {"backend": "onnx"},
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(small_scorer: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        genzqa.load(f"local-dir:{small_scorer}", **options)  # type: ignore[arg-type]
    assert caught.value.hint


def test_on_openvino_the_network_is_in_memory_only_while_it_is_needed(small_video_scorer: Path) -> None:
    def held() -> int:
        return sum(issubclass(type(one), GenzIQA) for one in gc.get_objects())  # isinstance runs code of what it finds

    gc.collect()  # what tests before this one left
    before = held()
    scorer = genzqa.load(f"local-dir:{small_video_scorer}", backend="openvino")
    scorer.score(Image.new("RGB", (64, 64)))
    assert held() == before
    assert scorer.score(Image.new("RGB", (64, 64)), quality_map=True).quality_map is not None
    assert held() == before + 1
    scorer.score(Image.new("RGB", (64, 64)), quality_map=True)
    assert held() == before + 1  # the same again


def test_openvino_runs_a_large_network_on_one_photo_after_another(
    small_scorer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genzqa.engine import openvino_engine

    name, pixels = (
        f"local-dir:{small_scorer}",
        torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1,
    )
    small = genzqa.load(name, backend="openvino").model.photos.run(pixels)
    monkeypatch.setattr(openvino_engine, "LARGE", 0)
    large = genzqa.load(name, backend="openvino").model.photos
    found = large.run(pixels)
    torch.testing.assert_close(found.raw, small.raw, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.block_scores, small.block_scores, atol=1e-3, rtol=0)
    assert [len(query) for query in found.queries] == [len(query) for query in small.queries]
    torch.testing.assert_close(large.run(pixels[1:2]).raw, found.raw[1:2], atol=0, rtol=0)
    sizes: list[int] = []
    monkeypatch.setattr(large, "run", lambda part, run=large.run: (sizes.append(len(part)), run(part))[1])
    assert len(large.read(pixels[:1].repeat(MANY, 1, 1, 1)).raw) == MANY
    assert sizes == [1] * MANY  # nothing is read again to find out how many are fastest


def test_openvino_gives_the_scores_of_torch(small_video_scorer: Path, tmp_path: Path) -> None:
    name = f"local-dir:{small_video_scorer}"
    exact, fast = genzqa.load(name), genzqa.load(name, backend="openvino")
    pixels = images(5, exact.config.preprocessing.size)
    assert_alike(fast.model.photos.read(pixels), exact.model.photos.read(pixels), 1e-3)
    clip = encode(noise_frames(12))
    assert fast.score(clip).score == pytest.approx(exact.score(clip).score, abs=0.02)
    assert fast.score(clip).gamma == pytest.approx(exact.score(clip).gamma, abs=1e-3)
    photo = tmp_path / "photo.png"
    Image.effect_mandelbrot((64, 48), (-3, -2.5, 2, 2.5), 100).save(photo)
    assert fast.score(photo, quality_map=True).quality_map is not None
    graphs = list((tmp_path / "cache" / "openvino").glob("*/*.xml"))
    before = [path.stat().st_mtime_ns for path in graphs]
    genzqa.load(name, backend="openvino")
    assert [path.stat().st_mtime_ns for path in graphs] == before  # converted once


def test_what_killed_conversions_left_is_cleared_away(tmp_path: Path) -> None:
    from genzqa.engine import openvino_engine

    old, young = (tmp_path / "cache" / "openvino" / f".making-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "encoder.xml").write_text("<half")
    os.utime(old, (1, 1))

    def fails() -> ScoringPass:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        openvino_engine.converted(fails, "key")
    assert [path.name for path in young.parent.iterdir()] == [".making-young"]


def test_no_backend_opens_a_connection(small_scorer: Path, tmp_path: Path) -> None:
    program = f"""
import socket
def refuse(*_, **__): raise SystemExit("a connection was opened")
socket.socket.connect = socket.create_connection = refuse
import genzqa
from genzqa.scoring.export import export_model
from pathlib import Path
genzqa.load("local-dir:{small_scorer}", backend="openvino")
for to in ("openvino", "onnx"):
    export_model("local-dir:{small_scorer}", to, Path(r"{tmp_path}") / to)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def exported(
    request: pytest.FixtureRequest, small_video_scorer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("exports") / request.param
    found = CliRunner().invoke(
        app, ["export", str(out), "--to", request.param, "--model", f"local-dir:{small_video_scorer}"]
    )
    assert found.exit_code == 0, found.output
    assert found.stdout.strip() == str(out)
    return out


def test_an_exported_model_scores_as_the_model_does(exported: Path, small_video_scorer: Path, tmp_path: Path) -> None:
    ours, theirs = genzqa.load(f"local-dir:{exported}"), genzqa.load(f"local-dir:{small_video_scorer}")
    photo = tmp_path / "photo.png"
    Image.effect_mandelbrot((64, 48), (-3, -2.5, 2, 2.5), 100).save(photo)
    assert ours.score(photo).score == pytest.approx(theirs.score(photo).score, abs=0.02)
    made, plain = (one.score(photo).provenance for one in (ours, theirs))
    assert made.backend == json.loads((exported / "export.json").read_text())["backend"]
    assert dataclasses.replace(made, backend="torch") == plain
    clip = encode(noise_frames(12))
    assert ours.score(clip).score == pytest.approx(theirs.score(clip).score, abs=0.02)
    told = json.loads((exported / "parity.json").read_text())
    assert 0 <= told["raw"] <= parity.CLOSE
    assert 0 <= told["video"] <= parity.CLOSE


def test_it_says_that_it_cannot_draw_maps(exported: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.effect_mandelbrot((64, 48), (-3, -2.5, 2, 2.5), 100).save(photo)
    found = CliRunner().invoke(
        app, ["score", str(photo), "--model", f"local-dir:{exported}", "--map", str(tmp_path / "maps")]
    )
    assert found.exit_code == 2
    assert "cannot draw quality maps" in found.stderr
    assert not list((tmp_path / "maps").glob("*"))


def test_an_export_is_run_as_it_was_exported(exported: Path) -> None:
    name = f"local-dir:{exported}"
    backend = json.loads((exported / "export.json").read_text())["backend"]
    assert isinstance(genzqa.load(name, backend=backend, device="cpu"), genzqa.Scorer)
    other = "openvino" if backend == "onnx" else "onnx"
    for options in ({"backend": other}, {"precision": "bf16"}, {"device": "cuda"}):
        with pytest.raises(ConfigError, match=r"cuda|bf16|onnx"):
            genzqa.load(name, **options)


def test_a_changed_export_is_refused(exported: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "config.json").write_text((copy / "config.json").read_text().replace('"seed"', ' "seed"'))
    with pytest.raises(ModelCorruptError):
        genzqa.load(f"local-dir:{copy}")
    (copy / "export.json").write_text("{}")
    with pytest.raises(ModelCorruptError):
        genzqa.load(f"local-dir:{copy}")


def test_an_export_that_is_off_leaves_nothing_behind(
    small_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "CLOSE", -1.0)
    with pytest.raises(ModelCorruptError, match="off by"):
        export.export_model(f"local-dir:{small_scorer}", "openvino", tmp_path / "out" / "graph")
    assert not list((tmp_path / "out").iterdir())


def test_an_export_overwrites_nothing(exported: Path, small_scorer: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"mine")
    targets: Sequence[tuple[str, Path, type[Exception]]] = [
        (f"local-dir:{small_scorer}", tmp_path / "mine", OutputError),
        (f"local-dir:{exported}", tmp_path / "again", ConfigError),
    ]
    for name, folder, kind in targets:
        with pytest.raises(kind):
            export.export_model(name, "onnx", folder)
    assert (tmp_path / "mine" / "photo.jpg").read_bytes() == b"mine"
    assert not (tmp_path / "again").exists()
