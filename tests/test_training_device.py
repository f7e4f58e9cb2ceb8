"""What a training does with its device: encode there, say what to change when its memory runs out, agree with other processes."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from PIL import Image
from typer.testing import CliRunner

from genzqa import TrainingError
from genzqa.cli import app
from genzqa.databases.registry import open_database
from genzqa.model.config import read_config
from genzqa.model.genziqa import GenzIQA
from genzqa.model.slowfast import SlowFast
from genzqa.training import films, latents
from genzqa.training.estimate import Estimate, Rehearsal, rehearsal
from genzqa.training.memory import for_a_step, for_validation, memory_guard
from genzqa.training.plan import TrainingPlan
from genzqa.training.setup import build_model, encoding_on, prepare
from genzqa.training.trainer import BEST, LOG, Trainer, _better

SIZE = 64


def noise_photos(folder: Path, *, count: int) -> Path:
    """Pictures of noise with scores, each to train on and to validate with."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = ["path,mos,split"]
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        rows += [f"{number}.png,{10 + 7 * number},{split}" for split in ("train", "validation")]
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_photos(tmp_path_factory.mktemp("photos"), count=12)


@pytest.fixture
def plan(conformance_base: Path) -> TrainingPlan:
    scorer = {"base": f"local-dir:{conformance_base}", "preprocessing": {"size": SIZE}, "timesteps": 1, "name": "small"}
    return TrainingPlan.model_validate(
        {"scorer": scorer, "data": ["mine"], "epochs": 1, "batch_size": 6, "save_every": 1, "flips": False}
    )


def trainer(plan: TrainingPlan, photos: Path, out: Path) -> Trainer:
    spec = f"mine={photos / 'scores.csv'}"
    return prepare(plan, [open_database(spec)], out, photos / "latents", Accelerator(cpu=True))[0]


def program(plan: TrainingPlan, photos: Path, folder: Path, *options: str) -> list[str]:
    config = folder / "plan.yaml"
    config.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    return ["train", "--config", str(config), "--data", f"mine={photos / 'scores.csv'}", "--offline", *options]


