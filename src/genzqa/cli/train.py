"""``genzqa train`` and ``genzqa adapt``.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genzqa.allocator import keep_freed_memory
from genzqa.cli.said import saying

if TYPE_CHECKING:
    from genzqa.cli.said import Said
    from genzqa.databases.database import Samples
    from genzqa.training.estimate import Estimate
    from genzqa.training.plan import TrainingPlan
    from genzqa.training.setup import Shares
    from genzqa.training.trainer import Trainer

ConfigFile = Annotated[Path, typer.Option("--config", metavar="FILE", help="The plan, a YAML file; see configs/.")]
Data = Annotated[
    list[str], typer.Option("--data", metavar="NAME=PATH", help="A database of the plan; repeat for more.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where checkpoint, log and the finished adapter are written.")]
RunOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Where checkpoint, log and the finished adapter are written [default: runs/NAME for NAME.yaml].",
    ),
]
Cache = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where latents and motion features are kept [default: OUT/latents].")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Try a little of it, say what it would take, and stop.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection.")]
Start = Annotated[str, typer.Option("--model", help="The model to tune: mini, or local-dir:FOLDER.")]
Csv = Annotated[Path, typer.Option(metavar="FILE", help="Your scores: path,mos[,std][,split][,group][,domain].")]
Range = Annotated[
    tuple[float, float] | None,
    typer.Option("--range", metavar="LOW HIGH", help="Ends of your scale [default: your scores']."),
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the photos; the best is kept.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random choice.")]


def train_command(
    config: ConfigFile,
    data: Data,
    out: RunOut = None,
    cache: Cache = None,
    dry_run: DryRun = False,
    offline: Offline = False,
) -> None:
    """Train GenzIQA on photos, or GenzVQA on videos, with human scores. Started again, it goes on where it stopped.

    What is left in --out is an adapter: genzqa score --model local-dir:DIR. For several processes, accelerate launch
    "$(which genzqa)" train ... The plan of the embedded model's recipe, configs/mini.yaml, trains from nothing.
    """
    from genzqa.databases.registry import open_database
    from genzqa.errors import ConfigError
    from genzqa.training.plan import names_recipe, read_plan

    keep_freed_memory(training=True)
    recipe = names_recipe(config)
    out = out or Path("runs") / config.stem
    if recipe:
        if cache is not None:
            raise ConfigError("a recipe keeps all it makes in --out", subject="--cache", hint="leave it out")
        _follow_recipe(config, data, out, dry_run=dry_run)
        return
    plan = read_plan(config)
    _train(
        plan, [open_database(spec) for spec in data], out, cache or out / "latents", dry_run=dry_run, offline=offline
    )


def adapt_command(
    csv: Csv,
    out: Out,
    model: Start = "mini",
    scale: Range = None,
    epochs: Epochs = 10,
    seed: Seed = 0,
    cache: Cache = None,
    offline: Offline = False,
) -> None:
    """Tune a model to your own scores of photos, or of videos: prompts and LoRA only (and, for videos, the temporal part);
    minutes for a few hundred photos.

    A quarter of them (or those marked split=validation) is set aside to choose the epoch and to fit the calibration.
    """
    import dataclasses

    from genzqa.databases.table import read_table
    from genzqa.errors import ConfigError
    from genzqa.model.adapter import load_scorer
    from genzqa.training.plan import TrainingPlan

    keep_freed_memory(training=True)
    samples = read_table("mine", csv)
    if scale is not None:
        if not scale[0] < scale[1]:
            raise ConfigError("the lower end must come first", subject=f"--range {scale[0]:g} {scale[1]:g}")
        samples = dataclasses.replace(
            samples, database=dataclasses.replace(samples.database, mos_range=scale, range_known=True)
        )
    start = load_scorer(model, offline=offline).config
    parts: list[Any] = ["context", "lora"]
    video = None
    if samples.database.kind == "video":
        if start.video is None:
            raise ConfigError("this model has no temporal part to tune", subject=model, hint="start from mini")
        video, parts = start.video.model_copy(update={"calibration": None}), [*parts, "tqm"]
    scorer = start.model_copy(
        update={"name": out.name, "lora_rank": start.lora_rank or 4, "calibration": None, "video": video}
    )
    frames = video.frames if video else 12
    plan = TrainingPlan(scorer=scorer, data=["mine"], start=model, train=parts, epochs=epochs, frames=frames, learning_rate=1e-3,
                        gradient_accumulation=4 if video else 1, seed=seed, flips=False)  # fmt: skip
    _train(plan, [samples], out, cache or out / "latents", shares=(0.75, 0.25, 0.0), offline=offline)


def _follow_recipe(config: Path, data: list[str], out: Path, *, dry_run: bool) -> None:
    from genzqa.databases.registry import name_and_path
    from genzqa.errors import ConfigError
    from genzqa.training.mini.plan import read_mini_plan

    plan = read_mini_plan(config)
    given = dict(name_and_path(spec) for spec in data)
    if "biq2021" not in given or set(given) - set(plan.data):
        raise ConfigError(
            "needs --data biq2021=DIR, and takes --data pristine=DIR beside it and nothing else", subject=str(config)
        )
    from genzqa.training.mini.run import Recipe

    recipe = Recipe(plan, given["biq2021"], given.get("pristine"), out)
    with saying(("", "", "")) as said:
        if "pristine" not in given:
            said.line(
                "no --data pristine: the best-scored training photos stand in for photos that no codec has touched"
            )
        if dry_run:
            for line in recipe.outline():
                said.line(line)
            return
        adapter = recipe.run(said.line, said.step)
        said.line(f"score with it: genzqa score --model local-dir:{adapter} PHOTO")


def _train(plan: TrainingPlan, databases: list[Samples], out: Path, cache: Path, *, shares: Shares = (0.7, 0.1, 0.2),
           dry_run: bool = False, offline: bool = False) -> None:  # fmt: skip
    from genzqa.errors import ConfigError

    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ConfigError("training needs accelerate", subject="train", hint="pip install 'genzqa[train]'") from error
    from genzqa.training.estimate import rehearsal
    from genzqa.training.setup import prepare

    accelerator = Accelerator(mixed_precision="bf16" if plan.precision == "bf16" else "no")
    noun = "photo" if plan.scorer.video is None else "video"
    with saying(("latents", noun, "encoded"), quiet=not accelerator.is_main_process) as said:
        if dry_run:
            with rehearsal(plan, databases, cache, accelerator, shares=shares, offline=offline) as tried:
                _tell(said, noun, tried.trainer, tried.validation)
                for line in _told(tried.measure(), noun, cache, str(accelerator.device)):
                    said.line(line)
            return
        trainer, base_sha256 = prepare(plan, databases, out, cache, accelerator, shares=shares, offline=offline,
                                       encoded=said.encoded, progress=said.step)  # fmt: skip
        _tell(said, noun, trainer, len(trainer.task.validation.mos))
        position = trainer.run()
        trainer.finish(plan.data, base_sha256)
        said.line(
            f"best of {plan.epochs} epochs: {(position.best_epoch or 0) + 1}, validation SRCC {position.best_srcc:.3f}"
        )
        if trainer.task.coverage is not None:
            said.line(
                f"95 % interval: holds {trainer.task.coverage:.0%} of the validation {noun}s, each calibrated by the others"
            )
        said.line(f"score with it: genzqa score --model local-dir:{out} {noun.upper()}")


def _tell(said: Said, noun: str, trainer: Trainer, validation: int) -> None:
    said.line(f"{noun}s: {len(trainer.task.train.mos)} to train on, {validation} for validation")
    said.line(f"steps: {trainer.batches} of {trainer.batch_size} {noun}s an epoch, {trainer.steps} in all")
    said.line(f"trained parameters: {sum(value.numel() for value in trainer.parameters.values()):,}")


def _told(taken: Estimate, noun: str, cache: Path, device: str) -> list[str]:
    """What a dry run says, line by line."""
    many = f"{taken.processes} processes, each" if taken.processes > 1 else "1 process,"
    twice = "; each step runs the network twice, first for the scores of the whole batch" if taken.twice else ""
    encoded = sum(taken.unencoded) == 0
    return [
        f"{many} on {device}{twice}",
        f"memory: {_size(taken.memory)} at most",
        f"disk for caches: {_size(taken.disk)} in {cache}",
        f"encoding: all is in {cache}" if encoded else
        f"encoding: {_duration(taken.encoding)}, {_duration(taken.encoding_of_one[0])} a {noun} to train on",
        f"training: {_duration(taken.training)}, {taken.step:.1f} s a step",
        f"validation: {_duration(taken.validation)}, {_duration(taken.validation_pass)} after each epoch and once at the end",
        f"in all: about {_duration(taken.total)}",
    ]  # fmt: skip


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _size(count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
