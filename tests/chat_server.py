"""A small OpenAI-compatible server on a real socket, that can be told to fail: for the tests of what talks to servers.

It renders prompts with a real tokenizer and its chat template, so `usage.prompt_tokens` is what vLLM would report.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tokenskip.types import Prompt

Answer = Callable[[Prompt], str]


class ChatServer:
    """What the server does, and what it saw. All of it may be changed while it runs.

    `drops`: fields of a body that it does not look at. `troubles`: HTTP statuses that the next requests get instead of
    an answer. `trouble_of`: the status for a given body, or None. `die_after`: answers until the socket is closed for
    good. `keeps`: endpoints that exist.
    """

    def __init__(self, tokenizer: Any, answer: Answer, model: str = "tiny") -> None:
        self.tokenizer, self.answer, self.model = tokenizer, answer, model
        self.keeps = {"/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize"}
        self.drops: set[str] = set()
        self.takes_ids = True
        self.reports_usage = True
        self.troubles: list[int] = []
        self.trouble_of: Callable[[dict[str, Any]], int | None] = lambda body: None
        self.die_after: int | None = None
        self.bodies: list[dict[str, Any]] = []
        self.answered = self.admitted = 0
        self.busy = self.most_busy = 0
        self.pause = threading.Event()
        self.pause.set()
        self._lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self.url = ""

    def ids(self, text: str) -> list[int]:
        """Token ids of rendered text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt_ids(self, body: dict[str, Any]) -> list[int]:
        """What the model would be given for a request's body."""
        if "prompt" in body:
            return body["prompt"] if isinstance(body["prompt"], list) else self.tokenizer(body["prompt"])["input_ids"]
        body = {name: value for name, value in body.items() if name not in self.drops}
        kwargs = dict(body.get("chat_template_kwargs") or {})
        if "reasoning_effort" in body:  # as vLLM, SGLang and llama.cpp do: the template gets the word
            kwargs["reasoning_effort"] = body["reasoning_effort"]
        return self.ids(
            self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False, **kwargs)
        )

    def handle(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Status and JSON of one request."""
        if path not in self.keeps:
            return 404, {"detail": "Not Found"}
        if path == "/v1/models":
            return 200, {"data": [{"id": self.model}]}
        assert body is not None
        if body["model"] != self.model:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if path == "/tokenize":
            ids = self.prompt_ids(body)
            return 200, {"count": len(ids), "tokens": ids}
        with self._lock:
            self.bodies.append(body)
            trouble = self.trouble_of(body) or (self.troubles.pop(0) if self.troubles else None)
        if trouble:
            return trouble, {"error": {"message": f"trouble {trouble}"}}
        if path == "/v1/completions" and isinstance(body["prompt"], list) and not self.takes_ids:
            return 400, {"detail": "prompt must be a string."}
        return 200, self._reply(path, body)

    def _reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        ids = self.prompt_ids(body)
        ratio = float((body.get("chat_template_kwargs") or {}).get("compression_ratio", 1))
        raw = "prompt" in body
        shown = self.tokenizer.decode(ids, skip_special_tokens=False)
        messages = ({"role": "user", "content": shown},) if raw else tuple(body["messages"])
        text = self.answer(Prompt(messages=messages, ratio=ratio, prefill="x" if raw else ""))
        made = self.ids(text)
        cap = body.get("max_tokens", 10**6)
        finish = "length" if len(made) > cap else "stop"
        text = self.tokenizer.decode(made[:cap], clean_up_tokenization_spaces=False) if finish == "length" else text
        said = {"text": text} if path == "/v1/completions" else {"message": {"role": "assistant", "content": text}}
        reply: dict[str, Any] = {"id": "x", "object": "x", "created": 0, "model": self.model}
        reply["choices"] = [{"index": 0, "finish_reason": finish, **said}]
        if self.reports_usage:
            n = min(len(made), cap)
            reply["usage"] = {"prompt_tokens": len(ids), "completion_tokens": n, "total_tokens": len(ids) + n}
        return reply

    def events(self, reply: dict[str, Any]) -> str:
        """A reply as the events of a stream: its text in pieces, the finish reason, then the usage alone."""
        choice = reply["choices"][0]
        text = choice["message"]["content"]
        pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
        common = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": self.model}
        choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        choices.append({"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]})
        events: list[dict[str, Any]] = [{**common, "choices": [one]} for one in choices]
        events.append({**common, "choices": [], "usage": reply.get("usage")})
        return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

    def start(self, port: int = 0) -> None:
        """Listen, on a free port by default."""
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        """Close the socket: connections are refused from here on."""
        if self._http:
            http, self._http = self._http, None
            http.shutdown()
            http.server_close()

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._http is not None

    def enter(self, path: str) -> bool:
        """Count a request that is under way; False once as many were let in as will ever be answered."""
        with self._lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            if self.die_after is None or "completions" not in path:
                return True
            self.admitted += 1
            return self.admitted <= self.die_after

    def leave(self, answered: bool) -> None:
        """The request is over; perhaps it was the last one."""
        with self._lock:
            self.busy -= 1
            self.answered += answered
            last = self.die_after is not None and self.answered >= self.die_after
        if last:
            self.stop()


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Requests -> `server.handle`; once it died, not even open connections are answered."""

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any] | None) -> None:
            admitted = server.enter(self.path)
            server.pause.wait(10)
            status, reply = server.handle(self.path, body) if admitted else (0, None)
            if status:
                streams = status == 200 and body is not None and body.get("stream")
                raw = (server.events(reply) if streams else json.dumps(reply)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream" if streams else "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.send_header("retry-after-ms", "5")
                self.end_headers()
                self.wfile.write(raw)
            server.leave(status == 200 and "completions" in self.path)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    return Handler


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    """The server, up for the time of a block."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
