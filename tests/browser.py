"""A real headless Chromium, driven through its pipe: messages of the DevTools protocol, ended by a zero byte."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
          "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
          "--remote-debugging-pipe", "about:blank")  # fmt: skip
PATIENCE = 120  # seconds for one answer; only a stuck browser takes that long
_WANTED_EVENTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Audits.issueAdded")
_DIALOGUE = "Page.fileChooserOpened"


class Page:
    """One tab: what the browser complains about and what it asks the network for is collected in lists."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer, self._number, self._session = b"", 0, ""
        self.complaints: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.dialogues: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, width: int, height: int, scheme: str, *, decoded: bool = True) -> None:
        """Show a file; see `visit`."""
        self.visit(path.as_uri(), width, height, scheme, decoded=decoded)

    def visit(self, url: str, width: int, height: int, scheme: str, *, decoded: bool = True) -> None:
        """Show an address in a window of this size (CSS pixels) to a reader who prefers ``light`` or ``dark``.

        Waits until it is loaded and, if ``decoded``, until every picture is; a picture that cannot be is then an error.
        """
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        while self.run("document.readyState") != "complete":
            pass
        if decoded:
            self.run("Promise.all(Array.from(document.images, image => image.decode())).then(() => 0)")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """Until an expression in the page is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(script)):
            assert time.monotonic() < end, script
            time.sleep(0.02)
        return value

    def press(self, key: str, code: int) -> None:
        """A key of the keyboard, by its name and Windows code."""
        text = {"text": "\r"} if key == "Enter" else {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def choose(self, selector: str, *files: Path) -> None:
        """Put files into a file input, as its dialogue would."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")["result"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=found["objectId"])

    def screenshot(self, *, whole: bool = False) -> bytes:
        """The window, or the whole page, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], PATIENCE)[0], "the browser says nothing"
            part = os.read(self._in, 1 << 20)
            assert part, "the browser went away"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") in _WANTED_EVENTS:
            self.complaints.append(message["params"])
        if message.get("method") == _DIALOGUE:
            self.dialogues.append(message["params"])
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"][:100])
        return message


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile that ends with the block."""
    assert PROGRAM is not None
    to_browser, out = os.pipe()
    back, from_browser = os.pipe()
    # The browser listens on 3 and speaks on 4; numbers above 9 first, so that neither is overwritten before it is copied.
    # bash, since other shells know one-digit numbers only.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
    os.close(to_browser)
    os.close(from_browser)
    command = [
        "bash",
        "-c",
        f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}',
        "bash",
        PROGRAM,
        *_FLAGS,
        f"--user-data-dir={profile}",
    ]
    with subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for end in ends:
            os.close(end)
        try:
            yield Page(out, back)
        finally:
            os.close(out)  # the browser ends when nobody speaks to it any more
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            os.close(back)
