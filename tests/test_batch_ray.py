"""Batches on a real Ray cluster of three small nodes on this machine; an actor is killed and a node removed in the middle."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

import genzqa
from batches import album, batch, engine_of, rows, same, scores
from genzqa.batch.run import identity_of, run_batch
from genzqa.cli import app
from genzqa.errors import ModelNotFoundError
from genzqa.limits import DEFAULT_LIMITS

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own; its processes and sockets outlive their objects
LONG = 300  # seconds; only a stuck cluster takes that long


@pytest.fixture(scope="module")
def cluster():
    """Three nodes of one core each, and 300 MB for objects."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (its name; else they starve while anything else is at work)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    del node["include_dashboard"]
    cluster.nodes_to_lose = [cluster.add_node(**node), cluster.add_node(**node)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def scorer(small_scorer):
    return genzqa.load(f"local-dir:{small_scorer}")


@pytest.fixture
def photos(tmp_path, monkeypatch, scorer, small_scorer):
    """A relative folder of photos, one broken, and what the local engine makes of it."""
    monkeypatch.chdir(tmp_path)
    album(Path("photos"), 32)
    Path("photos/020.png").write_bytes(b"broken")
    with engine_of(scorer, f"local-dir:{small_scorer}", processes=1) as engine:
        batch(engine, scorer, Path("wanted"), "photos")
    return scores(Path("wanted"))


def engine_on(cluster, model):
    from genzqa.batch.ray_engine import RayEngine

    return RayEngine(
        model, DEFAULT_LIMITS, address=cluster.address, actors=3, cores=1, batch_size=4, processes=1, offline=True
    )


def actors(node):
    """Processes of a node of ours that score."""
    raylet = node.all_processes["raylet"][0].process.pid
    found = []
    for child in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split():
        with suppress(OSError):
            if b"MapBatches" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


class Saboteur:
    """Stands where progress is shown: kills an actor after some inputs, and removes its node after some more."""

    def __init__(self, cluster):
        self.cluster, self.done, self.killed, self.removed = cluster, 0, [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def total(self, count):
        pass

    def advance(self):
        self.done += 1
        nodes = self.cluster.nodes_to_lose
        if self.done == 4:
            limit = time.monotonic() + LONG
            while not self.killed:  # a second actor starts while the first is at work
                self.killed = [pid for node in nodes for pid in actors(node)][:1]
                assert time.monotonic() < limit
            os.kill(self.killed[0], signal.SIGKILL)
        if self.done == 16:
            node = next((node for node in nodes if actors(node)), nodes[0])
            self.cluster.remove_node(node, allow_graceful=False)
            self.removed.append(node)


def test_an_actor_killed_and_a_node_lost(cluster, photos, scorer, small_scorer, monkeypatch):
    from genzqa.batch import ray_engine

    monkeypatch.setattr(ray_engine, "_BLOCK", 4)
    monkeypatch.setattr(ray_engine, "_LARGEST_WAVE", 28)
    saboteur = Saboteur(cluster)
    with engine_on(cluster, f"local-dir:{small_scorer}") as engine:
        done = run_batch(engine, ["photos"], Path("scores"), *identity_of(scorer), engine_name="ray", shown=saboteur)
        assert saboteur.killed
        assert saboteur.removed
        assert (done.scored, done.failed, done.rows) == (31, 1, 32)
        assert same(scores(Path("scores")), photos)
        broken = rows(Path("scores"))["photos/020.png"]["error"]
        assert (broken["code"], broken["file"]) == ("unsupported_format", "photos/020.png")
        assert run_batch(engine, ["photos"], Path("scores"), *identity_of(scorer)).unchanged == 32


@pytest.mark.parametrize(
    ("count", "actors", "rows"), [(48, 2, 4), (64, 2, 8), (1, 8, 4), (20_000, 2, 64), (600, 3, 48)]
)
def test_every_actor_gets_some_of_a_small_wave_in_whole_batches(count, actors, rows):
    from genzqa.batch.ray_engine import block_rows

    assert block_rows(count, actors, batch_size=4) == rows


def test_an_error_of_the_model_comes_back_as_itself(cluster, photos, scorer):
    with engine_on(cluster, "local-dir:/nowhere") as engine, pytest.raises(ModelNotFoundError):
        batch(engine, scorer, Path("scores"), "photos")


def test_the_program_on_the_cluster(cluster, photos, small_scorer):
    arguments = ["batch", "photos", "--out", "scores", "--model", f"local-dir:{small_scorer}", "--engine", "ray",
                 "--address", cluster.address, "--actors", "1"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert "31 scored, 1 failed" in result.stderr
    assert same(scores(Path("scores")), photos)


def test_options_of_ray_alone(photos):
    result = CliRunner().invoke(app, ["batch", "photos", "--out", "scores", "--actors", "2"])
    assert result.exit_code == 2
    assert "--engine ray" in result.stderr
