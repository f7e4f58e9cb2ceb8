"""``genzqa serve`` as a user starts it: a process of its own on a real socket, with a folder of its own for uploads."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

PROGRAM = [sys.executable, "-c", "from genzqa.cli import main; main()"]
PATIENCE = 120  # seconds; only something that is stuck takes that long


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], uploads: Path) -> None:
        self.process, self.uploads = process, uploads
        self.log: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        first = process.stdout.readline()
        assert " at http://" in first, (first, self.other_lines, self.log)
        self.url = first.split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)

    def score(self, *files: Path | tuple[str, bytes], **query: Any) -> httpx.Response:
        parts = [("file", (file.name, file.read_bytes()) if isinstance(file, Path) else file) for file in files]
        with self.client() as client:
            return client.post("/v1/score", files=parts, params=query)

    def raw(self, request: bytes) -> socket.socket:
        """A connection on which these bytes have been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection.sendall(request)
        return connection

    def wait_for_log(self, wanted: dict[str, Any], count: int = 1) -> dict[str, Any]:
        """The last of so many log lines that hold all of this."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log if wanted.items() <= line.items()]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= count, PATIENCE), (wanted, self.log)
        return found()[-1]

    def metric(self, name: str, **labels: str) -> float:
        inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = f"{name}{{{inside}}} " if labels else f"{name} "
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return next((float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted)), 0.0)

    def children(self, module: str) -> list[int]:
        """Process ids of this module's processes."""
        pids = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        every = [int(pid) for listed in pids for pid in listed.read_text().split()]
        return [pid for pid in every if module in Path(f"/proc/{pid}/cmdline").read_text()]

    def stored(self) -> list[str]:
        """Uploads on the disk."""
        return [path.name for path in self.uploads.glob("*/*") if path.name != "lock"]

    def memory(self) -> int:
        """Resident MiB of the service without its processes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    @contextmanager
    def paused(self, module: str) -> Iterator[list[int]]:
        """While the block runs, the module's processes stand still, as if their work took very long."""
        pids = self.children(module)
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield pids
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                if line.startswith("{"):
                    self.log.append(json.loads(line))
                else:
                    self.other_lines.append(line)
                self._changed.notify_all()


@contextmanager
def serving(model: str, folder: Path, *arguments: str, settings: dict[str, Any] | None = None,
            environment: dict[str, str] | None = None) -> Iterator[Service]:  # fmt: skip
    """Start a service, and end it with the block."""
    uploads = folder / "uploads"
    uploads.mkdir(exist_ok=True)
    command = [*PROGRAM, "serve", "--port", "0", "--model", model, "--offline", *arguments]
    if settings is not None:
        (folder / "settings.json").write_text(json.dumps(settings))
        command += ["--settings", str(folder / "settings.json")]
    variables = os.environ | {"TMPDIR": str(uploads), "OMP_NUM_THREADS": "1"} | (environment or {})
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)
    with process:
        try:
            service = Service(process, uploads)
            yield service
            if process.poll() is None:
                assert service.stop() == 0
            if process.returncode == 0:  # not where a test killed it
                assert list(uploads.iterdir()) == []
        finally:
            process.kill()


def noise(path: Path, seed: int, width: int = 90, height: int = 60) -> Path:
    """A small photo-like picture of its own for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
