"""A whole training of Stable Diffusion's topology at a small size: it learns, and nothing that happens to it changes the result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image, ImageFilter
from safetensors.torch import load_file
from typer.testing import CliRunner

import genzqa
from genzqa import ConfigError, DataError, ModelCorruptError, TrainingError
from genzqa.cli import app
from genzqa.databases.registry import open_database
from genzqa.media.preprocess import resize_square, to_network
from genzqa.training.losses import batch_losses
from genzqa.training.plan import Losses, TrainingPlan, read_plan
from genzqa.training.setup import build_model, prepare
from genzqa.training.trainer import CHECKPOINT, LOG, Trainer

SIZE = 64
PROGRAM = [sys.executable, "-c", "from genzqa.cli import main; main()"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of noise, ever more blurred, with scores to match; each is there to train on and to validate with."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = ["path,mos,split"]
    for number in range(12):
        picture = Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
        picture.filter(ImageFilter.GaussianBlur(number / 2)).save(folder / f"{number}.png")
        rows += [f"{number}.png,{10 + 7 * number},{split}" for split in ("train", "validation")]
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def base(conformance_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conformance base with latents of unit variance, as a trained VAE's are; its own drown in the noise."""
    folder = Path(shutil.copytree(conformance_base, tmp_path_factory.mktemp("base") / "base"))
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(
        json.dumps(config | {"scaling_factor": config["scaling_factor"] / 0.042})
    )
    return folder


@pytest.fixture
def plan(base: Path) -> TrainingPlan:
    scorer = {"base": f"local-dir:{base}", "preprocessing": {"size": SIZE}, "timesteps": 1, "name": "small"}
    return TrainingPlan.model_validate(
        {"scorer": scorer, "data": ["mine"], "epochs": 2, "batch_size": 6, "learning_rate": 3e-3, "save_every": 1}
    )


