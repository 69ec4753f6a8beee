"""A server on a loopback socket that answers as it should not: odd shapes, bad HTTP, redirects, drips and bombs."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT = "Tom starts with 12 apples. 12 + 5 = 17.\n\nThe final answer is 17."


def reply(message: Any = TEXT, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """A chat reply; `message` is its content, or the whole message where that is no text."""
    whole = {"role": "assistant", "content": message} if isinstance(message, str) else message
    return {"choices": [{"index": 0, "message": whole, "finish_reason": finish}], **more}


class Hostile:
    """What it sends, and what it was sent. `answer(path, body)` gives JSON, bytes to send as they are, or a function
    that writes to the socket itself."""

    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        self.answer = answer
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.ended = threading.Event()
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: Any) -> None:
                hostile.paths.append(self.path)
                hostile.headers.append(dict(self.headers))
                sent = {"data": []} if self.path.endswith("/models") else hostile.answer(self.path, body)
                try:
                    if callable(sent):
                        sent(self)
                    else:
                        self.whole(sent if isinstance(sent, bytes) else json.dumps(sent).encode())
                except OSError:
                    hostile.ended.set()
                    self.close_connection = True

            def whole(self, raw: bytes, status: int = 200, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @property
    def n_asked(self) -> int:
        """Requests for an answer."""
        return sum("completions" in path for path in self.paths)


@contextmanager
def hostile(answer: Callable[[str, Any], Any]) -> Iterator[Hostile]:
    """The server, up for the time of a block."""
    server = Hostile(answer)
    threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def status(code: int, body: Any, **headers: str) -> Callable[[Any], None]:
    """A reply with a status and headers."""
    return lambda handler: handler.whole(json.dumps(body).encode(), code, **headers)


def drip(handler: Any) -> None:
    """A byte every tenth of a second, for half a minute."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(300):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def bomb(handler: Any) -> None:
    """300 MB of spaces in 300 KB."""
    handler.whole(gzip.compress(b" " * 300_000_000, 6), Content_Encoding="gzip")


def garbage(handler: Any) -> None:
    """No HTTP."""
    handler.wfile.write(b"\x00\xff garbage\r\n\r\n")
    handler.close_connection = True


def cut(handler: Any) -> None:
    """A body that ends early."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"cho')
    handler.close_connection = True
