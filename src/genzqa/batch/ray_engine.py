"""The Ray engine: the same scoring in actors of a Ray cluster, by Ray Data, which feeds them and replaces those that die.

Each actor is a `LocalEngine` with decoding processes of its own, so that a bad file costs a row on a cluster, too. Inputs go
out in waves of some thousand: whatever a cluster loses, this process knows of each input of a wave whether it came back.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.exceptions

from genzqa import errors
from genzqa.batch.item import Item
from genzqa.batch.local import LocalEngine, place_of
from genzqa.engine.engine import EngineOptions
from genzqa.errors import ConfigError, GenzqaError, OutputError
from genzqa.limits import Limits

_SHARE = 5_000  # inputs sent out together for each actor: work of many minutes, since each wave starts its actors anew
_LARGEST_WAVE = 500_000  # whatever the cluster: this process holds them, some 200 bytes each
_BLOCK = 64  # inputs that an actor gets at once, and loses when it dies
_BLOCKS_EACH = 4  # of a small wave for each actor, so that all have work, and about the same, to its end
_WAVES = 3  # tries to get all of a wave back


class RayEngine:
    """Scores inputs on a Ray cluster.

    All nodes must see local inputs, and the model, at the same paths.

    Args:
        model: Name of the model that each actor loads.
        limits: What an input may be at most.
        address: Of a running cluster, ``auto`` for the one of this machine; None to start one on this machine.
        actors: How many score at the same time, None for as many as the cluster has cores for.
        cores: Of each actor.
        batch_size: Photos scored together.
        processes: That decode photos, for each actor.
        offline: Never open a connection to load the model.
        gpus: Of each actor; a part of one is allowed.
        options: How each actor runs the model.

    Raises:
        ConfigError: If there is no cluster at the address.
    """

    def __init__(self, model: str, limits: Limits, *, address: str | None, actors: int | None, cores: int,
                 batch_size: int, processes: int, offline: bool = False, gpus: float = 0,
                 options: EngineOptions | None = None) -> None:  # fmt: skip
        self._settings = (model, limits, batch_size, processes, offline, options)
        self._gpus, self._cores, self._batch_size = gpus, cores, batch_size
        self._started = not ray.is_initialized()
        if self._started:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
            # A cluster of our own works at this process's priority; Ray's default is 15 less, and any other work starves it.
            os.environ.setdefault("RAY_worker_niceness", "0")
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError) as error:
                raise ConfigError(f"no Ray cluster there: {error}", subject=address or "ray",
                                  hint="start one with: ray start --head") from error  # fmt: skip
        there = ray.cluster_resources()
        if gpus and there.get("GPU", 0) < gpus:
            raise ConfigError("the cluster has no GPU for an actor", subject="--actor-gpus", hint="score on its CPUs")
        fits = int(there.get("CPU", 1)) // cores
        self._actors = actors or max(1, min(fits, int(there["GPU"] / gpus)) if gpus else fits)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            ray.shutdown()

    def score(self, items: Iterable[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Each input with its JSON record, in any order.

        Raises:
            OutputError: If the cluster cannot give back a part of them.
            GenzqaError: What is not about one input: a damaged model.
        """
        source = iter(items)
        size = min(_LARGEST_WAVE, _SHARE * self._actors)
        while wave := list(islice(source, size)):
            missing = dict(enumerate(wave))
            for _ in range(_WAVES):
                for number, record in self._wave(missing):
                    if (item := missing.pop(number, None)) is not None:  # what a lost actor did may come twice
                        yield item, _named(item, record)
                if not missing:
                    break
            else:
                raise OutputError(f"the cluster did not give back {len(missing)} inputs", subject="ray",
                                  hint="start again; what is scored is kept")  # fmt: skip

    def _wave(self, items: dict[int, Item]) -> Iterator[tuple[int, dict[str, Any]]]:
        places = [place_of(item).encode("utf-8", "surrogateescape") for item in items.values()]
        table = pa.table({"number": pa.array(items, pa.int64()), "place": pa.array(places, pa.binary())})
        rows = block_rows(len(table), self._actors, self._batch_size)
        blocks = [table.slice(start, rows) for start in range(0, len(table), rows)]
        # All at once, for Ray would start with one and add others when it thinks that they are needed; but one is enough
        # to go on with, where a node is lost.
        wanted = min(self._actors, len(blocks))
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=wanted, initial_size=wanted)
        dataset = ray.data.from_arrow(blocks).map_batches(
            _Actor, fn_constructor_args=self._settings, batch_size=None, batch_format="pyarrow", num_cpus=self._cores,
            num_gpus=self._gpus or None, compute=pool,
        )  # fmt: skip
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                for row in batch.to_pylist():
                    yield row["number"], json.loads(row["record"])
        except ray.exceptions.RayError as error:
            raise _cause(error) from error


def block_rows(count: int, actors: int, batch_size: int) -> int:
    """How many of ``count`` inputs an actor gets at once: whole batches, and in a small wave some for every actor."""
    fair = -(-count // (actors * _BLOCKS_EACH))
    return max(1, min(_BLOCK, fair) // batch_size) * batch_size


def _named(item: Item, record: dict[str, Any]) -> dict[str, Any]:
    """A record of the cluster in the words of the user, who may have given a relative path."""
    named = {**record, "input": item.input}
    if "error" in named:
        named["error"] = {**named["error"], "file": item.input}
    return named


class _Actor:
    """One scorer of the cluster."""

    def __init__(self, model: str, limits: Limits, batch_size: int, processes: int, offline: bool,
                 options: EngineOptions | None) -> None:  # fmt: skip
        from genzqa.scoring.scorer import load_as

        scorer = load_as(model, options, limits=limits, offline=offline)
        self._engine = LocalEngine(scorer, model, limits, batch_size=batch_size, processes=processes, offline=offline,
                                   options=options)  # fmt: skip

    def __call__(self, batch: pa.Table) -> pa.Table:
        """A record, as JSON, for each place; in any order."""
        items = [Item(place.decode("utf-8", "surrogateescape")) for place in batch["place"].to_pylist()]
        number_of = {id(item): number for item, number in zip(items, batch["number"].to_pylist(), strict=True)}
        scored = [(number_of[id(item)], json.dumps(record)) for item, record in self._engine.score(items)]
        numbers, records = zip(*scored, strict=True)
        return pa.table({"number": pa.array(numbers, pa.int64()), "record": pa.array(records, pa.string())})


def _cause(error: BaseException) -> Exception:
    """What an actor raised, out of Ray's wrapping; of one that could not even start, Ray keeps the text alone."""

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, GenzqaError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    told = re.findall(r"^genzqa\.errors\.(\w+): (.+)$", str(error), re.MULTILINE)
    kind = getattr(errors, told[-1][0], None) if told else None
    if isinstance(kind, type) and issubclass(kind, GenzqaError):
        return kind(told[-1][1], hint="each node of the cluster must find the model")
    return OutputError(f"the cluster failed: {str(error).strip().splitlines()[-1]}", subject="ray",
                       hint="start again; what is scored is kept")  # fmt: skip
