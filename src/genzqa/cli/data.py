"""``genzqa data list`` and ``genzqa data check NAME=PATH``.

What is imported here is what ``--help`` costs; the rest is imported where it is used.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.text import printable

if TYPE_CHECKING:
    from genzqa.databases.check import Findings

data_app = typer.Typer(help="Databases of human scores.", no_args_is_help=True, rich_markup_mode=None)

Specs = Annotated[
    list[str], typer.Argument(metavar="NAME=PATH", help="A database's folder, or a CSV file of one's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

_SHOWN = 10  # faults of a kind; all of them stand in the JSON document


@data_app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the databases that can be read: kind, items, range of the scores, licence, and where to ask for them."""
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

    table = Table("name", "title", "kind", "items", "scores", "domains", box=box.SIMPLE)
    for one in found:
        scores = f"{one.mos_range[0]:g}..{one.mos_range[1]:g}{'' if one.higher_is_better else ', lower is better'}"
        table.add_row(one.name, one.title, one.kind, f"{one.items:,}", scores, ", ".join(one.domains))
    Console().print(table)


@data_app.command("check")
def check_command(specs: Specs, as_json: AsJson = False) -> None:
    """Tell what is missing, unreadable or mislabelled. Every photo is decoded, of every video the first frame.

    Exit status: 0 all is sound, 1 something is not, 2 the labels cannot be read.
    """
    from genzqa.cli.output import progress
    from genzqa.databases.check import check
    from genzqa.databases.registry import open_database

    read = [open_database(spec) for spec in specs]  # all labels before any file
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
