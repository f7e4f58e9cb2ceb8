"""What a batch is to score: listings of every kind, and what is left of them when something is scored already."""

import os
import socket
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genzqa.batch.inputs import Listing
from genzqa.batch.item import Item
from genzqa.batch.known import KeySet, Known, keys_of
from genzqa.batch.plan import Plan, count_to_do, read_ahead
from genzqa.batch.records import SCHEMA
from genzqa.cli.inputs import find_inputs
from genzqa.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tree with files to find and to pass over; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b/2.jpg", "photos/b/1.PNG", "photos/c.jpg", "photos/a/deep/er/x.webp", "photos/a.mp4",
                 "photos/.hidden/x.jpg", "photos/.x.jpg", "photos/readme.md", "photos/code.ts", "photos/b.jpg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "photos" / "a" / "loop").symlink_to(tmp_path / "photos", target_is_directory=True)
    (tmp_path / "photos" / "self").symlink_to("self")
    return tmp_path


def names(*sources, **options):
    return [item.input for item in Listing(sources, **options)]


def test_a_folder_is_listed_as_genzqa_score_lists_it(folder):
    found = names("photos")
    assert found == [
        "photos/a/deep/er/x.webp",
        "photos/a.mp4",
        "photos/b/1.PNG",
        "photos/b/2.jpg",
        "photos/b.jpg",
        "photos/c.jpg",
    ]
    assert found == find_inputs(["photos"], (".webp", ".mp4", ".png", ".jpg", ".ts")).files
    assert names("./photos/") == found
    assert names(".") == found
    assert names("photos") == names("photos")


def test_items_know_size_and_time(folder):
    os.utime("photos/c.jpg", ns=(1, 1_234_567_890_123_456_789))
    item = next(item for item in Listing(["photos"]) if item.input == "photos/c.jpg")
    assert item == Item("photos/c.jpg", len("photos/c.jpg"), 1_234_567_890_123_456_789)


def test_patterns(folder):
    assert names("photos/*.jpg") == ["photos/b.jpg", "photos/c.jpg"]
    assert names("photos/**/*.jpg") == ["photos/b.jpg", "photos/c.jpg", "photos/b/2.jpg"]
    assert names("photos/*/[12].*") == ["photos/b/1.PNG", "photos/b/2.jpg"]
    assert names("phot?s/b") == names("photos/b") == ["photos/b/1.PNG", "photos/b/2.jpg"]
    assert names(f"{folder}/photos/c*") == [f"{folder}/photos/c.jpg", f"{folder}/photos/code.ts"]  # named: any suffix
    assert names("nothing/*.jpg") == []


def test_list_files(folder):
    (folder / "list.txt").write_bytes(b"\xef\xbb\xbfphotos/c.jpg\r\n\nmissing.jpg\nodd \xff.jpg\n")
    assert names("list.txt") == ["photos/c.jpg", "missing.jpg", "odd \udcff.jpg"]
    assert [item.size is None for item in Listing(["list.txt"])] == [False, True, True]


def test_parquet_with_a_column_of_paths(folder):
    pq.write_table(pa.table({"path": ["photos/c.jpg", None, "photos/b.jpg"], "n": [1, 2, 3]}), "t.parquet")
    assert names("t.parquet") == ["photos/c.jpg", "photos/b.jpg"]
    for column in ("n", "nothing"):
        with pytest.raises(ConfigError, match="no text column") as caught:
            names("t.parquet", column=column)
        assert "path, n" in caught.value.hint
    (folder / "no.parquet").write_text("text")
    with pytest.raises(ConfigError, match="is no Parquet file"):
        names("no.parquet")


@pytest.mark.parametrize(("source", "message"), [("missing", "no such file"), ("-", "standard input"), ("", "standard input"),
                                                 ("http://x/y.jpg", "--http")])  # fmt: skip
def test_sources_that_are_none(folder, source, message):
    with pytest.raises(ConfigError, match=message):
        Listing([source])


def test_web_addresses_in_a_list_need_the_option_too(folder):
    (folder / "list.txt").write_text("photos/c.jpg\nhttps://x.invalid/y.jpg\n")
    with pytest.raises(ConfigError, match="--http"):
        names("list.txt")


def test_addresses(folder):
    url = (folder / "photos").as_uri()
    found = list(Listing([url]))
    assert [item.input for item in found] == [
        f"{url}/{name}" for name in ("a/deep/er/x.webp", "a.mp4", "b/1.PNG", "b/2.jpg", "b.jpg", "c.jpg", "code.ts")
    ]
    assert found[-2].size == len("photos/c.jpg")
    assert found[-2].modified is not None
    assert names(f"{url}/*.jpg") == [f"{url}/b.jpg", f"{url}/c.jpg"]
    assert names(f"{url}/c.jpg") == [f"{url}/c.jpg"]
    with pytest.raises(ConfigError, match="no such object"):
        names(f"{url}/missing")
    with pytest.raises(ConfigError, match="fsspec"):
        names("nosuchscheme://bucket/photos")


