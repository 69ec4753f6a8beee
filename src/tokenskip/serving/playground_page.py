"""The page of `tokenskip playground`: a question, a slider, and two answers that stream side by side (Gradio).

All text from models and users is escaped, and nothing is loaded from or reported to anywhere else.

    tokenskip playground --port 7860
"""

from __future__ import annotations

import html
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

from tokenskip import tracking
from tokenskip.commands.preview import shared_words
from tokenskip.errors import BackendError, ConfigError
from tokenskip.serving.guard import guard
from tokenskip.serving.playground import Ground, Timed, race

CSS = """
.gradio-container { max-width: 70rem !important; margin: 0 auto !important; }
#original, #short { border: 1px solid var(--border-color-primary); border-radius: var(--radius-lg); }
#original h3, #short h3 { margin: 0 0 .5rem; font-size: 1rem; }
.chain { margin: 0; min-height: 8rem; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6; }
.chain s, .count { opacity: .65; }
.chain .bad { color: #dc2626; }
.count { margin: .75rem 0 0; font-variant-numeric: tabular-nums; }
#saved p { margin: 0; font-size: 1.1rem; font-weight: 600; min-height: 1.6rem; }
"""
SHOWN_CHARACTERS = 2000
"""The end of an answer that is shown while it still grows."""
REFRESH_S = 0.15
LARGEST_MATCH = 500_000
"""Pairs of equal words among which the words of both chains are looked for."""
FONTS = ["system-ui", "sans-serif"]  # the themes' own are fetched from Google
ABOUT = "Both answers to one question. ~~Struck through~~: what the short chain leaves out."


def check_installed(*packages: str) -> None:
    """BackendError with what to install, unless all `packages` can be imported."""
    from importlib.util import find_spec

    if missing := [package for package in packages if find_spec(package) is None]:
        raise BackendError(f"the playground needs {missing[0]}: pip install 'gradio>=6,<7'")


