"""``genzqa models``, ``genzqa pull NAME`` and ``genzqa verify NAME``.

What is imported here is what ``--help`` costs; the rest is imported where it is used. Errors of the package pass on to
the program's one place that prints them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Name = Annotated[str, typer.Argument(metavar="NAME", help="A registered name, or hf-hub:ORG/REPO[@REVISION].")]
LocalFile = Annotated[Path | None, typer.Option("--file", help="Take a motion network's checkpoint from this file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def models_command(as_json: AsJson = False) -> None:
    """List the registered models: what they are, their licence and size, and whether they are on this machine."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = _rows()
    if as_json:
        typer.echo(json.dumps({"models": rows}, indent=2))
        return
    table = Table("name", "kind", "trained", "licence", "size", "local", box=box.SIMPLE)
    for row in rows:
        size = f"{row['size_bytes'] / 1e9:.1f} GB" if row["size_bytes"] else "-"
        here = "yes" if row["folder"] else "no"
        table.add_row(row["name"], row["kind"], "yes" if row["trained"] else "no", row["licence"]["name"], size, here)
    console = Console()
    console.print(table)
    for row in rows:
        console.print(f"{row['name']}: {row['title']}. {row['notes']}", markup=False, highlight=False)


def pull_command(name: Name, file: LocalFile = None) -> None:
    """Download a model, check that it is complete, and record the checksums of its files."""
    from genzqa.errors import ConfigError, OfflineError
    from genzqa.model.hub import is_motion, is_offline, pull
    from genzqa.model.names import parse_name
    from genzqa.model.registry import NO_CHECKSUM, REGISTRY

    if is_motion(parse_name(name)):
        from genzqa.model.motion_weights import pull_motion

        if file is None and is_offline():
            raise OfflineError("offline mode forbids the download", subject=name, hint="name a local copy with --file")
        stored, digest = pull_motion(name, local=file)
        typer.echo(f"{name}: sha256 {digest} in {stored}")
        return
    if file is not None:
        raise ConfigError(
            "--file is for motion networks", subject=name, hint="use local-dir:FOLDER where a base is asked for"
        )
    pulled = pull(name)
    for repo, why in pulled.failed.items():
        typer.echo(f"{repo}: {why}", err=True)
    if not pulled.repo:
        typer.echo(f"{name} is part of the package; nothing to download")
        return
    typer.echo(f"{name}: {len(pulled.files)} files from {pulled.repo} in {pulled.folder}")
    if name not in REGISTRY or not REGISTRY[name].sha256:
        typer.echo(NO_CHECKSUM)


def verify_command(name: Name) -> None:
    """Compare a model's files with their recorded checksums; exit status 1 when one differs or is missing."""
    from genzqa.model.checksums import verify

    checks = verify(name)
    damaged = [check for check in checks if not check.ok]
    for check in damaged:
        what = f"expected {check.expected}, got {check.got}" if check.got else "missing"
        typer.echo(f"{check.file}: {what}", err=True)
    if damaged:
        typer.echo(f"{name}: {len(damaged)} of {len(checks)} files damaged", err=True)
        raise typer.Exit(1)
    typer.echo(f"{name}: {len(checks)} files ok")


def _rows() -> list[dict[str, Any]]:
    """One record per registered model, as ``--json`` prints it."""
    from genzqa.model.hub import find_local
    from genzqa.model.names import ModelName
    from genzqa.model.registry import list_models

    rows: list[dict[str, Any]] = []
    for model in list_models():
        folder = find_local(ModelName("registry", model.name))
        rows.append(
            {
                "name": model.name,
                "title": model.title,
                "kind": model.kind,
                "trained": model.kind in ("scorer", "student"),
                "licence": {"name": model.licence.name, "url": model.licence.url},
                "size_bytes": model.size_bytes,
                "text_width": model.text_width,
                "latent_size": model.latent_size,
                "sources": list(model.sources),
                "notes": model.notes,
                "folder": str(folder) if folder else None,
            }
        )
    return rows
