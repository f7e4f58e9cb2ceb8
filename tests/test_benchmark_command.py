"""Results folders of one model each, their figures by group, and `genzqa benchmark` in all its outputs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import stats
from typer.testing import CliRunner

from genzqa import DataError
from genzqa.cli import app
from genzqa.evaluation.comparison import compare_models
from genzqa.evaluation.comparison_tables import comparison_csv, comparison_latex, comparison_markdown
from genzqa.evaluation.evaluate import agreement
from genzqa.evaluation.predictions import (
    Prediction,
    Predictions,
    read_folder,
    refuse_another_model,
    write_predictions,
)
from genzqa.evaluation.statistics import compare
from genzqa.evaluation.tables import MOST_GROUPS, as_csv, as_record, groups_csv, markdown, write_tables

FACTS = {"model": "good", "weights_sha256": "ab" * 32, "base": "mini", "base_sha256": "cd" * 32, "preprocessing": "x-448x448",
         "timesteps": [50], "seed": 1, "backend": "torch", "precision": "fp32", "version": "0"}  # fmt: skip


def predict(database: str = "mine", split: str = "all", *, noise: float = 10.0, items: int = 40, group: int = 0,
            **facts: object) -> Predictions:  # fmt: skip
    """Made-up predictions; with ``group``, that many items stand in each group."""
    rng = np.random.default_rng(7)
    rows = []
    for number, mos in enumerate(np.linspace(5, 95, items).tolist()):
        score = float(np.clip(mos + rng.normal(0, noise), 0, 100))
        name = f"g{number // group:03}" if group else ""
        rows.append(Prediction(f"{number}.png", name, mos, mos, score, score - 20, score + 20, score))
    return Predictions(database, split, "image", ("user-generated",), "", True, FACTS | facts, tuple(rows))


def folder(path: Path, *found: Predictions) -> Path:
    path.mkdir()
    for one in found:
        write_predictions(one, path / f"{one.database}.parquet")
    return path


def benchmark(*arguments: object, expect: int = 0):
    result = CliRunner().invoke(app, ["benchmark", *map(str, arguments)])
    assert result.exit_code == expect, result.output
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("fact", ["model", "weights_sha256", "base_sha256", "preprocessing", "timesteps", "seed"])
def test_a_folder_of_two_models_is_refused(tmp_path: Path, fact: str) -> None:
    other = {"timesteps": [50, 950], "seed": 2}.get(fact, "ef" * 32)
    mixed = folder(tmp_path / "mixed", predict("a"), predict("b"), predict("c", **{fact: other}))
    with pytest.raises(DataError, match=rf"a\.parquet and c\.parquet are of different models: {fact}"):
        read_folder(mixed)
    assert "error[data]" in benchmark(mixed, expect=2).output


def test_how_a_model_was_run_may_differ_in_a_folder(tmp_path: Path) -> None:
    one, other = predict("a"), predict("b", backend="onnx", precision="bf16", version="1")
    found = read_folder(folder(tmp_path / "both", one, other))
    rows = [(each, agreement(each)) for each in found]
    assert "genzqa 0, 1." in markdown(rows)
    record = as_record(rows)
    assert record["model"]["weights_sha256"] == "ab" * 32
    assert not {"backend", "precision", "version"} & record["model"].keys()  # it is not the same for all
    assert [each["backend"] for each in record["databases"]] == ["torch", "onnx"]
    assert as_record(rows[:1])["model"]["backend"] == "torch"


def test_predictions_of_another_model_are_not_added(tmp_path: Path) -> None:
    refuse_another_model(tmp_path, FACTS)
    kept = folder(tmp_path / "kept", predict("a"))
    refuse_another_model(kept, FACTS | {"backend": "onnx", "version": "9"})
    with pytest.raises(DataError, match=r"a\.parquet: holds predictions of another model: weights_sha256 ababab"):
        refuse_another_model(kept, FACTS | {"weights_sha256": "ef" * 32})
    (kept / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="no predictions of genzqa evaluate"):
        refuse_another_model(kept, FACTS)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos, ever more blurred, and two tables of them."""
    with Image.open(Path(__file__).parents[1] / "examples" / "photos" / "parrots.jpg") as opened:
        photo = opened.convert("RGB").resize((160, 120))
    lines = ["path,mos,group"]
    for number in range(6):
        photo.filter(ImageFilter.GaussianBlur(number)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{5 - number / 2},parrots")
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def evaluate(model: Path, *arguments: object, expect: int = 0):
    result = CliRunner().invoke(app, ["evaluate", "--model", f"local-dir:{model}", *map(str, arguments)])
    assert result.exit_code == expect, result.output
    return result


def test_databases_are_added_to_a_folder_and_other_models_are_not(small_scorer: Path, photos: Path) -> None:
    out = photos / "out"
    evaluate(small_scorer, "--data", f"two={photos / 'two.csv'}", "--out", out)
    result = evaluate(small_scorer, "--data", f"one={photos / 'one.csv'}", "--out", out)
    assert (out / "figures.md").read_text() == result.stdout
    assert result.stdout.startswith("# ")
    assert "on 2 databases" in result.stdout
    record = json.loads((out / "figures.json").read_text())
    assert [one["database"] for one in record["databases"]] == ["one", "two"]
    (group,) = record["databases"][0]["groups"]
    assert (group["group"], group["items"]) == ("parrots", 6)
    with (out / "figures.csv").open(newline="") as file:
        assert [line["database"] for line in csv.DictReader(file)] == ["one", "two"]

    other = photos / "other"
    shutil.copytree(small_scorer, other)
    config = json.loads((other / "config.json").read_text())
    config["preprocessing"]["size"] = 64  # the same weights make another model of it
    (other / "config.json").write_text(json.dumps(config))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = evaluate(other, "--data", f"three={photos / 'one.csv'}", "--out", out, expect=2)
    assert "holds predictions of another model" in refused.output
    assert " done" not in refused.output  # nothing was scored
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_figures_of_each_group(tmp_path: Path) -> None:
    found = predict(items=600, group=10)
    found = replace(found, rows=(*found.rows, *(replace(row, group="small") for row in predict(items=4).rows)))
    rows = [(found, agreement(found, by_group=True))]
    groups = rows[0][1].by_group
    assert agreement(found).by_group == ()
    assert [one.group for one in groups] == [f"g{number:03}" for number in range(60)]  # none of fewer than five
    inside = [row for row in found.rows if row.group == "g007"]
    expected = stats.spearmanr([row.score for row in inside], [row.quality for row in inside]).statistic
    assert groups[7].items == 10
    assert groups[7].srcc.value == pytest.approx(expected)
    assert groups[7].srcc.low <= expected <= groups[7].srcc.high
    text = markdown(rows)
    assert f"Groups of mine (the {MOST_GROUPS} largest of 60" in text
    assert len(re.findall(r"^\| g\d", text, re.MULTILINE)) == MOST_GROUPS
    lines = list(csv.DictReader(io.StringIO(groups_csv(rows))))
    assert len(lines) == 60
    assert float(lines[7]["srcc"]) == pytest.approx(expected, abs=1e-6)
    assert len(as_record(rows)["databases"][0]["groups"]) == 60
    # a database without groups leaves no groups of an earlier run behind
    write_tables(rows, tmp_path)
    write_tables([(predict(), agreement(predict(), by_group=True))], tmp_path)
    assert (tmp_path / "groups.csv").read_text().count("\n") == 1


def test_the_largest_groups_come_first() -> None:
    found = predict(items=12)
    rows = tuple(replace(row, group="b" if number < 5 else "a") for number, row in enumerate(found.rows))
    assert [one.group for one in agreement(replace(found, rows=rows), by_group=True).by_group] == ["a", "b"]


def test_what_is_not_defined_is_null_in_json_and_empty_in_csv(tmp_path: Path) -> None:
    found = predict(group=8)
    constant = replace(found, rows=tuple(replace(row, score=50.0) for row in found.rows))
    rows = [(constant, agreement(constant, by_group=True))]
    write_tables(rows, tmp_path)
    database = json.loads((tmp_path / "figures.json").read_text(), parse_constant=pytest.fail)["databases"][0]
    assert database["figures"]["srcc"] == {"value": None, "low": None, "high": None}
    assert database["groups"][0]["krcc"] is None
    assert next(csv.DictReader(io.StringIO(as_csv(rows))))["srcc"] == ""
    assert "nan" not in markdown(rows)
    compared = compare_models({"a": [constant], "b": [found]})
    assert compared.pairs == ()  # no p-value for what has no difference
    for made in (comparison_markdown, comparison_csv, comparison_latex):
        assert "nan" not in made(compared)


def test_draws_without_a_correlation_are_on_neither_side() -> None:
    mos = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    score = np.arange(6.0)
    assert compare(score, score, mos).p == 1.0
    assert compare(np.ones(6), score, mos).p == 1.0


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models: both on a database of one's own, one on the test part of a database with published figures."""
    root = tmp_path_factory.mktemp("results")
    folder(root / "good", predict(noise=5), predict("biq2021", "test"))
    folder(root / "poor", predict(noise=60, model="poor", weights_sha256="ef" * 32))
    return root


def test_the_table_is_printed_unless_a_file_is_asked_for(results: Path, tmp_path: Path) -> None:
    folders = (results / "good", results / "poor")
    printed = benchmark(*folders)
    target = tmp_path / "table.md"
    written = benchmark(*folders, "--markdown", target)
    assert target.read_text() == printed.stdout
    assert written.stdout == ""
    assert f"{target}: models 2, databases 2" in written.stderr
    assert list(tmp_path.iterdir()) == [target]


def test_the_markdown_table(results: Path) -> None:
    text = benchmark(results / "good", results / "poor").stdout
    good, poor = (read_folder(results / name)[-1] for name in ("good", "poor"))
    ours = agreement(good).figures
    (line,) = re.findall(r"^\| good \| 40 .*first \| measured \|$", text.split("## mine, all")[1], re.MULTILINE)
    assert f"| {ours['srcc']} | {ours['plcc']} | {ours['krcc']} | {ours['rmse'].value:.2f} [" in line
    paths = [row.path for row in good.scored]
    seen = compare(good.column("score"), poor.column("score"), good.column("quality"), groups=paths)
    shown = f"{-seen.value:+.3f} [{-seen.high:+.3f}, {-seen.low:+.3f}], p {seen.p:.3f}"
    assert re.search(rf"^\| poor .*{re.escape(shown)} \| measured \|$", text, re.MULTILINE)
    published = text.split("## biq2021, test")[1].split("## mine")[0]
    assert re.search(
        r"^\| NASNet-Large \| - \| 0\.6725 \|.*\| published: README of .*; trained on ", published, re.MULTILINE
    )
    assert "agiqa" not in text
    assert "- poor: Weights efefefefefef" in text


def test_the_csv_table(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    benchmark(results / "good", results / "poor", "--csv", target)
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ours = {(row["system"], row["database"]): row for row in rows if row["kind"] == "measured"}
    assert ours.keys() == {("good", "biq2021"), ("good", "mine"), ("poor", "mine")}
    for (name, database), row in ours.items():
        (found,) = (one for one in read_folder(results / name) if one.database == database)
        for measure, figure in agreement(found).figures.items():
            values = [float(row[f"{measure}{end}"]) for end in ("", "_low", "_high")]
            assert values == pytest.approx([figure.value, figure.low, figure.high], abs=1e-6)
    assert ours["good", "mine"]["against"] == ""
    poor = ours["poor", "mine"]
    assert (poor["against"], poor["common_items"]) == ("good", "40")
    expected = float(poor["srcc"]) - float(ours["good", "mine"]["srcc"])
    assert float(poor["difference"]) == pytest.approx(expected, abs=2e-6)
    assert float(poor["difference_low"]) < float(poor["difference_high"]) < 0
    assert float(poor["p"]) < 0.05
    others = [row for row in rows if row["kind"] == "published"]
    assert others
    assert all((row["database"], row["split"]) == ("biq2021", "test") for row in others)
    assert all(row["source"] and row["trained_on"] and (row["srcc"] or row["plcc"]) for row in others)
    assert all(row["p"] == "" and row["srcc_low"] == "" for row in others)


def test_the_latex_table(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "table.tex"
    benchmark(results / "good", results / "poor", "--latex", target)
    text = target.read_text()
    head = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert head is not None
    for line in text.splitlines():
        if " & " in line:
            assert line.count(" & ") == len(head.group(1)) - 1
            assert line.endswith(r"\\")
    figure = agreement(read_folder(results / "good")[-1]).figures["plcc"]
    assert f"${figure.value:.3f}_{{{figure.low:.3f}}}^{{{figure.high:.3f}}}$" in text
    assert re.search(r"NASNet-Large\$\^\{1\}\$ & -- & 0\.6725", text)
    assert re.search(r"\\multicolumn\{7\}.*\$\^\{1\}\$ published: README of", text)
    assert text.rstrip().endswith(r"\end{tabular}")


def test_the_page_has_plcc_and_the_published_figures_of_the_split(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    target = tmp_path / "page.html"
    benchmark(results / "good", results / "poor", "--html", target)
    table = target.read_text().split("Agreement with people")[1].split("</section>")[0]
    for name in ("good", "poor"):
        for found in read_folder(results / name):
            for measure in ("srcc", "plcc", "krcc"):
                figure = agreement(found).figures[measure]
                assert f"<td>{figure.value:.3f} <small>{figure.low:.3f} to {figure.high:.3f}</small></td>" in table
    assert "NASNet-Large <small>published: README of" in table
    assert table.index("NASNet-Large") < table.index("<b>mine, all</b>")  # in the block of its database


def test_published_figures_of_another_split_are_not_shown(tmp_path: Path) -> None:
    text = benchmark(folder(tmp_path / "all", predict("biq2021", "all"))).stdout
    assert "## biq2021, all" in text
    assert "published" not in text.lower()
    assert "less that of" not in text  # one model has nothing to differ from


def test_models_on_two_splits_of_a_database_are_compared_on_what_both_have_scored(tmp_path: Path) -> None:
    whole, part = predict(noise=5), predict("mine", "test", noise=40, model="b")
    part = replace(part, rows=part.rows[::2])
    compared = compare_models({"a": [whole], "b": [part]})
    assert [(block.database, block.split) for block in compared.blocks] == [("mine", "all"), ("mine", "test")]
    against = compared.blocks[1].measured[0].against
    assert against is not None
    assert (against.one, against.other, against.items) == ("b", "a", 20)
    assert against.difference.value < 0
    with pytest.raises(DataError, match="two predictions are of one database"):
        compare_models({"a": [whole, replace(whole, split="test")]})


def test_few_items_have_no_figures_and_stop_no_table(tmp_path: Path) -> None:
    few = predict(items=3)
    folders = [folder(tmp_path / "a", few), folder(tmp_path / "b", replace(few, model=FACTS | {"model": "b"}))]
    files = [part for kind in ("html", "markdown", "csv", "latex") for part in (f"--{kind}", tmp_path / f"out.{kind}")]
    benchmark(*folders, *files)
    assert "too few" in (tmp_path / "out.markdown").read_text()


def test_names_cannot_break_a_table() -> None:
    found = predict("a|b", model="=x|50%_{\\[\n]")
    compared = compare_models({"=x|50%_{\\[\n]": [found], "[y": [predict("a|b", model="y")]})
    lines = [line for line in comparison_markdown(compared).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9, 4}  # the table, and that by domain
    assert r"\n" in comparison_markdown(compared)
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compared))))
    assert rows[0]["system"].startswith("'=x")  # what a spreadsheet would run
    text = comparison_latex(compared)
    assert r"=x|50\%\_\{\textbackslash{}{[}\textbackslash{}n] &" in text
    assert "\n{[}y &" in text  # after a line break, a bracket would be its argument
    assert markdown([(found, agreement(found))]).startswith(r"# =x\|50%")


def test_bad_requests_write_nothing(results: Path, tmp_path: Path) -> None:
    good, same = results / "good", tmp_path / "out"
    assert "one file cannot hold two" in benchmark(good, "--csv", same, "--latex", same, expect=2).output
    assert "is named twice" in benchmark(good, good, "--csv", same, expect=2).output
    assert "holds no predictions" in benchmark(tmp_path, "--csv", same, expect=2).output
    assert "folder does not exist" in benchmark(good, "--csv", tmp_path / "no" / "out", expect=2).output
    assert list(tmp_path.iterdir()) == []
