"""Requests to an OpenAI-compatible server, bounded in time and in size, and with the API key for that server only.

    python -c "from tokenskip.client import *; print(served_models(base_url('http://localhost:8000')))"

No redirect is followed, since the key would go along. A request has one deadline for everything, however slowly bytes
arrive; a reply is at most `MAX_REPLY_BYTES`, packed or not. What a server sends is cleaned where it comes in: the API
key, should the server repeat it, and halves of characters, which no file and no tokenizer takes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import re
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from tokenskip.errors import BackendError, ConfigError
from tokenskip.terminal import one_line
from tokenskip.trust import KEY_VARIABLE

MAX_REPLY_BYTES = 8 * 2**20
"""The largest reply that is read: some two million tokens of text."""
MAX_STREAM_BYTES = 64 * 2**20
"""The most that is read of an answer that comes piece by piece, each wrapped in some 300 bytes."""
MAX_WAIT_S = 60.0
"""The longest wait before a request is repeated, whatever the server asks for."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its `max_lora_rank`."""

Result = TypeVar("Result")
_PASSING = (408, 409, 429)


def lora_rank(rank: int) -> int:
    """The smallest `max_lora_rank` of vLLM that an adapter of `rank` fits into.

    Raises:
        ConfigError: there is none.
    """
    if rank > LORA_RANKS[-1]:
        raise ConfigError(f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, this one has {rank}: merge it")
    return next(size for size in LORA_RANKS if size >= rank)


class Reply(NamedTuple):
    """An HTTP status and the JSON that came with it (the text, where it is not JSON)."""

    status: int
    body: Any
    wait_s: float | None = None
    """How long the server asks to wait before the request is repeated."""

    @property
    def message(self) -> str:
        """What the server says is wrong, in one line."""
        value = self.body
        for key in ("error", "detail", "message"):
            if isinstance(value, dict) and value.get(key):
                value = value[key]
        return one_line(value)


class NoReply(BackendError):
    """No usable reply came. `gone`: nobody listens at the address, so the next request will not be answered either."""

    def __init__(self, text: str, *, gone: bool = False) -> None:
        super().__init__(text)
        self.gone = gone


def base_url(url: str) -> str:
    """`url` as clients take it: with a scheme, ending in `/v1` unless it has a path of its own.

    Raises:
        ConfigError: it is no http address, or holds a user name, a password or a query.
    """
    whole = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urllib.parse.urlsplit(whole)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
    except ValueError:  # a port that is no number, brackets that do not close, a name that no resolver takes
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f\\]", whole):
        raise ConfigError(f"{_without_login(url)!r} is no server address: write it as http://localhost:8000")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"{_without_login(url)!r} holds more than an address, and would be written into run folders: leave the "
            f"user name, password and query out; a key goes into {KEY_VARIABLE}"
        )
    return whole if parts.path else f"{whole}/v1"


def _without_login(url: str) -> str:
    """`url` for an error message, without what may be secret in it."""
    return re.sub(r"[?#].*", "?…", re.sub(r"(?<=://)[^/]*@|^[^/]*@", "…@", url), flags=re.DOTALL)[:200]


