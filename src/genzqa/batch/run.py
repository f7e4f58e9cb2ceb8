"""A run: list, skip what is done, score, write, tidy. The same for both engines."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genzqa.batch.inputs import SUFFIXES, Listing, normal_source
from genzqa.batch.item import Item
from genzqa.batch.known import Known
from genzqa.batch.plan import Plan, count_to_do, read_ahead
from genzqa.batch.records import row_of
from genzqa.batch.store import Store, read_manifest
from genzqa.errors import ConfigError

if TYPE_CHECKING:
    from genzqa.result import Provenance
    from genzqa.scoring.scorer import Scorer

_AHEAD = 256  # inputs that the listing may be ahead of scoring


class Engine(Protocol):
    """Whatever turns inputs into records, in any order, each exactly once."""

    def score(self, items: Iterable[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Each input with its JSON record."""


class Shown(Protocol):
    """Whatever shows how far a run is."""

    def total(self, count: int) -> None:
        """So many inputs are to be scored; said once, perhaps late."""

    def advance(self) -> None:
        """One more has its record."""


@dataclass(frozen=True)
class Summary:
    """What a run has done.

    Attributes:
        scored, failed: Inputs of this run.
        unchanged: Inputs whose rows of earlier runs still hold.
        removed: Rows of inputs that are not listed any more.
        rows, failed_rows: In the folder at its end.
        complete: False if something could not be listed.
        seconds: Since scoring began.
    """

    scored: int
    failed: int
    unchanged: int
    removed: int
    rows: int
    failed_rows: int
    complete: bool
    seconds: float


def identity_of(scorer: Scorer) -> tuple[Provenance, str]:
    """What all rows of this model have in common, and a digest of all that its scores depend on besides the input.

    The release of genzqa is not in the digest: a new one alone does not score millions of files again.
    """
    facts = dataclasses.replace(
        scorer.provenance, version="", backend=""
    )  # a backend rounds otherwise, in the last digits
    return scorer.provenance, hashlib.sha256(f"{facts} {scorer.config.model_dump_json()}".encode()).hexdigest()


def run_batch(engine: Engine, sources: Sequence[str], out: Path, provenance: Provenance, scored_by: str, *,
              column: str = "path", http: bool = False, hash_content: bool = False, engine_name: str = "local",
              warn: Callable[[str], object] = lambda _: None,
              shown: AbstractContextManager[Shown] | None = None) -> Summary:  # fmt: skip
    """Bring a folder of scores up to date with its sources.

    Args:
        engine: Scores.
        sources: See `Listing`.
        out: The folder.
        provenance, scored_by: Of the engine's model, from `identity_of`.
        column, http: See `Listing`.
        hash_content: Whether the content of an input is part of its identity.
        engine_name: For the manifest.
        warn: Called with a line for the user.
        shown: Shows how far it is.

    Raises:
        ConfigError: If sources are wrong or empty, or the folder belongs to other sources or is in use.
        OutputError: If the folder cannot be written; what it holds by then is valid, and another run goes on from there.
    """
    listing = Listing(sources, column=column, http=http, warn=warn)
    with Store(out, scored_by) as store:
        started = time.perf_counter()
        named = sorted({normal_source(source) for source in sources})
        check_sources(out, named)
        facts: dict[str, Any] = {
            "state": "running",
            "sources": named,
            "options": {"engine": engine_name, "hash": hash_content, "column": column},
            "model": dataclasses.asdict(provenance),
            "scored_by": scored_by,
        }
        known = store.known()
        store.write_manifest(facts)
        plan = Plan(listing, known, hash_content=hash_content)
        ahead = Listing(sources, column=column, http=http)
        scored = failed = 0
        with (
            shown or nullcontext(_Silent()) as display,
            _counting(ahead, known, display.total),
            closing(read_ahead(plan, _AHEAD)) as items,
        ):
            for item, record in engine.score(items):
                store.add(row_of(item, record))
                good = record["status"] == "ok"
                scored, failed = scored + good, failed + (not good)
                display.advance()
        if not plan.listed:
            raise ConfigError("no photos or videos found", subject=", ".join(sources),
                              hint=f"folders are searched for {' '.join(SUFFIXES)}; other files must be named")  # fmt: skip
        removed = store.tidy(known, complete=listing.complete)
        store.write_manifest(facts | {"state": "complete" if listing.complete else "incomplete"})
        return Summary(scored, failed, plan.unchanged, removed, store.rows, store.failed, listing.complete,
                       time.perf_counter() - started)  # fmt: skip


def check_sources(out: Path, sources: Sequence[str]) -> None:
    """Refuse to bring a folder up to date with other sources than before: rows would be removed that nobody meant.

    Raises:
        ConfigError: If a source of the last run is not among these.
        DataError: If the manifest is none of ours.
    """
    before = (read_manifest(out) or {}).get("sources", [])
    if lost := [source for source in before if source not in sources]:
        raise ConfigError(f"holds scores of {', '.join(lost)}, which is not among the sources now", subject=str(out),
                          hint="name it too, or another folder with --out")  # fmt: skip


class _Silent:
    def total(self, count: int) -> None:
        pass

    def advance(self) -> None:
        pass


@contextmanager
def _counting(listing: Listing, known: Known, tell: Callable[[int], object]) -> Iterator[None]:
    """Count in the background what is to be done, for the time that is left."""
    stop = threading.Event()

    def run() -> None:
        with suppress(ConfigError):  # the run meets it too, and says so
            count = count_to_do(listing, known, stop)
            if not stop.is_set():
                tell(count)

    thread = threading.Thread(target=run, name="genzqa-count", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
