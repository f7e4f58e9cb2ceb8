"""Statistics against independent references, and `genzqa evaluate` on a miniature database with a real model."""

from __future__ import annotations

import csv
import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

import browser
from genzqa import DataError
from genzqa.cli import app
from genzqa.databases.registry import open_database
from genzqa.evaluation.comparison import published_figures
from genzqa.evaluation.evaluate import agreement
from genzqa.evaluation.predictions import (
    Prediction,
    Predictions,
    read_folder,
    read_predictions,
    same_items,
    write_predictions,
)
from genzqa.evaluation.statistics import MEASURES, Logistic, compare, fit_logistic, krcc, measure, plcc, rmse, srcc
from genzqa.evaluation.tables import domain_means
from miniatures import first
from miniatures.files import photo


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mos = rng.uniform(0, 100, 200)
    return mos + rng.normal(0, 25, 200), mos


def test_measures_are_those_of_scipy(scores) -> None:
    score, mos = scores
    assert srcc(score, mos) == pytest.approx(stats.spearmanr(score, mos).statistic)
    assert krcc(score, mos) == pytest.approx(stats.kendalltau(score, mos).statistic)
    tied = np.round(score, -1)
    assert srcc(tied, mos) == pytest.approx(stats.spearmanr(tied, mos).statistic)
    fitted = fit_logistic(score, mos)(score)
    assert plcc(score, mos) == pytest.approx(stats.pearsonr(fitted, mos).statistic)
    assert rmse(score, mos) == pytest.approx(np.sqrt(np.mean((fitted - mos) ** 2)))
    assert plcc(score, mos) >= stats.pearsonr(score, mos).statistic - 0.01


def test_the_logistic_finds_the_curve_that_made_the_data() -> None:
    made = Logistic(top=80, bottom=10, centre=0.4, width=0.1)
    x = np.linspace(0, 1, 60)
    found = fit_logistic(x, made(x))
    np.testing.assert_allclose(found(x), made(x), atol=1e-3)
    np.testing.assert_allclose(fit_logistic(-x, made(x))(-x), made(x), atol=1e-3)


def test_a_falling_relation_never_comes_out_as_a_rising_one(scores) -> None:
    score, mos = scores
    assert srcc(-score, mos) == pytest.approx(-srcc(score, mos))
    assert measure(-score, mos)["srcc"].high < 0


def test_a_monotonic_change_of_scale_changes_no_rank_measure(scores) -> None:
    score, mos = scores
    one, other = measure(score, mos), measure(np.exp(score / 50), mos)
    assert other["srcc"] == one["srcc"]
    assert other["krcc"] == one["krcc"]


def test_intervals_hold_the_value_and_narrow_with_more_items() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for count in (50, 800):
        mos = rng.uniform(0, 100, count)
        found = measure(mos + rng.normal(0, 30, count), mos)
        assert set(found) == set(MEASURES)
        for figure in found.values():
            assert figure.low <= figure.value <= figure.high
        widths.append(found["srcc"].high - found["srcc"].low)
    assert widths[1] < widths[0] / 2


def test_items_of_one_group_are_drawn_together() -> None:
    """Copies of the same 20 items say no more than the 20 do."""
    rng = np.random.default_rng(2)
    mos = rng.uniform(0, 100, 20)
    score = mos + rng.normal(0, 30, 20)
    many, groups = np.tile(score, 30), np.tile(np.arange(20), 30)
    alone, blind = measure(score, mos), measure(many, np.tile(mos, 30))
    grouped = measure(many, np.tile(mos, 30), groups=groups)
    width = {name: found["srcc"].high - found["srcc"].low for name, found in
             (("alone", alone), ("blind", blind), ("grouped", grouped))}  # fmt: skip
    assert width["blind"] < width["alone"] / 3
    assert width["grouped"] == pytest.approx(width["alone"], rel=0.3)


def test_models_are_told_apart_only_where_they_differ(scores) -> None:
    score, mos = scores
    rng = np.random.default_rng(3)
    better = compare(mos + rng.normal(0, 10, 200), score, mos)
    assert better.low > 0
    assert better.p < 0.01
    same = compare(score, score + rng.normal(0, 0.5, 200), mos)
    assert same.low < 0.01
    assert same.p > 0.05
    assert compare(score, score, mos).p == 1.0


