"""Requests to servers that nobody should trust: bounded, without redirects, and the key comes back in nothing."""

from __future__ import annotations

import gzip
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_server import bomb, cut, drip, garbage, hostile, status

from tokenskip.client import MAX_REPLY_BYTES, ask, base_url, check_served, parsed, redact, served_models
from tokenskip.errors import BackendError, ConfigError

KEY = "sk-proj-0a/B+c=SECRET"


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "http://localhost:8000/v1"),
        ("https://api.example/compatible/v1", "https://api.example/compatible/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_completed(given: str, whole: str) -> None:
    assert base_url(given) == whole


@pytest.mark.parametrize(
    "url",
    ["", "http://", "ftp://x", "not a url", "http://127.0.0.1:abc", "http://[::1", "http://h:99999", "http://h:0",
     "http://h\r\nX-Y: z", "http://h\x1b[2J", "http:///v1", "http://a\\b"],
)  # fmt: skip
def test_what_is_no_address_is_one_line(url: str) -> None:
    with pytest.raises(ConfigError, match="is no server address: write it as") as error:
        base_url(url)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "url", ["http://me:S3CRET@h:1/v1", "me:S3CRET@h:1", "http://h/v1?key=S3CRET", "http://h#S3CRET"]
)
def test_an_address_holds_no_secrets_and_no_error_repeats_them(url: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as error:
        base_url(url)
    assert "S3CRET" not in str(error.value)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with hostile(lambda path, body: {}) as other:
        with (
            hostile(lambda path, body: status(code, {}, Location=f"{other.url}/x?{KEY}")) as server,
            pytest.raises(BackendError, match=rf"redirects to {other.url}/x.*HTTP {code}") as error,
        ):
            ask(f"{server.url}/v1/chat/completions", {})
        assert KEY not in str(error.value)
        assert other.paths == []


def test_a_reply_that_drips_is_not_waited_for() -> None:
    start = time.monotonic()
    with hostile(lambda path, body: drip) as server, pytest.raises(BackendError, match=r"no answer in 0\.5 s"):
        ask(f"{server.url}/v1/chat/completions", timeout_s=0.5)
    assert time.monotonic() - start < 5


def test_a_bomb_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"100000\r\n" + b" " * 2**20 + b"\r\n")

    raw = gzip.compress(b" " * 200_000_000, 6)
    for answer in (endless, lambda handler: handler.whole(raw, Content_Encoding="gzip")):
        with hostile(lambda path, body, answer=answer: answer) as server, pytest.raises(BackendError, match="8 MiB"):
            ask(f"{server.url}/v1/x", {})
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 150 + 200_000_000 / 2**20  # the server here makes the bomb in this process
    assert MAX_REPLY_BYTES == 8 * 2**20


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_packed_reply_is_read(encoding: str) -> None:
    import zlib

    raw = json.dumps({"a": "b" * 1000}).encode()
    packed = gzip.compress(raw) if encoding == "gzip" else zlib.compress(raw)
    with hostile(lambda path, body: lambda handler: handler.whole(packed, Content_Encoding=encoding)) as server:
        assert ask(f"{server.url}/v1/x").body == {"a": "b" * 1000}


def test_a_packing_nobody_asked_for_is_said() -> None:
    with (
        hostile(lambda path, body: lambda handler: handler.whole(b"xx", Content_Encoding="br")) as server,
        pytest.raises(BackendError, match="packed as br"),
    ):
        ask(f"{server.url}/v1/x")


@pytest.mark.parametrize("answer", [garbage, cut, bomb, lambda handler: handler.connection.close()])
def test_what_is_no_http_is_one_line(answer: Callable[[Any], None]) -> None:
    with hostile(lambda path, body: answer) as server, pytest.raises(BackendError, match="no server answers at"):
        ask(f"{server.url}/v1/x", timeout_s=20)


def test_nobody_listens() -> None:
    with pytest.raises(BackendError, match=r"\(Connection refused\): start it"):
        ask("http://127.0.0.1:9/v1/models")


def test_the_key_comes_back_in_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    seen = {
        "error": {"message": f"bad key Bearer {KEY}"},
        KEY: [f"x{KEY}y", {"z": KEY}],
        "url": "?k=sk-proj-0a%2FB%2Bc%3DSECRET",
    }
    with hostile(lambda path, body: seen) as server:
        found = ask(f"{server.url}/v1/x", {})
    assert "SECRET" not in json.dumps(found.body)
    assert found.message == "bad key Bearer [OPENAI_API_KEY]"
    assert "SECRET" not in str(parsed(f"<html>{KEY}</html>".encode()))
    escaped = "".join("\\" + f"u{ord(character):04x}" for character in KEY)
    assert parsed(f'{{"a": "{escaped}"}}'.encode()) == {"a": "[OPENAI_API_KEY]"}


@pytest.mark.parametrize("stand_in", ["", "none", "EMPTY", "test", "dummy", "whatever"])
def test_a_stand_in_for_a_key_is_a_word_like_any_other(monkeypatch: pytest.MonkeyPatch, stand_in: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", stand_in)
    assert redact(f"an answer with {stand_in} in it") == f"an answer with {stand_in} in it"


def test_a_key_that_no_header_carries_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc\r\nX-Other: 1")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds a line break"):
        ask("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    "listing", [5, "abc", None, {}, {"data": 5}, {"data": "abc"}, {"data": [3, {"id": 5}, None]}, []]
)
def test_an_odd_list_of_models_lists_nothing(monkeypatch: pytest.MonkeyPatch, listing: Any) -> None:
    from tokenskip import client

    monkeypatch.setattr(client, "ask", lambda url, timeout_s: client.Reply(200, listing))
    assert served_models("http://h/v1") == []


def test_the_names_of_models_are_shown_short_and_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenskip import client

    names = [{"id": "\x1b]0;PWNED\x07"}, {"id": "a" * 100_000}]
    monkeypatch.setattr(client, "ask", lambda url, timeout_s: client.Reply(200, {"data": names}))
    with pytest.raises(BackendError, match="does not serve 'm'") as error:
        check_served("http://h/v1", "m")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


def test_a_password_in_an_address_reaches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from tokenskip import cli

    options = ["generate.backend=openai", "generate.options.url=http://me:S3CRET@127.0.0.1:9/v1"]
    arguments = [word for option in options for word in ("--set", option)]
    monkeypatch.setattr("sys.argv", ["tokenskip", "generate", str(tmp_path / "run"), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "S3CRET" not in capsys.readouterr().err
    assert not any("S3CRET" in file.read_text() for file in tmp_path.rglob("*") if file.is_file())
