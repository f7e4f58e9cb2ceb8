"""``genzqa data list`` and ``genzqa data check NAME=PATH``.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.text import printable

if TYPE_CHECKING:
    from genzqa.databases.check import Findings
    from genzqa.databases.database import Database

data_app = typer.Typer(help="Databases of human scores.", no_args_is_help=True, rich_markup_mode=None)

Specs = Annotated[
    list[str], typer.Argument(metavar="NAME=PATH", help="A database's folder, or a CSV file of one's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

_SHOWN = 10  # faults of a kind; all of them stand in the JSON document


@data_app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the databases that can be read: kind, items, range of the scores and domains. --json adds licence, citation, and
    where to ask for them."""
    from genzqa.databases.registry import NAMES, database

    found = [database(name) for name in NAMES]
    if as_json:
        keys = (
            "name",
            "title",
            "kind",
            "items",
            "mos_range",
            "higher_is_better",
            "domains",
            "licence",
            "citation",
            "home",
            "layout",
        )
        typer.echo(json.dumps({"databases": [{key: getattr(one, key) for key in keys} for one in found]}, indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from genzqa.cli.output import PIPED_WIDTH

    table = Table("name", "title", "kind", "items", "scores", "domains", box=box.SIMPLE)
    table.columns[0].no_wrap = True  # it is what a user copies
    for one in found:
        table.add_row(one.name, one.title, one.kind, f"{one.items:,}", _scores(one), ", ".join(one.domains))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPED_WIDTH)
    console.print(table)


@data_app.command("check")
def check_command(specs: Specs, as_json: AsJson = False) -> None:
    """Tell what is missing, unreadable or mislabelled. Every photo is decoded, of every video the first frame.

    What is known of a database as published, such as a file listed twice, is a remark. Of one without human scores the files
    alone are looked at.

    Exit status: 0 all is sound, 1 something is not, 2 the labels cannot be read.
    """
    from genzqa.cli.output import progress
    from genzqa.databases.check import check
    from genzqa.databases.registry import open_for_check

    read = [open_for_check(spec) for spec in specs]  # all labels before any file
    reports = []
    with progress(sum(len(one.items) for one in read), bar=not (as_json and sys.stdout.isatty())) as shown:
        for one in read:
            reports.append((one.database.name, check(one, progress=shown.advance)))
    if as_json:
        typer.echo(json.dumps({"databases": [_record(name, findings) for name, findings in reports]}, indent=2))
    else:
        for name, findings in reports:
            _print(name, findings)
    if not all(findings.sound for _, findings in reports):
        raise typer.Exit(1)


def _scores(database: Database) -> str:
    if database.mos_range is None:
        return "none"
    low, high = database.mos_range
    return f"{low:g}..{high:g}{'' if database.higher_is_better else ', lower is better'}"


def _record(name: str, findings: Findings) -> dict[str, object]:
    faults = {
        kind: [{"subject": subject, "reason": reason} for subject, reason in found]
        for kind, found in findings.faults.items()
    }
    return {
        "name": name,
        "listed": findings.listed,
        "sound": findings.sound,
        "faults": faults,
        "remarks": findings.remarks,
    }


def _print(name: str, findings: Findings) -> None:
    counts = ", ".join(f"{len(found)} {kind}" for kind, found in findings.faults.items())
    typer.echo(f"{name}: {findings.listed} listed, {counts}")
    for remark in findings.remarks:
        typer.echo(f"  {remark}")
    for kind, found in findings.faults.items():
        for subject, reason in found[:_SHOWN]:
            typer.echo(f"  {kind}: {printable(subject)}: {printable(reason)}")
        if len(found) > _SHOWN:
            typer.echo(f"  {kind}: and {len(found) - _SHOWN} more; --json lists all")
