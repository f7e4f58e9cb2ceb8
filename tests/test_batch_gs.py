"""Batches of Google Cloud Storage: its interface on this machine, gcsfs, and the processes that decode."""

import os
from pathlib import Path

import pytest

import genzqa
from batches import album, batch, engine_of, rows, same, scores
from genzqa.batch import remote
from genzqa.batch.inputs import Listing
from genzqa.errors import ConfigError
from videos import encode, noise_frames

os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # read at import; it would ask the real service by gRPC
gcsfs = pytest.importorskip("gcsfs")
emulator = pytest.importorskip("gcp_storage_emulator.server")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the server, which runs in a thread, and of unclosed connections


@pytest.fixture(scope="module")
def server():
    server = emulator.create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    yield "http://{}:{}".format(*server._api._httpd.server_address)
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """The file system of a store with the bucket ``photos``; clients find the server by their environment, as users' do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    gcsfs.GCSFileSystem.clear_instance_cache()
    store = gcsfs.GCSFileSystem(use_listings_cache=False)
    store.mkdir("photos")
    yield store
    store.rm("photos", recursive=True)
    gcsfs.GCSFileSystem.clear_instance_cache()


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
    album(Path("local"), 5)
    Path("local/002.png").write_bytes(b"broken")
    Path("local/a b+c%20é.png").write_bytes(Path("local/001.png").read_bytes())
    Path("local/film.mp4").write_bytes(encode(noise_frames(8)))
    batch(engine, scorer, Path("wanted"), "local")
    bucket.put("local", "photos/", recursive=True)
    done = batch(engine, scorer, Path("scores"), "gs://photos/local")
    assert (done.scored, done.failed) == (6, 1)
    wanted = {f"gs://photos/{name}": score for name, score in scores(Path("wanted")).items()}
    assert same(scores(Path("scores")), wanted)
    assert rows(Path("scores"))["gs://photos/local/002.png"]["error"]["file"] == "gs://photos/local/002.png"

    bucket.put("local/003.png", "photos/local/001.png")
    bucket.put("local/004.png", "photos/local/new.png")
    bucket.rm("photos/local/000.png")
    done = batch(engine, scorer, Path("scores"), "gs://photos/local")
    assert (done.scored, done.unchanged, done.removed) == (2, 5, 1)
    found = scores(Path("scores"))
    assert found["gs://photos/local/001.png"] == pytest.approx(found["gs://photos/local/003.png"], abs=0.001)


def test_what_is_listed(bucket):
    put(bucket, "a.jpg", "b/1.PNG", "b/c/2.jpg", "b/notes.txt", ".hidden.jpg", "b/.x/3.jpg", "d.jpg/4.jpg")
    every = ["a.jpg", "b/1.PNG", "b/c/2.jpg", "d.jpg/4.jpg"]
    assert names("gs://photos") == [f"gs://photos/{name}" for name in every]
    assert names("gs://photos/b/") == ["gs://photos/b/1.PNG", "gs://photos/b/c/2.jpg"]
    assert names("gs://photos/b/notes.txt") == ["gs://photos/b/notes.txt"]
    assert sorted(set(names("gs://photos/**/*.jpg"))) == [
        f"gs://photos/{name}" for name in ("a.jpg", "b/c/2.jpg", "d.jpg/4.jpg")
    ]
    assert [(item.size, item.modified is not None) for item in Listing(["gs://photos/a.jpg"])] == [(13, True)]


def test_a_folder_is_listed_page_by_page(bucket, monkeypatch):
    put(bucket, *(f"{number}.jpg" for number in range(7)), "4/a.jpg", "b/1.jpg")
    asked, real = [], gcsfs.GCSFileSystem.call

    def paged(store, *what, **named):  # the server here gives all at once, the real one pages
        size, page = named.pop("maxResults", None), named.pop("pageToken", "0")
        found = real(store, *what, **named)
        if size is None:
            return found
        asked.append(page)
        first, every = int(page), [("items", one) for one in found.get("items", [])]
        every += [("prefixes", one) for one in found.get("prefixes", [])]
        part = every[first : first + size]
        more = {"nextPageToken": str(first + size)} if first + size < len(every) else {}
        return more | {kind: [one for of, one in part if of == kind] for kind in ("items", "prefixes")}

    monkeypatch.setattr(gcsfs.GCSFileSystem, "call", paged)
    monkeypatch.setattr(remote, "_PAGE", 4)
    wanted = [*(f"{number}.jpg" for number in range(7)), "4/a.jpg", "b/1.jpg"]
    assert sorted(names("gs://photos")) == sorted(f"gs://photos/{name}" for name in wanted)
    assert sorted(asked) == ["0", "0", "0", "4", "8"]  # nine entries, and two folders of one


def test_a_list_with_an_object_that_is_gone(bucket, engine, scorer):
    album(Path("local"), 1)
    bucket.put("local/000.png", "photos/000.png")
    Path("list.txt").write_text("gs://photos/000.png\ngs://photos/gone.png\n")
    done = batch(engine, scorer, Path("scores"), "list.txt", hash_content=True)
    assert (done.scored, done.failed) == (1, 1)
    assert scores(Path("scores"))["gs://photos/gone.png"] == "not_found"
    assert batch(engine, scorer, Path("scores"), "list.txt", hash_content=True).unchanged == 2


@pytest.mark.parametrize("source", ["gs://nobucket", "gs://photos/nothing"])
def test_a_place_that_is_not_there(bucket, source):
    with pytest.raises(ConfigError, match="no such object or folder"):
        names(source)
