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
from genzqa.training.mini.degradations import DEGRADATIONS, graded_target
from genzqa.training.mini.latents import open_latents
from genzqa.training.mini.losses import score_losses
from genzqa.training.mini.opinions import heads_say, opinions
from genzqa.training.mini.photos import KINDS, Copies, make_group, open_biq2021
from genzqa.training.mini.plan import MiniPlan, read_mini_plan
from genzqa.training.mini.run import Recipe
from recipes import miniature_biq2021, random_encoder

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "configs" / "mini.yaml"
PHOTO = ROOT / "examples" / "photos" / "parrots.jpg"
PART = {"steps": 1, "clean": 2, "pairs": 1, "rate": 1e-3, "as_scored": 0, "order": 1, "check_every": 1}


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
    """The committed plan with three steps a part, and three parts: one after the other, and one taught by both and the heads."""
    plan = yaml.safe_load(PLAN.read_text())
    plan["encoder"] = {"directions": 4, "photos": 4}
    plan["latents"] |= {"biq2021_groups": 3, "biq2021_singles": 5, "pristine_groups": 2}
    part = plan["denoiser"][0] | {"steps": 3, "clean": 5, "pairs": 1, "check_every": 1, "precision": "fp32"}
    plan["denoiser"] = [part, part | {"anew": True}, part | {"taught": True}]
    plan["heads"] = {"count": 2, "steps": 3, "clean": 5, "pairs": 1, "rate": 1e-3, "order": 4.0}
    plan["readout"] = {"epochs": 2, "clean": 3, "pairs": 1, "rate": 1e-3, "weight_decay": 0.05, "order": 4.0}
    plan["scorer"]["preprocessing"]["size"] = 64
    plan["validation"] = 8
    path = tmp_path_factory.mktemp("plan") / "tiny.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def run(plan: Path, database: Path, pristine: Path | None, out: Path, stop_at: str = "") -> list[str]:
    """What is said; ends as if killed when a step of a stage that begins so is over."""
    said: list[str] = []

    def progress(step: int, steps: int, figures: dict[str, float]) -> None:
        if stop_at and said[-1].startswith(stop_at) and step == 2:
            raise KeyboardInterrupt

    Recipe(read_mini_plan(plan), database, pristine, out, random_encoder).run(said.append, progress)
    return said


@pytest.fixture(scope="module")
def finished(tiny: Path, database: Path, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    said = run(tiny, database, pristine, out)
    parts = [f"denoiser, part {number}" for number in (1, 2, 3)]
    assert said == ["encoder", "latents", "heads", *parts, "readout", "calibration"]
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
    before, state = (load_file(finished / f"{name}.safetensors") for name in ("denoiser.2", "scorer"))
    assert all(value.isfinite().all() for value in state.values())
    changed = {name.split(".")[1] for name in state if not torch.equal(state[name], before[name])}
    assert changed >= {"unet", "prompts", "readout"}
    frozen = [name for name in state if name.startswith("model.vae.")]
    assert frozen
    for name in (*frozen, "model.prompts.text_encoder.embeddings.token_embedding.weight"):
        assert torch.equal(state[name], before[name])
    adapter = finished / "model" / "adapter"
    scorer = genzqa.load(f"local-dir:{adapter}")
    result = scorer.score(PHOTO)
    assert isinstance(result, genzqa.ImageResult)
    assert 0 <= result.score <= 100
    assert result.interval[0] <= result.score <= result.interval[1]


def test_a_finished_model_does_not_say_where_it_was_made(finished: Path) -> None:
    embedded = ROOT / "src" / "genzqa" / "embedded" / "mini"
    for folder in (finished / "model", embedded):
        configs = list(folder.rglob("*.json"))
        assert folder / "base" / "vae" / "config.json" in configs
        assert not any(str(finished) in config.read_text() for config in configs)
        assert "_name_or_path" not in json.loads((folder / "base" / "vae" / "config.json").read_text())


def test_latents_are_those_the_finished_model_makes(finished: Path, tiny: Path, database: Path) -> None:
    from genzqa.model.adapter import load_scorer
    from genzqa.training.mini.export import as_pixels

    plan = read_mini_plan(tiny)
    photos = open_biq2021(database, finished, plan.validation, plan.seed)
    model = load_scorer(f"local-dir:{finished / 'model' / 'adapter'}").model
    with torch.no_grad():
        wanted = model.encode(as_pixels(photos, photos.indices("validation"), 64))
    found = torch.from_numpy(np.load(finished / "validation.npy")).float()
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=5e-3)


def test_a_finished_recipe_is_not_made_again(finished: Path, tiny: Path, database: Path, pristine: Path) -> None:
    before = (finished / "model" / "adapter" / "adapter.safetensors").read_bytes()
    assert run(tiny, database, pristine, finished) == ["calibration"]
    assert (finished / "model" / "adapter" / "adapter.safetensors").read_bytes() == before


