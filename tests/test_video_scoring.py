"""Videos scored end to end: real encodes, a real (tiny) model, the API and the program."""

from __future__ import annotations

import hashlib
import json
import threading
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import genzqa
from genzqa.cli import app
from genzqa.model.adapter import save_adapter
from genzqa.model.config import VideoConfig, read_config
from genzqa.model.genzvqa import GenzVQA
from genzqa.scoring import video
from genzqa.text import clock_time
from videos import encode


def scene(number: int, shift: int = 0) -> np.ndarray:
    """A textured picture, moved by ``shift`` pixels."""
    noise = np.random.default_rng(5).integers(0, 256, (12, 16, 3), np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((256, 192), Image.Resampling.BICUBIC))
    return np.roll(large, shift, axis=1)[:144, :192] // (1 + number % 1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    contents = {
        "still.mp4": encode([scene(0)] * 50),
        "pan.mp4": encode([scene(0, 3 * n) for n in range(50)]),
        "worse.mkv": encode([scene(0, n) if n < 25 else scene(0, n) // 16 * 16 // 3 for n in range(50)], container="matroska"),
        "one.mp4": encode([scene(0)], codec="mjpeg", pixel_format="yuvj444p", container="mov", full_range=True),
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {Path(name).stem: folder / name for name in contents}


@pytest.fixture(scope="module")
def frames_only(small_scorer: Path) -> genzqa.Scorer:
    return genzqa.load(f"local-dir:{small_scorer}")


@pytest.fixture(scope="module")
def modulated(small_video_scorer: Path) -> genzqa.Scorer:
    return genzqa.load(f"local-dir:{small_video_scorer}", offline=True)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads((files("genzqa") / "schema" / "genzqa-1.schema.json").read_text("utf-8")))


def test_without_a_temporal_part_the_score_is_the_mean_of_the_frames(frames_only: genzqa.Scorer, clips) -> None:
    result = frames_only.score(clips["pan"])
    assert isinstance(result, genzqa.VideoResult)
    assert result.raw == pytest.approx(np.mean([frame.raw for frame in result.frames]), abs=1e-6)
    assert [frame.time for frame in result.frames] == sorted(frame.time for frame in result.frames)
    assert len(result.frames) == 8
    assert set(result.gamma) == {1.0}
    assert "frames_only" in {note.code for note in result.notes}
    assert (result.width, result.height, result.duration) == (192, 144, pytest.approx(2.0, abs=0.05))


def test_a_frame_scores_as_the_same_photo(frames_only: genzqa.Scorer, clips) -> None:
    from genzqa.media.video import open_video

    result = frames_only.score(clips["worse"], video=genzqa.VideoOptions(frames=3))
    with open_video(clips["worse"]) as reader:
        photos = [moment.pixels for moment in reader.moments([frame.time for frame in result.frames])]
    for frame, photo in zip(result.frames, photos, strict=True):
        assert frame.score == pytest.approx(frames_only.score(photo).score, abs=1e-3)


@pytest.mark.parametrize("which", ["frames_only", "modulated"])
def test_one_frame_scores_as_its_image_does(which: str, clips, request: pytest.FixtureRequest) -> None:
    from genzqa.media.video import open_video

    scorer = request.getfixturevalue(which)
    result = scorer.score(clips["one"])
    with open_video(clips["one"]) as reader:
        (moment,) = reader.moments([0.0])
    assert isinstance(result, genzqa.ImageResult)
    assert result.score == scorer.score(moment.pixels).score
    assert result.input == str(clips["one"])
    assert "single_frame" in {note.code for note in result.notes}
    assert result.quality_map is None
    (mapped,) = scorer.score_many([clips["one"]], quality_map=True)
    assert mapped.score == pytest.approx(result.score, abs=1e-4)
    assert mapped.quality_map.mean() == pytest.approx(result.score, abs=1e-2)


def test_motion_modulates_the_score(modulated: genzqa.Scorer, clips) -> None:
    still, pan = modulated.score(clips["still"]), modulated.score(clips["pan"])
    assert len(still.frames) == len(pan.frames) == 4
    assert min(still.gamma) >= 0
    assert still.gamma != pan.gamma
    assert "frames_only" not in {note.code for note in pan.notes}
    assert "photo_calibration" in {note.code for note in pan.notes}  # no video stood behind the interval


def test_motion_is_read_beside_the_frames(modulated: genzqa.Scorer, clips, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, frames_read = modulated.score(clips["pan"]), threading.Event()
    read, follow = video._read, video.clip_features

    def noticed(*arguments: object) -> None:
        read(*arguments)
        frames_read.set()

    def waiting(*arguments: object) -> object:
        assert frames_read.wait(60), "the frames wait for the motion of their clips"
        return follow(*arguments)

    monkeypatch.setattr(video, "_read", noticed)
    monkeypatch.setattr(video, "clip_features", waiting)
    beside = modulated.score(clips["pan"])
    assert (beside.raw, beside.gamma) == (alone.raw, alone.gamma)


def test_records_name_the_motion_network(
    frames_only, modulated, small_scorer, clips, validator, tmp_path: Path
) -> None:
    weights = tmp_path / "motion.safetensors"
    save_file(genzqa.SlowFast().state_dict(), weights)
    video = VideoConfig(frames=1, timesteps=1, motion=f"file:{weights}", motion_size=32)
    image = genzqa.GenzIQA.from_pretrained(f"local-dir:{small_scorer}")
    modulator = GenzVQA(image, video).modulator.state_dict()
    config = read_config(small_scorer / "config.json").model_copy(update={"video": video})
    base = (small_scorer / config.base.removeprefix("local-dir:")).resolve()
    tensors = load_file(small_scorer / "adapter.safetensors") | {
        f"tqm.{name}": value for name, value in modulator.items()
    }
    save_adapter(tmp_path / "adapter", tensors, config.model_copy(update={"base": f"local-dir:{base}"}))
    apart = genzqa.load(f"local-dir:{tmp_path / 'adapter'}")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for scorer, wanted in (
        (frames_only, (None, None)),
        (modulated, ("in the adapter", None)),
        (apart, (video.motion, digest)),
    ):
        record = json.loads(json.dumps(scorer.score(clips["pan"]).to_dict()))
        assert (record["motion"], record["motion_sha256"]) == wanted
        validator.validate(record)
        del record["motion"], record["motion_sha256"]
        validator.validate(record)  # as records were before
    assert "motion" not in apart.score(scene(0)).to_dict()


def test_the_same_video_gets_the_same_score(modulated: genzqa.Scorer, clips) -> None:
    alone = modulated.score(clips["pan"])
    photo = scene(0)
    among = list(modulated.score_many([photo, clips["pan"], clips["still"], clips["pan"].read_bytes()]))
    assert [alone.raw] * 2 == [among[1].raw, among[3].raw]
    assert among[0].score == pytest.approx(modulated.score(photo).score, abs=1e-3)


def test_a_timeline_never_changes_the_score(modulated: genzqa.Scorer, clips, validator) -> None:
    plain = modulated.score(clips["worse"])
    seen = []
    full = modulated.score(clips["worse"], video=genzqa.VideoOptions(timeline=True),
                           progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert full.raw == pytest.approx(plain.raw, abs=1e-4)
    assert [frame.time for frame in full.timeline] == [pytest.approx(0.48, abs=0.05), pytest.approx(1.48, abs=0.05)]
    assert seen[-1][0] == seen[-1][1] == 6
    assert full.worst.score == min(frame.score for frame in (*full.frames, *full.timeline))
    for result in (plain, full):
        validator.validate(json.loads(json.dumps(result.to_dict())))
    assert "timeline" not in plain.to_dict()


def test_a_part_of_a_video(frames_only: genzqa.Scorer, clips) -> None:
    result = frames_only.score(clips["pan"], video=genzqa.VideoOptions(start=0.5, duration=0.5, frames=5))
    assert len(result.frames) == 5
    assert all(0.5 <= frame.time <= 1.0 for frame in result.frames)
    assert result.duration == pytest.approx(0.5)
    with pytest.raises(genzqa.InputError, match="ends after"):
        frames_only.score(clips["pan"], video=genzqa.VideoOptions(start=9))
    for wrong in ({"frames": 0}, {"start": -1}, {"duration": 0}, {"start": float("nan")}):
        with pytest.raises(genzqa.ConfigError):
            genzqa.VideoOptions(**wrong)


def test_the_worst_frames_come_with_maps_that_explain_them(frames_only: genzqa.Scorer, clips) -> None:
    result = frames_only.score(clips["worse"], video=genzqa.VideoOptions(worst_frames=2))
    assert [kept.frame.score for kept in result.worst_frames] == sorted(frame.score for frame in result.frames)[:2]
    for kept in result.worst_frames:
        assert kept.pixels.dtype == np.uint8
        assert kept.quality_map.mean() == pytest.approx(kept.frame.score, abs=1e-2)


def test_a_truncated_video_is_scored_and_says_so(frames_only: genzqa.Scorer, clips, tmp_path: Path) -> None:
    # with the index in front, the readable part is whole
    content = encode([scene(0, n) for n in range(100)], container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(content[: len(content) * 2 // 3])
    result = frames_only.score(cut)
    assert "truncated" in {note.code for note in result.notes}
    assert 1 <= len(result.frames) < 8


def test_bad_videos_never_stop_the_others(frames_only: genzqa.Scorer, clips, tmp_path: Path, validator) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clips["pan"].read_bytes()[:100])
    results = list(frames_only.score_many([broken, clips["still"], tmp_path / "none.mp4"]))
    assert [type(one).__name__ for one in results] == ["FailedResult", "VideoResult", "FailedResult"]
    for one in results:
        validator.validate(json.loads(json.dumps(one.to_dict())))
    assert results[0].to_dict()["kind"] == "video"


def test_program(small_scorer: Path, clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "pan.mp4").write_bytes(clips["pan"].read_bytes())
    (folder / "module.ts").write_text("export const a = 1;\n")
    Image.fromarray(scene(0)).save(folder / "photo.png")
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(
        app, ["score", "in", "--model", f"local-dir:{small_scorer}", "--timeline", "--csv", "out.csv"]
    )
    assert run.exit_code == 0, run.output
    assert "worst moment" in run.output
    assert "0:00.5" in run.output
    assert "module.ts" not in run.output
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert len(rows) == 3
    assert rows[0].endswith("worst_time,worst_score,motion,motion_sha256")
    assert "frames only  The score is the mean over single frames" in run.output

    options = ["--json", "--timeline", "--frames", "2", "--start", "0.5", "--duration", "1"]
    run = CliRunner().invoke(app, ["score", "in/pan.mp4", "--model", f"local-dir:{small_scorer}", *options])
    record = json.loads(run.stdout)
    assert (record["kind"], len(record["frames"]), len(record["timeline"]), record["duration"]) == ("video", 2, 1, 1.0)


def test_a_map_of_a_video_of_one_frame(small_scorer: Path, clips, tmp_path: Path) -> None:
    options = ["--model", f"local-dir:{small_scorer}", "--map", str(tmp_path / "maps")]
    run = CliRunner().invoke(app, ["score", str(clips["one"]), str(clips["pan"]), *options])
    assert run.exit_code == 0, run.output
    assert "of a video's worst frames are in --report" in run.stderr
    (drawn,) = (tmp_path / "maps").rglob("*.png")
    assert drawn.name == "one.mp4.png"


def test_clock_times() -> None:
    assert [clock_time(seconds) for seconds in (0, 59.96, 83.26, 3725.5)] == ["0:00.0", "1:00.0", "1:23.3", "1:02:05.5"]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_frames_that_wait_are_small(kind: type) -> None:
    from genzqa.media.video import Moment
    from genzqa.scoring.video import WORST_SIDE, _reduced

    grey = np.full((900, 1200, 3), 0.4 if kind is np.float32 else 102, kind)
    waiting = _reduced(Moment(1.0, grey, None, 0, ()))
    assert waiting.pixels.shape == (480, WORST_SIDE, 3)
    assert waiting.pixels.dtype == np.uint8
    assert (waiting.pixels == 102).all()


def test_clips_that_are_mostly_their_own_echo_do_not_count(
    modulated: genzqa.Scorer, small_video_scorer: Path, clips
) -> None:
    import torch

    from genzqa.media.preprocess import resize_square, to_network
    from genzqa.media.video import open_video, uniform_times
    from genzqa.model.adapter import load_scorer
    from genzqa.model.motion import clip_features

    loaded = load_scorer(f"local-dir:{small_video_scorer}")
    assert loaded.video is not None
    assert loaded.motion is not None
    with open_video(clips["pan"]) as reader:
        moments = list(reader.moments(uniform_times(reader.facts.duration, 4), clip_frames=16, clip_side=32))
    assert [moment.clip_frames for moment in moments] == [16, 16, 16, 7]  # of which the last repeats itself
    pixels = torch.stack(
        [to_network(resize_square(moment.pixels, loaded.config.preprocessing.size)) for moment in moments]
    )
    with torch.inference_mode():
        readings = loaded.video.read_frames(pixels)
        slow, fast = zip(*(clip_features(loaded.motion, moment.clip) for moment in moments), strict=True)
        three, four = (
            float(loaded.video.modulate(readings, torch.stack(slow[:n]), torch.stack(fast[:n])).score) for n in (3, 4)
        )
    assert abs(three - four) > 1e-3
    assert modulated.score(clips["pan"]).raw == pytest.approx(three, abs=abs(three - four) / 20)


def test_what_is_too_short_for_motion_scores_as_its_frames_do(modulated: genzqa.Scorer, tmp_path: Path) -> None:
    (tmp_path / "two.mp4").write_bytes(encode([scene(0, 3 * n) for n in range(2)]))
    result = modulated.score(tmp_path / "two.mp4")
    assert isinstance(result, genzqa.VideoResult)
    assert result.raw == pytest.approx(np.mean([frame.raw for frame in result.frames]), abs=1e-4)
    assert set(result.gamma) == {1.0}
    assert "no_motion" in {note.code for note in result.notes}


def test_one_frame_left_of_a_damaged_video_is_no_photo(modulated: genzqa.Scorer, clips, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3), np.uint8)
    data = encode(list(noise), container="matroska", codec="mjpeg", pixel_format="yuvj420p")
    for kept in range(600, len(data) // 4, 500):
        (tmp_path / "cut.mkv").write_bytes(data[:kept])
        try:
            result = modulated.score(tmp_path / "cut.mkv", video=genzqa.VideoOptions(frames=50))
        except genzqa.InputError:
            continue
        assert isinstance(result, genzqa.VideoResult), kept
        if result.counts.decoded == 1:
            break
    assert result.counts.decoded == 1
    assert "truncated" in {note.code for note in result.notes}


@pytest.mark.parametrize("options", [{"frames": 2.5}, {"frames": 0}, {"worst_frames": -1}, {"worst_frames": 1.5}])
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(genzqa.ConfigError):
        genzqa.VideoOptions(**options)
