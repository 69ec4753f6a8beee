"""Modelfiles for Ollama: one for the plain model, and one a ratio with the ratio written into its template.

Ollama hands no arguments to a template, so a ratio becomes a tag. Its templates are Go's: the texts around the turns
are taken from renderings of the model's own template, and put together again they must give the same prompts. A
template that does more than that is refused.

The plain tag (`latest`) has no template of its own: Ollama then renders the one in the GGUF, and hands
`reasoning_effort` to it where the model has think tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenskip.errors import ModelError
from tokenskip.models.weights import reading
from tokenskip.prompting.chat_template import ratio_kwargs, read_settings
from tokenskip.ratio import Ratio, spaced
from tokenskip.types import Message

_SYSTEM, _FIRST, _ANSWER, _SECOND = "TSKSYSTEM", "TSKFIRST", "TSKANSWER", "TSKSECOND"
_RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Tags where the template does not name what was trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """The texts around the turns of a conversation, in the order in which they come."""

    head: str
    system: tuple[str, str]
    """Before and after the system turn, the first in place of `head`."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    opening: str
    """The beginning of the answer."""

    def join(self, messages: Sequence[Message], mark: str = "") -> str:
        """A conversation, as the Go template of `go` makes it."""
        text = self.head
        for number, message in enumerate(messages):
            role, content = message["role"], message["content"]
            if role == "system":
                text = self.system[0] + content + self.system[1]
                continue
            before, after = self.user if role == "user" else self.assistant
            text += before + content + (mark if number == len(messages) - 1 else "") + after
        return text + self.opening

    def go(self, mark: str) -> str:
        """The Go template, in which `mark` follows the last turn."""
        return _GO % (*self.system, self.head, self.user[0], mark, self.user[1], *self.assistant, self.opening)


_GO = (
    "{{- if .System }}%s{{ .System }}%s{{ else }}%s{{ end }}"
    "{{- range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
    '{{ if eq .Role "user" }}%s{{ .Content }}{{ if $last }}%s{{ end }}%s'
    '{{ else if eq .Role "assistant" }}%s{{ .Content }}%s{{ end }}{{ end }}%s'
)


def modelfiles(model: Path, template: str, gguf: str, budgets: Mapping[float, int]) -> dict[str, str]:
    """Tag -> Modelfile, `latest` first. `budgets`: the most tokens of an answer at a ratio, where that is known.

    Raises:
        ModelError: the chat template cannot be taken apart into texts around turns.
    """
    from transformers import AutoTokenizer

    with reading(str(model), "the tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(str(model))
    pieces = take_apart(tokenizer)
    files = {"latest": f"FROM ./{gguf}\n"}
    for ratio in ratio_tags(template):
        mark = _mark(tokenizer, ratio)
        limit = f"PARAMETER num_predict {budgets[ratio]}\n" if ratio in budgets else ""
        files[str(Ratio(ratio))] = f'FROM ./{gguf}\nTEMPLATE """{_without_bos(tokenizer, pieces.go(mark))}"""\n{limit}'
    return files


def ratio_tags(template: str) -> list[float]:
    trained = read_settings(template).ratios
    return sorted(ratio for ratio in spaced(trained) or _RATIOS if ratio < 1)


def _turns(*pairs: tuple[str, str]) -> list[Message]:
    return [{"role": role, "content": content} for role, content in pairs]


def _render(tokenizer: Any, messages: Sequence[Message], ratio: float = 1.0, *, opened: bool = True) -> str:
    from jinja2 import TemplateError

    kwargs = ratio_kwargs(ratio)

    try:
        return str(
            tokenizer.apply_chat_template(list(messages), add_generation_prompt=opened, tokenize=False, **kwargs)
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise _too_much(f"it refuses {', '.join(str(message['role']) for message in messages)}") from error


def _mark(tokenizer: Any, ratio: float) -> str:
    """What the ratio control puts behind the question."""
    question = _turns(("user", _FIRST))
    plain, marked = _render(tokenizer, question), _render(tokenizer, question, ratio)
    after = plain.partition(_FIRST)[2]
    return marked.partition(_FIRST)[2].removesuffix(after)


def take_apart(tokenizer: Any) -> Pieces:
    """The texts around the turns.

    Raises:
        ModelError: put together again they do not give what the template renders.
    """
    user, system, answer = ("user", _FIRST), ("system", _SYSTEM), ("assistant", _ANSWER)
    one = _render(tokenizer, _turns(user), opened=False)
    two = _render(tokenizer, _turns(user, answer), opened=False)
    three = _render(tokenizer, _turns(user, answer, ("user", _SECOND)), opened=False)
    with_system = _render(tokenizer, _turns(system, user), opened=False)
    opening = _render(tokenizer, _turns(user)).removeprefix(one)
    before, _, user_after = one.partition(_FIRST)
    assistant_before, _, assistant_after = two.removeprefix(one).partition(_ANSWER)
    user_before = three.removeprefix(two).partition(_SECOND)[0]
    system_before, _, rest = with_system.partition(_SYSTEM)
    pieces = Pieces(
        head=before.removesuffix(user_before),
        system=(system_before, rest.partition(_FIRST)[0].removesuffix(user_before)),
        user=(user_before, user_after),
        assistant=(assistant_before, assistant_after),
        opening=opening,
    )
    _check(tokenizer, pieces)
    return pieces


def _check(tokenizer: Any, pieces: Pieces) -> None:
    user, system, answer = ("user", "How many?"), ("system", "Be kind."), ("assistant", "Five.")
    for turns in ((user,), (system, user), (user, answer, user), (system, user, answer, user, answer, user)):
        messages = _turns(*turns)
        for ratio in (1.0, 0.5):
            if pieces.join(messages, _mark(tokenizer, ratio)) != _render(tokenizer, messages, ratio):
                raise _too_much(f"{len(turns)} turns come out otherwise")
    text = pieces.go("")
    if '"""' in text or "{{{" in text or "}}}" in text:
        raise _too_much("it writes braces or quotes that a Modelfile reads as its own")


def _too_much(why: str) -> ModelError:
    return ModelError(
        f"the chat template does more than put texts around turns ({why}), which no template of Ollama could repeat: "
        "use --to gguf with llama.cpp, which renders the model's own"
    )


def _without_bos(tokenizer: Any, text: str) -> str:
    """A template without the token that Ollama's tokenizer adds by itself."""
    bos = tokenizer.bos_token
    added = bool(bos) and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    return text.replace(bos, "") if added else text