def test_without_a_readout_at_the_end_the_last_part_is_the_model(
    finished: Path, tiny: Path, database: Path, pristine: Path, tmp_path: Path
) -> None:
    plan = yaml.safe_load(tiny.read_text())
    del plan["readout"]
    path, out = tmp_path / "plan.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(plan))
    shutil.copytree(finished, out)
    for name in ("plan.json", "scorer.safetensors", "readout.json"):
        (out / name).unlink()
    assert run(path, database, pristine, out) == ["calibration"]
    assert not (out / "readout.json").exists()
    last, model = (load_file(out / f"{name}.safetensors") for name in ("denoiser.3", "scorer"))
    assert [name for name in model if not torch.equal(last[name], model[name])] == []
    refitted = load_file(finished / "scorer.safetensors")
    assert any(not torch.equal(refitted[name], model[name]) for name in model if "readout" in name)


def test_stopped_anywhere_it_goes_on_as_if_it_had_not_been(
    finished: Path, tiny: Path, database: Path, pristine: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        run(tiny, database, pristine, out, stop_at="latents")
    shards = {path.name: path.stat().st_mtime_ns for path in (out / "latents").glob("*.npz")}
    assert shards
    for stage in ("heads", *(f"denoiser, part {number}" for number in (1, 2, 3))):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, database, pristine, out, stop_at=stage)
        assert stage == "heads" or list(out.glob("*.state"))  # of the step before the one that was lost
    assert all((out / "latents" / name).stat().st_mtime_ns == made for name, made in shards.items())
    assert run(tiny, database, pristine, out) == ["denoiser, part 3", "readout", "calibration"]
    assert not list(out.glob("*.state"))
    last, wanted = (load_file(folder / "scorer.safetensors") for folder in (out, finished))
    assert [name for name in wanted if not torch.equal(last[name], wanted[name])] == []


