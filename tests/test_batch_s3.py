"""Batches of an object store: a real S3 interface on this machine, s3fs, and the processes that decode."""

import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import genzqa
from batches import album, batch, engine_of, rows, same, scores
from genzqa.batch import remote
from genzqa.batch.inputs import Listing
from genzqa.batch.remote import list_remote
from genzqa.cli import app
from genzqa.errors import ConfigError
from videos import encode, noise_frames

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the server, which runs in a thread, and of unclosed connections


@pytest.fixture(scope="module")
def server():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """Puts a local file into the bucket ``photos``; clients find the server by their environment, as users' do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(use_listings_cache=False)
    store.mkdir("photos")
    yield store
    store.rm("photos", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def scorer(small_scorer):
    return genzqa.load(f"local-dir:{small_scorer}")


@pytest.fixture
def engine(scorer, small_scorer, bucket):
    """Its processes find the server as this one does."""
    with engine_of(scorer, f"local-dir:{small_scorer}", processes=1) as engine:
        yield engine


def names(source):
    return [item.input for item in Listing([source])]


def put(store, *keys):
    for key in keys:
        store.pipe(f"photos/{key}", b"not looked at")


def test_the_scores_of_the_same_files_on_the_disk(bucket, engine, scorer):
    album(Path("local"), 6)
    Path("local/002.png").write_bytes(b"broken")
    Path("local/a b+c%20é.png").write_bytes(Path("local/001.png").read_bytes())
    Path("local/film.mp4").write_bytes(encode(noise_frames(8)))
    batch(engine, scorer, Path("wanted"), "local")
    bucket.put("local", "photos/", recursive=True)
    done = batch(engine, scorer, Path("scores"), "s3://photos/local")
    assert (done.scored, done.failed) == (7, 1)
    wanted = {f"s3://photos/{name}": score for name, score in scores(Path("wanted")).items()}
    assert same(scores(Path("scores")), wanted)
    assert rows(Path("scores"))["s3://photos/local/002.png"]["error"]["file"] == "s3://photos/local/002.png"

    bucket.put("local/003.png", "photos/local/004.png")
    bucket.put("local/005.png", "photos/local/new.png")
    bucket.rm("photos/local/000.png")
    done = batch(engine, scorer, Path("scores"), "s3://photos/local")
    assert (done.scored, done.unchanged, done.removed) == (2, 6, 1)
    found = scores(Path("scores"))
    assert found["s3://photos/local/004.png"] == pytest.approx(found["s3://photos/local/003.png"], abs=0.001)


def test_what_is_listed(bucket):
    put(bucket, "a.jpg", "b/1.PNG", "b/c/2.jpg", "b/notes.txt", ".hidden.jpg", "b/.x/3.jpg", "b/", "d.jpg/4.jpg")
    every = ["a.jpg", "b/1.PNG", "b/c/2.jpg", "d.jpg/4.jpg"]
    assert names("s3://photos") == [f"s3://photos/{name}" for name in every]
    assert names("s3://photos/b/") == ["s3://photos/b/1.PNG", "s3://photos/b/c/2.jpg"]
    assert names("s3://photos/b/notes.txt") == ["s3://photos/b/notes.txt"]
    assert [item.size for item in Listing(["s3://photos/a.jpg"])] == [len(b"not looked at")]
    assert [item.modified is not None for item in Listing(["s3://photos/a.jpg"])] == [True]


def test_a_folder_is_listed_page_by_page(bucket, monkeypatch):
    asked = []
    monkeypatch.setattr(remote, "_PAGE", 3)
    real = s3fs.S3FileSystem.call_s3
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", lambda *of, **what: asked.append(what) or real(*of, **what))
    put(bucket, *(f"{number:02}.jpg" for number in range(10)), "04/a.jpg", "04/b.jpg")
    every = sorted([*(f"{number:02}.jpg" for number in range(10)), "04/a.jpg", "04/b.jpg"])
    found = iter(Listing(["s3://photos"]))
    assert next(found).input == "s3://photos/00.jpg"
    assert len(asked) == 1  # no more than is needed yet
    assert sorted([every[0], *(item.input.removeprefix("s3://photos/") for item in found)]) == every
    assert len(asked) == 5  # 11 entries, and a folder of two
    assert {what["MaxKeys"] for what in asked} == {3}


def test_an_empty_bucket_has_no_photos_and_is_there(bucket):
    assert names("s3://photos") == []


@pytest.mark.parametrize(("pattern", "wanted"), [
    ("*.jpg", ["a.jpg", "d.jpg/4.jpg"]),  # a folder that matches is searched
    ("b/[0-9].*", ["b/1.PNG"]),
    ("*/c/*", ["b/c/2.jpg"]),
    ("**/*.jpg", ["a.jpg", "b/c/2.jpg", "d.jpg/4.jpg"]),
    ("b/**.jpg", []),
    ("b/.x/*", ["b/.x/3.jpg"]),
    ("b/**", ["b/1.PNG", "b/c/2.jpg", "b/notes.txt"]),
])  # fmt: skip
def test_patterns_mean_what_they_mean_on_the_disk(bucket, pattern, wanted):
    put(bucket, "a.jpg", "b/1.PNG", "b/c/2.jpg", "b/notes.txt", ".hidden.jpg", "b/.x/3.jpg", "d.jpg/4.jpg")
    bucket.get("photos", "disk", recursive=True)
    assert sorted(set(names(f"s3://photos/{pattern}"))) == [f"s3://photos/{name}" for name in wanted]
    assert sorted(set(names(f"disk/{pattern}"))) == [f"disk/{name}" for name in wanted]


def test_a_list_with_an_object_that_is_gone(bucket, engine, scorer):
    album(Path("local"), 1)
    bucket.put("local/000.png", "photos/000.png")
    Path("list.txt").write_text("s3://photos/000.png\ns3://photos/gone.png\ns3://nobucket/x.png\n")
    done = batch(engine, scorer, Path("scores"), "list.txt", hash_content=True)
    assert (done.scored, done.failed) == (1, 2)
    assert [scores(Path("scores"))[f"s3://{name}"] for name in ("photos/gone.png", "nobucket/x.png")] == [
        "not_found"
    ] * 2
    assert batch(engine, scorer, Path("scores"), "list.txt", hash_content=True).unchanged == 3


@pytest.mark.parametrize("source", ["s3://nobucket", "s3://photos/nothing"])
def test_a_place_that_is_not_there(bucket, source):
    with pytest.raises(ConfigError, match="no such object or folder"):
        names(source)


def test_a_store_that_cannot_be_asked(bucket, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        s3fs.S3FileSystem.clear_instance_cache()
        said = CliRunner().invoke(app, ["batch", "s3://photos", "--out", "scores"])
    assert said.exit_code == 2
    assert "s3://photos: cannot be listed" in said.stderr
    assert "no photos or videos found" in said.stderr
    assert not list(Path("scores").glob("*.parquet"))


def test_a_missing_package_is_named(monkeypatch):
    known = sys.modules["fsspec.registry"]._registry  # of what was imported before
    for name in ("gs", "gcs"):
        monkeypatch.delitem(known, name, raising=False)
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r'pip install "genzqa\[gs\]"'):
        list(list_remote("gs://bucket/photos", (".jpg",), lambda *_: None))