def no_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class Moves:
    """Records where networks are moved, and where each was last when it encoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str]] = []
        self.at: dict[type, str] = {}
        for kind in (GenzIQA, SlowFast):
            monkeypatch.setattr(kind, "to", self._moving(kind))
            monkeypatch.setattr(kind, "cpu", lambda network: network.to("cpu"))
        encode, features = latents.encode, films.clip_features

        def encoded(model: GenzIQA, pixels: torch.Tensor) -> torch.Tensor:
            self.seen.append(("latents", self.at[GenzIQA]))
            return encode(model, pixels)

        def featured(network: SlowFast, clip: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            self.seen.append(("motion", self.at[SlowFast]))
            return features(network, clip)

        monkeypatch.setattr(latents, "encode", encoded)
        monkeypatch.setattr(films, "encode", encoded)
        monkeypatch.setattr(films, "clip_features", featured)

    def _moving(self, kind: type) -> object:
        def to(network: torch.nn.Module, device: object) -> torch.nn.Module:
            self.at[kind] = str(device)  # this machine may have none such: the network stays where it is
            return network

        return to


def test_photos_are_encoded_on_the_device(
    plan: TrainingPlan, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = Moves(monkeypatch)
    real = Accelerator(cpu=True)
    fake = SimpleNamespace(device=torch.device("cuda", 1), process_index=0, num_processes=1, backward=real.backward,
                           wait_for_everyone=real.wait_for_everyone)  # fmt: skip
    made, _ = prepare(plan, [open_database(f"mine={photos / 'scores.csv'}")], tmp_path, tmp_path / "c", fake)
    assert moves.seen
    assert set(moves.seen) == {("latents", "cuda:1")}
    assert made.task.latents.read(0).device.type == "cpu"


def test_videos_are_encoded_on_the_device_and_the_motion_network_comes_back(
    small_video_scorer: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = read_config(small_video_scorer / "config.json").model_dump()
    scorer["preprocessing"]["size"] = SIZE
    start = f"local-dir:{small_video_scorer}"
    built = build_model(TrainingPlan.model_validate({"scorer": scorer, "start": start, "data": ["mine"]}))
    assert built.motion is not None
    moves = Moves(monkeypatch)
    cache = films.FilmCache(clips / "cache", [clips / "clip.mp4"], built.image, built.motion, "", frames=2, flips=False)
    with encoding_on(built, torch.device("cuda", 1)):
        cache.build([0])
    assert set(moves.seen) == {("latents", "cuda:1"), ("motion", "cuda:1")}
    assert moves.at == {GenzIQA: "cuda:1", SlowFast: "cpu"}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    from videos import encode

    picture = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    (tmp_path / "clip.mp4").write_bytes(encode([np.roll(picture, 2 * moment, axis=1) for moment in range(30)]))
    return tmp_path


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_encodes_as_a_cpu_does(plan: TrainingPlan, photos: Path) -> None:
    built = build_model(plan)
    pixels = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    expected = latents.encode(built.image, pixels)
    with encoding_on(built, torch.device("cuda")):
        found = latents.encode(built.image, pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [{"gradient_checkpointing": True}, {"gradient_accumulation": 2}])
def test_when_memory_runs_out_the_advice_can_be_followed_from_the_checkpoint(
    change: dict[str, object], plan: TrainingPlan, photos: Path, tmp_path: Path
) -> None:
    longer = plan.model_copy(update={"epochs": 2})
    trainer(longer, photos, tmp_path / "whole").run()
    stopped = trainer(longer, photos, tmp_path / "stopped")
    backward, made = stopped._backward, []

    def runs_out(loss: torch.Tensor) -> None:
        made.append(loss)
        no_memory() if len(made) == 2 else backward(loss)

    stopped._backward = runs_out
    with pytest.raises(TrainingError, match="memory ran out in a step") as caught:
        stopped.run()
    assert "gradient_checkpointing: true or gradient_accumulation: 2" in caught.value.hint
    assert "up to rounding" in caught.value.hint
    changed = trainer(longer.model_copy(update={**change, "save_every": 5}), photos, tmp_path / "stopped")
    assert changed.run().step == 4
    logs = [(tmp_path / name / LOG).read_text().splitlines() for name in ("whole", "stopped")]
    whole, again = ([json.loads(line) for line in lines] for lines in logs)
    assert [row["step"] for row in again] == [row["step"] for row in whole]
    losses = [[row["mse"] for row in rows if "mse" in row] for rows in (whole, again)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_every_part_of_a_training_says_when_memory_runs_out(
    plan: TrainingPlan, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = trainer(plan, photos, tmp_path)
    other = [open_database(f"mine={photos / 'scores.csv'}")], tmp_path, tmp_path / "c", Accelerator(cpu=True)
    for owner, name, call, said in (
        (one.optimizer, "step", one.run, "in a step"),
        (one.task, "validation_scores", one.run, "in validation"),
        (one.task, "scores", lambda: one.rehearse(gradients=False), "in a step"),
        (latents, "encode", lambda: prepare(plan, *other), "while encoding"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, no_memory)
            with pytest.raises(TrainingError, match=f"memory ran out {said}") as caught:
                call()
        assert caught.value.hint
    one.run()  # goes on from the checkpoint
    monkeypatch.setattr(one.task, "finished", no_memory)
    with pytest.raises(TrainingError, match="while calibrating") as caught:
        one.finish(["mine"], "")
    assert "precision: bf16" in caught.value.hint


def test_advice_names_only_what_can_still_be_changed(plan: TrainingPlan) -> None:
    spent = plan.model_copy(update={"gradient_checkpointing": True, "gradient_accumulation": 4})
    assert "set gradient_accumulation: 6;" in for_a_step(spent, 6)
    assert for_a_step(spent, 4) == for_validation(spent)
    assert "bf16" not in for_validation(plan.model_copy(update={"precision": "bf16"}))
    with pytest.raises(RuntimeError, match="something else"), memory_guard("here", ""):
        raise RuntimeError("something else")
    with pytest.raises(TrainingError, match="ran out here"), memory_guard("here", ""):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_an_epoch_without_a_correlation_is_worse_than_any(
    plan: TrainingPlan, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = math.nan
    assert [_better(*pair) for pair in ((nan, None), (-1.0, nan), (nan, -1.0), (nan, nan), (0.2, 0.1), (0.1, 0.1))] == [
        True, True, False, False, True, False,
    ]  # fmt: skip
    one = trainer(plan.model_copy(update={"epochs": 3}), photos, tmp_path)
    scores = iter([np.zeros(12), -np.arange(12.0), np.zeros(12)])
    monkeypatch.setattr(one.task, "validation_scores", lambda: next(scores))
    position = one.run()
    assert (position.best_epoch, position.best_srcc) == (1, pytest.approx(-1))
    assert (tmp_path / BEST).exists()


def test_processes_choose_the_epoch_of_the_main_one(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    script = tmp_path / "go.py"  # the second process ranks the epochs the other way round
    script.write_text(
        "import os\nimport numpy as np\nfrom genzqa.cli import main\nfrom genzqa.training.task import PhotoTask\n"
        "calls = []\n"
        "def scores(task):\n"
        "    calls.append(1)\n"
        "    wrong = len(calls) if os.environ['RANK'] == '0' else 4 - len(calls)\n"
        "    return np.roll(np.arange(12.0), wrong)\n"
        "PhotoTask.validation_scores = scores\nmain()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = program(plan.model_copy(update={"epochs": 3}), photos, tmp_path, "--out", str(tmp_path / "two"))
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, check=False, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "best of 3 epochs: 1," in done.stderr


ESTIMATE = Estimate(
    items=(100, 20), unencoded=(100, 20), epochs=2, batches=10, parts=1, processes=1, encoding_of_one=(4.0, 1.0),
    learning_of_part=3.0, scoring_of_part=1.0, validating_one=0.5, bytes_of_one=(2**30 / 100, 2**30 / 80), memory=2**31,
)  # fmt: skip


def test_an_estimate_grows_with_what_there_is_to_do() -> None:
    assert (ESTIMATE.encoding, ESTIMATE.training, ESTIMATE.validation, ESTIMATE.total) == (420, 60, 30, 510)
    assert ESTIMATE.disk == pytest.approx(1.25 * 2**30)
    longer = dataclasses.replace(ESTIMATE, epochs=4)
    assert (longer.encoding, longer.training, longer.validation) == (420, 120, 50)
    parts = dataclasses.replace(ESTIMATE, parts=2)  # each runs forward once more than it learns
    assert (ESTIMATE.step, parts.step) == (3, 8)
    assert dataclasses.replace(ESTIMATE, processes=2).step == 4
    cached = dataclasses.replace(ESTIMATE, unencoded=(0, 0))
    assert cached.total == ESTIMATE.training + ESTIMATE.validation


def test_a_dry_run_counts_all_and_leaves_nothing(
    plan: TrainingPlan, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = latents.encode
    monkeypatch.setattr(latents, "encode", lambda model, pixels: encoded.append(len(pixels)) or encode(model, pixels))
    found: list[Estimate] = []
    measure = Rehearsal.measure
    monkeypatch.setattr(Rehearsal, "measure", lambda tried: found.append(measure(tried)) or found[-1])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    few = noise_photos(tmp_path / "few", count=10)
    wanted = plan.model_copy(update={"epochs": 3, "gradient_accumulation": 2})
    for chosen, data in ((plan, photos), (wanted, photos), (plan, few)):
        result = CliRunner().invoke(app, program(chosen, data, tmp_path, "--dry-run"))
        assert result.exit_code == 0, result.output
        for said in ("to train on", "trained parameters", "1 process, on cpu", "iB at most", "in runs/plan/latents",
                     "encoding: ", "training: ", "validation: ", "in all: about"):  # fmt: skip
            assert said in result.stderr
        assert ("runs the network twice" in result.stderr) == (chosen is wanted)
    assert encoded == [4, 4] * 3  # of each part a few, whatever the database
    one, more, fewer = found
    assert (one.items, one.unencoded, one.epochs, one.batches, one.parts) == ((12, 12), (12, 12), 1, 2, 1)
    assert (more.epochs, more.parts, fewer.items, fewer.batches) == (3, 2, (10, 10), 1)
    assert min(one.encoding, one.training, one.validation, one.disk, one.memory) > 0
    assert not list((tmp_path / "scratch").iterdir())
    assert not list((tmp_path / "work").iterdir())


def test_a_dry_run_counts_what_is_encoded_already(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prepare(plan, [open_database(f"mine={photos / 'scores.csv'}")], tmp_path / "o", cache, Accelerator(cpu=True))
    before = sorted(cache.rglob("*"))
    result = CliRunner().invoke(app, program(plan, photos, tmp_path, "--cache", str(cache), "--dry-run"))
    assert f"encoding: all is in {cache}" in result.stderr
    assert sorted(cache.rglob("*")) == before


def test_the_disk_an_estimate_tells_is_what_the_cache_takes(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    databases = [open_database(f"mine={photos / 'scores.csv'}")]
    cache = tmp_path / "cache"
    plan = plan.model_copy(update={"flips": True})  # without, both parts share one cache: they list the same photos
    with rehearsal(plan, databases, cache, Accelerator(cpu=True)) as tried:
        taken = tried.measure()
    prepare(plan, databases, tmp_path / "out", cache, Accelerator(cpu=True))
    assert taken.disk == pytest.approx(sum(path.stat().st_size for path in cache.rglob("*.safetensors")), rel=0.05)


def test_without_out_a_plan_has_a_folder_of_its_name(
    plan: TrainingPlan, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = program(plan, photos, tmp_path, "--cache", str(photos / "latents"))
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (tmp_path / "runs" / "plan" / "adapter.safetensors").exists()
    program(plan.model_copy(update={"seed": 5}), photos, tmp_path)  # another plan under the same name
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "another plan" in refused.output