def test_another_plan_in_the_same_folder_is_refused(
    finished: Path, tiny: Path, database: Path, pristine: Path, tmp_path: Path
) -> None:
    other = yaml.safe_load(tiny.read_text()) | {"seed": 1}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises(TrainingError, match="another plan"):
        run(tmp_path / "other.yaml", database, pristine, finished)


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
    ({"denoiser": []}, "denoiser"),
    ({"denoiser": [PART]}, "heads teach"),
    ({"denoiser": [PART | {"taught": True}], "heads": None}, "nobody"),
    ({"teachers": {}}, "teachers"),
    ({"encoder": {"directions": 8}}, "encoder.photos"),
    ({"denoiser": [PART | {"pairs": 2}]}, "fewer"),
    ({"data": ["biq2021"]}, "data"),
])  # fmt: skip
def test_a_wrong_field_is_named(change: dict, message: str, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(yaml.safe_load(tiny.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        read_mini_plan(tmp_path / "wrong.yaml")


def test_the_command(
    tiny: Path, database: Path, pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genzqa.training.mini import encoder as module

    data = ["--data", f"biq2021={database}", "--data", f"pristine={pristine}"]
    arguments = ["train", "--config", str(tiny), "--out", str(tmp_path / "out")]
    for wrong in (data[2:], [*data, "--data", f"csv={database}"]):
        lacking = CliRunner().invoke(app, [*arguments, *wrong])
        assert lacking.exit_code == 2
        assert "--data biq2021=DIR" in lacking.output
    elsewhere = CliRunner().invoke(app, [*arguments, *data, "--cache", str(tmp_path / "cache")])
    assert elsewhere.exit_code == 2
    assert "--cache" in elsewhere.output
    monkeypatch.setattr(module, "NEEDED", ("no_such_network",))
    bare = CliRunner().invoke(app, [*arguments, *data])
    assert bare.exit_code == 2
    assert "genzqa[train,recipe]" in bare.output
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module, "NEEDED", ())
    outlined = CliRunner().invoke(app, [*arguments, *data, "--dry-run"])
    assert outlined.exit_code == 0, outlined.output
    assert "heads: 2 of 3 steps" in outlined.output
    assert "denoiser, part 2: 3 steps of 7 views\n" in outlined.output
    assert "denoiser, part 3: 3 steps of 7 views, taught by what is before it\n" in outlined.output
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


def test_standardised_a_readout_sees_everything_vary_alike_and_says_the_same(finished: Path, tiny: Path) -> None:
    from genzqa.training.mini.readout import SPREAD, captured, standardise
    from genzqa.training.mini.run import new_scorer

    torch.manual_seed(1)
    model, latents = new_scorer(read_mini_plan(tiny), finished).eval(), open_latents(finished / "latents")
    rows = latents.rows(np.arange(len(latents)))
    assert model.readout is not None
    with torch.no_grad():
        seen = captured(model, iter([rows]))
        said = model.readout.score(model.readout.hidden(seen))
        shift, scale = standardise(model.readout, seen, keep=True)
        again = captured(model, iter([rows]))
        torch.testing.assert_close(again, (seen - shift) / scale, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(model.readout.score(model.readout.hidden(again)), said, atol=1e-4, rtol=1e-3)
    varying = seen.std((0, 1)) > 0.05
    varying[0] = False  # the bias has no norm
    for at, one in enumerate(shift.tolist()):
        varying[at] &= one != 0  # nor have the means of layers
    torch.testing.assert_close(
        again.std((0, 1))[varying], torch.full((int(varying.sum()),), SPREAD), atol=1e-3, rtol=1e-2
    )


def test_latents_hold_what_was_asked_for_and_every_row_is_drawn(finished: Path) -> None:
    latents = open_latents(finished / "latents")
    assert len(latents) == 3 * 5 + 5
    assert latents.groups == 5
    triples = latents.share[:15].view(5, 3)
    assert (triples[:, 0] == 1).all()
    assert (triples.diff(dim=1) < 0).all()  # photo, mild copy, strong copy
    assert (latents.kind[:15].view(5, 3)[:, 0] == 0).all()
    assert (latents.kind[15:] == 0).all()
    assert latents.mos[:9].isfinite().all()
    assert latents.mos[9:15].isnan().all()  # pristine photos, which nobody has scored
    assert latents.rows(np.arange(20)).shape == (20, 8, 2, 2)
    drawn = list(latents.draws(clean=4, pairs=2, seed=0, steps=9))
    for rows in drawn:
        assert (rows[:2] % 3 == 0).all()
        np.testing.assert_array_equal(rows[4:], (rows[:2, None] + [1, 2]).ravel())
    assert {int(row) for rows in drawn for row in rows} == set(range(20))
    photos = np.flatnonzero((latents.kind == 0).numpy())
    assert {int(row) for rows in drawn for row in rows[2:4]} == set(
        photos
    )  # those with copies are shown as often as others
    told = latents.scored_by(opinions(latents))
    assert torch.equal(told.mos[:9], latents.mos[:9])
    assert told.mos.isfinite().all()
    batch = told.batch(drawn[0], 4, 2)
    ladder = torch.cat([batch.target[:2, None], batch.target[4:].view(2, 2)], 1)
    assert (ladder.diff(dim=1) < 0).all()


def test_what_is_taught_aims_at_its_teachers_and_not_at_the_mos(finished: Path, tiny: Path) -> None:
    """The mean of the heads and of the parts before is what the last part learns, of copies too."""
    plan = read_mini_plan(tiny)
    latents = open_latents(finished / "latents")
    said = [np.load(finished / name) for name in ("heads.npy", "denoiser.1.said.npy", "denoiser.2.said.npy")]
    assert all(one.shape == (len(latents),) and one.std() > 0 for one in said)
    first, second = (load_file(finished / f"denoiser.{number}.safetensors") for number in (1, 2))
    assert any(not torch.equal(first[name], second[name]) for name in first if "unet" in name)
    opinion = torch.from_numpy(np.mean(said, 0))
    taught = latents.taught_by(opinion)
    rows = next(iter(latents.draws(clean=3, pairs=1, steps=1, seed=plan.seed)))
    batch = taught.batch(rows, 3, 1)
    assert batch.taught is not None
    torch.testing.assert_close(batch.taught, opinion[rows])
    assert (
        batch.target[:1] > batch.target[3]
    ).all()  # the ladder that is owed begins at what teachers say of the photo
    torch.testing.assert_close(batch.target[:3], opinion[rows[:3]])
    losses = score_losses(opinion[rows], batch)
    assert losses["taught"] == 0
    assert "mos" not in losses
    assert score_losses(opinion[rows] + 5, batch)["taught"].item() == pytest.approx(0.25, rel=1e-4)


def test_a_head_whose_loss_is_not_finite_stops_the_recipe(finished: Path, tiny: Path) -> None:
    latents, part = open_latents(finished / "latents"), read_mini_plan(tiny).heads
    assert part is not None
    with pytest.raises(TrainingError, match="nan at step"):
        heads_say(latents.scored_by(torch.full((len(latents),), torch.nan)), part, 0)


def test_a_group_is_the_photo_as_scoring_sees_it_and_two_worse_copies() -> None:
    from genzqa.media.preprocess import resize_square

    with Image.open(PHOTO) as image:
        photo = np.asarray(image.resize((512, 512)))
    copies, rng = Copies(kinds=("jpeg", "noise"), mildest=0.2, reach=0.3), np.random.default_rng(3)
    plain = 0
    for _ in range(12):
        pixels, share, kind, strength = make_group(photo, copies, 64, rng)
        assert pixels.shape == (3, 64, 64, 3)
        plain += any(np.array_equal(pixels[0], resize_square(one, 64)) for one in (photo, photo[:, ::-1]))
        assert share[0] == 1 > share[1] > share[2] > 0
        assert kind[0] == 0
        assert kind[1] == kind[2]
        assert KINDS[kind[1] - 1] in ("jpeg", "noise")
        assert strength[1] <= 0.2
        assert 0.04 < strength[2] - strength[1] <= 0.301
    assert 4 <= plain < 12  # some have a grain of their own
    assert len(make_group(photo, None, 64, rng)[0]) == 1


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