def launch(ground: Ground, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve the page until an interrupt; `started` gets its address.

    Raises:
        ConfigError: the port is taken, or the host is no address of this machine.
    """
    tracking.switch_telemetry_off()  # read when gradio is imported: neither usage nor version checks
    import gradio

    page = build(ground)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            prevent_thread_lock=True,
            allowed_paths=[],
            app_kwargs={"middleware": [guard(host)]},
            theme=gradio.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]),
            css=CSS,
        )
    except OSError as error:
        raise ConfigError(f"the page cannot be served at {host}:{port} ({error}): give another --port") from None
    started(address)
    page.block_thread()


def build(ground: Ground) -> Any:
    """The page, as Gradio's `Blocks`."""
    import gradio

    with gradio.Blocks(title="TokenSkip playground", analytics_enabled=False) as page:
        gradio.Markdown(f"# TokenSkip playground\n{ABOUT}")
        if ground.note:
            gradio.HTML(f"<p>{escape(ground.note)}</p>", elem_id="note")
        question = gradio.Textbox(label="Question", lines=3, autofocus=True, elem_id="question")
        if ground.questions:
            gradio.Examples([[example] for example in ground.questions], question, cache_examples=False)
        ratio = gradio.Slider(0.1, 1.0, 0.6, step=0.05, label="Ratio: share of the chain to keep", elem_id="ratio")
        with gradio.Row():
            ask = gradio.Button("Ask", variant="primary", elem_id="ask")
            stop = gradio.Button("Stop", elem_id="stop")
        saved = gradio.HTML(elem_id="saved")
        with gradio.Row():
            with gradio.Column(min_width=320):
                original = gradio.HTML(elem_id="original", padding=True)
            with gradio.Column(min_width=320):
                short = gradio.HTML(elem_id="short", padding=True)

        def answer(question: str, ratio: float) -> Iterator[tuple[str, str, str]]:
            yield from answers(ground, question, ratio)

        asked = ask.click(answer, [question, ratio], [original, short, saved], show_progress="hidden")
        stop.click(None, cancels=[asked])
    return page


def answers(ground: Ground, question: str, ratio: float) -> Iterator[tuple[str, str, str]]:
    """Markup of the original's column, of the short one's, and of the line that compares them, as they grow."""
    if not question.strip():
        yield "", "", _line("Write a question first.")
        return
    titles = ground.original[0], f"{ground.short[0]}, ratio {ratio:g}"
    next_s = 0.0
    with closing(race(ground, question, ratio)) as steps:
        for original, short, done in steps:
            start = time.perf_counter()
            if start < next_s and not done:
                continue
            kept = None
            if done and original and short:
                kept = _shared(ground.parts(original[0].text)[0], ground.parts(short[0].text)[0])
            yield (
                _column(ground, titles[0], original, done, kept),
                _column(ground, titles[1], short, done),
                _line(_saved(ground, original, short)) if done and original and short else "",
            )
            end = time.perf_counter()
            next_s = end + max(REFRESH_S, 4 * (end - start))


def _shared(text: str, other: str) -> list[tuple[int, int]] | None:
    """The words of both chains; None where looking for them would take long, as in answers that go round in loops."""
    counts, others = Counter(text.split()), Counter(other.split())
    if sum(n * others[word] for word, n in counts.items()) > LARGEST_MATCH:
        return None
    return shared_words(text, other)


def _column(
    ground: Ground, title: str, at: Timed | None, done: bool, kept: Sequence[tuple[int, int]] | None = None
) -> str:
    text, count = "", "…"
    if at is not None:
        completion, seconds = at
        cot, tail = ground.parts(completion.text)
        if not done:  # what the page is sent over and over does not grow with the answer
            cot, tail = _end_of(cot), _end_of(tail)
        text = f"{_marked(cot, kept)}<b>{escape(tail)}</b>"
        if completion.error:
            text += f'<b class="bad">{escape(completion.error)}</b>'
        elif done and completion.finish == "length":
            text += '<b class="bad"> [cut off at the token cap]</b>'
        count = f"{ground.tokens(completion):,} {'CoT tokens' if ground.count else 'tokens'}, {seconds:.2f} s"
    return f'<h3>{escape(title)}</h3><p class="chain">{text}</p><p class="count">{count}</p>'


def _end_of(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"… {text[-SHOWN_CHARACTERS:]}"


def _marked(cot: str, kept: Sequence[tuple[int, int]] | None) -> str:
    """A chain; what is not `kept` (character ranges, in order) is struck through."""
    if kept is None:
        return escape(cot)
    parts, at = [], 0
    for start, end in [*kept, (len(cot), len(cot))]:
        skipped = escape(cot[at:start])
        parts.append(f"<s>{skipped}</s>" if skipped.strip() else skipped)
        parts.append(escape(cot[start:end]))
        at = end
    return "".join(parts)


def _saved(ground: Ground, original: Timed, short: Timed) -> str:
    if original[0].error or short[0].error:
        return "No comparison: an answer failed."
    what = "CoT tokens" if ground.count else "tokens, chain and answer"
    pairs = ((ground.tokens(original[0]), ground.tokens(short[0])), (original[1], short[1]))
    less = [f" ({100 * (after / before - 1):+.0f}%)".replace("-", "−") if before else "" for before, after in pairs]
    return f"{pairs[0][0]:,} → {pairs[0][1]:,} {what}{less[0]}, {original[1]:.2f} → {short[1]:.2f} s{less[1]}"


def _line(text: str) -> str:
    return f'<p role="status">{escape(text)}</p>'


def escape(text: str) -> str:
    """`text` as markup that shows it: no tags, and nothing that Gradio's own templates could read as theirs."""
    whole = html.escape(text)
    for character in "{}$`":
        whole = whole.replace(character, f"&#{ord(character)};")
    return whole
