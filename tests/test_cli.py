"""The program as a user runs it: real files, a real (tiny) model, exit codes, and what lands where."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from genzqa.cli import app
from genzqa.cli.output import CSV_COLUMNS

PROGRAM = [sys.executable, "-c", "from genzqa.cli import main; main()"]


def photo(path, seed=0, size=(150, 140)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three photos in two folders, and files that are none; the working directory."""
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "album" / "a" / "x.jpg", 1)
    photo(tmp_path / "album" / "b" / "x.PNG", 2)
    photo(tmp_path / "album" / "x.jpg", 3)
    photo(tmp_path / "album" / ".hidden" / "x.jpg", 4)
    (tmp_path / "album" / "readme.txt").write_text("no photo")
    return tmp_path


@pytest.fixture
def run(small_scorer):
    def go(*arguments, expect=0):
        result = CliRunner().invoke(app, ["score", "--model", f"local-dir:{small_scorer}", *map(str, arguments)])
        assert result.exit_code == expect, result.output
        assert "Traceback" not in result.output
        return result

    return go


def records(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_table_names_every_photo(folder, run):
    result = run("album")
    for name in ("album/a/x.jpg", "album/b/x.PNG", "album/x.jpg", "95 % interval"):
        assert name in result.stdout
    assert "3 scored, 0 failed" in result.stderr
    assert "scored" not in result.stdout


def test_notes_are_explained_once_below_the_table(folder, run):
    Image.new("L", (150, 140), 90).save(folder / "album" / "plain.png")
    for name, size in (("s.png", (20, 20)), ("t.png", (20, 24)), ("u.png", (30, 30))):
        photo(folder / "album" / name, 5, size)
    shown = run("album").stdout
    table, _, below = shown.partition(" very small  ")  # the commonest comes first
    assert table.count("very small") == 3
    assert table.count("uniform") == 1
    assert below.startswith("for example: The short side is only 20 pixels;")
    assert below.count("uniform") == 1
    assert "  One plain colour without structure;" in below
    assert run("album", "--json").stdout.count("One plain colour") == 1  # in its record
    assert "very small" not in run("album/x.jpg").stdout


def test_json_is_all_of_stdout_and_in_order(folder, run):
    assert [one["input"] for one in records(run("album", "--json"))] == [
        "album/a/x.jpg", "album/b/x.PNG", "album/x.jpg"
    ]  # fmt: skip


def test_bad_files_do_not_stop_the_others(folder, run):
    (folder / "album" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "album" / "empty.gif").touch()
    result = run("album", "album/readme.txt", "missing.jpg", "--json", expect=1)
    status = {one["input"]: one["status"] for one in records(result)}
    scored = {name for name, state in status.items() if state == "ok"}
    assert scored == {"album/a/x.jpg", "album/b/x.PNG", "album/x.jpg"}
    assert len(status) == 7
    assert "3 scored, 4 failed" in result.stderr
    table = run("album/x.jpg", "missing.jpg", expect=1).stdout
    assert "no such file" in table
    assert "album/x.jpg" in table


def test_a_photo_reached_by_folder_and_name_is_scored_once(folder, run):
    assert len(records(run("album", "album/x.jpg", "album/a", "./album", "--json"))) == 3
    assert len(records(run("album/x.jpg", "album/x.jpg", "--json"))) == 2
    assert records(run("album/x.jpg", "album", "--json"))[0]["input"] == "album/x.jpg"


def test_the_current_folder_goes_without_saying(folder, run):
    assert [one["input"] for one in records(run(".", "--json"))] == ["album/a/x.jpg", "album/b/x.PNG", "album/x.jpg"]


def test_loops_of_links_end(folder, run):
    (folder / "album" / "a" / "up").symlink_to(folder / "album", target_is_directory=True)
    (folder / "album" / "self").symlink_to("self")
    assert len(records(run("album", "--json"))) == 3


def test_patterns_the_shell_left_alone(folder, run):
    assert [one["input"] for one in records(run("album/*/x.*", "--json"))] == ["album/a/x.jpg", "album/b/x.PNG"]
    photo(folder / "odd[1].jpg")
    assert [one["input"] for one in records(run("odd[1].jpg", "--json"))] == ["odd[1].jpg"]


def test_an_empty_folder_is_a_warning_and_nothing_at_all_is_an_error(folder, run):
    (folder / "empty").mkdir()
    assert "warning: empty: no photos or videos" in run("empty", "album/x.jpg").stderr
    result = run("empty", expect=2)
    assert "error[config]: empty: no photos or videos found" in result.stderr
    assert "hint:" in result.stderr


@pytest.mark.parametrize("arguments", [["-"], [], [""], ["album", ""], ["x.jpg", "--batch-size", "0"],
                                       ["x.jpg", "--max-megapixels", "0"],
                                       ["x.jpg", "--model", "./mini"], ["x.jpg", "--csv", "y.jpg"],
                                       ["x.jpg", "--csv", "no/such/folder.csv"], ["x.jpg", "--csv", "album"],
                                       ["x.jpg", "--csv", "/dev/null"], ["x.jpg", "--map", "album/x.jpg"]])  # fmt: skip
def test_usage_errors_exit_2(folder, run, arguments):
    result = run(*arguments, expect=2)
    assert not result.stdout
    assert "rror" in result.stderr


def test_max_megapixels(folder, run):
    (record,) = records(run("album/x.jpg", "--json", "--max-megapixels", "0.01", expect=1))
    assert record["error"]["code"] == "too_large"


def test_csv_holds_every_result(folder, run):
    run("album", "missing.jpg", "--csv", "scores.csv", expect=1)
    rows = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text("utf-8"))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "error"]
    assert 0 <= float(rows[0]["interval_low"]) <= float(rows[0]["score"]) <= float(rows[0]["interval_high"]) <= 100
    assert (rows[0]["width"], rows[0]["height"], rows[0]["error_code"]) == ("150", "140", "")
    assert (rows[3]["score"], rows[3]["error_code"], rows[3]["error_reason"]) == ("", "not_found", "no such file")
    assert oct((folder / "scores.csv").stat().st_mode & 0o777) == oct(0o666 & ~current_umask())


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_csv_cells_are_no_formulas(folder, run):
    for name in ("=1+1.jpg", "+x.jpg", "@x.jpg", "\tx.jpg"):
        photo(folder / "cells" / name)
    os.chdir(folder / "cells")
    run("=1+1.jpg", "+x.jpg", "@x.jpg", "\tx.jpg", "--csv", "out.csv")
    rows = list(csv.DictReader(io.StringIO((folder / "cells" / "out.csv").read_text("utf-8"))))
    assert [row["input"] for row in rows] == ["'=1+1.jpg", "'+x.jpg", "'@x.jpg", "'\tx.jpg"]


