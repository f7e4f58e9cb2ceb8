"""``genzqa batch``: folders of millions of photos and videos into a folder of Parquet files."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from genzqa.cli.running import Backend, BackendOption, DeviceOption, Precision, PrecisionOption
from genzqa.cli.score import BatchSize, MaxMegapixels, Model, Offline
from genzqa.errors import ConfigError
from genzqa.limits import DEFAULT_LIMITS, MEGAPIXEL, Limits
from genzqa.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from genzqa.batch.ray_engine import RayEngine
    from genzqa.batch.run import Shown

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Folders, patterns, list files (.txt, a path a line), Parquet files with a column of paths, single files, "
        "and addresses such as s3://bucket/photos.",
    ),
]
Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of the scores; the same again goes on where it stopped.")
]
Hash = Annotated[bool, typer.Option("--hash", help="Tell changed files by their content, too; reads every file.")]
Column = Annotated[str, typer.Option(help="Which column of a Parquet file has the paths.")]
Http = Annotated[bool, typer.Option("--http", help="Fetch http:// and https:// addresses.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Processes that decode photos [default: half the cores].")]

EngineName = Annotated[Literal["local", "ray"], typer.Option(help="Score in this process, or on a Ray cluster.")]
Address = Annotated[str | None, typer.Option(help="Of a running Ray cluster, or auto [default: one on this machine].")]
Actors = Annotated[int | None, typer.Option(min=1, help="Models on the Ray cluster [default: as many as fit].")]
ActorCores = Annotated[int, typer.Option(min=1, help="Cores of each of them.")]
ActorGpus = Annotated[float, typer.Option(min=0, help="GPUs of each of them; a part of one is allowed.")]

_LINE_SECONDS = 30.0  # between progress lines where there is no terminal


def batch_command(
    sources: Sources,
    out: Out,
    model: Model = "mini",
    hash_content: Hash = False,
    column: Column = "path",
    http: Http = False,
    batch_size: BatchSize = 16,
    processes: Processes = None,
    engine: EngineName = "local",
    address: Address = None,
    actors: Actors = None,
    actor_cores: ActorCores = 1,
    actor_gpus: ActorGpus = 0.0,
    backend: BackendOption = Backend.torch,
    precision: PrecisionOption = Precision.fp32,
    device: DeviceOption = "auto",
    offline: Offline = False,
    max_megapixels: MaxMegapixels = DEFAULT_LIMITS.max_pixels / MEGAPIXEL,
) -> None:
    """Score any number of photos and videos into Parquet files, one row per input; go on where an earlier run stopped.

    Exit status: 0 all scored, 1 some failed, 2 usage, model or output error.
    """
    need_batch_libraries()
    if engine == "ray":
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("this needs ray, which is not installed", subject="batch",
                              hint='install it with: pip install "genzqa[ray]"')  # fmt: skip
    elif address or actors or actor_gpus:
        option = "--address" if address else "--actors" if actors else "--actor-gpus"
        raise ConfigError("is for --engine ray", subject=option)
    from genzqa.batch.inputs import Listing
    from genzqa.batch.local import LocalEngine, default_processes
    from genzqa.batch.run import identity_of, run_batch

    Listing(sources, http=http)  # a wrong source is found before the model is loaded
    limits = Limits(max_pixels=round(max_megapixels * MEGAPIXEL))
    from genzqa.engine.engine import EngineOptions
    from genzqa.scoring.scorer import load_as

    options = EngineOptions(backend.value, precision.value, device)
    scorer = load_as(model, options, limits=limits, offline=offline)
    made: LocalEngine | RayEngine
    if engine == "ray":
        from genzqa.batch.ray_engine import RayEngine

        made = RayEngine(model, limits, address=address, actors=actors, cores=actor_cores, batch_size=batch_size,
                         processes=processes or 1, offline=offline, gpus=actor_gpus, options=options)  # fmt: skip
    else:
        made = LocalEngine(scorer, model, limits, batch_size=batch_size, processes=processes or default_processes(),
                           offline=offline, options=options)  # fmt: skip
    with made:
        done = run_batch(made, sources, out, *identity_of(scorer), column=column, http=http, hash_content=hash_content,
                         engine_name=engine, warn=_warn, shown=_progress())  # fmt: skip
    rate = f", {(done.scored + done.failed) / done.seconds:.2f} a second" if done.scored + done.failed else ""
    typer.echo(f"{done.scored} scored, {done.failed} failed, {done.unchanged} unchanged, {done.removed} removed, "
               f"{done.seconds:.1f} seconds{rate}", err=True)  # fmt: skip
    typer.echo(f"{printable(str(out))}: {done.rows} rows, {done.failed_rows} of them errors", err=True)
    if done.failed_rows or not done.complete:
        raise typer.Exit(1)


def need_batch_libraries() -> None:
    """Raise `ConfigError` if the libraries for folders of scores are not installed."""
    for library in ("pyarrow", "fsspec"):
        if importlib.util.find_spec(library) is None:
            raise ConfigError(f"this needs {library}, which is not installed", subject="batch",
                              hint='install it with: pip install "genzqa[batch]"')  # fmt: skip


class _Lines:
    """Plain lines on stderr, for logs: one every half minute."""

    def __init__(self) -> None:
        self._begun = self._shown = time.monotonic()
        self._done, self._total = 0, 0

    def total(self, count: int) -> None:
        self._total = count

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._shown < _LINE_SECONDS:
            return
        self._shown = now
        rate = self._done / (now - self._begun)
        left = f", {_duration((self._total - self._done) / rate)} left" if self._total >= self._done else ""
        of = f" of {self._total}" if self._total else ""
        print(f"{self._done}{of} done, {rate:.2f} a second{left}", file=sys.stderr, flush=True)


class _Bar:
    """A bar with throughput and the time left, once it is known how much there is to do."""

    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self._task = drawn.add_task("inputs", total=None, rate="")
        self._begun, self._done = time.monotonic(), 0

    def total(self, count: int) -> None:
        self._drawn.update(self._task, total=count)

    def advance(self) -> None:
        self._done += 1
        rate = self._done / max(1e-9, time.monotonic() - self._begun)
        self._drawn.update(self._task, completed=self._done, rate=f"{rate:.2f}/s")


@contextmanager
def _progress() -> Iterator[Shown]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as drawn:
        yield _Bar(drawn)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _warn(line: str) -> None:
    typer.echo(f"warning: {printable(line)}", err=True)
