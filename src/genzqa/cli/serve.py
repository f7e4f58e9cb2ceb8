"""``genzqa serve``: the HTTP service and its page."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genzqa.cli.running import Backend, BackendOption, DeviceOption, Precision, PrecisionOption
from genzqa.errors import ConfigError

if TYPE_CHECKING:
    from genzqa.service.settings import ServiceSettings

TOKEN_VARIABLE = "GENZQA_TOKEN"

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
Model = Annotated[str, typer.Option(help="mini, mini-student (faster), or local-dir:FOLDER for a model of your own.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=f"Want this bearer token from clients; or set {TOKEN_VARIABLE}."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a network connection for a model.")]
Settings = Annotated[
    Path | None, typer.Option("--settings", metavar="FILE", help="JSON file with limits, queue lengths and timeouts.")
]


def serve_command(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    model: Model = "mini",
    token_file: TokenFile = None,
    settings_file: Settings = None,
    backend: BackendOption = Backend.torch,
    precision: PrecisionOption = Precision.fp32,
    device: DeviceOption = "auto",
    offline: Offline = False,
) -> None:
    """Serve a page to drop photos and videos on, and an HTTP interface beside it, until Ctrl-C or SIGTERM.

    Exit status: 0 stopped after all accepted requests were answered, 2 usage, model or setting error.
    """
    _need_libraries()
    settings = _read_settings(settings_file, _token(token_file))
    if settings.token is None and not _is_loopback(host):
        typer.echo(f"warning: {host} is open to others and there is no token; set {TOKEN_VARIABLE}, or use --token-file",
                   err=True)  # fmt: skip
    from genzqa.service.server import listen, run

    with listen(host, port) as listener:  # before anything slow: a port in use is said at once
        from genzqa.engine.engine import EngineOptions
        from genzqa.service.app import create_app
        from genzqa.service.logs import log_to_stderr

        log_to_stderr()
        options = EngineOptions(backend.value, precision.value, device)
        app = create_app(model, settings, offline=offline, options=options)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        run(app, listener, settings, started=lambda: _say(f"genzqa serves {model} at {address}"))


def _say(line: str) -> None:
    print(line, flush=True)


def _need_libraries() -> None:
    from importlib.util import find_spec

    for module, package in (("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("python_multipart", "python-multipart"),
                            ("prometheus_client", "prometheus-client")):  # fmt: skip
        if find_spec(module) is None:
            raise ConfigError(f"the service needs {package}, which is not installed", subject="serve",
                              hint='install it with: pip install "genzqa[serve]"')  # fmt: skip


def _token(file: Path | None) -> str | None:
    """From the file, or from the environment; never from the command line, which other users can read."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        if file.stat().st_mode & 0o077:
            typer.echo(f"warning: others may read {file}; chmod 600 keeps the token to yourself", err=True)
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the token cannot be read", subject=str(file), hint="check the path and permissions"
        ) from error
    if not text:
        raise ConfigError("there is no token in this file", subject=str(file), hint="put 16 or more characters into it")
    return text


def _read_settings(file: Path | None, token: str | None) -> ServiceSettings:
    import json

    from pydantic import ValidationError

    from genzqa.service.settings import ServiceSettings

    subject = str(file) if file is not None else TOKEN_VARIABLE
    try:
        given = json.loads(file.read_text("utf-8")) if file is not None else {}
        if not isinstance(given, dict) or "token" in given:
            raise ConfigError("not an object of settings" if not isinstance(given, dict) else "holds a token",
                              subject=subject, hint="a token comes from the environment or its own file")  # fmt: skip
        return ServiceSettings.model_validate(given | {"token": token})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{where + ': ' if where else ''}{first['msg']}", subject=subject, hint="see docs/serve.md"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot be read: {error}", subject=subject, hint="check the path, and that it is JSON"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
