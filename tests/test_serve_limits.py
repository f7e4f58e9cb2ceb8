"""Bounds of the service: bodies, queue, time, connections that end early, and the drain."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

import genzqa
from genzqa.service.settings import SERVICE_LIMITS, ServiceSettings
from serving import PATIENCE, Service, noise, serving
from videos import encode, quadrants

DECODER, FILMER = "decode_process", "video_process"
SETTINGS = {
    "limits": {"max_pixels": 1_000_000, "max_file_bytes": 60_000, "max_video_bytes": 100_000},
    "max_body_bytes": 200_000, "max_files": 3, "max_stored_bytes": 400_000, "queue_length": 4, "video_queue_length": 1,
    "decoders": 1, "idle_seconds": 2, "upload_seconds": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def tight(served_model, tmp_path_factory):
    with serving(served_model, tmp_path_factory.mktemp("tight"), settings=SETTINGS) as running:
        yield running


@pytest.fixture
def photo(tmp_path) -> Path:
    return noise(tmp_path / "photo.png", 5)


def head(length: object = None, *, chunked: bool = False, extra: str = "") -> bytes:
    size = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {length}\r\n"
    return (
        f"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n{size}{extra}\r\n"
    ).encode()


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'


def answer_of(connection: socket.socket) -> tuple[int, dict]:
    """Status and body of what comes back until the connection ends."""
    received = b""
    while part := connection.recv(1 << 16):
        received += part
        start, _, body = received.partition(b"\r\n\r\n")
        length = start.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if length and len(body) >= int(length):
            break
    return int(received.split()[1]), json.loads(body)


def all_is_well(service: Service, photo: Path) -> None:
    """Nothing is left of whatever happened before, and photos are scored."""
    assert service.score(photo).status_code == 200
    assert service.stored() == []
    assert service.metric("genzqa_stored_bytes") == 0
    assert service.metric("genzqa_files_waiting", kind="image") == 0


def test_a_body_over_the_limit_is_refused_on_its_declared_length(tight, photo):
    with tight.raw(head(200_001)) as connection:  # not one byte of the body is sent
        status, body = answer_of(connection)
    assert (status, body["error"]["code"]) == (413, "body_too_large")
    all_is_well(tight, photo)


def test_a_body_over_the_limit_is_refused_while_it_comes(tight, photo):
    with tight.raw(head(chunked=True)) as connection:
        connection.sendall(b"%x\r\n%b\r\n" % (len(PART), PART))
        for _ in range(7):
            connection.sendall(b"7530\r\n" + bytes(30_000) + b"\r\n")
        status, body = answer_of(connection)  # the body has no end yet
    assert (status, body["error"]["code"]) == (413, "body_too_large")
    all_is_well(tight, photo)


def test_a_content_length_that_lies_lets_no_more_in(tight, photo):
    with tight.raw(head(len(PART) + 10) + PART + bytes(50_000)) as connection:  # says less than it sends
        status, body = answer_of(connection)
    assert (status, body["error"]["code"]) == (400, "bad_request")
    with tight.raw(head(150_000) + PART + b"xx\r\n--b--\r\n") as connection:  # says more, and waits
        status, body = answer_of(connection)
    assert (status, body["error"]["code"]) == (408, "upload_timeout")
    for nonsense in ("-5", "1e3", "12, 13"):
        with tight.raw(head(nonsense) + PART) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    all_is_well(tight, photo)


def test_too_many_files(tight, photo):
    answer = tight.score(*[photo] * 4)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    all_is_well(tight, photo)


def test_single_files_over_their_limit_get_a_record(tight, photo):
    clip = encode([quadrants()] * 5)
    answer = tight.score(("big.jpg", photo.read_bytes() + bytes(60_000)), photo, ("clip.mp4", clip + bytes(100_000)))
    assert answer.status_code == 200
    first, second, third = answer.json()["results"]
    assert (first["error"]["code"], second["status"], third["error"]["code"]) == ("too_large", "ok", "too_large")
    all_is_well(tight, photo)


def test_a_full_queue_answers_429_and_loses_nothing_it_took(tight, photo):
    with ThreadPoolExecutor(4) as clients:
        with tight.paused(DECODER):
            taken = [clients.submit(tight.score, photo) for _ in range(4)]
            while tight.metric("genzqa_files_waiting", kind="image") < 4:
                time.sleep(0.01)
            refused = tight.score(photo)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            with tight.client() as client:
                assert client.get("/readyz").status_code == 200  # busy is not broken
                assert client.get("/healthz").status_code == 200
        assert [one.result().status_code for one in taken] == [200] * 4
    all_is_well(tight, photo)


def test_a_full_queue_of_videos_does_not_stop_photos(tight, photo):
    clip = ("clip.mp4", encode([quadrants()] * 20))
    assert tight.score(clip).status_code == 200
    with ThreadPoolExecutor(1) as clients:
        with tight.paused(FILMER):
            taken = clients.submit(tight.score, clip)
            while tight.metric("genzqa_files_waiting", kind="video") < 1:
                time.sleep(0.01)
            refused = tight.score(photo, clip)
            assert (refused.status_code, "1 videos are waiting" in refused.json()["error"]["reason"]) == (429, True)
            assert tight.score(photo).status_code == 200
        assert taken.result().status_code == 200
    all_is_well(tight, photo)


def test_uploads_have_a_bound_together(tight, photo):
    """Two bodies of 190 kB leave no room for another of 190 kB in 400 kB."""
    body = PART + bytes(190_000 - len(PART))
    with tight.raw(head(200_000) + body), tight.raw(head(200_000) + body):
        while tight.metric("genzqa_stored_bytes") < 2 * 189_000:
            time.sleep(0.01)
        with tight.raw(head(190_000) + body) as third:
            status, refused = answer_of(third)
    assert (status, refused["error"]["code"]) == (429, "busy")
    while tight.metric("genzqa_stored_bytes") > 0:
        time.sleep(0.01)
    all_is_well(tight, photo)


def test_an_upload_that_stops_is_given_up(tight, photo):
    connections = [tight.raw(head(5000) + sent) for sent in (b"", PART, PART + b"\xff\xd8\xff")]
    for connection in connections:
        with connection:
            status, body = answer_of(connection)
        assert (status, body["error"]["code"]) == (408, "upload_timeout")
    all_is_well(tight, photo)


def test_an_upload_that_trickles_is_given_up(tight, photo):
    """A byte every half second keeps no connection idle for 2 seconds, but does not end within 6."""
    with tight.raw(head(5000) + PART) as connection:
        connection.settimeout(0.5)
        received = b""
        while not received:
            try:
                received = connection.recv(1 << 16)
            except TimeoutError:
                connection.sendall(b"x")
    assert received.startswith(b"HTTP/1.1 408")
    all_is_well(tight, photo)


def test_a_request_whose_head_does_not_end_is_given_up(tight, photo):
    with tight.raw(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nX-Slow: ") as connection, tight.raw(b"") as silent:
        assert connection.recv(100) == b""
        assert silent.recv(100) == b""
    all_is_well(tight, photo)


def test_a_disconnect_while_uploading_leaves_nothing(tight, photo):
    gone = tight.metric("genzqa_requests_total", route="/v1/score", status="499")
    with tight.raw(head(100_000) + PART + bytes(40_000)):
        while tight.metric("genzqa_stored_bytes") < 40_000:
            time.sleep(0.01)
    while tight.metric("genzqa_requests_total", route="/v1/score", status="499") == gone:
        time.sleep(0.01)
    all_is_well(tight, photo)


def test_a_disconnect_cancels_what_waits(tight, photo):
    cancelled = tight.metric("genzqa_files_total", kind="image", outcome="cancelled")
    body = PART + photo.read_bytes() + b"\r\n--b--\r\n"
    with tight.paused(DECODER):
        connections = [tight.raw(head(len(body)) + body) for _ in range(3)]
        while tight.metric("genzqa_files_waiting", kind="image") < 3:
            time.sleep(0.01)
        for connection in connections:
            connection.close()
        # the one that a decoder holds is given 5 seconds to end, then the decoder is ended; the others were never begun
        while tight.metric("genzqa_files_waiting", kind="image") > 0:
            time.sleep(0.01)
    assert tight.metric("genzqa_files_total", kind="image", outcome="cancelled") == cancelled + 3
    all_is_well(tight, photo)


def test_a_disconnect_stops_a_video_without_ending_its_process(tight, photo):
    clip = encode([quadrants()] * 40)
    assert tight.score(("clip.mp4", clip)).status_code == 200
    pids = tight.children(FILMER)
    body = PART + clip + b"\r\n--b--\r\n"
    with tight.paused(FILMER), tight.raw(head(len(body)) + body):
        while tight.metric("genzqa_files_waiting", kind="video") < 1:
            time.sleep(0.01)
    while tight.metric("genzqa_files_waiting", kind="video") > 0:
        time.sleep(0.01)
    assert tight.children(FILMER) == pids
    assert tight.score(("clip.mp4", clip)).status_code == 200
    all_is_well(tight, photo)


@pytest.mark.parametrize("module", [DECODER, FILMER])
def test_a_process_that_dies_costs_one_file(tight, photo, module):
    clip = ("clip.mp4", encode([quadrants()] * 20))
    file = photo if module == DECODER else clip
    assert tight.score(file).status_code == 200
    with ThreadPoolExecutor(1) as clients:
        with tight.paused(module) as pids:
            answer = clients.submit(tight.score, file)
            while tight.metric("genzqa_files_waiting", kind="image" if module == DECODER else "video") < 1:
                time.sleep(0.01)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        (record,) = answer.result().json()["results"]
    assert answer.result().status_code == 422
    assert (record["error"]["code"], "broke" in record["error"]["reason"]) == ("decoder_crashed", True)
    assert tight.score(file).status_code == 200
    all_is_well(tight, photo)


def test_sigterm_loses_nothing_that_was_accepted(served_model, tmp_path, photo):
    expected = genzqa.load(served_model, offline=True).score(photo).score
    with serving(served_model, tmp_path, settings={"decoders": 1}) as service:
        assert service.score(photo).status_code == 200
        with ThreadPoolExecutor(6) as clients:
            with service.paused(DECODER):
                upload = service.raw(head(chunked=True) + b"%x\r\n%b\r\n" % (len(PART), PART))
                taken = [clients.submit(service.score, photo) for _ in range(5)]
                while service.metric("genzqa_files_waiting", kind="image") < 5:
                    time.sleep(0.01)
                service.process.send_signal(signal.SIGTERM)
                service.wait_for_log({"event": "Shutting down"})
                with pytest.raises(httpx.ConnectError):
                    service.score(photo)
            data = photo.read_bytes() + b"\r\n--b--\r\n"
            upload.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
            answers = [one.result() for one in taken]
        assert [answer.status_code for answer in answers] == [200] * 5
        records = [answer.json()["results"][0] for answer in answers]
        status, body = answer_of(upload)
        upload.close()
        assert status == 200
        for record in (*records, *body["results"]):
            assert record["score"] == pytest.approx(expected, abs=0.001)
        assert service.ended() == 0
        assert service.log[-1]["event"].startswith("Finished")
        assert any(line["event"] == "stopped" for line in service.log)


def test_a_request_that_takes_too_long_ends_and_a_killed_service_leaves_nothing(served_model, tmp_path, photo):
    """One service for both, since each costs a start."""
    with serving(served_model, tmp_path, settings={"request_seconds": 3, "decoders": 1}) as service:
        with service.paused(DECODER) as children:
            answer = service.score(photo)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "work_timeout")
        while service.metric("genzqa_files_waiting", kind="image") > 0:
            time.sleep(0.01)
        children += service.children(DECODER)
        connection = service.raw(head(5000) + PART + bytes(300))
        while service.metric("genzqa_stored_bytes") < 300:
            time.sleep(0.01)
        assert service.stored()
        (folder,) = service.uploads.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in folder.iterdir() if file.name != "lock")
        service.process.kill()
        connection.close()
        assert service.ended() == -signal.SIGKILL
        ended = threading.Event()
        for _ in range(PATIENCE * 100):
            if not any(Path(f"/proc/{pid}").exists() and _running(pid) for pid in children):
                ended.set()
                break
            time.sleep(0.01)
        assert ended.is_set()
    with serving(served_model, tmp_path) as service:
        assert not folder.exists()
        all_is_well(service, photo)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_limits_named_in_part_leave_the_others_the_services():
    settings = ServiceSettings.model_validate({"limits": {"max_pixels": 1000}})
    assert settings.limits == dataclasses.replace(SERVICE_LIMITS, max_pixels=1000)
    with pytest.raises(ValidationError):
        ServiceSettings.model_validate({"limits": {"max_pixel": 1000}})
