"""Which ways to ask for a ratio does a running server honour? Prompts with and without one must differ as they should.

Servers drop template arguments that a template does not mention, and vLLM reads no template from an adapter's folder:
the ratio then has no effect and no error says so. Two routes are tried: `chat_template_kwargs`, and the words of
`reasoning_effort`. The rendered prompts are compared through `/tokenize` or `/apply-template` where the server has one
of them, else through the prompt tokens in the `usage` of one-token answers.

    tokenskip doctor http://localhost:8000 --model NAME
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tokenskip.backends import _replies as replies
from tokenskip.client import ask, base_url, check_served
from tokenskip.errors import BackendError
from tokenskip.prompting.chat_template import has_ratio_control, read_settings
from tokenskip.prompting.effort import EFFORT, read_effort
from tokenskip.prompting.prompts import ratio_kwargs
from tokenskip.ratio import Ratio
from tokenskip.trust import KEY_VARIABLE

KWARGS = "chat_template_kwargs"
_QUESTION = [{"role": "user", "content": "Tom has 12 apples. He buys 5 more. How many are there?"}]
_TEMPLATE = "serve it with the chat_template.jinja that is in the adapter's folder (vLLM: --chat-template FILE; \
`tokenskip serve RUN` prints the command), or serve a model made by `tokenskip merge`"
_TRIED = ("low", "medium", "high")
"""The words that are tried where the template is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to ask: `honoured`, `dropped`, `refused`, `as without` where the plain prompt is what the template says,
    `another` where a prompt came that it does not say, or `not tried`."""

    name: str
    sent: str
    verdict: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Whether the ratio gets into the prompt, how that was found, and what to change where it does not."""

    honoured: bool
    """By one route at least."""
    found: str
    advice: str = ""
    route: str = ""
    """The endpoint whose prompts were looked at."""
    routes: tuple[Route, ...] = ()
    trained: tuple[float, ...] | None = None
    """The ratios that the template names as trained; None where no template is known."""

    @property
    def by(self) -> tuple[str, ...]:
        """The names of the routes that are honoured."""
        return tuple(dict.fromkeys(route.name for route in self.routes if route.verdict == "honoured"))


Rendering = tuple[int, Any]
"""Tokens (or characters) of a rendered prompt, and what tells two renderings apart."""
Measure = Callable[[Mapping[str, Any]], Rendering | str | None]
"""The rendering under further fields of a request, the server's words where it refuses them, or None."""


def diagnose(url: str, model: str, ratio: float = 0.5, template: str | None = None) -> Diagnosis:
    """Ask the server at `url` for its rendering of one question in every way, `ratio` among them.

    `template` is the one that should be served; without it a llama.cpp server is asked for its own.

    Raises:
        BackendError: nothing answers there, or it serves no such model; ConfigError: the URL is none.
    """
    base = base_url(url)
    check_served(base, model)
    template = template or _template_of(base)
    known = template if has_ratio_control(template) else None
    trained = read_settings(known).ratios if known else None
    for endpoint, by, measure in (
        ("/tokenize", "/tokenize", _by_tokenize),
        ("/apply-template", "/apply-template", _by_template),
        ("/v1/chat/completions", "usage.prompt_tokens", _by_usage),
    ):
        plain = measure(base, model, {})
        if plain is None:
            continue
        if isinstance(plain, str):
            return _refused(plain)

        marked = measure(base, model, {KWARGS: ratio_kwargs(ratio)})
        one = measure(base, model, {KWARGS: {"compression_ratio": "1.0"}})
        kwargs = _refused(marked) if isinstance(marked, str) else _judge(plain, marked, one, ratio, by)
        # `/tokenize` has no such field: the words are judged by answers, as clients send them
        by_word = measure if measure is _by_template else _by_usage
        words = _words(partial(by_word, base, model), read_effort(known) if known else None, kwargs.honoured)
        routes = (_kwargs_route(kwargs, ratio), *words)
        honoured = any(route.verdict == "honoured" for route in routes)
        return replace(kwargs, honoured=honoured, route=endpoint, routes=routes, trained=trained)
    return Diagnosis(
        honoured=False,
        found="cannot tell: the server has no /tokenize, and its answers carry no usage.prompt_tokens",
        advice="switch usage on, or ask the server's log for a rendered prompt",
        trained=trained,
    )


def _kwargs_route(found: Diagnosis, ratio: float) -> Route:
    refused = found.found.startswith("the server refuses")
    verdict = "honoured" if found.honoured else "refused" if refused else "dropped"
    return Route(name=KWARGS, sent=f"compression_ratio {Ratio(ratio)}", verdict=verdict, found=found.found)


def _words(rendered: Measure, effort: Mapping[str, float] | None, kwargs: bool) -> list[Route]:
    """A route for each word of the map and for `none`; for some words where no template is known."""
    plain = rendered({})
    if not isinstance(plain, tuple):
        return [Route(name=EFFORT, sent="-", verdict="not tried", found="answers carry no usage.prompt_tokens")]
    words = dict.fromkeys(("none", *(_TRIED if effort is None else effort or _TRIED[:1])))
    return [_word(word, plain, rendered, effort, kwargs) for word in words]