@pytest.mark.parametrize(
    ("score", "mos"), [([1, 2], [1, 2]), ([1, 2, 3, 4, 5], [1, 2, 3]), ([1, 2, 3, 4, np.nan], [1, 2, 3, 4, 5])]
)
def test_what_cannot_be_measured_is_refused(score, mos) -> None:
    with pytest.raises(ValueError, match=r"too few|one length|finite"):
        measure(score, mos)


def test_constant_scores_have_no_correlation_and_do_not_stop_anything() -> None:
    mos = np.arange(10.0)
    found = measure(np.ones(10), mos)
    assert np.isnan(found["srcc"].value)
    assert np.isfinite(found["rmse"].value)


def test_agreement_inside_groups_coverage_and_domains() -> None:
    """Two groups of opposite order and another level: together they agree, inside one of them they do not."""
    rows = tuple(
        Prediction(f"{group}{n}.png", group, mos, mos, level + sign * n, mos - 1, mos + (2 if n else -0.5), 0.0)
        for group, level, sign in (("low", 10, 1), ("high", 60, -1))
        for n, mos in enumerate(np.linspace(level, level + 10, 6).tolist())
    )
    found = Predictions("x", "test", "image", ("synthetic", "uhd"), "", True, {}, rows)
    agreed = agreement(found)
    assert agreed.within == (pytest.approx(0.0), 2)
    assert agreed.coverage == pytest.approx(10 / 12)
    assert agreed.figures["srcc"].value > 0.7
    assert domain_means([(found, agreed), (found, agreed)])["uhd"] == (["x", "x"], agreed.figures["srcc"].value)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Twelve photos, ever more blurred, in two groups; one is missing and one is no photo."""
    from PIL import ImageFilter

    with Image.open(Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg") as opened:
        photo = opened.convert("RGB").resize((160, 120))
    rows = []
    for number in range(12):
        photo.filter(ImageFilter.GaussianBlur(number / 2)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{5 - number / 3:.2f},{'test' if number % 2 else 'train'},{number % 4}")
    (tmp_path / "bad.png").write_bytes(b"no photo")
    rows += ["gone.png,2.5,test,1", "bad.png,2.4,test,1"]
    (tmp_path / "scores.csv").write_text("\n".join(["path,mos,split,group", *rows]) + "\n")
    return tmp_path / "scores.csv"


def evaluate(small_scorer: Path, *arguments: object, expect: int = 0):
    result = CliRunner().invoke(app, ["evaluate", "--model", f"local-dir:{small_scorer}", *map(str, arguments)])
    assert result.exit_code == expect, result.output
    assert "Traceback" not in result.output
    return result


def test_evaluate_writes_predictions_and_tables(small_scorer: Path, mine: Path, tmp_path: Path) -> None:
    import genzqa

    out = tmp_path / "results"
    result = evaluate(small_scorer, "--data", f"mine={mine}", "--out", out, expect=1)  # two files cannot be scored
    (found,) = read_folder(out)
    assert (found.database, found.split, found.kind, len(found.rows)) == ("mine", "all", "image", 14)
    failed = {row.path: row.error for row in found.rows if row.error}
    assert failed.keys() == {"gone.png", "bad.png"}
    assert failed["gone.png"].startswith("not_found")
    scorer = genzqa.load(f"local-dir:{small_scorer}")
    for row in found.scored[:3]:
        alone = scorer.score(mine.parent / row.path)
        assert row.score == pytest.approx(alone.score, abs=1e-3)
        assert (row.low, row.high) == pytest.approx(alone.interval, abs=1e-3)
    record = json.loads((out / "figures.json").read_text())
    assert record["model"]["weights_sha256"] == scorer.provenance.weights_sha256
    (database,) = record["databases"]
    assert (database["items"], database["failed"], database["coverage"]) == (12, 2, None)
    expected = stats.spearmanr(found.column("score"), found.column("mos")).statistic
    assert database["figures"]["srcc"]["value"] == pytest.approx(expected)
    with (out / "figures.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["srcc"]) == pytest.approx(expected, abs=1e-6)
    assert f"{expected:.3f} [" in (out / "figures.md").read_text()
    assert f"{expected:.3f}_" in (out / "figures.tex").read_text()
    assert (out / "figures.md").read_text() == result.stdout
    assert database["within_groups"] is None  # no group has five items


def test_evaluate_takes_the_split_that_was_asked_for(small_scorer: Path, mine: Path, tmp_path: Path) -> None:
    evaluate(small_scorer, "--data", f"mine={mine}", "--out", tmp_path / "a", "--split", "train")
    (found,) = read_folder(tmp_path / "a")
    names = {item.path.name for item in open_database(f"mine={mine}").part("train")}
    assert {row.path for row in found.rows} == names
    assert names < {f"{number}.png" for number in range(0, 12, 2)}  # some of the training part are kept for validation


def test_a_database_keeps_its_range_direction_and_domains(small_scorer: Path, tmp_path: Path) -> None:
    first.kadid10k(tmp_path / "kadid")
    evaluate(small_scorer, "--data", f"kadid10k={tmp_path / 'kadid'}", "--out", tmp_path / "out")
    (found,) = read_folder(tmp_path / "out")
    assert found.domains == ("synthetic",)
    assert [row.quality for row in found.rows] == pytest.approx([89.25, 12.5, 72.5])
    assert "too few" in (tmp_path / "out" / "figures.md").read_text()  # three items measure nothing


def test_the_same_items_of_two_models_are_matched(small_scorer: Path, mine: Path, tmp_path: Path) -> None:
    evaluate(small_scorer, "--data", f"mine={mine}", "--out", tmp_path / "a", expect=1)
    evaluate(small_scorer, "--data", f"mine={mine}", "--out", tmp_path / "b", "--split", "test", expect=1)
    one, other = same_items(read_folder(tmp_path / "a")[0], read_folder(tmp_path / "b")[0])
    assert [row.path for row in one] == [row.path for row in other]
    assert [row.score for row in one] == pytest.approx([row.score for row in other], abs=1e-3)
    assert len(one) == 6


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="no predictions"):
        read_predictions(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "b.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no predictions"):
        read_folder(tmp_path / "empty")


def test_bad_requests_end_before_anything_is_scored(small_scorer: Path, mine: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments in (
        ["--data", "nope=/x"],
        ["--data", f"mine={tmp_path / 'gone.csv'}"],
        ["--data", f"mine={mine}", "--data", f"mine={mine}"],
    ):
        evaluate(small_scorer, *arguments, "--out", out, expect=2)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    evaluate(small_scorer, "--data", f"mine={mine}", "--out", tmp_path / "file", expect=2)


def test_data_check_tells_every_fault(mine: Path) -> None:
    lines = mine.read_text().splitlines()
    mine.write_text("\n".join([*lines, "0.png,4.9,train,0", "3.png,2.2,train,9"]) + "\n")
    result = CliRunner().invoke(app, ["data", "check", f"mine={mine}", "--json"])
    assert result.exit_code == 1
    (found,) = json.loads(result.stdout)["databases"]
    faults = {kind: [Path(one["subject"]).name for one in ones] for kind, ones in found["faults"].items()}
    assert faults == {"missing": ["gone.png"], "unreadable": ["bad.png"], "mislabelled": ["0.png", "3.png"]}
    text = CliRunner().invoke(app, ["data", "check", f"mine={mine}"])
    assert "16 listed, 1 missing, 1 unreadable, 2 mislabelled" in text.stdout


def test_data_check_of_a_sound_database(tmp_path: Path) -> None:
    for name in ("koniq10k", "konvid1k"):
        first.BUILDERS[name](tmp_path / name)
    specs = [f"{name}={tmp_path / name}" for name in ("koniq10k", "konvid1k")]
    result = CliRunner().invoke(app, ["data", "check", *specs])
    assert result.exit_code == 0, result.output
    assert "koniq10k: 3 listed, 0 missing, 0 unreadable, 0 mislabelled" in result.stdout
    assert "the published database has 10073" in result.stdout
    assert "train 1" in result.stdout
    (tmp_path / "konvid1k" / "KoNViD_1k_videos" / "3339962845.mp4").write_bytes(b"\0" * 100)
    assert CliRunner().invoke(app, ["data", "check", *specs]).exit_code == 1


def test_data_list_names_every_database() -> None:
    from genzqa.databases.registry import NAMES

    listed = json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).stdout)["databases"]
    assert [one["name"] for one in listed] == list(NAMES)
    assert "KonIQ-10k" in CliRunner().invoke(app, ["data", "list"]).stdout


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about two models, one of which also knows a database that others have published figures of."""
    folder = tmp_path_factory.mktemp("compared")
    rng = np.random.default_rng(5)
    for number in range(40):
        photo(folder / "photos" / f"{number}.png", number)

    def predict(model: str, database: str, noise: float) -> Predictions:
        mos = np.linspace(5, 95, 40)
        score = np.clip(mos + rng.normal(0, noise, 40), 0, 100)
        rows = tuple(
            Prediction(f"{n}.png", "", m, m, s, s - 20, s + 20, s)
            for n, (m, s) in enumerate(zip(mos, score, strict=True))
        )
        rows += (Prediction("<b>&.png", "", 50.0, 50.0, None, None, None, None, "not_found: no such file"),)
        facts = {"model": model, "weights_sha256": "ab", "base": "mini", "base_sha256": "cd", "preprocessing": "x",
                 "timesteps": [50], "seed": 1, "version": "0"}  # fmt: skip
        root = str(folder / "photos")
        return Predictions(database, "all", "image", ("user-generated",), root, True, facts, rows)

    for model, noise in (("good", 5.0), ("poor", 60.0)):
        (folder / model).mkdir()
        write_predictions(predict(model, "mine", noise), folder / model / "mine.parquet")
    write_predictions(predict("good", "agiqa1k", 20.0), folder / "good" / "agiqa1k.parquet")
    page = folder / "compare.html"
    result = CliRunner().invoke(app, ["benchmark", str(folder / "good"), str(folder / "poor"), "--html", str(page)])
    assert result.exit_code == 0, result.output
    return page