def redact(text: str) -> str:
    """`text` without the API key: a server may repeat what it was sent, and replies end in files that are published."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if len(key) < 6 or (key.isalpha() and len(key) < 16):  # a stand-in such as EMPTY: also a word of an answer
        return text
    for spelling in {key, urllib.parse.quote(key, safe=""), base64.b64encode(key.encode()).decode()}:
        text = text.replace(spelling, f"[{KEY_VARIABLE}]")
    return text


class Client:
    """Requests under one set of limits. Use as an asynchronous context manager.

    `timeout_s`: for a whole request, its reply included. `retries`: after 408, 409, 429, 5xx, a lost connection or a
    timeout, 0.5 s apart and doubling up to 8 s, or as long as the server says (at most `MAX_WAIT_S`).
    """

    def __init__(self, *, timeout_s: float, retries: int = 0, concurrency: int = 1) -> None:
        self.timeout_s, self.retries, self.concurrency = timeout_s, retries, concurrency
        self._http: Any = None

    async def __aenter__(self) -> Client:
        httpx = _httpx()
        try:
            self._http = httpx.AsyncClient(
                headers=_headers(),
                timeout=None,  # ours is for the whole request
                follow_redirects=False,
                limits=httpx.Limits(max_connections=self.concurrency),
            )
        except (ValueError, ImportError, OSError) as error:  # a proxy variable or certificate file that is none
            raise BackendError(f"no request can be sent ({one_line(error)}): check the proxy variables") from None
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def ask(self, url: str, body: dict[str, Any] | None = None) -> Reply:
        """GET `url`, or POST `body` to it; an error status is a reply like any other.

        Raises:
            NoReply: nothing usable came, also when repeated; BackendError: the server redirects.
        """
        for attempt in range(self.retries + 1):
            wait_s: float | None = None
            try:
                reply = await self._exchange(url, body)
            except NoReply:
                if attempt == self.retries:
                    raise
            else:
                wait_s = reply.wait_s
                passing = reply.status in _PASSING or reply.status >= 500
                if not passing or attempt == self.retries or (wait_s or 0) > MAX_WAIT_S:
                    return reply
            await asyncio.sleep(min(0.5 * 2**attempt, 8.0) * random.uniform(0.75, 1) if wait_s is None else wait_s)
        raise AssertionError("the last attempt returns or raises")

    async def _exchange(self, url: str, body: dict[str, Any] | None) -> Reply:
        async def read(response: Any) -> Reply:
            raw = b"".join([piece async for piece in _unpacked(response, MAX_REPLY_BYTES)])
            return Reply(response.status_code, parsed(raw), _wait_s(response.headers))

        return await self._within_limits(url, body, read)

    async def stream(self, url: str, body: dict[str, Any], take: Callable[[Any], None]) -> None:
        """POST `body`, and hand the JSON of every event to `take` as it comes (of the whole reply, if it is one).

        Raises:
            NoReply: nothing usable came; BackendError: the server refuses, redirects, or reports an error.
        """

        async def read(response: Any) -> None:
            if response.status_code != 200:
                raw = b"".join([piece async for piece in _unpacked(response, MAX_REPLY_BYTES)])
                reply = Reply(response.status_code, parsed(raw))
                raise BackendError(f"HTTP {reply.status}: {reply.message}")
            whole, rest, streams = b"", b"", False
            async for piece in _unpacked(response, MAX_STREAM_BYTES):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    data = line.strip().removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if line.startswith(b"data:"):
                        streams = True
                        take(parsed(data))
                whole = b"" if streams else whole + piece
                if len(rest) + len(whole) > 2 * MAX_REPLY_BYTES:
                    raise NoReply(f"an event of more than {MAX_REPLY_BYTES // 2**20} MiB")
            if not streams:  # a server that sends the reply in one piece, or an error
                take(parsed(whole))

        await self._within_limits(url, body, read)

    async def _within_limits(
        self, url: str, body: dict[str, Any] | None, read: Callable[[Any], Coroutine[Any, Any, Result]]
    ) -> Result:
        """What `read` makes of the response, within the deadline; every way to fail as a `NoReply`."""
        httpx = _httpx()
        content = None if body is None else json.dumps(body).encode()
        try:
            async with (
                asyncio.timeout(self.timeout_s),
                self._http.stream("GET" if body is None else "POST", url, content=content) as response,
            ):
                if response.is_redirect:
                    raise BackendError(
                        f"{url} redirects to {one_line(redact(response.headers.get('location', '?')), 100)} (HTTP "
                        f"{response.status_code}): the key is sent to no other address; give that one if you trust it"
                    )
                return await read(response)
        except TimeoutError:
            raise NoReply(f"no answer in {self.timeout_s:g} s") from None
        except httpx.ConnectError as error:
            raise NoReply(one_line(_first_cause(error)) or "no connection", gone=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, zlib.error) as error:
            raise NoReply(f"no whole reply ({one_line(redact(str(error))) or type(error).__name__})") from None


def ask(url: str, body: dict[str, Any] | None = None, *, timeout_s: float = 60.0) -> Reply:
    """GET `url`, or POST `body` to it; an error status is a reply like any other.

    Raises:
        BackendError: nothing usable answers there.
    """

    async def once() -> Reply:
        async with Client(timeout_s=timeout_s) as client:
            return await client.ask(url, body)

    try:
        return run(once())
    except NoReply as error:
        raise BackendError(f"no server answers at {url} ({error}): start it, or give its address") from None


def served_models(base: str, *, timeout_s: float = 30.0) -> list[str]:
    """Names that the server at `base` (`…/v1`) lists; empty where it keeps no list, as transformers serve mostly does.

    Raises:
        BackendError: nothing answers there, or it wants another API key.
    """
    reply = ask(f"{base}/models", timeout_s=timeout_s)
    if reply.status in (401, 403):
        raise BackendError(f"{base} refuses the API key (HTTP {reply.status}): set {KEY_VARIABLE} to the right one")
    listed = reply.body.get("data") if isinstance(reply.body, dict) else None
    models = listed if isinstance(listed, list) else []
    return [model["id"] for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]


def check_served(base: str, model: str) -> None:
    """BackendError when the server is down, or lists models and `model` is not one of them."""
    listed = served_models(base)
    if listed and model not in listed:
        names = ", ".join(one_line(name, 80) for name in listed[:10])
        raise BackendError(f"{base} does not serve {model!r}: it serves {names}")


def parsed(raw: bytes) -> Any:
    """The JSON in `raw`, cleaned; the beginning of the text where it is none, or is nested thousands deep."""
    try:
        return _clean(json.loads(raw))
    except (ValueError, RecursionError):
        return _clean(raw[:10_000].decode("utf-8", "replace"))


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, also where a loop is running already, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value).encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(one) for key, one in value.items()}
    return value


async def _unpacked(response: Any, limit: int) -> AsyncIterator[bytes]:
    """The body's pieces, unpacked here: the library would make all that a small packed piece can become.

    Raises:
        NoReply: it is larger than `limit`, or packed in a way that was not asked for.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise NoReply(f"a reply packed as {one_line(packing, 40)}, which was not asked for")
    unpack = None if packing in ("identity", "") else zlib.decompressobj(47)  # 47: gzip or zlib, by its header
    size = 0
    async for piece in response.aiter_raw():
        piece = unpack.decompress(piece, limit - size + 1) if unpack else piece
        size += len(piece)
        if size > limit:
            raise NoReply(f"a reply of more than {limit // 2**20} MiB")
        yield piece


def _first_cause(error: BaseException) -> str:
    """What the operating system said, which the libraries wrap in "all connection attempts failed"."""
    cause, at = error, error.__cause__ or error.__context__
    while at is not None:
        at = at.exceptions[0] if isinstance(at, BaseExceptionGroup) else at
        cause = at if isinstance(at, OSError) else cause
        at = at.__cause__ or at.__context__
    return os.strerror(cause.errno) if isinstance(cause, ConnectionError) and cause.errno else str(cause)


def _headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE, "").strip() or "none"
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{KEY_VARIABLE} holds a line break or another character that no request can carry")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept-Encoding": "gzip"}
    for name, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
        if value := os.environ.get(variable):
            headers[name] = value
    return headers


def _wait_s(headers: Any) -> float | None:
    """Seconds that a server asks to wait, None where it says nothing usable."""
    for name, seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers.get(name, "")) * seconds
        except ValueError:
            continue
        if 0 <= wait < float("inf"):
            return wait
    return None


def _httpx() -> Any:
    """httpx, under the name that the installed hub client has it by."""
    try:
        import httpx2 as httpx
    except ImportError:
        import httpx  # type: ignore[no-redef]
    return httpx
