"""Batches end to end: real files, a real (tiny) model, processes that decode, and what lands in the folder."""

import dataclasses
import functools
import http.server
import json
import os
import shutil
import threading
import time
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator

import genzqa
from batches import album, batch, engine_of, photo, rows, same, scores
from genzqa.batch import local as local_module
from genzqa.batch import store as store_module
from genzqa.batch.records import SCHEMA, record_of
from genzqa.batch.store import Store
from genzqa.errors import ConfigError, DataError, OutputError
from genzqa.limits import Limits
from videos import encode, noise_frames


@pytest.fixture(scope="module")
def scorer(small_scorer):
    return genzqa.load(f"local-dir:{small_scorer}")


@pytest.fixture(scope="module")
def engine(scorer, small_scorer):
    with engine_of(scorer, f"local-dir:{small_scorer}") as engine:
        yield engine


@pytest.fixture
def run(engine, scorer, tmp_path, monkeypatch):
    """A batch into ``scores``; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    return lambda *sources, **options: batch(engine, scorer, Path("scores"), *sources, **options)


def records(out="scores"):
    return {name: record_of(row) for name, row in rows(Path(out)).items()}


def timeless(record):
    return {name: value for name, value in record.items() if name != "seconds"}


def test_the_records_of_genzqa_score(run, scorer):
    album(Path("photos"), 9)
    Path("photos/003.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Path("photos/x.jpg").touch()
    photo(Path("photos/sub/small.png"), 5, (20, 20))  # has a note
    done = run("photos")
    assert (done.scored, done.failed, done.rows, done.failed_rows) == (9, 2, 11, 2)
    listed = sorted(map(str, Path("photos").rglob("*.*")))
    plain = {
        result.input: json.loads(json.dumps(result.to_dict())) for result in scorer.score_many(listed, batch_size=4)
    }
    found = records()
    assert list(found) == list(plain)
    validator = Draft202012Validator(
        json.loads((files("genzqa") / "schema" / "genzqa-1.schema.json").read_text("utf-8"))
    )
    for name, record in found.items():
        validator.validate(record)
        assert timeless(record) == timeless(plain[name])  # to the last digit: the same batches


def test_the_columns_have_exact_types(run):
    run(photo(Path("x.png")))
    assert pq.read_schema("scores/part-000000.parquet").remove_metadata() == SCHEMA
    (row,) = rows(Path("scores")).values()
    status = Path("x.png").stat()
    assert (row["size"], row["modified"], row["sha256"]) == (status.st_size, status.st_mtime_ns, None)


def test_the_documented_query(run):
    duckdb = pytest.importorskip("duckdb")
    run(album(Path("photos"), 5))
    least = min(scores(Path("scores")).values())
    found = duckdb.sql(f"SELECT input FROM 'scores/*.parquet' WHERE score < {least + 1e-9}").fetchall()
    assert len(found) == 1
    assert pq.read_table("scores").num_rows == 5  # the manifest and the lock are passed over


def test_names_that_are_not_utf8(run):
    photo(Path("photos/plain.png"))
    Path("photos/plain.png").rename(Path(os.fsdecode(b"photos/odd\xff.png")))
    done = run("photos")
    assert (done.scored, list(rows(Path("scores")))) == (1, ["photos/odd\\xff.png"])
    assert run("photos").unchanged == 1


def test_again_does_nothing(run):
    run(album(Path("photos"), 6))
    before = {path.name: path.stat() for path in Path("scores").glob("*.parquet")}
    done = run("photos")
    assert (done.scored, done.failed, done.unchanged, done.removed) == (0, 0, 6, 0)
    after = {path.name: path.stat() for path in Path("scores").glob("*.parquet")}
    assert [(name, status.st_ino, status.st_mtime_ns) for name, status in before.items()] == [
        (name, status.st_ino, status.st_mtime_ns) for name, status in after.items()
    ]


def test_new_changed_and_removed_inputs(run, engine, scorer):
    album(Path("photos"), 8)
    Path("photos/006.png").write_bytes(b"broken")
    run("photos")
    before = scores(Path("scores"))
    Path("photos/001.png").unlink()
    photo(Path("photos/002.png"), 77)
    photo(Path("photos/006.png"), 6)
    photo(Path("photos/new.png"), 78)
    done = run("photos")
    assert (done.scored, done.unchanged, done.removed) == (3, 5, 1)
    batch(engine, scorer, Path("afresh"), "photos")
    assert same(scores(Path("scores")), scores(Path("afresh")))
    assert scores(Path("scores"))["photos/002.png"] != before["photos/002.png"]


def test_a_source_more_is_fine_and_another_is_not(run):
    album(Path("a"), 2)
    album(Path("b"), 2)
    run("a")
    with pytest.raises(ConfigError, match="holds scores of a, which is not among the sources"):
        run("b")
    assert run("b", "./a/").rows == 4
    shutil.rmtree("a")
    Path("a").mkdir()
    assert run("a", "b").removed == 2
    shutil.rmtree("b")
    Path("b").mkdir()
    with pytest.raises(ConfigError, match="no photos or videos found"):  # a disk that is not mounted, say
        run("a", "b")
    assert len(rows(Path("scores"))) == 2


def test_an_input_listed_twice_has_one_row(run):
    photo(Path("x.png"))
    Path("list.txt").write_text("x.png\nx.png\nmissing.png\nmissing.png\n")
    run("list.txt", "x.png")
    assert {name: isinstance(score, float) or score for name, score in scores(Path("scores")).items()} == {
        "x.png": True, "missing.png": "not_found"
    }  # fmt: skip


def test_another_model_scores_again(run, engine, scorer, small_scorer, tmp_path):
    run(album(Path("photos"), 5))
    before = scores(Path("scores"))
    changed = Path(shutil.copytree(small_scorer, tmp_path / "changed"))
    config = json.loads((changed / "config.json").read_text())
    config["base"] = f"local-dir:{(small_scorer / config['base'].removeprefix('local-dir:')).resolve()}"
    config["calibration"]["raw_knots"] = [-400, 400]  # the weights stay as they are
    (changed / "config.json").write_text(json.dumps(config))
    other = genzqa.load(f"local-dir:{changed}")
    with engine_of(other, f"local-dir:{changed}") as theirs:
        done = batch(theirs, other, Path("scores"), "photos")
    assert (done.scored, done.unchanged, done.rows) == (5, 0, 5)
    assert all(abs(before[name] - score) > 0.001 for name, score in scores(Path("scores")).items())
    newer = dataclasses.replace(scorer.provenance, version="99")
    assert run("photos").scored == 5
    scorer_version, scorer.provenance = scorer.provenance, newer
    try:
        assert run("photos").unchanged == 5  # a new release alone is no other model
    finally:
        scorer.provenance = scorer_version


def test_small_parts_are_joined_and_large_ones_bounded(run, monkeypatch):
    monkeypatch.setattr(store_module, "_ROWS", 3)
    monkeypatch.setattr(store_module, "PART_ROWS", 8)
    run(album(Path("photos"), 20))
    sizes = [pq.read_metadata(path).num_rows for path in sorted(Path("scores").glob("*.parquet"))]
    assert sum(sizes) == 20 == len(rows(Path("scores")))
    assert len(sizes) < 7
    manifest = json.loads(Path("scores/_manifest.json").read_text())
    assert [part["rows"] for part in manifest["parts"]] == sizes
    assert (manifest["state"], manifest["rows"], manifest["failed"]) == ("complete", 20, 0)
    assert manifest["model"]["weights_sha256"] == rows(Path("scores"))["photos/000.png"]["weights_sha256"]


def test_parts_of_an_earlier_release_are_joined(run):
    """They lack columns that came later."""
    run(album(Path("photos"), 4))
    (old,) = Path("scores").glob("*.parquet")
    facts = {key: value for key, value in pq.read_metadata(old).metadata.items() if key != b"ARROW:schema"}
    table = pq.read_table(old).drop_columns(["motion", "motion_sha256"])
    pq.write_table(table.replace_schema_metadata(facts), old)
    before = scores(Path("scores"))
    shutil.copy("photos/000.png", "photos/more.png")
    assert run("photos").scored == 1
    assert {name: score for name, score in scores(Path("scores")).items() if name in before} == before
    (joined,) = Path("scores").glob("*.parquet")
    assert pq.read_schema(joined).names == SCHEMA.names


def test_killed_between_writing_anew_and_removing_the_old(run, monkeypatch):
    run(album(Path("photos"), 6))
    wanted = scores(Path("scores"))
    shutil.copy("scores/part-000000.parquet", "scores/part-000001.parquet")  # what such a run leaves
    Path("scores/.genzqa-part-000002").write_bytes(b"half a part")
    done = run("photos")
    assert (done.scored, done.unchanged) == (0, 6)
    assert scores(Path("scores")) == wanted
    assert not list(Path("scores").glob(".genzqa-*"))


def test_two_runs_at_once(run):
    album(Path("photos"), 2)
    with Store(Path("scores"), "x"), pytest.raises(ConfigError, match="another genzqa batch is writing here"):
        run("photos")
    assert run("photos").scored == 2


def test_files_of_others_in_the_folder(run):
    photo(Path("x.png"))
    Path("scores").mkdir()
    pq.write_table(pa.table({"a": [1]}), "scores/mine.parquet")
    with pytest.raises(ConfigError, match="is not a file of genzqa batch"):
        run("x.png")
    Path("scores/mine.parquet").unlink()
    run("x.png")
    Path("scores/part-000000.parquet").write_bytes(b"PAR1 and damage")
    with pytest.raises(ConfigError, match=r"part-000000.parquet: cannot be read") as caught:
        run("x.png")
    assert "scored again" in caught.value.hint
    Path("scores/part-000000.parquet").unlink()
    assert run("x.png").scored == 1
    Path("scores/_manifest.json").write_text("{}")
    with pytest.raises(DataError, match="no manifest"):
        run("x.png")


def test_an_output_that_cannot_be(run):
    photo(Path("x.png"))
    Path("scores").write_text("a file")
    with pytest.raises(OutputError):
        run("x.png")


def test_killed_decoders_cost_nothing(run, engine, scorer):
    album(Path("photos"), 40)
    batch(engine, scorer, Path("undisturbed"), "photos")
    stop = threading.Event()
    killed = []

    def kill_now_and_then():
        while not stop.wait(0.4):
            for child in list(engine._photos._children)[:1]:
                killed.append(child._process.pid)
                child.kill()

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    try:
        while not killed:  # until it met one at work
            shutil.rmtree("scores", ignore_errors=True)
            done = run("photos")
    finally:
        stop.set()
        killer.join()
    again = run("photos")  # one that was met twice in a row is an error, and tried again
    assert done.scored + again.scored == 40
    assert scores(Path("scores")) == scores(Path("undisturbed"))


def test_a_decoder_that_dies_of_a_file_costs_one_row(run, engine, scorer, small_scorer):
    """A large photo, and a process that is killed whenever it has grown large: what running out of memory looks like."""
    photo(Path("photos/a.png"), 1)
    photo(Path("photos/b.png"), 2, (7000, 7000))
    photo(Path("photos/c.png"), 3)
    stop = threading.Event()

    def memory_runs_out():
        while not stop.wait(0.005):
            for child in list(large._photos._children):
                status = Path(f"/proc/{child._process.pid}/statm")
                try:
                    resident = int(status.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
                except (OSError, IndexError):
                    continue
                if resident > 180 << 20:
                    child.kill()

    with engine_of(scorer, f"local-dir:{small_scorer}", processes=1) as large:
        killer = threading.Thread(target=memory_runs_out)
        killer.start()
        try:
            done = batch(large, scorer, Path("scores"), "photos")
        finally:
            stop.set()
            killer.join()
    assert (done.scored, done.failed) == (2, 1)
    error = rows(Path("scores"))["photos/b.png"]["error"]
    assert (error["code"], error["file"]) == ("decoder_crashed", "photos/b.png")
    assert "SIGKILL" in error["reason"]
    assert run("photos").scored == 1  # memory is there again
    batch(engine, scorer, Path("undisturbed"), "photos")
    assert same(scores(Path("scores")), scores(Path("undisturbed")))


def test_addresses_are_fetched_where_they_are_decoded(run, scorer):
    photo(Path("photos/a.png"), 1)
    photo(Path("photos/b.png"), 2)
    run(Path("photos").resolve().as_uri())
    for name, row in rows(Path("scores")).items():
        assert name.startswith("file:///")
        assert row["size"] == Path(name.removeprefix("file://")).stat().st_size
        assert abs(row["score"] - scorer.score(name.removeprefix("file://")).score) < 0.001


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_addresses_of_the_web(run, scorer):
    photo(Path("photos/a.png"), 1)
    handler = functools.partial(Quiet, directory="photos")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        Path("list.txt").write_text(f"{base}/a.png\n{base}/missing.png\n")
        done = run("list.txt", http=True)
        server.shutdown()
        thread.join()
    assert (done.scored, done.failed) == (1, 1)
    found = rows(Path("scores"))
    assert abs(found[f"{base}/a.png"]["score"] - scorer.score("photos/a.png").score) < 0.001
    error = found[f"{base}/missing.png"]["error"]
    assert (error["code"], error["file"]) == ("not_found", f"{base}/missing.png")


def hangs(*_):
    return lambda place: time.sleep(600)


def test_a_video_whose_decoder_hangs_costs_a_row(run, scorer, small_scorer, monkeypatch):
    monkeypatch.setattr(local_module, "video_scorer", hangs)
    monkeypatch.setattr(Limits, "longest_video_work", 0.5)
    album(Path("photos"), 2)
    for name in ("1.mp4", "2.mp4"):
        Path("photos", name).write_bytes(encode(noise_frames(4)))
    with engine_of(scorer, f"local-dir:{small_scorer}") as engine:
        done = batch(engine, scorer, Path("scores"), "photos")
    assert (done.scored, done.failed) == (2, 2)
    assert [scores(Path("scores"))[f"photos/{name}.mp4"] for name in (1, 2)] == ["timeout"] * 2


def test_the_longest_work_on_a_video_follows_its_limits():
    assert Limits().longest_video_work > Limits().max_video_seconds_wall + 3600
    assert Limits(max_video_seconds=60).longest_video_work == Limits().longest_video_work - 3540


def test_videos_among_photos(small_video_scorer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    album(Path("photos"), 5)
    Path("photos/002.mp4").write_bytes(encode(noise_frames(20)))
    Path("photos/003.mp4").write_bytes(encode(noise_frames(20))[:900])
    name = f"local-dir:{small_video_scorer}"
    scorer = genzqa.load(name)
    with engine_of(scorer, name) as engine:
        done = batch(engine, scorer, Path("scores"), "photos")
    assert (done.scored, done.failed) == (6, 1)
    plain = {
        result.input: json.loads(json.dumps(result.to_dict()))
        for result in scorer.score_many(sorted(map(str, Path("photos").iterdir())))
    }
    found = records()
    assert found.keys() == plain.keys()
    assert timeless(found["photos/002.mp4"]) == timeless(plain["photos/002.mp4"])
    for name, record in plain.items():
        assert timeless(found[name]).keys() == timeless(record).keys()
        assert found[name].get("error") == record.get("error")
        assert abs(found[name].get("score", 0) - record.get("score", 0)) < 0.001


def test_progress_knows_how_much_there_is(run):
    class Shown:
        def __init__(self):
            self.counted, self.done = None, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def total(self, count):
            self.counted = count

        def advance(self):
            self.done += 1

    album(Path("photos"), 6)
    run("photos/000.png", "photos/001.png")
    shown = Shown()
    run("photos", "photos/000.png", "photos/001.png", shown=shown)
    assert (shown.counted, shown.done) == (4, 4)
