"""A whole training of GenzVQA at a small size: scoring gives what it learned, and nothing that happens to it changes the result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image, ImageFilter
from safetensors.torch import load_file
from typer.testing import CliRunner

import genzqa
from genzqa import ConfigError, DataError
from genzqa.cli import app
from genzqa.databases.registry import open_database
from genzqa.media.preprocess import resize_square, to_network
from genzqa.media.video import open_video, uniform_times
from genzqa.model.config import read_config
from genzqa.model.motion import clip_features
from genzqa.training.plan import Losses, TrainingPlan, read_plan
from genzqa.training.setup import prepare
from genzqa.training.task import VideoTask
from genzqa.training.trainer import CHECKPOINT, LOG, Trainer
from videos import encode

COUNT, SIZE = 10, 64


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten moving pictures of noise, ever more blurred, with scores to match; each to train on and to validate with."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    rows = ["path,mos,split"]
    for number in range(COUNT):
        still = Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
        picture = np.asarray(still.filter(ImageFilter.GaussianBlur(number / 2)))
        frames = [np.roll(picture, 2 * moment, axis=1) for moment in range(30 if number else 9)]  # one is short
        (folder / f"{number}.mp4").write_bytes(encode(frames))
        rows += [f"{number}.mp4,{10 + 8 * number},{split}" for split in ("train", "validation")]
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def plan(small_video_scorer: Path) -> TrainingPlan:
    scorer = read_config(small_video_scorer / "config.json").model_dump()
    scorer["preprocessing"]["size"] = SIZE
    return TrainingPlan.model_validate(
        {"scorer": scorer, "start": f"local-dir:{small_video_scorer}", "data": ["mine"], "epochs": 2, "frames": 3,
         "batch_size": 5, "learning_rate": 3e-3, "save_every": 1, "flips": False}
    )  # fmt: skip


def trainer(plan: TrainingPlan, films: Path, out: Path, **options: object) -> Trainer:
    spec = f"mine={films / 'scores.csv'}"
    made, _ = prepare(plan, [open_database(spec)], out, films / "cache", Accelerator(cpu=True), **options)
    return made


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in one.parameters.items()}


def test_it_learns_and_its_validation_scores_are_those_of_scoring(
    plan: TrainingPlan, films: Path, tmp_path: Path
) -> None:
    long = plan.model_copy(
        update={"epochs": 10, "batch_size": 10, "frames": 1, "learning_rate": 1e-2, "losses": Losses(mse=1, plcc=2)}
    )
    learner = trainer(long, films, tmp_path)
    start = weights(learner)
    assert {name.split(".")[0] for name in start} == {"context", "lora", "tqm"}
    position = learner.run()
    learner.finish(["ten films"], "")
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    errors = [row["mse"] for row in log if "mse" in row]
    assert min(errors[-3:]) < 0.5 * errors[0]
    assert position.best_srcc is not None
    assert position.best_srcc > 0.8
    trained = weights(learner)
    for part in ("context", "lora", "tqm"):
        assert any(not torch.equal(trained[name], value) for name, value in start.items() if name.startswith(part)), (
            part
        )
    scorer = genzqa.load(f"local-dir:{tmp_path}", offline=True)
    expected = learner.task.validation_scores()
    results = [scorer.score(films / f"{number}.mp4") for number in range(COUNT)]
    assert [result.raw for result in results] == pytest.approx(expected, abs=1e-3)
    assert "photo_calibration" not in {note.code for result in results for note in result.notes}
    assert 0 <= scorer.score(np.zeros((96, 128, 3), np.uint8)).score <= 100


def test_a_training_that_stops_anywhere_goes_on_as_if_it_had_not(
    plan: TrainingPlan, films: Path, tmp_path: Path
) -> None:
    whole = trainer(plan, films, tmp_path / "whole")
    whole.run()
    for stop in (1, 2, 3):

        def interrupt(step: int, *_: object, stop: int = stop) -> None:
            if step == stop:
                raise KeyboardInterrupt

        out = tmp_path / f"stopped at {stop}"
        with pytest.raises(KeyboardInterrupt):
            trainer(plan, films, out, progress=interrupt).run()
        again = trainer(plan, films, out)
        again.run()
        assert (out / CHECKPOINT).read_bytes() == (tmp_path / "whole" / CHECKPOINT).read_bytes()
        assert (out / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


def test_parts_of_a_batch_change_nothing(plan: TrainingPlan, films: Path, tmp_path: Path) -> None:
    mixed = plan.model_copy(update={"losses": Losses(mse=1, plcc=1, rank=1)})
    plain = trainer(mixed, films, tmp_path / "a")
    rows = np.arange(5)
    first = plain._step(rows)
    for change in ({"gradient_accumulation": 5}, {"gradient_checkpointing": True}):
        sparing = trainer(mixed.model_copy(update=change), films, tmp_path / "b")
        assert sparing._step(rows) == pytest.approx(first, rel=1e-3)
        for name, value in plain.parameters.items():
            assert value.grad is not None
            torch.testing.assert_close(sparing.parameters[name].grad, value.grad, rtol=1e-3, atol=1e-5)


def test_what_is_cached_is_what_the_networks_make_of_every_form(
    plan: TrainingPlan, films: Path, tmp_path: Path
) -> None:
    task = trainer(plan.model_copy(update={"flips": True}), films, tmp_path).task
    assert isinstance(task, VideoTask)
    assert task.films.forms == 4
    video = task.video.config
    with open_video(films / "3.mp4") as reader:
        times = uniform_times(reader.facts.duration, plan.frames)
        moments = list(reader.moments(times, clip_frames=16, clip_side=video.motion_size, clip_rate=video.motion_rate))
    for form, (across, down) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
        latents, slow, fast = task.films.read(3, form)
        assert len(latents) == plan.frames
        pixels = moments[2].pixels[:: -1 if down else 1, :: -1 if across else 1]
        with torch.inference_mode():
            expected = task.image.encode(to_network(resize_square(pixels, SIZE))[None])[0]
        torch.testing.assert_close(latents[2], expected, rtol=1e-3, atol=1e-3)
        clip = moments[0].clip
        assert clip is not None
        found = clip_features(task._motion, clip[:, :: -1 if down else 1, :: -1 if across else 1])
        torch.testing.assert_close((slow[0], fast[0]), found, rtol=1e-4, atol=1e-5)
    assert len(task.films.read(0, 0)[0]) <= 9


def test_plans_and_data_must_be_of_one_kind(plan: TrainingPlan, films: Path, tmp_path: Path) -> None:
    photos = plan.model_copy(update={"scorer": plan.scorer.model_copy(update={"video": None})})
    with pytest.raises(ConfigError, match="is no database of photos"):
        trainer(photos, films, tmp_path)
    with pytest.raises(ConfigError, match="no weights to start with"):
        trainer(plan.model_copy(update={"start": None}), films, tmp_path)
    assert plan.scorer.video is not None
    other = plan.scorer.model_copy(update={"video": plan.scorer.video.model_copy(update={"tqm": "published"})})
    with pytest.raises(ConfigError, match="not that of the adapter"):
        trainer(plan.model_copy(update={"scorer": other}), films, tmp_path)
    (films / "broken.mp4").write_bytes((films / "1.mp4").read_bytes()[:600])
    rows = (films / "scores.csv").read_text() + "broken.mp4,5,train\n"
    (films / "more.csv").write_text(rows)
    with pytest.raises(DataError, match="cannot be trained on") as caught:
        prepare(plan, [open_database(f"mine={films / 'more.csv'}")], tmp_path, tmp_path / "c", Accelerator(cpu=True))
    assert "broken.mp4" in caught.value.subject


def test_adapt_tunes_the_temporal_part_to_scores_of_videos(
    small_video_scorer: Path, films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    arguments = ["adapt", "--csv", str(films / "scores.csv"), "--model", f"local-dir:{small_video_scorer}", "--out", str(out),
                 "--epochs", "1", "--offline"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "10 of 10 videos encoded" in result.stderr
    before, after = load_file(small_video_scorer / "adapter.safetensors"), load_file(out / "adapter.safetensors")
    assert any(not torch.equal(after[name], value) for name, value in before.items() if name.startswith("tqm."))
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("motion."))
    assert isinstance(genzqa.load(f"local-dir:{out}").score(films / "2.mp4"), genzqa.VideoResult)


def test_tensorboard_shows_what_the_log_shows(plan: TrainingPlan, films: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def interrupt(step: int, *_: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer(plan, films, tmp_path, progress=interrupt).run()
    trainer(plan, films, tmp_path).run()
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    for name in ("mse", "validation_srcc"):
        expected = [(row["step"], row[name]) for row in log if name in row]
        assert [(event.step, pytest.approx(event.value, rel=1e-4)) for event in shown.Scalars(name)] == expected


@pytest.mark.parametrize("base", ["sd15", "sd21", "sd-turbo"])
def test_committed_video_plans_are_the_published_training(base: str) -> None:
    plan = read_plan(Path(__file__).parents[1] / "configs" / f"genzvqa-{base}-lsvq.yaml")
    assert plan.scorer.name == f"genzvqa-{base}-lsvq"
    published = TrainingPlan(scorer=plan.scorer, data=["lsvq"], epochs=6)
    told = {"scorer", "precision", "gradient_checkpointing", "gradient_accumulation"}
    assert plan.model_dump(exclude=told) == published.model_dump(exclude=told)
    assert plan.scorer.video is not None
    assert (plan.scorer.video.frames, plan.scorer.video.timesteps, plan.scorer.video.tqm) == (8, 4, "published")
    assert plan.scorer.video.motion == "slowfast-r50"