def test_the_comparison_says_what_was_measured(compared: Path) -> None:
    page = compared.read_text()
    for one in read_folder(compared.parent / "good"):
        figures = agreement(one).figures
        assert f"{figures['srcc'].value:.3f}" in page
        assert str(figures["plcc"]) in page
    number = r"([+-]?[\d.]+)"
    found = re.search(
        rf"good less poor.*?<td>{number} <small>{number} to {number}</small></td><td>{number}", page, re.DOTALL
    )
    assert found is not None
    difference, low, _, p = map(float, found.groups())
    assert difference > 0.3
    assert low > 0
    assert p < 0.05
    assert "zwx8981/LIQE" in page  # where another's figure is from
    assert "0.5785" in page
    assert "BRISQUE" not in page  # of a database that is not here
    assert page.count('<svg class="plot"') == 6
    assert page.count("data:image/webp") == 18  # three panels of six disagreements
    assert "<b>&.png" not in page
    assert "1 could not be scored" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)


def test_published_figures_all_have_a_source() -> None:
    from genzqa.databases.registry import NAMES

    splits = ("all", "train", "validation", "test")
    rows = published_figures([(name, split) for name in NAMES for split in splits])
    figures = [(measure, float(value)) for row in rows for measure, value in row.figures.items()]
    assert len(figures) > 20
    assert all(row.source and row.trained_on for row in rows)
    assert all(measure in MEASURES and -1 < value < 1 for measure, value in figures)
    text = (files("genzqa.evaluation") / "published.csv").read_text()
    assert len(figures) == len(text.splitlines()) - 1  # none twice, and none of a database that cannot be read
    assert published_figures([("agiqa1k", "test")]) == []  # they are of all of it


def test_the_same_results_give_the_same_comparison(compared: Path) -> None:
    again = compared.parent / "again.html"
    folders = [str(compared.parent / name) for name in ("good", "poor")]
    assert CliRunner().invoke(app, ["benchmark", *folders, "--html", str(again)]).exit_code == 0
    assert again.read_bytes() == compared.read_bytes()


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_the_comparison_in_a_browser(compared: Path, width: int, scheme: str, tmp_path: Path) -> None:
    with browser.chromium(tmp_path / "profile") as page:
        page.open(compared, width, 800, scheme)
        assert page.complaints == []
        assert all(request.startswith(("file:", "data:")) for request in page.requests)
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.querySelectorAll('h1').length") == 1
