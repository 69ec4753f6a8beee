"""The playground answers its own page only: under names of this machine, and through what the page needs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenskip import cli
from tokenskip.serving.guard import Guard, is_local

QUEUE = "/gradio_api/queue/join"


def refusal(path: str = QUEUE, local: bool = True, host: str | None = "127.0.0.1:7860", **headers: str) -> int | None:
    sent = [(b"host", host.encode())] if host is not None else []
    sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Guard(None, local).refusal({"type": "http", "path": path, "headers": sent})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.2", "localhost."]
)
def test_names_of_this_machine(host: str) -> None:
    assert refusal(host=host) is None
    assert refusal(host=host, origin=f"http://{host}") is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example:7860", "evil.example:127.0.0.1", "", None,
     "0.0.0.0:7860", "192.0.2.2:7860", "[::1", "127.0.0.1@evil.example", "[fe80::1]:7860", "2130706433"],
)  # fmt: skip
def test_another_name_is_refused(host: str | None) -> None:
    assert refusal(host=host) == 403
    assert refusal("/", host=host) == 403


def test_on_a_network_any_name_will_do_but_no_other_page() -> None:
    assert refusal(local=False, host="box.example:7860", origin="http://box.example:7860") is None
    assert refusal(local=False, host="box.example:7860", origin="http://evil.example") == 403
    assert refusal(local=False, host=None) == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "http://[", "", "file://"])
def test_another_page_is_refused(origin: str) -> None:
    assert refusal(origin=origin) == 403


def test_what_a_browser_says_of_itself() -> None:
    assert refusal(sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert refusal("/", sec_fetch_site="cross-site", sec_fetch_mode="no-cors") == 403
    assert refusal("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate") is None  # a link to the page
    assert refusal(QUEUE, sec_fetch_site="cross-site", sec_fetch_mode="navigate") == 403
    assert refusal(sec_fetch_site="same-origin", sec_fetch_mode="cors") is None


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x", "/gradio_api/run/answer",
     "/gradio_api/api/answer", "/gradio_api/mcp", "/monitoring", "/docs", "/openapi.json", "/login", "//"],
)  # fmt: skip
def test_nothing_else_is_there(path: str) -> None:
    assert refusal(path) == 404


def test_loopback() -> None:
    assert [is_local(one) for one in ("127.8.9.1", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "")] == [
        True
    ] * 3 + [False] * 4


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running playground that asks a server which never answers."""
    pytest.importorskip("gradio", reason="needs the playground extra")
    log = tmp_path_factory.mktemp("page") / "log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-m", "tokenskip", "playground", "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    try:
        end = time.monotonic() + 200
        while "playground: " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def sent(url: str, body: Any = None, **headers: str) -> int:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_the_running_page(page: str) -> None:
    asked = {"data": ["Tom has 12 apples.", 0.5]}
    assert sent(page) == sent(f"{page}/config") == sent(f"{page}/theme.css") == 200
    assert sent(f"{page}/gradio_api/call/answer", asked, Origin=page) == 200
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert sent(f"{page}/config", **headers) == 403
        assert sent(f"{page}/gradio_api/call/answer", asked, **headers) == 403
    assert sent(f"{page}/gradio_api/upload", {}) == 404
    assert sent(f"{page}/gradio_api/file=/etc/hostname") == 404