def _word(word: str, plain: Rendering, rendered: Measure, effort: Mapping[str, float] | None, kwargs: bool) -> Route:
    def route(verdict: str, found: str) -> Route:
        return Route(name=EFFORT, sent=word, verdict=verdict, found=found)

    try:
        seen = rendered({EFFORT: word})
    except BackendError as error:
        return route("refused", str(error))
    if not isinstance(seen, tuple):
        return route("refused", seen or "an answer without usage")
    counts = f"{plain[0]} -> {seen[0]}"
    ratio = None if effort is None else effort.get(word, 1.0)
    if ratio == 1:
        same = seen[1] == plain[1]
        return route("as without" if same else "another", f"{counts}, {'' if same else 'not '}the plain prompt")
    if seen[1] == plain[1]:
        return route("dropped", counts)
    wanted = rendered({KWARGS: ratio_kwargs(ratio)}) if ratio and kwargs else None
    if not isinstance(wanted, tuple):
        return route("honoured" if seen[0] > plain[0] else "another", counts)
    same = seen[1] == wanted[1]
    like = "as long as with" if isinstance(seen[1], int) else "as"  # counts alone do not tell 0.5 from 0.9
    return route("honoured" if same else "another", f"{counts}, {'' if same else 'not '}{like} {Ratio(ratio or 1)}")


def _judge(plain: Rendering, marked: Rendering | None, one: Rendering | str | None, ratio: float, by: str) -> Diagnosis:
    if marked is None:
        return _refused("an answer without usage")
    unit = "prompt characters" if by == "/apply-template" else "prompt tokens"
    found = f"{by}: {plain[0]} {unit} without a ratio, {marked[0]} with {ratio}"
    if marked[1] == plain[1]:
        return Diagnosis(honoured=False, found=found, advice=f"the model's chat template ignores it: {_TEMPLATE}")
    if marked[0] <= plain[0]:
        return Diagnosis(honoured=False, found=found, advice=f"nothing was added to the prompt: {_TEMPLATE}")
    if not isinstance(one, tuple) or one[1] != plain[1]:
        seen = f"{one[0]} with 1.0" if isinstance(one, tuple) else "no answer with 1.0"
        return Diagnosis(
            honoured=False,
            found=f"{found}, {seen}",
            advice="a ratio of 1 must be the plain prompt; the server has a default ratio of its own, or this is not "
            f"tokenskip's ratio control: {_TEMPLATE}",
        )
    return Diagnosis(honoured=True, found=found)


def _refused(said: str) -> Diagnosis:
    if "compression_ratio" in said and ("was not trained" in said or "outside of what calibration reached" in said):
        return Diagnosis(
            honoured=True,
            found=f"the template refuses this ratio: {said}",
            advice="give one that it names by --ratio",
        )
    if "compression_ratio" in said:
        return Diagnosis(
            honoured=False,
            found=f"the server refuses chat_template_kwargs: {said}",
            advice="its template engine cannot render this template: save it anew with this version of tokenskip",
        )
    return Diagnosis(
        honoured=False,
        found=f"the server refuses chat_template_kwargs: {said}",
        advice="take a server that has them (vLLM, SGLang, transformers serve, llama.cpp)",
    )


def _template_of(base: str) -> str | None:
    """The template that a llama.cpp server tells in `/props`; None elsewhere."""
    reply = ask(f"{base.removesuffix('/v1')}/props")
    body = reply.body if reply.status == 200 else None
    template = body.get("chat_template") if isinstance(body, dict) else None
    return template if isinstance(template, str) else None


def _by_tokenize(base: str, model: str, fields: Mapping[str, Any]) -> Rendering | str | None:
    """vLLM's own endpoint, beside `/v1`; None where there is none. llama.cpp's takes no messages, and finds none."""
    body: dict[str, Any] = {"model": model, "messages": _QUESTION, "add_generation_prompt": True}
    reply = ask(f"{base.removesuffix('/v1')}/tokenize", {**body, **fields})
    tokens = reply.body.get("tokens") if reply.status == 200 and isinstance(reply.body, dict) else None
    return (len(tokens), tokens) if isinstance(tokens, list) and tokens else None


def _by_template(base: str, model: str, fields: Mapping[str, Any]) -> Rendering | str | None:
    """llama.cpp's own endpoint, beside `/v1`, which shows the prompt itself; None where there is none."""
    reply = ask(f"{base.removesuffix('/v1')}/apply-template", {"model": model, "messages": _QUESTION, **fields})
    prompt = reply.body.get("prompt") if isinstance(reply.body, dict) else None
    if reply.status == 200 and isinstance(prompt, str):
        return len(prompt), prompt
    return f"HTTP {reply.status}: {reply.message}" if fields and reply.status == 400 else None


def _by_usage(base: str, model: str, fields: Mapping[str, Any]) -> Rendering | str | None:
    """An answer of one token; None where it carries no usage, the server's words where it refuses the fields."""
    body: dict[str, Any] = {"model": model, "messages": _QUESTION, "max_tokens": 1, "temperature": 0}
    reply = ask(f"{base}/chat/completions", {**body, **fields}, timeout_s=300.0)
    if reply.status != 200:
        if not fields or reply.status >= 500:
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
