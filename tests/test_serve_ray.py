"""The app as a Ray Serve deployment, on a Ray of its own; only where Ray is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import genzqa
from serving import free_port, noise

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray-serve")

# In a process of its own: Ray installs signal handlers and threads, and warns about its own dependencies.
PROGRAM = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import httpx, ray
from ray import serve
from genzqa.service.ray_app import deploy
from genzqa.service.settings import ServiceSettings

model, port, *paths = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
serve.run(deploy(model, ServiceSettings(max_body_bytes=100_000), replicas=2, cpus=0.5, offline=True))
url = f"http://127.0.0.1:{port}"
with httpx.Client(base_url=url, timeout=300, trust_env=False) as client, ThreadPoolExecutor(8) as clients:
    ask = lambda path: client.post("/v1/score", files={"file": open(path, "rb").read()})
    answers = list(clients.map(ask, paths))
    print(json.dumps({
        "statuses": [answer.status_code for answer in answers],
        "scores": [answer.json()["results"][0]["score"] for answer in answers],
        "ready": client.get("/readyz").status_code,
        "large": client.post("/v1/score", files={"file": bytes(150_000)}).status_code,
        "bad": client.post("/v1/score", files={"file": b"no photo"}).status_code,
        "page": client.get("/").headers["content-security-policy"][:18],
        "running": serve.status().applications["default"].deployments["GenzQA"].replica_states["RUNNING"],
    }), flush=True)
serve.shutdown()
ray.shutdown()
"""


def test_replicas_score_as_the_scorer_does(served_model, tmp_path):
    paths = [noise(tmp_path / f"{number}.png", number) for number in range(8)]
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    variables = os.environ | {"TMPDIR": str(uploads), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
                              "RAY_TMPDIR": "/tmp"}  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, served_model, str(free_port()), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("{"))  # Ray prints lines of its own
    answer = json.loads(said)
    scorer = genzqa.load(served_model, offline=True)
    assert answer["statuses"] == [200] * 8
    assert answer["scores"] == pytest.approx([scorer.score(path).score for path in paths], abs=0.001)
    assert (answer["ready"], answer["large"], answer["bad"], answer["running"]) == (200, 413, 422, 2)
    assert answer["page"] == "default-src 'none'"
    assert not list(Path(uploads).glob("genzqa-serve-*"))
