"""What ill-meaning clients send: names, bombs, nonsense, floods; the service answers, keeps its memory, and goes on."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from image_builders import png_chunk
from serving import Service, noise
from videos import encode, grey_frames

NAMES = [
    "../../../../etc/passwd", "/etc/passwd", "..\\..\\windows\\system.ini", "C:\\photo.jpg", "..", ".", "/", "\\", "",
    "a/../../b.jpg", "\x00.jpg", "photo.jpg\x00.exe", "\u202egpj.exe", "x" * 3000, "$(reboot).jpg", "; rm -rf ~", "%2e%2e%2fetc",
    "file:///etc/passwd", "http://127.0.0.1/a.jpg", "lock", "\ud7ff\uffff.png", "<script>alert(1)</script>.png",
]  # fmt: skip


POST = b"POST /v1/score HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def photo(tmp_path) -> Path:
    return noise(tmp_path / "photo.png", 6)


def form(name: bytes, content: bytes) -> bytes:
    disposition = b'Content-Disposition: form-data; name="file"; filename="' + name + b'"'
    return b"--b\r\n" + disposition + b"\r\n\r\n" + content + b"\r\n--b--\r\n"


def post(service: Service, body: bytes, **headers: str) -> httpx.Response:
    with service.client() as client:
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        return client.post("/v1/score", content=body, headers=kind | headers)


def still_works(service: Service, photo: Path) -> None:
    assert service.score(photo).status_code == 200
    assert service.stored() == []
    assert service.metric("genzqa_files_waiting", kind="image") == 0
    assert service.metric("genzqa_files_waiting", kind="video") == 0


def test_no_file_name_reaches_the_file_system(service, photo):
    """Half of them with a photo, half with a file that is none: neither record nor error shows a path."""
    inside = {path for folder in service.uploads.iterdir() for path in (folder, *folder.iterdir())}
    for number, name in enumerate(NAMES):
        content = photo.read_bytes() if number % 2 else b"no photo"
        raw = name.encode().replace(b'"', b"%22")
        answer = post(service, form(raw, content))
        if "\x00" in name:
            assert answer.status_code in (200, 400, 422)
        else:
            assert answer.status_code == (200 if number % 2 else 422)
        if answer.status_code == 400:
            continue
        (record,) = answer.json()["results"]
        shown = record["input"]
        assert "/" not in shown
        assert len(shown) <= 200
        assert shown.isprintable()
        assert shown not in ("", ".", "..")
        assert str(service.uploads) not in answer.text
    assert {path for folder in service.uploads.iterdir() for path in (folder, *folder.iterdir())} == inside


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def bombs() -> dict[str, bytes]:
    zeros = bytes(64 << 20)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("photo.jpg", zeros)
    text = png_chunk(b"iTXt", b"c\0\1\0\0\0" + zlib.compress(zeros))
    profile = png_chunk(b"iCCP", b"c\0\0" + zlib.compress(zeros))
    pixel = png_chunk(b"IDAT", zlib.compress(b"\0\0\0\0")) + png_chunk(b"IEND", b"")
    return {
        "wide.png": png_header(200_000, 200_000) + png_chunk(b"IDAT", zlib.compress(zeros)) + png_chunk(b"IEND", b""),
        "strip.png": png_header(99_000_000, 1) + pixel,
        "text.png": png_header(1, 1) + text + pixel,
        "profile.png": png_header(1, 1) + profile + pixel,
        "zip.jpg": archive.getvalue(),
        "gzip.jpg": gzip.compress(zeros),
        "canvas.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        "canvas.webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\xff\xff\xff\xff\xff",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "list.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }


def test_bombs_are_refused_without_being_unpacked(service, photo):
    before = service.memory()
    files = list(bombs().items())
    answer = service.score(*files, photo)
    assert answer.status_code == 200
    *refused, good = answer.json()["results"]
    assert good["status"] == "ok"
    codes = {record["input"]: record.get("error", {}).get("code", "ok") for record in refused}
    for name in ("wide.png", "strip.png", "canvas.gif"):
        assert codes[name] == "too_large"
    for name in ("zip.jpg", "gzip.jpg", "svg.png", "list.mp4", "concat.mp4"):
        assert codes[name] == "unsupported_format"
    assert codes["canvas.webp"] in ("too_large", "corrupt")
    assert {codes["text.png"], codes["profile.png"]} <= {
        "ok",
        "corrupt",
        "too_large",
    }  # one pixel, whatever lies about it
    assert service.memory() - before < 100
    for pid in service.children("decode_process"):
        peak = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]
        assert int(peak) // 1024 < 400
    still_works(service, photo)


def test_a_body_in_gzip_is_not_unpacked(service, photo):
    answer = post(service, gzip.compress(form(b"a.jpg", bytes(32 << 20))), **{"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    still_works(service, photo)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS on a plain port
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET http://127.0.0.1/ HTTP/9.9\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        bytes(range(256)) * 400,
    ],
)
def test_garbage_on_the_socket(service, photo, garbage):
    with service.raw(b"") as connection:
        try:
            connection.sendall(garbage)
            received = connection.recv(1 << 16)
        except OSError:  # closed on us, which is an answer too
            received = b""
    assert received == b"" or received.startswith(b"HTTP/1.1 4")
    still_works(service, photo)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_damaged_bodies_are_answered_and_leave_nothing(service, seed):
    """Cut, doubled, overwritten and shortened forms."""
    chance = random.Random(seed)
    body = bytearray(form(b"a.jpg", bytes(chance.randbytes(chance.randrange(300)))) * chance.randrange(1, 3))
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(body))
        change = chance.randrange(4)
        if change == 0:
            body[at] = chance.randrange(256)
        elif change == 1:
            del body[at : at + chance.randrange(20)]
        elif change == 2:
            body[at:at] = body[chance.randrange(len(body)) :][:60]
        else:
            body[at:at] = chance.choice([b"\r\n", b"--b", b"--b--", b"\0", b'"', b":", b"\r\n\r\n", b"--b\r\n" * 20])
        if not body:
            break
    answer = post(service, bytes(body))
    assert answer.status_code in (400, 413, 422)
    assert service.stored() == []


def test_two_hundred_at_once(service, tmp_path):
    """More than the queue holds: every one is answered, what is taken is scored right, the others are told when to return."""
    paths = [noise(tmp_path / f"{number}.png", number) for number in range(4)]
    right = [service.score(path).json()["results"][0]["score"] for path in paths]
    with service.client(limits=httpx.Limits(max_connections=200)) as client, ThreadPoolExecutor(200) as clients:

        def ask(number: int) -> httpx.Response:
            return client.post("/v1/score", files={"file": paths[number % 4].read_bytes()})

        answers = list(clients.map(ask, range(200)))
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) <= {200, 429}
    assert counts[200] >= 64
    for number, answer in enumerate(answers):
        if answer.status_code == 200:
            assert answer.json()["results"][0]["score"] == pytest.approx(right[number % 4], abs=0.001)
        else:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    still_works(service, paths[0])


def test_memory_stays_flat(service, photo):
    """Photos, maps, broken files and a video, over and over; in the first half every thread's allocator warms up."""
    clip = ("clip.mp4", encode(grey_frames(12)))
    broken = ("broken.jpg", photo.read_bytes()[:200])

    def round_of_requests() -> int:
        for _ in range(3):
            assert service.score(photo, broken, ("text.txt", b"x" * 5000)).status_code == 200
        assert service.score(photo, map="true").status_code == 200
        assert service.score(clip, broken).status_code == 200
        assert service.score(broken).status_code == 422
        return service.memory()

    memory = [round_of_requests() for _ in range(28)]
    assert memory[14] - memory[3] < 60, memory
    assert memory[-1] - memory[14] < 12, memory
    still_works(service, photo)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("label", ["POST /v1/score", "GET /v1/models", "GET /readyz", "GET /healthz"])
def test_fuzzing_from_the_openapi_schema(service, label, mode):
    """Whatever the schema allows or forbids: no server error, and every answer is as the schema says it is."""
    with service.client() as client:
        schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operation = next(each.ok() for each in schema.get_all_operations() if each.ok().label == label)
    if mode is GenerationMode.NEGATIVE and not label.startswith("POST"):
        pytest.skip("it takes nothing that could be wrong")

    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case):
        # any bytes are a valid file to the schema; that they are no photo is what 422 says
        case.call_and_validate(base_url=service.url, excluded_checks=[positive_data_acceptance])

    fuzz()
