"""Every database is read from a miniature in its true layout; splits, tables of one's own, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from genzqa import ConfigError, DataError
from genzqa.databases.database import Domain, Sample
from genzqa.databases.registry import IMAGES, NAMES, database, open_database
from genzqa.databases.splits import split_by_group
from miniatures import clips, first, images

BUILDERS = {**first.BUILDERS, **images.BUILDERS, **clips.BUILDERS}
WITHOUT_SCORES = {"kadis"}
DOMAINS_WITHOUT_A_DATABASE = {"low-light"}
DOCUMENTATION = (Path(__file__).parents[1] / "docs" / "databases.md").read_text()


def test_every_database_has_a_miniature() -> None:
    assert set(BUILDERS) == set(NAMES)


@pytest.mark.parametrize("name", sorted(set(BUILDERS) - WITHOUT_SCORES))
def test_a_miniature_in_the_true_layout_is_read(name: str, tmp_path: Path) -> None:
    expected = BUILDERS[name](tmp_path)
    samples = open_database(f"{name}={tmp_path}")
    facts = samples.database
    assert (facts.name, facts.kind) == (name, "image" if name in IMAGES else "video")
    assert [item.path.relative_to(tmp_path).as_posix() for item in samples.items] == [one.file for one in expected]
    assert [item.mos for item in samples.items] == pytest.approx([one.mos for one in expected])
    assert [item.std for item in samples.items] == [one.std and pytest.approx(one.std) for one in expected]
    assert [(item.split, item.group) for item in samples.items] == [(one.split, one.group) for one in expected]
    assert all(item.path.is_file() for item in samples.items)
    quality = samples.quality(samples.items)
    assert all(0 <= value <= 100 for value in quality)
    best = max if facts.higher_is_better else min
    assert samples.items[quality.argmax()].mos == best(item.mos for item in samples.items)
    for field in (facts.title, facts.licence, facts.citation, facts.home, facts.layout):
        assert field
    assert facts.domains


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_an_empty_folder_says_what_it_should_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_database(f"{name}={tmp_path}")
    assert database(name).layout in str(caught.value)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_label_that_is_no_number_is_named(name: str, tmp_path: Path) -> None:
    BUILDERS[name](tmp_path)
    damaged = False
    for table in (path for path in tmp_path.rglob("*") if path.suffix in (".csv", ".txt")):
        content = table.read_text()
        for value in {f"{one.mos:g}" for one in BUILDERS[name](tmp_path / "again")}:
            if value in content:
                table.write_text(content.replace(value, "n/a", 1))
                damaged = True
                break
    if not damaged:
        pytest.skip("its labels are not text")
    with pytest.raises(DataError, match="n/a"):
        open_database(f"{name}={tmp_path}")


def test_a_database_without_scores_says_so(tmp_path: Path) -> None:
    images.BUILDERS["kadis"](tmp_path)
    with pytest.raises(DataError, match="no human scores"):
        open_database(f"kadis={tmp_path}")
    with pytest.raises(DataError, match="no human scores"):
        database("kadis").quality([1.0])


def test_few_groups_leave_no_split_empty() -> None:
    items = [Sample(Path(f"{n}.png"), 1.0, group=f"scene {n % 5}") for n in range(30)]
    for seed in range(5):
        parts = split_by_group(items, (0.7, 0.1, 0.2), seed)
        assert [len(part) for part in parts.values()] == [18, 6, 6]
    assert [len(part) for part in split_by_group(items, (0.9, 0.1, 0.0), 0).values()] == [24, 6, 0]
    assert [len(part) for part in split_by_group(items[:1], (0.7, 0.1, 0.2), 0).values()] == [1, 0, 0]


def test_no_group_is_cut_in_two_and_a_missing_sample_moves_no_other() -> None:
    items = [Sample(Path(f"{group}-{n}.png"), 1.0, group=f"r{group}") for group in range(40) for n in range(5)]
    parts = split_by_group(items, (0.6, 0.2, 0.2), seed=3)
    groups = {split: {item.group for item in part} for split, part in parts.items()}
    assert sorted(map(len, groups.values())) == [8, 8, 24]
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert sum(map(len, parts.values())) == len(items)
    assert parts != split_by_group(items, (0.6, 0.2, 0.2), seed=4)
    fewer = split_by_group(items[1:], (0.6, 0.2, 0.2), seed=3)
    assert all(set(fewer[split]) <= set(parts[split]) for split in parts)


def test_official_splits_are_kept_and_validation_comes_of_the_training_part(tmp_path: Path) -> None:
    first.koniq10k(tmp_path)
    koniq = open_database(f"koniq10k={tmp_path}")
    assert [item.path.name for item in koniq.part("validation")] == ["3.jpg"]
    rows = "".join(f"{n}.jpg,{n % 7},{'test' if n < 10 else 'train'},g{n // 2}\n" for n in range(90))
    (tmp_path / "mine.csv").write_text("path,mos,split,group\n" + rows)
    mine = open_database(f"mine={tmp_path / 'mine.csv'}")
    parts = {split: {item.path.name for item in mine.part(split)} for split in ("train", "validation", "test")}
    assert parts["test"] == {f"{n}.jpg" for n in range(10)}
    assert len(parts["validation"]) == 10
    assert len(parts["train"]) == 70
    groups = {split: {item.group for item in mine.part(split)} for split in ("train", "validation")}
    assert not groups["train"] & groups["validation"]


def test_scores_of_ones_own(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("\ufeffpath, mos, std, split, group\nin/a.jpg, 3.5, 0.4, val, x\nb.jpg, 1, , , \n")
    mine = open_database(f"holiday={table}")
    assert mine.database.kind == "image"
    assert mine.database.mos_range == (1, 3.5)
    assert mine.items == (
        Sample(tmp_path / "in" / "a.jpg", 3.5, 0.4, "validation", "x"),
        Sample(tmp_path / "b.jpg", 1.0),
    )


def test_scores_of_ones_own_may_name_their_domain(tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("path,mos,domain\na.jpg,3.5,low-light\nb.jpg,1,low-light\n")
    assert open_database(f"night={table}").database.domains == ("low-light",)
    table.write_text("path,mos\na.jpg,3.5\nb.jpg,1\n")
    assert open_database(f"night={table}").database.domains == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column path, mos"),
        ("path,score\na.jpg,3\n", "no column mos"),
        ("path,mos\na.jpg,good\n", "row 2: mos is 'good'"),
        ("path,mos\na.jpg,nan\n", "row 2: mos is 'nan'"),
        ("path,mos\na.jpg\n", "too few columns"),
        ("path,mos,split\na.jpg,3,dev\n", "split is 'dev'"),
        ("path,mos\n", "no item is listed"),
        ("path,mos\na.jpg,3\nb.jpg,3\n", "every score is the same"),
        ("path,mos\na.jpg,3\nb.mp4,4\n", "photos and videos are mixed"),
        ("path,mos,domain\na.jpg,3,night\nb.jpg,4,night\n", "domain is 'night'"),
        ("path,mos,domain\na.jpg,3,low-light\nb.jpg,4,\n", "rows differ in their domain"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        open_database(f"mine={tmp_path / 'scores.csv'}")


@pytest.mark.parametrize("spec", ["koniq10k", "=x", "koniq10k=", "konniq=/data"])
def test_a_malformed_name_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        open_database(spec)
    with pytest.raises(DataError):
        open_database("koniq10k=/does/not/exist")


def test_the_documentation_has_every_database() -> None:
    for name in NAMES:
        facts = database(name)
        row = f"| `{name}` | [{facts.title}]({facts.home}) | {facts.items:,} |"
        assert row in DOCUMENTATION
        if facts.mos_range is None:
            assert f"{row} none |" in DOCUMENTATION


def test_every_domain_has_a_database_or_is_known_to_have_none() -> None:
    carried = {domain for name in NAMES for domain in database(name).domains}
    assert carried | DOMAINS_WITHOUT_A_DATABASE == set(get_args(Domain))
    assert not carried & DOMAINS_WITHOUT_A_DATABASE
    for domain in DOMAINS_WITHOUT_A_DATABASE:
        assert f"`{domain}`" in DOCUMENTATION


def test_the_official_tables_of_biq2021_have_no_deviations(tmp_path: Path) -> None:
    """The training table has two more columns, without names and empty."""
    first.biq2021(tmp_path)
    train = tmp_path / "Train (Images and MOS).csv"
    train.write_bytes(b"Image Name,MOS,,\r\nss01 (1).jpg,0.42,,\r\nss02 (1014).jpg,0.61,,\r\n")
    (tmp_path / "Test (Images and MOS).csv").write_bytes(b"Image Name,MOS\r\nss03 (7).jpg,0.8\r\n")
    items = open_database(f"biq2021={tmp_path}").items
    assert [(item.mos, item.std, item.split) for item in items] == [
        (0.42, None, "train"),
        (0.61, None, "train"),
        (0.8, None, "test"),
    ]