def test_an_aborted_run_leaves_the_old_csv(folder, run, small_scorer):
    (folder / "scores.csv").write_text("old")
    broken = shutil.copytree(small_scorer, folder / "broken")
    (broken / "adapter.safetensors").write_bytes(b"nothing")
    result = run("album", "--csv", "scores.csv", "--model", f"local-dir:{broken}", expect=2)
    assert "error[model_corrupt]" in result.stderr
    assert (folder / "scores.csv").read_text() == "old"
    assert not list(folder.glob(".genzqa-*"))


def test_maps_do_not_overwrite_each_other(folder, run):
    photo(folder / "album" / "x.png", 5)
    run("album", folder / "album" / "a", f"{folder}/album/../album/x.jpg", "--map", "maps/deep", "--csv", "s.csv")
    names = sorted(path.relative_to(folder / "maps" / "deep").as_posix() for path in (folder / "maps").rglob("*.png"))
    assert names == ["album/a/x.jpg.png", "album/b/x.PNG.png", "album/x.jpg.png", "album/x.png.png"]
    with Image.open(folder / "maps" / "deep" / names[0]) as drawn:
        assert drawn.width >= 150
    elsewhere = photo(folder / "other" / "album" / "x.jpg", 6)
    run("album/x.jpg", elsewhere, "--map", "two")
    assert sorted(path.name for path in (folder / "two").rglob("*.png")) == ["x.jpg-2.png", "x.jpg.png"]


def test_maps_inside_the_folder_are_not_scored_next_time(folder, run):
    run("album", "--map", "album/maps")
    assert len(records(run("album", "--map", "album/maps", "--json"))) == 3


def test_names_that_could_fool_a_terminal(folder, run):
    names = ["[red]x.jpg", "two\nlines.jpg", "\x1b[31mred.jpg", "\u202egpj.jpg", os.fsdecode(b"caf\xe9.jpg")]
    for name in names:
        photo(folder / "names" / name)
    shown = run("names").stdout
    for text in ("[red]x.jpg", r"two\nlines.jpg", r"\x1b[31mred.jpg", r"\u202egpj.jpg", r"caf\xe9.jpg"):
        assert text in shown
    assert "\x1b" not in shown
    found = {one["input"] for one in records(run("names", "--json", "--csv", "names.csv", "--map", "maps"))}
    assert found == {f"names/{name}" for name in names[:-1]} | {r"names/caf\xe9.jpg"}
    assert r"names/caf\xe9.jpg" in (folder / "names.csv").read_text("utf-8")
    assert len(list((folder / "maps" / "names").iterdir())) == 5


def test_import_reference_prints_the_folder_it_wrote(conformance_base, tmp_path):
    reference = conformance_base / "reference"
    lora, context = reference / "pytorch_model.bin", reference / "coop_Model_state_dict.pth"
    arguments = ["import-reference", "--base", f"local-dir:{conformance_base}", "--unet-lora", lora,
                 "--context", context, "--out", tmp_path / "new", "--offline"]  # fmt: skip
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'new'}\n")
    untrained = CliRunner().invoke(app, ["score", "x.jpg", "--model", f"local-dir:{tmp_path / 'new'}"])
    assert untrained.exit_code == 2
    assert "error[not_trained]" in untrained.stderr
    arguments[4] = tmp_path / "missing.bin"
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no such file" in result.stderr


def test_the_real_program_keeps_stdout_pure(folder, small_scorer):
    command = [*PROGRAM, "score", "album", "missing.jpg", "--json", "--model", f"local-dir:{small_scorer}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["ok", "ok", "ok", "error"]
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(folder, small_scorer):
    reader, writer = os.pipe()
    os.close(reader)
    command = [*PROGRAM, "score", "album/x.jpg", "--json", "--model", f"local-dir:{small_scorer}"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 141
    assert "Error" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_output_error(folder, small_scorer):
    command = [*PROGRAM, "score", "album/x.jpg", "--json", "--model", f"local-dir:{small_scorer}"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "error[output]: standard output: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_leaves_nothing_half_written(folder, small_scorer, number, status):
    (folder / "scores.csv").write_text("old")
    command = [*PROGRAM, "score", *["album/x.jpg"] * 5000, "--json", "--csv", "scores.csv", "--batch-size", "1",
               "--model", f"local-dir:{small_scorer}"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)) as process:  # fmt: skip
        # where these tests run in the background, SIGINT is ignored, and the program would inherit that
        assert json.loads(process.stdout.readline())["status"] == "ok"
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)  # far less than 5000 photos take
    assert process.returncode == status
    assert "Traceback" not in errors
    assert (folder / "scores.csv").read_text() == "old"
    assert not list(folder.glob(".genzqa-*"))
