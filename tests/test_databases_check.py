"""What a check makes of the peculiarities of published files, of raw videos, of rows without a split, and of no scores at all."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from genzqa.cli import app
from genzqa.databases.check import Findings, check
from genzqa.databases.database import Sample, Samples
from genzqa.databases.registry import database, open_database, open_for_check
from miniatures import clips, images
from videos import encode, noise_frames

RAW = ("bvihfr", "liveetri", "livequalcomm")


def run(*specs: object, expect: int = 0) -> str:
    result = CliRunner().invoke(app, ["data", "check", *map(str, specs)])
    assert result.exit_code == expect, result.output
    return result.stdout


def table(folder: Path, *rows: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("".join(f"{row}\n" for row in ("path,mos,split,group", *rows)))
    return path


def changed(samples: Samples, change: Callable[[Sample], Sample]) -> Samples:
    """The first sample made another one."""
    first, *rest = samples.items
    return dataclasses.replace(samples, items=(change(first), *rest))


def mislabelled(found: Findings) -> list[str]:
    return [reason for _, reason in found.faults["mislabelled"]]


@pytest.mark.parametrize(
    ("name", "known", "fault"),
    [("live", -2.64, -3.5), ("live", 111.77, 112.5), ("cid2013", -9.549, -10.5), ("cid2013", 100.0, 100.5),
     ("cvd2014", -6.5, -6.6), ("cvd2014", 100.0, 101.0)],
)  # fmt: skip
def test_published_scores_beyond_the_scale_are_no_fault(name: str, known: float, fault: float, tmp_path: Path) -> None:
    {**images.BUILDERS, **clips.BUILDERS}[name](tmp_path)
    read = open_database(f"{name}={tmp_path}")
    found = check(changed(read, lambda one: dataclasses.replace(one, mos=known)))
    assert found.sound
    said = f"scores outside 0..100, as published: 1, from {known:g} to {known:g}"
    assert (said in found.remarks) == (not 0 <= known <= 100)
    found = check(changed(read, lambda one: dataclasses.replace(one, mos=fault)))
    assert mislabelled(found) == [f"MOS {fault:g} is outside 0..100"]
    assert not any("as published" in remark for remark in found.remarks)


def test_scores_beyond_any_other_scale_are_a_fault(tmp_path: Path) -> None:
    clips.BUILDERS["livevqc"](tmp_path)
    read = open_database(f"livevqc={tmp_path}")
    assert mislabelled(check(changed(read, lambda one: dataclasses.replace(one, mos=-1)))) == [
        "MOS -1 is outside 0..100"
    ]


def test_the_row_that_is_published_twice_is_no_fault(tmp_path: Path) -> None:
    images.sheet(
        tmp_path / "AIGC_MOS_Zscore.xlsx",
        ("Image", "Prompt", "MOS"),
        ("dreamStudio_8_9_1_1.jpg", "a dog", 2.5),
        ("dreamStudio_8_9_1_1.jpg", "a dog", 2.75),
        ("deepai_0_0_0_0.jpg", "a cat", 3.5),
    )
    for name in ("dreamStudio_8_9_1_1", "deepai_0_0_0_0"):
        images.photo(tmp_path / "file" / f"{name}.jpg")
    assert "dreamStudio_8_9_1_1.jpg is listed twice, as published" in run(f"agiqa1k={tmp_path}")
    read = open_database(f"agiqa1k={tmp_path}")
    for again in (read.items[0], read.items[2]):  # a third time, and another file twice
        found = check(dataclasses.replace(read, items=(*read.items, again)))
        assert found.faults["mislabelled"] == [(str(again.path), "listed more than once")]


def test_videos_that_are_not_published_are_not_missing(tmp_path: Path) -> None:
    clips.BUILDERS["avtvqdbuhd1"](tmp_path)
    rated = tmp_path / "test_2" / "mos_ci.csv"
    withheld = "LeagueOfLegends-1_8s,LeagueOfLegends-1_8s_200kbps_360p_59.94fps_hevc.mp4,2.5,0.25\n"
    rated.write_text(rated.read_text() + withheld)
    said = run(f"avtvqdbuhd1={tmp_path}")
    assert "5 listed, 0 missing" in said
    assert "not there, as not published: 1 files of LeagueOfLegends-1" in said
    (tmp_path / "test_4" / "segments" / "Sparks_cut_13_200kbps_360p_15.0fps_h264.mp4").unlink()
    assert "1 missing" in run(f"avtvqdbuhd1={tmp_path}", expect=1)


def test_the_withheld_videos_are_as_many_as_the_documentation_says() -> None:
    """Sources of the first test have 30 rated videos, those of the second and third 32 in each, those of the fourth 24."""
    withheld = database("avtvqdbuhd1").known.withheld
    rated = {
        "american_football_harmonic": 30 + 64,
        "surfing_sony_8bit": 30,
        "LeagueOfLegends-1": 64,
        "Moment_of_Intensity": 64,
    }
    assert sum(rated.get(source, 24) for source in withheld) == 324


def test_a_database_without_scores_is_checked_by_its_files(tmp_path: Path) -> None:
    images.BUILDERS["kadis"](tmp_path)
    said = run(f"kadis={tmp_path}")
    assert "kadis: 1 listed, 0 missing, 0 unreadable, 0 mislabelled" in said
    assert "carries no human scores: only the files that its table names were opened" in said
    (item,) = open_for_check(f"kadis={tmp_path}").items
    assert math.isnan(item.mos)
    item.path.unlink()
    assert "1 missing" in run(f"kadis={tmp_path}", expect=1)
    (tmp_path / "kadis700k_ref_imgs.csv").write_text("name\na.png\n")
    assert run(f"kadis={tmp_path}", expect=2) == ""


def test_a_database_without_scores_shows_no_range() -> None:
    listed = json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).stdout)["databases"]
    assert [one["name"] for one in listed if one["mos_range"] is None] == ["kadis"]
    (line,) = (line for line in CliRunner().invoke(app, ["data", "list"]).stdout.splitlines() if "kadis " in line)
    assert "none" in line
    assert ".." not in line


@pytest.mark.parametrize("name", RAW)
def test_a_raw_video_says_what_to_do(name: str, tmp_path: Path) -> None:
    clips.BUILDERS[name](tmp_path)
    said = run(f"{name}={tmp_path}", expect=1)
    assert "raw video, which has no header to be decoded by" in said
    assert "raw videos have to be converted first" in said
    assert "ffmpeg -f rawvideo" in said
    one = open_database(f"{name}={tmp_path}").items[0].path
    one.unlink()
    assert f"no such file, nor {one.stem}.mkv or {one.stem}.mp4" in run(f"{name}={tmp_path}", expect=1)


@pytest.mark.parametrize("name", RAW)
def test_what_a_raw_video_was_converted_to_is_read(name: str, tmp_path: Path) -> None:
    clips.BUILDERS[name](tmp_path)
    raw = [item.path for item in open_database(f"{name}={tmp_path}").items]
    lossless = encode(noise_frames(2), container="matroska", codec="ffv1")
    for number, path in enumerate(raw):
        (path.with_suffix(".mp4") if number == 1 else path.with_suffix(".mkv")).write_bytes(
            encode(noise_frames(2)) if number == 1 else lossless
        )
    raw[0].unlink()  # in its place; the others beside it
    read = open_database(f"{name}={tmp_path}")
    assert [item.path.suffix for item in read.items[:3]] == [".mkv", ".mp4", ".mkv"]
    assert [item.path.with_suffix(".yuv") for item in read.items] == raw
    run(f"{name}={tmp_path}")
    raw[1].with_suffix(".mkv").write_bytes(lossless)
    assert open_database(f"{name}={tmp_path}").items[1].path.suffix == ".mkv"  # the lossless one first


def test_rows_without_a_split_are_for_training_where_others_have_one(tmp_path: Path) -> None:
    for number in range(4):
        images.photo(tmp_path / f"{number}.png", number)
    rows = ["0.png,1,validation,a", "1.png,2,,b", "2.png,3,train,c", "3.png,4,,d"]
    said = run(f"mine={table(tmp_path, *rows)}")
    assert "without a split, and for training as others have one: 2" in said
    rows[3] = "3.png,4,,a"
    said = run(f"mine={table(tmp_path, *rows)}", expect=1)
    assert "mislabelled: a: the group is in train and validation" in said
    said = run(f"mine={table(tmp_path, '0.png,1,,a', '1.png,2,,b')}")
    assert "for training" not in said


def test_training_gets_the_rows_without_a_split(tmp_path: Path) -> None:
    from genzqa.training.plan import TrainingPlan
    from genzqa.training.setup import gather

    rows = [f"{n}.png,{n},{'validation' if n < 20 else ''}," for n in range(80)]
    mine = open_database(f"mine={table(tmp_path, *rows)}")
    assert [len(mine.part(split)) for split in ("train", "validation", "test")] == [60, 20, 0]
    settings: dict[str, Any] = {"scorer": {"base": "mini", "name": "x", "timesteps": 1}, "data": ["mine"]}
    train, validation = gather(
        TrainingPlan.model_validate(settings), [mine], (0.75, 0.25, 0.0)
    )  # as `genzqa adapt` does
    assert {one.path.name for one in train.samples} == {f"{n}.png" for n in range(20, 80)}
    assert {one.path.name for one in validation.samples} == {f"{n}.png" for n in range(20)}


def test_rows_without_a_split_are_not_for_the_test_that_others_mark(tmp_path: Path) -> None:
    rows = [f"{n}.png,{n},{'test' if n < 20 else ''}," for n in range(100)]
    mine = open_database(f"mine={table(tmp_path, *rows)}")
    assert [len(mine.part(split)) for split in ("train", "validation", "test")] == [70, 10, 20]
    assert {one.path.name for one in mine.part("test")} == {f"{n}.png" for n in range(20)}