def test_a_server_that_does_not_answer_still_gives_an_input():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/x.jpg?size=2"
        assert list(Listing([address], http=True)) == [Item(address)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed(folder):
    (folder / "photos" / "b").chmod(0)
    warnings = []
    listing = Listing(["photos"], warn=warnings.append)
    assert [item.input for item in listing][-1] == "photos/c.jpg"
    assert not listing.complete
    assert "photos/b: cannot be listed" in warnings[0]


def rows(items, errors=None):
    return pa.Table.from_pylist(
        [{"input": item.input, "size": item.size, "modified": item.modified, "sha256": item.sha256,
          "error": {"code": errors[item.input]} if errors and item.input in errors else None} for item in items],
        schema=pa.schema([SCHEMA.field(name) for name in ("input", "error", "size", "modified", "sha256")]),
    )  # fmt: skip


def items(count, size=10):
    return [Item(f"{number}.jpg", size, 5) for number in range(count)]


def test_only_what_is_new_or_changed_is_left():
    old = items(3000)
    known = Known([(0, rows(old[:2000]), True), (1, rows(old[2000:]), True)])
    now = [*old, Item("new.jpg", 1, 1), old[0], Item("new.jpg", 1, 1)]
    now[7], now[2500], now[8] = Item("7.jpg", 11, 5), Item("2500.jpg", 10, 6), Item("8.jpg")
    del now[100]
    plan = Plan(now, known)
    assert [item.input for item in plan] == ["7.jpg", "8.jpg", "2500.jpg", "new.jpg"]
    assert (plan.listed, plan.unchanged) == (3000, 2996)
    assert int((~known.listed).sum()) == 1
    assert known.key[~known.listed] == keys_of(["100.jpg"])
    assert int(known.keep.sum()) == 2996
    assert count_to_do(now, known, threading.Event()) == 5  # the new one is listed twice


def test_of_two_rows_about_one_input_the_later_part_counts():
    one, other = Item("x.jpg", 1, 1), Item("x.jpg", 2, 2)
    known = Known([(4, rows([other]), True), (3, rows([one, Item("y.jpg", 1, 1)]), True)])
    assert len(known) == 2
    assert list(Plan([other], known)) == []
    assert list(Plan([one], Known([(4, rows([other]), True), (3, rows([one]), True)]))) == [one]


def test_another_model_scores_everything_again():
    assert list(Plan(items(5), Known([(0, rows(items(5)), False)]))) == items(5)


def test_errors_that_may_pass_are_tried_again():
    errors = {
        "0.jpg": "corrupt",
        "1.jpg": "decoder_crashed",
        "2.jpg": "timeout",
        "3.jpg": "unreadable",
        "4.jpg": "not_found",
    }
    known = Known([(0, rows(items(6), errors), True)])
    assert [item.input for item in Plan(items(6), known)] == ["1.jpg", "2.jpg", "3.jpg"]


def test_the_content_counts_when_asked(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_text("one")
    os.utime(path, ns=(5, 5))
    (scored,) = Plan(Listing([str(path)]), Known(), hash_content=True)
    assert scored.sha256 == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    path.write_text("two")
    os.utime(path, ns=(5, 5))
    for hashed, left in ((True, 1), (False, 0)):
        known = Known([(0, rows([scored]), True)])
        assert len(list(Plan(Listing([str(path)]), known, hash_content=hashed))) == left


def test_a_set_of_keys_against_pythons():
    numbers = np.random.default_rng(1).integers(0, 90_000, 200_000)
    seen, mine = set(), KeySet()
    for chunk in np.split(numbers, 100):
        chunk = np.unique(chunk)
        new = [number not in seen for number in chunk]
        assert mine.add(keys_of(map(str, chunk))).tolist() == new
        seen.update(chunk)
    assert len(mine) == len(seen) > KeySet._SMALL


def test_reading_ahead_is_bounded_and_hands_on_errors():
    taken = []

    def source():
        for number in range(100):
            taken.append(number)
            yield number
        raise ConfigError("the end")

    ahead = read_ahead(source(), 3)
    assert next(ahead) == 0
    ahead.close()
    assert len(taken) <= 6
    with pytest.raises(ConfigError, match="the end"):
        list(read_ahead(source(), 3))
