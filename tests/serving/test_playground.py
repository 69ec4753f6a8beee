"""The playground: streams equal to the backend's answers, clocks that run in their own turns only, and the page."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from chat_server import ChatServer, serving
from hostile_server import Hostile, garbage, hostile, status
from scripted_runs import ChainBackend

from tokenskip import cli
from tokenskip.backends.hf import HfBackend
from tokenskip.config import ModelConfig, PromptConfig
from tokenskip.models.loading import load_model, load_tokenizer
from tokenskip.prompting.prompts import Prompts
from tokenskip.serving.playground import Ground, local, pumped, race, remote, timed
from tokenskip.serving.playground_page import answers, escape
from tokenskip.types import Completion, Prompt, Sampling

QUESTION = "Ruth has 11 pears. Each of 3 friends brings 11 more. How many pears are there?"
NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>${window.hacked = 1}{{hacked}} & 5<6"


def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["tokenskip", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    return said


def growing(*texts: str) -> list[Completion]:
    return [Completion(text=text, n_tokens=len(text.split())) for text in texts]


def ground(left: list[Completion], right: list[Completion], **more: Any) -> Ground:
    return Ground(
        original=("left", lambda question, ratio: timed(left)),
        short=("right", lambda question, ratio: timed(right)),
        prompt=PromptConfig(),
        count=lambda text: len(text.split()),
        **more,
    )


@pytest.mark.parametrize("step", [1, 5, 64])
def test_a_stream_ends_in_the_answer_of_generate(model_folder: Path, step: int) -> None:
    config = ModelConfig(path=str(model_folder), device="cpu")
    tokenizer = load_tokenizer(config)
    backend = HfBackend(load_model(config), tokenizer)
    for prompt in (Prompts(tokenizer, PromptConfig()).prompt(QUESTION, ratio) for ratio in (1.0, 0.5)):
        pieces = list(backend.stream(prompt, 23, step=step))
        assert pieces[-1] == backend.generate([prompt], Sampling(max_new_tokens=23))[0]
        assert [piece.n_tokens for piece in pieces[:-1]] == list(range(step, 23, step))[: len(pieces) - 1]


def test_a_prompt_that_does_not_fit_is_an_error_record(model_folder: Path) -> None:
    config = ModelConfig(path=str(model_folder), device="cpu")
    backend = HfBackend(load_model(config), load_tokenizer(config))
    (only,) = backend.stream(Prompt(messages=(), token_ids=(5,) * 500), 100)
    assert only.finish == "error"
    assert "exceed the context of 512" in str(only.error)


def test_both_sides_take_turns_until_the_longer_one_is_done() -> None:
    steps = list(race(ground(growing("a", "a b", "a b c"), growing("a")), "?", 0.6))
    lengths = [(one and one[0].n_tokens, other and other[0].n_tokens) for one, other, _ in steps]
    assert lengths[:3] == [(1, None), (1, 1), (2, 1)]
    assert lengths[-1] == (3, 1)
    assert [done for *_, done in steps] == [False] * (len(steps) - 1) + [True]


def test_a_clock_runs_only_while_its_own_side_works(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("tokenskip.serving.playground.time.perf_counter", lambda: now[0])

    def working() -> Iterator[Completion]:
        for item in growing("a", "a b"):
            now[0] += 2
            yield item

    seconds = []
    for _, taken in timed(working()):
        seconds.append(taken)
        now[0] += 100  # the other side's turn
    assert seconds == [2, 4]


def test_an_error_in_a_stream_is_shown() -> None:
    def failing() -> Iterator[Completion]:
        yield from growing("a")
        raise RuntimeError("gone\naway")

    first, last = pumped(failing())
    assert first[0].text == "a"
    assert (last[0].finish, last[0].error) == ("error", "gone away")
    *_, (left, _, saved) = answers(ground(growing("a"), [last[0]]), "?", 0.5)
    assert "left" in left
    assert "No comparison" in saved


def test_what_the_short_chain_leaves_out_is_struck_through() -> None:
    long, short = "Okay, 1 + 2 = 3 so. The final answer is 3.", "1 + 2 = 3. The final answer is 3."
    *_, (left, right, saved) = answers(ground(growing(long), growing(short)), "?", 0.5)
    assert "<s>Okay, </s>1 + 2 =" in left
    assert "<b> The final answer is 3.</b>" in right
    assert "ratio 0.5" in right
    assert "7 → 5 CoT tokens (−29%)" in saved


def test_an_empty_question_asks_nothing() -> None:
    assert [texts[2] for texts in answers(ground([], []), "  ", 0.5)] == [
        '<p role="status">Write a question first.</p>'
    ]


def test_text_is_only_ever_text() -> None:
    assert not set("<>{}$`") & set(escape(NASTY).replace("&", ""))
    *_, (left, right, _) = answers(ground(growing(NASTY), growing(NASTY)), "?", 0.5)
    for markup in (left, right):
        assert "<script" not in markup
        assert "<img" not in markup


@pytest.fixture
def chat(tokenizer: Any) -> Iterator[ChatServer]:
    chains = ChainBackend(None, tokenizer)
    prompts = Prompts(tokenizer, PromptConfig())
    with serving(ChatServer(prompts.tokenizer, lambda prompt: chains._complete(prompt).text)) as running:
        yield running


def test_a_server_is_asked_for_both_answers(chat: ChatServer) -> None:
    asked = remote(chat.url, "tiny", None, None, None, ["generate.max_new_tokens=200"])
    assert asked.note == ""
    *_, (one, other, done) = race(asked, QUESTION, 0.5)
    assert done
    assert one
    assert other
    assert one[0].text.endswith(".")
    assert (one[0].finish, other[0].finish) == ("stop", "stop")
    assert other[0].n_tokens == len(chat.ids(other[0].text)) < one[0].n_tokens  # the server's own count
    bodies = [body for body in chat.bodies if body.get("stream")]
    assert sorted(str(body.get("chat_template_kwargs")) for body in bodies) == [
        "None",
        "{'compression_ratio': '0.5'}",
    ]


def test_a_server_that_ignores_the_ratio_is_told(chat: ChatServer, tokenizer: Any) -> None:
    chat.tokenizer.chat_template = chat.tokenizer.chat_template.partition("{#- tokenskip: end -#}")[2]
    assert "ignores the ratio" in remote(chat.url, "tiny", None, None, None, []).note


def test_a_server_that_fails_is_shown_in_its_column(chat: ChatServer) -> None:
    asked = remote(chat.url, "tiny", None, None, None, [])
    chat.trouble_of = lambda body: 400 if body.get("stream") else None
    *_, (left, _, saved) = answers(asked, QUESTION, 0.5)
    assert "trouble 400" in left
    assert "No comparison" in saved


def streamed(n: int, pause_s: float = 0.0) -> Any:
    """A chat server's stream of `n` words; as fast as it goes, or with a pause after each."""

    def send(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.close_connection = True
        for k in range(n):
            event = {"choices": [{"delta": {"content": f" word{k % 10}"}, "finish_reason": None}]}
            handler.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            time.sleep(pause_s)
        handler.wfile.write(b"data: [DONE]\n\n")

    return send


def on_server(server: Hostile) -> Ground:
    return remote(server.url, "tiny", None, None, None, [])


def diagnosable(stream: Any) -> Any:
    return lambda path, body: stream if body and body.get("stream") else {"usage": {"prompt_tokens": 5}}


def test_traffic_grows_with_the_answer_and_not_with_its_square() -> None:
    sizes = []
    for n in (2000, 8000):
        with hostile(diagnosable(streamed(n))) as server:
            frames = list(answers(on_server(server), QUESTION, 0.5))
        assert frames[-1][0].count("word") == n
        sizes.append(sum(len(text) for frame in frames for text in frame))
    assert sizes[1] < 8 * sizes[0]
    assert sizes[1] < 2_000_000


@pytest.mark.parametrize("pause_s", [0.01, 20.0])
def test_a_page_that_is_closed_ends_the_work(pause_s: float) -> None:
    """Also where the server has gone silent."""
    with hostile(diagnosable(streamed(100_000, pause_s))) as server:
        frames = answers(on_server(server), QUESTION, 0.5)
        next(frames)
        before = threading.active_count()
        frames.close()
        end = time.monotonic() + 8
        while any(thread.name.startswith("answer") for thread in threading.enumerate()) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(thread.name.startswith("answer") for thread in threading.enumerate()), before
        assert pause_s > 1 or server.ended.wait(5)  # a silent server finds out when it writes again


def test_a_silent_server_keeps_the_page_alive() -> None:
    with hostile(diagnosable(streamed(5, 20.0))) as server:
        frames = answers(on_server(server), QUESTION, 0.5)
        start = time.monotonic()
        for _ in range(3):
            next(frames)
        frames.close()
    assert time.monotonic() - start < 15


def test_a_key_that_is_repeated_in_pieces_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRETKEY1")

    def send(handler: Any) -> None:
        events = [{"choices": [{"delta": {"content": piece}}]} for piece in ("it is sk-SEC", "RETKEY1, ", "yes")]
        raw = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
        handler.whole(raw, Content_Type="text/event-stream")

    with hostile(diagnosable(send)) as server:
        *_, (left, right, _) = answers(on_server(server), QUESTION, 0.5)
    assert "it is [OPENAI_API_KEY], yes" in left
    assert "SECRET" not in left + right


@pytest.mark.parametrize(
    ("stream", "shown"),
    [
        (status(400, {"error": {"message": "out of credit"}}), "out of credit"),
        ({"error": {"message": "out of credit"}}, "out of credit"),
        (lambda handler: handler.whole(b"data: [1]\n\n", Content_Type="text/event-stream"), "without choices"),
        (lambda handler: handler.whole(b"data: {\n\n", Content_Type="text/event-stream"), "not JSON"),
        (status(302, {}, Location="http://evil.example/"), "redirects to"),
        (garbage, "no whole reply"),
        ({"choices": [{"message": {"content": "Whole. The final answer is 3."}}]}, "The final answer is 3."),
    ],
)
def test_an_odd_stream_is_shown_in_its_column(stream: Any, shown: str) -> None:
    with hostile(diagnosable(stream)) as server:
        *_, (left, right, _) = answers(on_server(server), QUESTION, 0.5)
    assert shown in left
    assert shown in right


def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "both --url and --model" in fail(monkeypatch, capsys, "playground", "--model", "x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'gradio>=6,<7'" in fail(monkeypatch, capsys, "playground")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert "neither a run folder nor an adapter" in fail(monkeypatch, capsys, "playground", str(tmp_path))


@pytest.mark.slow
def test_the_embedded_model_answers_out_of_the_box() -> None:
    embedded = local("embedded", None, [])
    assert len(embedded.questions) == 3
    *_, (one, other, _) = race(embedded, embedded.questions[0], 0.6)
    assert one
    assert other
    assert embedded.tokens(other[0]) < embedded.tokens(one[0])
    assert "The final answer is" in embedded.parts(one[0].text)[1]


@contextmanager
def playground(log: Path, *arguments: str) -> Iterator[str]:
    """The running command's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tokenskip", "playground", "--port", port, *arguments]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 240
        while f"playground: http://127.0.0.1:{port}" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(timeout=60)


def ask(browser: Browser, question: str) -> None:
    browser.wait_for("!!document.querySelector('#question textarea')")
    script = """(text) => {
        const area = document.querySelector('#question textarea');
        Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set.call(area, text);
        area.dispatchEvent(new Event('input', {bubbles: true}));
    }"""
    browser.run(f"({script})({question!r})")
    time.sleep(0.5)  # the page takes the text over
    browser.run("document.querySelector('#ask').click()")
    browser.wait_for("!!document.querySelector('#saved p')?.textContent")


FOREIGN = "performance.getEntriesByType('resource').map((e) => new URL(e.name).host).filter((h) => h !== location.host)"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_of_the_embedded_model(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="needs the playground extra")
    with playground(tmp_path / "log") as address, Browser(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (390, True)):
            browser.open(address, width=width, dark=dark)
            ask(browser, "Tom has 12 apples. Then he buys 5 more. How many apples does Tom have now?")
            assert "CoT tokens" in browser.run("document.querySelector('#saved').textContent")
            assert browser.run("document.querySelectorAll('#original s').length") > 0
            assert "The final answer is" in browser.run("document.querySelector('#short .chain').textContent")
            assert browser.run("document.documentElement.scrollWidth") <= width
            lefts = [
                browser.run(f"document.getElementById('{side}').getBoundingClientRect().left")
                for side in ("original", "short")
            ]
            assert (lefts[0] < lefts[1]) == (width > 600)  # beside each other; below each other on a phone
        assert browser.run(FOREIGN) == []
        assert browser.errors == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_shows_what_a_server_says_and_runs_none_of_it(tmp_path: Path, tokenizer: Any) -> None:
    pytest.importorskip("gradio", reason="needs the playground extra")
    prompts = Prompts(tokenizer, PromptConfig())
    server = ChatServer(prompts.tokenizer, lambda prompt: f"{NASTY} The final answer is <i>3</i>.")
    with (
        serving(server),
        playground(tmp_path / "log", "--url", server.url, "--model", "tiny") as address,
        Browser(tmp_path / "profile") as browser,
    ):
        browser.open(address)
        ask(browser, NASTY)
        shown = browser.run("document.querySelector('#short .chain').textContent")
        assert shown == f"{NASTY} The final answer is <i>3</i>."
        assert browser.run("document.querySelectorAll('#short script, #short img, #short i').length") == 0
        assert browser.run("window.hacked === undefined")
        assert browser.errors == []