def trainer(plan: TrainingPlan, photos: Path, out: Path, **options: object) -> Trainer:
    spec = f"mine={photos / 'scores.csv'}"
    made, _ = prepare(plan, [open_database(spec)], out, photos / "latents", Accelerator(cpu=True), **options)
    return made


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in one.parameters.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_learns_a_few_photos(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    long = plan.model_copy(
        update={
            "epochs": 40,
            "batch_size": 12,
            "learning_rate": 1e-2,
            "flips": False,
            "save_every": 1000,
            "losses": Losses(mse=1, plcc=2),
        }
    )
    learner = trainer(long, photos, tmp_path)
    before = learner.task.validation_scores()
    position = learner.run()
    learner.finish(["twelve pictures"], build_model(long).base_sha256)
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert position.best_srcc is not None
    assert position.best_srcc > 0.95
    assert max(row["validation_srcc"] for row in log if "validation_srcc" in row) == pytest.approx(
        position.best_srcc, abs=1e-6
    )
    assert not np.allclose(learner.task.validation_scores(), before, atol=1)
    scorer = genzqa.load(f"local-dir:{tmp_path}")  # what it leaves behind is a model like any other
    assert scorer.config.training_data == ["twelve pictures"]
    scores = [scorer.score(photos / f"{number}.png").score for number in range(12)]
    assert np.corrcoef(scores, np.arange(12))[0, 1] > 0.9


def test_a_training_that_stops_anywhere_goes_on_as_if_it_had_not(
    plan: TrainingPlan, photos: Path, tmp_path: Path
) -> None:
    whole = trainer(plan, photos, tmp_path / "whole")
    whole.run()
    for stop in (1, 3, 4):

        def interrupt(step: int, *_: object, stop: int = stop) -> None:
            if step == stop:
                raise KeyboardInterrupt

        out = tmp_path / f"stopped at {stop}"
        with pytest.raises(KeyboardInterrupt):
            trainer(plan, photos, out, progress=interrupt).run()
        again = trainer(plan, photos, out)
        again.run()
        assert same(weights(again), weights(whole)), stop
        assert (out / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()
        assert (out / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()


def write_plan(plan: TrainingPlan, path: Path) -> Path:
    path.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    return path


def test_kill_and_resume_by_the_program(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    config = write_plan(plan.model_copy(update={"epochs": 4}), tmp_path / "plan.yaml")
    arguments = [
        "train",
        "--config",
        config,
        "--data",
        f"mine={photos / 'scores.csv'}",
        "--cache",
        photos / "latents",
        "--offline",
    ]
    command = [*PROGRAM, *map(str, arguments), "--out"]
    for name, kill in (("whole", False), ("killed", True)):
        out = tmp_path / name
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, text=True)
        if kill:
            until = time.monotonic() + 120
            while not (out / LOG).exists() or len((out / LOG).read_text().splitlines()) < 3:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < until
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        said = process.communicate()[1]
        if not kill:
            assert process.returncode == 0, said
            continue
        assert process.returncode == -signal.SIGKILL
        assert not list(out.glob("adapter*"))
        subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert (tmp_path / "killed" / "adapter.safetensors").read_bytes() == (
        tmp_path / "whole" / "adapter.safetensors"
    ).read_bytes()
    assert (tmp_path / "killed" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


def test_killed_while_latents_are_encoded_it_makes_only_those_that_are_missing(
    plan: TrainingPlan, photos: Path, tmp_path: Path
) -> None:
    rows = [f"{photos / f'{number % 12}.png'},{number / 10},train" for number in range(300)]
    rows += [f"{photos / f'{number}.png'},{10 * number},validation" for number in range(12)]
    (tmp_path / "many.csv").write_text("\n".join(["path,mos,split", *rows]) + "\n")
    short = plan.model_copy(update={"epochs": 1, "batch_size": 100, "save_every": 1000, "flips": False})
    arguments = [
        "train",
        "--config",
        write_plan(short, tmp_path / "plan.yaml"),
        "--data",
        f"mine={tmp_path / 'many.csv'}",
        "--offline",
    ]
    command = [*PROGRAM, *map(str, arguments)]

    def shards(name: str) -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in (tmp_path / name).rglob("*.safetensors")}

    process = subprocess.Popen([*command, "--cache", str(tmp_path / "a"), "--out", str(tmp_path / "killed")])
    until = time.monotonic() + 120
    while not shards("a"):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = shards("a")
    assert 0 < len(before) < 4  # three of the training photos, one of those set aside
    for cache, out in (("a", "killed"), ("b", "whole")):
        subprocess.run(
            [*command, "--cache", str(tmp_path / cache), "--out", str(tmp_path / out)], check=True, capture_output=True
        )
    after = shards("a")
    assert len(after) == len(shards("b")) == 4
    assert before.items() <= after.items()
    killed, whole = (tmp_path / out / "adapter.safetensors" for out in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()


@pytest.fixture
def precision_of_its_own() -> Iterator[None]:
    """accelerate keeps one precision for all of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("precision_of_its_own")
def test_half_precision_learns_and_goes_on_bit_for_bit(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    half = plan.model_copy(
        update={"precision": "bf16", "epochs": 10, "batch_size": 12, "flips": False, "learning_rate": 1e-2}
    )

    def made(out: Path, **options: object) -> Trainer:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        return prepare(
            half, [open_database(f"mine={photos / 'scores.csv'}")], out, photos / "latents", accelerator, **options
        )[0]

    def interrupt(step: int, *_: object) -> None:
        if step == 5:
            raise KeyboardInterrupt

    whole = made(tmp_path / "whole")
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "stopped", progress=interrupt).run()
    again = made(tmp_path / "stopped")
    again.run()
    assert same(weights(again), weights(whole))
    errors = [
        row["mse"] for row in map(json.loads, (tmp_path / "whole" / LOG).read_text().splitlines()) if "mse" in row
    ]
    assert errors[-1] < errors[0]
    AcceleratorState._reset_state(reset_partial_state=True)
    single = trainer(half.model_copy(update={"precision": "fp32"}), photos, tmp_path / "single")
    single.run()
    assert not same(weights(single), weights(whole))  # it did train in another precision


def test_two_processes_give_what_one_gives(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    losses = Losses(mse=1, plcc=0.5, rank=1)  # scores and MOS of the whole batch are needed by each
    short = plan.model_copy(update={"epochs": 1, "losses": losses})
    one = trainer(short, photos, tmp_path / "one")
    start = weights(one)
    one.run()
    script = tmp_path / "go.py"
    script.write_text("from genzqa.cli import main\nmain()\n")
    config = write_plan(short, tmp_path / "plan.yaml")
    arguments = [
        "train",
        "--config",
        config,
        "--data",
        f"mine={photos / 'scores.csv'}",
        "--out",
        tmp_path / "two",
        "--offline",
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    stored = load_file(tmp_path / "two" / CHECKPOINT)
    # AdamW's first steps are as long for a gradient of rounding errors as for any other, so single weights may differ
    apart = sum(float((stored[f"weight.{name}"] - value).square().sum()) for name, value in weights(one).items())
    moved = sum(float((value - start[name]).square().sum()) for name, value in weights(one).items())
    assert apart < 1e-3 * moved
    logs = [[json.loads(line) for line in (tmp_path / name / LOG).read_text().splitlines()] for name in ("one", "two")]
    assert [row["step"] for row in logs[0]] == [row["step"] for row in logs[1]]
    assert [row["mse"] for row in logs[1] if "mse" in row] == pytest.approx(
        [row["mse"] for row in logs[0] if "mse" in row], rel=1e-3
    )


@pytest.mark.parametrize("change", [{"gradient_accumulation": 3}, {"gradient_checkpointing": True}])
def test_what_saves_memory_changes_nothing(
    change: dict[str, object], plan: TrainingPlan, photos: Path, tmp_path: Path
) -> None:
    short = plan.model_copy(update={"epochs": 1, "losses": Losses(mse=1, plcc=1, rank=1)})
    plain, sparing = (
        trainer(short, photos, tmp_path / "a"),
        trainer(short.model_copy(update=change), photos, tmp_path / "b"),
    )
    rows = np.arange(6)
    first, second = plain._step(rows), sparing._step(rows)
    assert second == pytest.approx(first, rel=1e-3)
    for name, value in plain.parameters.items():
        assert value.grad is not None
        torch.testing.assert_close(sparing.parameters[name].grad, value.grad, rtol=1e-3, atol=1e-5)


def test_only_what_the_plan_names_is_trained(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    one = trainer(plan.model_copy(update={"train": ["context"]}), photos, tmp_path)
    assert set(one.parameters) == {"context"}
    frozen = {name: value.clone() for name, value in one.task.image.named_parameters() if not name.endswith("context")}
    one._step(np.arange(6))
    one.run()
    for name, value in one.task.image.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name]), name


def test_cached_latents_are_those_of_the_photos_and_of_their_flips(
    plan: TrainingPlan, photos: Path, tmp_path: Path
) -> None:
    one = trainer(plan, photos, tmp_path)
    assert one.task.latents.forms == 4
    with Image.open(photos / "3.png") as image:
        photo = to_network(resize_square(np.asarray(image), SIZE))
    for form, axes in enumerate([(), (2,), (1,), (1, 2)]):
        with torch.inference_mode():
            expected = one.task.image.encode(photo.flip(axes)[None])[0]
        torch.testing.assert_close(one.task.latents.read(3, form), expected, rtol=1e-4, atol=1e-4)
    (shard,) = one.task.latents.folder.glob("*.safetensors")
    before = shard.stat().st_mtime_ns
    trainer(plan, photos, tmp_path / "again")
    assert shard.stat().st_mtime_ns == before  # what is there is used
    shard.write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        trainer(plan, photos, tmp_path / "more").run()
    shard.unlink()


def test_a_loss_that_is_not_finite_names_the_photos(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    wild = trainer(plan.model_copy(update={"learning_rate": 1e30, "epochs": 3}), photos, tmp_path)
    with pytest.raises(TrainingError, match="not finite") as caught:
        wild.run()
    assert ".png" in caught.value.subject


def test_another_training_s_checkpoint_is_not_gone_on_from(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    short = plan.model_copy(update={"epochs": 1})
    trainer(short, photos, tmp_path).run()
    with pytest.raises(TrainingError, match="another plan"):
        trainer(short.model_copy(update={"seed": 7}), photos, tmp_path).run()
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(ModelCorruptError, match="is no checkpoint"):
        trainer(short, photos, tmp_path).run()


def test_losses_are_of_the_whole_batch() -> None:
    mos = torch.tensor([10.0, 20.0, 30.0, 40.0])
    exact = batch_losses(mos, mos, Losses(mse=1, plcc=1, rank=1))
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in exact.values())
    turned = batch_losses(mos.flip(0), mos, Losses(mse=1, plcc=1, rank=1))
    assert float(turned["plcc"]) == pytest.approx(200, rel=1e-4)
    assert float(turned["mse"]) == pytest.approx(500)
    assert float(turned["rank"]) > 10
    assert set(batch_losses(mos, mos, Losses())) == {"mse"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [x", "is no YAML"),
        ("- 1", "the file"),
        ("data: [mine]", "scorer"),
        ("data: [mine]\nscorer: {base: sd21}\nepochs: 0", "epochs"),
        ("data: [mine]\nscorer: {base: sd21}\nepoch: 3", "epoch"),
    ],
)
def test_a_plan_that_is_wrong_names_the_field(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_plan(tmp_path / "plan.yaml")
    with pytest.raises(ConfigError):
        read_plan(tmp_path / "gone.yaml")


def test_data_that_cannot_be_trained_on_is_refused(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the plan wants mine"):
        prepare(plan, [], tmp_path, tmp_path, Accelerator(cpu=True))
    (tmp_path / "few.csv").write_text("path,mos,split\na.png,1,train\nb.png,2,validation\n")
    with pytest.raises(DataError, match="for validation"):
        prepare(plan, [open_database(f"mine={tmp_path / 'few.csv'}")], tmp_path, tmp_path, Accelerator(cpu=True))
    rows = [f"{photos}/{n}.png,{n},{split}" for n in range(12) for split in ("train", "validation")]
    (tmp_path / "bad.png").write_bytes(b"no photo")
    for name, message in (("bad.png", "cannot be trained on"), ("gone.png", "cannot be trained on")):
        (tmp_path / "bad.csv").write_text("\n".join(["path,mos,split", *rows, f"{name},3,train"]) + "\n")
        with pytest.raises(DataError, match=message) as caught:
            prepare(
                plan, [open_database(f"mine={tmp_path / 'bad.csv'}")], tmp_path, tmp_path / "l", Accelerator(cpu=True)
            )
        assert name in caught.value.subject


def test_a_dry_run_says_what_it_would_take(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    config = write_plan(plan, tmp_path / "plan.yaml")
    arguments = [
        "train",
        "--config",
        str(config),
        "--data",
        f"mine={photos / 'scores.csv'}",
        "--out",
        str(tmp_path / "out"),
        "--dry-run",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for said in (
        "12 to train on, 12 for validation",
        "2 of 6 photos an epoch, 4 in all",
        "trained parameters",
        "s a step",
    ):
        assert said in result.stderr
    assert not (tmp_path / "out" / CHECKPOINT).exists()


def test_adapt_tunes_a_model_to_ones_own_scores(small_scorer: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "my-run"
    arguments = ["adapt", "--csv", str(photos / "scores.csv"), "--model", f"local-dir:{small_scorer}", "--out", str(out),
                 "--range", "0", "100", "--epochs", "2", "--offline"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    before, after = load_file(small_scorer / "adapter.safetensors"), load_file(out / "adapter.safetensors")
    assert any(not torch.equal(after[name], value) for name, value in before.items() if name in after)
    scorer = genzqa.load(f"local-dir:{out}")
    assert scorer.config.name == "my-run"
    assert 0 <= scorer.score(photos / "5.png").score <= 100
    refused = CliRunner().invoke(app, [*arguments[:-5], "--range", "5", "1"])
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "configs").glob("genziqa-*.yaml")), ids=lambda path: path.stem
)
def test_committed_plans_are_the_published_training(path: Path) -> None:
    plan = read_plan(path)
    assert path.stem == plan.scorer.name
    published = TrainingPlan(scorer=plan.scorer, data=["flive"])
    told = {"scorer", "precision", "gradient_checkpointing"}
    assert plan.model_dump(exclude=told) == published.model_dump(exclude=told)
    assert (plan.scorer.timesteps, plan.scorer.lora_rank, plan.scorer.readout) == (8, 4, "published")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminal can be made here")
def test_on_a_terminal_a_bar_shows_how_far_it_is(plan: TrainingPlan, photos: Path, tmp_path: Path) -> None:
    config = write_plan(plan, tmp_path / "plan.yaml")
    command = [*PROGRAM, "train", "--config", str(config), "--data", f"mine={photos / 'scores.csv'}", "--out", "out"]
    theirs, ours = os.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(command, cwd=tmp_path, stderr=ours, env={**plain, "TERM": "xterm", "COLUMNS": "120"})
    os.close(ours)
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while read := os.read(theirs, 4096):
            seen += read
    os.close(theirs)
    assert process.wait() == 0, seen.decode()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    bars = re.findall(r"mse [0-9.e+]+.*?[━╸╺]+ +(\d)/4", shown)
    assert bars == sorted(bars)
    assert set(bars) & {"1", "2", "3"}
    assert "step 4 of 4: validation_srcc" in shown  # what stays
    assert "\x1b[2K" in seen.decode()  # and the bar does not
