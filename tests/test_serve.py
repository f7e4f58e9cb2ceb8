"""``POST /v1/score`` and its neighbours: what a well-meaning client gets."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

import genzqa
from genzqa.media.overlay import overlay_png
from genzqa.service.logs import new_request_id
from genzqa.service.readiness import EMBEDDED, EXPECTED, TOLERANCE, probe_score
from genzqa.service.settings import ServiceSettings
from serving import PROGRAM, noise, serving
from videos import encode, grey_frames, quadrants

SCHEMA = json.loads(files("genzqa").joinpath("schema", "genzqa-1.schema.json").read_text("utf-8"))
EXAMPLES = Path(__file__).parents[1] / "examples" / "photos"


@pytest.fixture(scope="module")
def scorer(served_model):
    return genzqa.load(served_model, offline=True)


def same(record: dict, expected: dict, name: str) -> None:
    """A record of the service is that of the scorer, but for the name and the time it took."""
    jsonschema.validate(record, SCHEMA)
    assert record["input"] == name
    score, other = record["score"], expected["score"]
    assert score == pytest.approx(other, abs=0.001)
    close = ("input", "seconds", "score", "raw", "interval", "percentile", "frames", "worst", "timeline")
    assert {key: value for key, value in record.items() if key not in close} == {
        key: value for key, value in expected.items() if key not in close
    }


def clip_file(folder: Path, frames: list, **options) -> Path:
    path = folder / "clip.mp4"
    path.write_bytes(encode(frames, **options))
    return path


def test_photos_score_as_they_do_without_the_service(service, scorer):
    paths = sorted(EXAMPLES.glob("*.jpg"))
    answer = service.score(*paths)
    assert answer.status_code == 200
    records = answer.json()["results"]
    assert len(records) == len(paths) == 6
    for path, record in zip(paths, records, strict=True):
        same(record, scorer.score(path).to_dict(), path.name)
    scores = [record["score"] for record in records]
    assert max(scores) - min(scores) > 1  # else any photo's score would do for any other
    assert "maps" not in answer.json()


def test_requests_at_once_share_calls_of_the_network_and_keep_their_scores(service, scorer, tmp_path):
    paths = [noise(tmp_path / f"{number}.png", number) for number in range(12)]
    calls = service.metric("genzqa_batch_photos_count")
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(service.score, paths))
    for path, answer in zip(paths, answers, strict=True):
        (record,) = answer.json()["results"]
        assert record["score"] == pytest.approx(scorer.score(path).score, abs=0.001)
    assert service.metric("genzqa_batch_photos_count") - calls < 12


def test_one_bad_file_leaves_the_others_alone(service, scorer):
    good = EXAMPLES / "parrots.jpg"
    answer = service.score(("notes.pdf", b"%PDF-1.7"), good, ("half.jpg", good.read_bytes()[:2000]), ("empty.jpg", b""))
    assert answer.status_code == 200
    records = answer.json()["results"]
    for record in records:
        jsonschema.validate(record, SCHEMA)
    codes = [record["status"] if record["status"] == "ok" else record["error"]["code"] for record in records]
    assert codes == ["unsupported_format", "ok", "corrupt", "corrupt"]
    assert [record["error"]["file"] for record in records if "error" in record] == [
        "notes.pdf",
        "half.jpg",
        "empty.jpg",
    ]
    same(records[1], scorer.score(good).to_dict(), "parrots.jpg")


def test_nothing_scored_is_422_with_records_all_the_same(service):
    answer = service.score(("a.txt", b"text"), ("b.txt", b"more text"))
    assert answer.status_code == 422
    assert [record["error"]["code"] for record in answer.json()["results"]] == ["unsupported_format"] * 2


def test_maps_are_those_of_the_scorer(service, scorer, tmp_path):
    path = noise(tmp_path / "photo.png", 1, 700, 500)
    answer = service.score(path, ("bad.jpg", b"bad"), map="true").json()
    kind, _, content = answer["maps"][0].partition(",")
    assert kind == "data:image/png;base64"
    assert answer["maps"][1] is None
    result = scorer.score(path, quality_map=True)
    expected = overlay_png(np.asarray(Image.open(path)), result.quality_map, score=result.score, grade=result.grade)
    drawn, wanted = (np.asarray(Image.open(io.BytesIO(png)), np.int16)
                     for png in (base64.b64decode(content), expected))  # fmt: skip
    assert drawn.shape == wanted.shape
    assert np.abs(drawn - wanted).max() <= 2


def test_a_video_with_its_timeline(service, scorer, tmp_path):
    clip = clip_file(tmp_path, [quadrants() + np.uint8(number) for number in range(45)], rate=15)
    (record,) = service.score(clip).json()["results"]
    same(record, scorer.score(clip).to_dict(), "clip.mp4")
    assert "timeline" not in record
    (record,) = service.score(clip, timeline="true").json()["results"]
    expected = scorer.score(clip, video=genzqa.VideoOptions(timeline=True)).to_dict()
    same(record, expected, "clip.mp4")
    assert [frame["time"] for frame in record["timeline"]] == [frame["time"] for frame in expected["timeline"]]
    assert len(record["timeline"]) == 3


def test_a_broken_video_is_an_error_record(service):
    whole = encode(grey_frames(10))
    answer = service.score(("clip.mp4", whole[:300]))
    assert answer.status_code == 422
    (record,) = answer.json()["results"]
    jsonschema.validate(record, SCHEMA)
    assert (record["kind"], record["error"]["code"], record["error"]["file"]) == ("video", "corrupt", "clip.mp4")


def test_a_video_of_one_frame_is_a_photo_with_a_map(service):
    answer = service.score(("one.mp4", encode(grey_frames(1))), map="true").json()
    assert answer["results"][0]["kind"] == "image"
    assert answer["maps"][0].startswith("data:image/png;base64,")


def test_models_health_readiness_and_metrics(service, scorer):
    with service.client() as client:
        (model,) = client.get("/v1/models").json()["models"]
        assert model["weights_sha256"] == scorer.provenance.weights_sha256
        assert (model["temporal"], model["maps"]) == (False, True)
        assert client.get("/healthz").json() == {"status": "alive"}
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reason": ""})
        text = client.get("/metrics").text
    assert 'genzqa_files_waiting{kind="image"} 0.0' in text
    assert re.search(r'genzqa_requests_total{route="/readyz",status="200"} [1-9]', text)


@pytest.mark.parametrize("model", EMBEDDED)
def test_the_built_in_photo_has_the_score_that_readiness_expects_of_the_embedded_model(model):
    embedded = genzqa.load(model, offline=True)
    expected = EXPECTED[embedded.provenance.weights_sha256]  # new weights: python -m genzqa.service.readiness
    assert probe_score(embedded) == pytest.approx(expected, abs=TOLERANCE)


def test_request_ids_are_echoed_if_well_formed_and_stand_in_the_log(service):
    with service.client() as client:
        assert client.get("/healthz", headers={"X-Request-Id": "trace-7.b_C"}).headers["x-request-id"] == "trace-7.b_C"
        made = client.get("/healthz", headers={"X-Request-Id": 'a" b'}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", made)
    line = service.wait_for_log({"event": "request", "request_id": "trace-7.b_C"})
    assert line["path"] == "/healthz"
    assert line["status"] == 200
    assert len({new_request_id("x" * 65), new_request_id(""), new_request_id("ü"), new_request_id("a\n")}) == 4


def test_every_answer_has_security_headers_and_nothing_loads_from_elsewhere(service):
    with service.client() as client:
        for path in ("/", "/healthz", "/nowhere", "/v1/models"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        assert client.get("/docs").status_code == 404


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        (lambda client: client.post("/v1/score", content=b"x"), 415, "not_multipart"),
        (lambda client: client.post("/v1/score", json={"url": "http://example.com/a.jpg"}), 415, "not_multipart"),
        (lambda client: client.post("/v1/score", files={"photo": b"x"}), 400, "bad_request"),
        (lambda client: client.post("/v1/score", files=[("file", (None, b"photo.jpg"))]), 400, "bad_request"),
        (lambda client: client.post("/v1/score?map=maybe", files={"file": b"x"}), 400, "bad_request"),
        (lambda client: client.post("/v1/score?maps=true", files={"file": b"x"}), 400, "bad_request"),
        (lambda client: client.post("/v1/score?model=other", files={"file": b"x"}), 400, "bad_request"),
        (lambda client: client.get("/v1/score"), 405, "method_not_allowed"),
        (lambda client: client.get("/v1/nothing"), 404, "no_such_path"),
        (
            lambda client: client.post("/v1/score", files={"file": b"x"}, headers={"Sec-Fetch-Site": "cross-site"}),
            403,
            "foreign_page",
        ),
    ],
)
def test_refusals_say_what_is_wrong(service, request_of, status, code):
    with service.client() as client:
        answer = request_of(client)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["reason"]
    assert error["hint"]


def test_a_token_is_wanted_where_there_is_one(served_model, tmp_path):
    token = "correct-horse-battery"
    (tmp_path / "token").write_text(token + "\n")
    (tmp_path / "token").chmod(0o644)
    with (
        serving(served_model, tmp_path, "--token-file", str(tmp_path / "token")) as service,
        service.client() as client,
    ):
        photo = {"file": (EXAMPLES / "parrots.jpg").read_bytes()}
        for offered in (None, "Bearer wrong", f"Basic {token}", "Bearer", f"Bearer {token}x"):
            headers = {"Authorization": offered} if offered else {}
            answer = client.post("/v1/score", files=photo, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for path, status in {"/v1/models": 401, "/metrics": 401, "/healthz": 200, "/readyz": 200, "/": 200}.items():
            assert client.get(path).status_code == status
        assert client.post("/v1/score", files=photo, headers={"Authorization": f"Bearer {token}"}).status_code == 200
        service.stop()
        assert token not in json.dumps(service.log)
        assert any("others may read" in line for line in service.other_lines)


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*PROGRAM, "serve", *arguments], capture_output=True, text=True, **options)


def test_mistakes_at_the_start_end_with_a_message(tmp_path, service):
    (tmp_path / "settings.json").write_text('{"queue_lenght": 3}')
    done = run("--settings", str(tmp_path / "settings.json"))
    assert (done.returncode, "queue_lenght" in done.stderr, "docs/serve.md" in done.stderr) == (2, True, True)
    (tmp_path / "settings.json").write_text('{"token": "0123456789abcdef"}')
    assert "holds a token" in run("--settings", str(tmp_path / "settings.json")).stderr
    done = run("--port", str(service.port))
    assert done.returncode == 2
    assert "cannot listen there" in done.stderr
    done = run("--token-file", str(tmp_path / "none"))
    assert (done.returncode, "the token cannot be read" in done.stderr) == (2, True)
    (tmp_path / "short").write_text("short")
    assert "16 or more" in run("--token-file", str(tmp_path / "short")).stderr
    done = run("--host", "0.0.0.0", "--port", str(service.port))
    assert "warning: 0.0.0.0 is open to others and there is no token" in done.stderr


def test_settings_refuse_what_makes_no_sense():
    for wrong in ({"queue_length": 0}, {"request_seconds": float("nan")}, {"batch_size": -1}, {"unknown": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ServiceSettings.model_validate(wrong)
