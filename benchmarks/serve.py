"""Photos per second through the service, against the scorer's own in the same run. See README.md beside this file.

python benchmarks/serve.py --out serve.json                       # 16 clients
python benchmarks/serve.py --requests 10000 --tiny --out tiny.json    # a flood of small ones: memory over time
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
SIDE, TINY = 512, 64
PHOTO_EVERY = 100  # of a flood: the others are a few bytes that are no photo


def make_photos(folder: Path, side: int, count: int = 16) -> list[Path]:
    """Crops of the example photos, as JPEG."""
    sources = sorted(PHOTOS.glob("*.jpg"))
    paths = []
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as photo:
            shift = number // len(sources)
            picture = photo.convert("RGB").resize((side + 8, side + 8)).crop((shift, shift, side + shift, side + shift))
        paths.append(folder / f"{number:02}.jpg")
        picture.save(paths[-1], quality=92)
    return paths


def alone(model: str, paths: list[Path], count: int) -> dict[str, Any]:
    """The scorer's own throughput, in this process, which serves nothing meanwhile."""
    import genzqa

    scorer = genzqa.load(model)
    list(scorer.score_many(paths))
    started = time.perf_counter()
    scores = [result.score for result in scorer.score_many([paths[n % len(paths)] for n in range(count)])]
    seconds = time.perf_counter() - started
    return {"photos": count, "seconds": seconds, "photos_per_second": count / seconds, "scores": scores[: len(paths)]}


class Server:
    """``genzqa serve`` in a process of its own."""

    def __init__(self, model: str, uploads: Path) -> None:
        command = [
            sys.executable,
            "-c",
            "from genzqa.cli import main; main()",
            "serve",
            "--port",
            "0",
            "--model",
            model,
        ]
        variables = os.environ | {"TMPDIR": str(uploads)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def memory(self) -> float:
        """Resident MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait()


def served(server: Server, paths: list[Path], scores: list[float], clients: int, count: int, *,
           flood: bool) -> dict[str, Any]:  # fmt: skip
    """So many clients at once, each with a new request as soon as it has its answer."""
    contents = [path.read_bytes() for path in paths]
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    furthest = 0.0
    memory: list[float] = []
    lock = threading.Lock()
    numbers = iter(range(count))

    def ask(client: httpx.Client) -> None:
        nonlocal furthest
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            which = number // (PHOTO_EVERY if flood else 1) % len(paths)
            content = b"no photo" if flood and number % PHOTO_EVERY else contents[which]
            begun = time.perf_counter()
            answer = client.post("/v1/score", files={"file": (paths[which].name, content)})
            with lock:
                seconds.append(time.perf_counter() - begun)
                statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    furthest = max(furthest, abs(answer.json()["results"][0]["score"] - scores[which]))
                if number % max(1, count // 20) == 0:
                    memory.append(round(server.memory(), 1))

    with httpx.Client(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=clients)) as client:
        for content in contents:  # warm up
            client.post("/v1/score", files={"file": content}).raise_for_status()
        started = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            for done in [pool.submit(ask, client) for _ in range(clients)]:
                done.result()
        elapsed = time.perf_counter() - started
    seconds.sort()
    return {
        "clients": clients, "requests": count, "statuses": dict(statuses), "seconds": elapsed,
        "requests_per_second": count / elapsed, "photos_per_second": statuses[200] / elapsed, "median_s": statistics.median(seconds),
        "p99_s": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], "longest_s": seconds[-1],
        "largest_difference_of_scores": furthest, "service_mib": memory,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument(
        "--tiny",
        action="store_true",
        help=f"a flood: one photo of {TINY} x {TINY} pixels in {PHOTO_EVERY}, the rest none",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uploads = Path(folder, "uploads")
        uploads.mkdir()
        paths = make_photos(Path(folder), TINY if options.tiny else SIDE)
        before = alone(options.model, paths, 16 if options.tiny else options.requests)
        server = Server(options.model, uploads)
        try:
            through = served(server, paths, before["scores"], options.clients, options.requests, flood=options.tiny)
        finally:
            status = server.stop()
        left = [path.name for path in uploads.iterdir()]
        after = alone(options.model, paths, 16 if options.tiny else options.requests)
    # the machine may be busier in one half than in the other: the service is held against the mean of before and after
    own = statistics.mean([before["photos_per_second"], after["photos_per_second"]])
    result = {
        "model": options.model, "side": TINY if options.tiny else SIDE, "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"), "machine": platform.machine(),
        "python": platform.python_version(), "torch": version("torch"),
        "alone_photos_per_second": [before["photos_per_second"], after["photos_per_second"]],
        "service": through, "share_of_alone": through["photos_per_second"] / own,
        "p99_over_median": through["p99_s"] / through["median_s"], "exit_status": status, "files_left": left,
    }  # fmt: skip
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "service"}, indent=2))


if __name__ == "__main__":
    main()
