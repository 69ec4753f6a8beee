"""A headless Chromium for tests, spoken to over its DevTools pipe: no driver, no socket, no package.

with Browser(tmp_path / "profile") as browser:
    browser.open(page.as_uri(), width=390, dark=True)
    assert browser.run("document.title") == "..."
    assert browser.errors == []
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
PATIENCE_S = 120
_NO = "gpu quic background-networking component-update sync dev-shm-usage"
QUIET = ["--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe"]
QUIET += [f"--disable-{name}" for name in _NO.split()]


class Browser:
    """One page in one browser. `errors` collects uncaught exceptions, console errors and what could not be loaded."""

    def __init__(self, profile: Path) -> None:
        self.errors: list[str] = []
        self._replies: dict[int, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._sent = 0
        self._session: str | None = None
        self._unread = b""
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        # The browser reads commands on its descriptor 3 and writes answers on 4.
        wire = ["bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "bash"]
        self._process = subprocess.Popen(
            [*wire, str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(their_in, their_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        os.close(self._in)
        os.close(self._out)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page and wait for its `load` event."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        self.send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()

    def run(self, script: str) -> Any:
        """The JSON value of an expression in the page; a promise is waited for."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60.0) -> Any:
        """The expression's value as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.05)
        return value

    def press(self, key: str) -> None:
        """One key, as a person presses it."""
        text = {"Enter": "\r", "Space": " "}.get(key)
        named = {"key": " " if key == "Space" else key, "code": key}
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "ArrowLeft": 37, "ArrowRight": 39}[key]
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, windowsVirtualKeyCode=code, **named, **more)

    def picture(self, target: Path) -> None:
        """A PNG of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(shot["data"]))

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        self._sent += 1
        session = {"sessionId": self._session} if self._session else {}
        message = json.dumps({"id": self._sent, "method": method, "params": params, **session})
        os.write(self._out, message.encode() + b"\0")
        while self._sent not in self._replies:
            self._read()
        reply = self._replies.pop(self._sent)
        assert "error" not in reply, (method, reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def _read(self) -> None:
        ready, _, _ = select.select([self._in], [], [], PATIENCE_S)
        assert ready, f"the browser said nothing for {PATIENCE_S} s"
        chunk = os.read(self._in, 1 << 16)
        assert chunk, "the browser has gone"
        *whole, self._unread = (self._unread + chunk).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._replies[message["id"]] = message
            else:
                self._events.append(message)
                self._note(message["method"], message["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str([one.get("value") for one in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
