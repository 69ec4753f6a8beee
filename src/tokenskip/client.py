"""A running OpenAI-compatible server, asked in JSON: does it answer, and what does it serve. Standard library only.

python -c "from tokenskip.client import *; print(served_models(base_url('http://localhost:8000')))"
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from tokenskip.errors import BackendError, ConfigError

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key that servers are asked with, as every OpenAI client reads it."""


LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as its `max_lora_rank`."""


def lora_rank(rank: int) -> int:
    """The smallest `max_lora_rank` of vLLM that an adapter of `rank` fits into.

    Raises:
        ConfigError: there is none.
    """
    if rank > LORA_RANKS[-1]:
        raise ConfigError(f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, this one has {rank}: merge it")
    return next(one for one in LORA_RANKS if one >= rank)


class Reply(NamedTuple):
    """An HTTP status and the JSON that came with it (the text, where it is not JSON)."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        """What the server says is wrong, in one line."""
        found = self.body
        for key in ("error", "detail", "message"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        return " ".join(str(found).split())[:300]


def base_url(url: str) -> str:
    """`url` as clients take it: with a scheme, ending in `/v1` unless it has a path of its own.

    Raises:
        ConfigError: it is no http address.
    """
    whole = url if "://" in url else f"http://{url}"
    scheme, _, rest = whole.rstrip("/").partition("://")
    if scheme not in ("http", "https") or not rest or " " in rest:
        raise ConfigError(f"{url!r} is no server address: write it as http://localhost:8000")
    return f"{scheme}://{rest}" if "/" in rest else f"{scheme}://{rest}/v1"


def ask(url: str, body: dict[str, Any] | None = None, *, timeout_s: float = 60.0) -> Reply:
    """GET `url`, or POST `body` to it; an error status is a reply like any other.

    Raises:
        BackendError: nothing answers there.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ.get(KEY_VARIABLE, 'none')}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return Reply(answer.status, _parsed(answer.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, _parsed(error.read()))
    except (OSError, ValueError) as error:  # URLError, timeouts, resets; a malformed address
        reason = getattr(error, "reason", None) or error
        raise BackendError(f"no server answers at {url} ({reason}): start it, or give its address") from None


def served_models(base: str, *, timeout_s: float = 30.0) -> list[str]:
    """Names that the server at `base` (`…/v1`) lists; empty where it keeps no list, as transformers serve mostly does.

    Raises:
        BackendError: nothing answers there, or it wants another API key.
    """
    reply = ask(f"{base}/models", timeout_s=timeout_s)
    if reply.status in (401, 403):
        raise BackendError(f"{base} refuses the API key (HTTP {reply.status}): set {KEY_VARIABLE} to the right one")
    listed = reply.body.get("data") if isinstance(reply.body, dict) else None
    return [str(one["id"]) for one in listed or [] if isinstance(one, dict) and "id" in one]


def check_served(base: str, model: str) -> None:
    """BackendError when the server is down, or lists models and `model` is not one of them."""
    listed = served_models(base)
    if listed and model not in listed:
        raise BackendError(f"{base} does not serve {model!r}: it serves {', '.join(listed[:10])}")


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")
