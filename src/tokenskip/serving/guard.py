"""Who may talk to a local page: the page itself, under a name of this machine, and through what it needs.

A browser sends other pages' requests to this machine too. Those carry a foreign `Origin`; and a page whose own name was
made to point here (DNS rebinding) carries that name as `Host`. Both are refused, as is everything that the framework
offers beyond the page: uploads, files, proxies.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

Scope = Mapping[str, Any]
Channel = Callable[..., Awaitable[Any]]

_NEEDED = re.compile(
    r"""/ | /config/? | /(?:assets|static|svelte)/.+ | /theme\.css | /favicon\.ico | /manifest\.json | /robots\.txt
    | /gradio_api/ (?: info | app_id | startup-events | theme\.css | heartbeat/\w+ | cancel | reset
                     | queue/(?:join|data) | call/answer(?:/\w+)? ) /?""",
    re.VERBOSE,
)


def guard(host: str) -> Any:
    """The middleware of a page that is served at `host`; at an address of a network any `Host` is answered."""
    from starlette.middleware import Middleware

    return Middleware(Guard, local=is_local(host))


def is_local(name: str) -> bool:
    """Whether a host name is one of this machine for itself: localhost, or a loopback address."""
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI application in front of another, which answers 403 or 404 to what that should never see."""

    def __init__(self, app: Channel, local: bool) -> None:
        self.app, self.local = app, local

    async def __call__(self, scope: Scope, receive: Channel, send: Channel) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and not (status := self.refusal(scope))):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]  # the body is not waited for
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"not for you\n"})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def refusal(self, scope: Scope) -> int | None:
        """The status to refuse a request with; None for one of the page's own."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1 or (self.local and not is_local(_name(hosts[0]))):
            return 403
        if any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins if _is_url(origin)):
            return 403
        if any(not _is_url(origin) for origin in origins):  # "null": a sandboxed frame or a file
            return 403
        path = str(scope["path"])
        opened = headers.get("sec-fetch-mode") == ["navigate"] and path == "/"  # a link, or a bookmark
        if not opened and headers.get("sec-fetch-site", ["none"])[0] in ("cross-site", "same-site"):
            return 403
        return None if _NEEDED.fullmatch(path) else 404


def _name(host: str) -> str:
    """The host without its port."""
    return host if host.endswith("]") else re.sub(r":\d*$", "", host)


def _is_url(origin: str) -> bool:
    try:
        return bool(urlsplit(origin).netloc)
    except ValueError:
        return False
