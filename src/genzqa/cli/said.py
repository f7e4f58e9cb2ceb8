"""What training programs say while they work: plain lines, or a bar on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Said:
    """What the program says while it trains: plain lines on stderr, at most one in two seconds.

    Args:
        first: What is made before training, of which inputs, and the verb: ``("latents", "photo", "encoded")``.
        quiet: Say nothing: another process does.
    """

    def __init__(self, first: tuple[str, str, str], *, quiet: bool) -> None:
        self._made, self._noun, self._verb = first
        self._quiet, self._last = quiet, 0.0

    def line(self, text: str) -> None:
        """Say something that stays."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def encoded(self, done: int, total: int) -> None:
        """Say how far what comes before training has got."""
        if self._due() or done == total:
            self.line(f"{self._made}: {done} of {total} {self._noun}s {self._verb}")

    def step(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """Say how far training has got, and its latest figures."""
        if self._due() or "validation_srcc" in figures:
            self.line(f"step {step} of {steps}: {_listed(figures)}")

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last < 2:
            return False
        self._last = now
        return True


class Drawn(Said):
    """On a terminal: a bar with the time left; what stays are the lines of epochs."""

    def __init__(self, first: tuple[str, str, str], bars: Progress) -> None:
        super().__init__(first, quiet=False)
        self._bars = bars
        self._task = bars.add_task("", total=None, visible=False)

    def line(self, text: str) -> None:
        """Above the bar."""
        self._bars.console.print(text, markup=False, highlight=False)

    def encoded(self, done: int, total: int) -> None:
        """As a bar."""
        self._bars.update(
            self._task, description=f"{self._noun}s {self._verb}", completed=done, total=total, visible=done < total
        )

    def step(self, step: int, steps: int, figures: Mapping[str, float]) -> None:
        """As a bar; validation figures stay."""
        if "validation_srcc" in figures:
            self.line(f"step {step} of {steps}: {_listed(figures)}")
            return
        self._bars.update(self._task, description=_listed(figures), completed=step, total=steps, visible=step < steps)


@contextmanager
def saying(first: tuple[str, str, str], *, quiet: bool = False) -> Iterator[Said]:
    """A `Said` for as long as the block lasts; on a terminal it draws."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Said(first, quiet=quiet)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        yield Drawn(first, bars)


def _listed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
