"""Does a running server honour `compression_ratio`? Two prompts, one of them with a ratio, must differ as they should.

Servers drop template arguments that a template does not mention, and vLLM reads no template from an adapter's folder:
the ratio then has no effect and no error says so. The rendered prompts are compared through `/tokenize` where the
server has it, else through the prompt tokens in the `usage` of one-token answers.

    tokenskip doctor http://localhost:8000 --model NAME
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tokenskip.backends import _replies as replies
from tokenskip.client import KEY_VARIABLE, ask, base_url, check_served
from tokenskip.errors import BackendError
from tokenskip.prompting.prompts import ratio_kwargs

_QUESTION = [{"role": "user", "content": "Tom has 12 apples. He buys 5 more. How many are there?"}]
_TEMPLATE = "serve it with the chat_template.jinja that is in the adapter's folder (vLLM: --chat-template FILE; \
`tokenskip serve RUN` prints the command), or serve a model made by `tokenskip merge`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Whether the ratio gets into the prompt, how that was found, and what to change where it does not."""

    honoured: bool
    found: str
    advice: str = ""
    route: str = ""
    """The route whose prompts were looked at."""


def diagnose(url: str, model: str, ratio: float = 0.5) -> Diagnosis:
    """Ask the server at `url` for its rendering of one question without a ratio, with 1 and with `ratio`.

    Raises:
        BackendError: nothing answers there, or it serves no such model; ConfigError: the URL is none.
    """
    base = base_url(url)
    check_served(base, model)
    for route, by, measure in (
        ("/tokenize", "/tokenize", _by_tokenize),
        ("/v1/chat/completions", "usage.prompt_tokens", _by_usage),
    ):
        plain = measure(base, model, None)
        if plain is None:
            continue
        if isinstance(plain, str):
            return _refused(plain)
        marked = measure(base, model, ratio_kwargs(ratio))
        if isinstance(marked, str):
            return _refused(marked)
        one = measure(base, model, {"compression_ratio": "1.0"})
        return replace(_judge(plain, marked, one, ratio, by), route=route)
    return Diagnosis(
        honoured=False,
        found="cannot tell: the server has no /tokenize, and its answers carry no usage.prompt_tokens",
        advice="switch usage on, or ask the server's log for a rendered prompt",
    )


Rendering = tuple[int, Any]
"""Tokens of a rendered prompt, and what tells two renderings apart (their ids, where the server shows them)."""


def _judge(plain: Rendering, marked: Rendering | None, one: Rendering | str | None, ratio: float, by: str) -> Diagnosis:
    if marked is None:
        return _refused("an answer without usage")
    found = f"{by}: {plain[0]} prompt tokens without a ratio, {marked[0]} with {ratio}"
    if marked[1] == plain[1]:
        return Diagnosis(honoured=False, found=found, advice=f"the model's chat template ignores it: {_TEMPLATE}")
    if marked[0] <= plain[0]:
        return Diagnosis(honoured=False, found=found, advice=f"nothing was added to the prompt: {_TEMPLATE}")
    if not isinstance(one, tuple) or one[1] != plain[1]:
        seen = f"{one[0]} with 1.0" if isinstance(one, tuple) else "no answer with 1.0"
        return Diagnosis(
            honoured=False,
            found=f"{found}, {seen}",
            advice=f"a ratio of 1 must be the plain prompt; this is not tokenskip's ratio control: {_TEMPLATE}",
        )
    return Diagnosis(honoured=True, found=found)


def _refused(said: str) -> Diagnosis:
    if "compression_ratio" in said and ("was not trained" in said or "outside of what calibration reached" in said):
        return Diagnosis(
            honoured=True,
            found=f"the template refuses this ratio: {said}",
            advice="give one that it names by --ratio",
        )
    return Diagnosis(
        honoured=False,
        found=f"the server refuses chat_template_kwargs: {said}",
        advice="take a server that has them (vLLM, SGLang, transformers serve, llama.cpp)",
    )


def _by_tokenize(base: str, model: str, kwargs: dict[str, str] | None) -> Rendering | str | None:
    """vLLM's own endpoint, beside `/v1`; None where there is none."""
    body: dict[str, Any] = {"model": model, "messages": _QUESTION, "add_generation_prompt": True}
    reply = ask(f"{base.removesuffix('/v1')}/tokenize", {**body, **_with(kwargs)})
    if reply.status == 200 and isinstance(reply.body, dict) and isinstance(reply.body.get("tokens"), list):
        return len(reply.body["tokens"]), reply.body["tokens"]
    return None


def _by_usage(base: str, model: str, kwargs: dict[str, str] | None) -> Rendering | str | None:
    """An answer of one token; None where it carries no usage, the server's words where it refuses the ratio."""
    body: dict[str, Any] = {"model": model, "messages": _QUESTION, "max_tokens": 1, "temperature": 0}
    reply = ask(f"{base}/chat/completions", {**body, **_with(kwargs)}, timeout_s=300.0)
    if reply.status != 200:
        if kwargs is None or reply.status >= 500:
            raise BackendError(_explain(base, model, reply.status, reply.message))
        return f"HTTP {reply.status}: {reply.message}"
    if isinstance(reply.body, dict) and reply.body.get("error"):
        raise BackendError(_explain(base, model, reply.status, reply.message))
    count = replies.tokens(reply.body, "prompt_tokens")
    return (count, count) if count else None


def _explain(base: str, model: str, status: int, message: str) -> str:
    if status in (401, 403):
        return f"{base} refuses the API key (HTTP {status}): set {KEY_VARIABLE} to the right one"
    return f"{base} does not answer for {model!r} (HTTP {status}: {message}): check --model against what it serves"


def _with(kwargs: dict[str, str] | None) -> dict[str, Any]:
    return {"chat_template_kwargs": kwargs} if kwargs else {}
