"""The only place where a prompt or a ratio marker is rendered: for training, for our backends and for any server.

The marker is the paper's (section 3.3): `question <eos> γ <eos>` behind the last user turn; γ = 1 is the plain
question. It lives in the chat template, as a prefix that rewrites `messages` and then lets the model's own template
run untouched:

    tokenizer = add_ratio_control(AutoTokenizer.from_pretrained(...))
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, compression_ratio=0.6)

Without `compression_ratio`, or with 1 or None, the rendering is the original template's, byte for byte. That includes
a delimiter that a user wrote: a server that lets strangers write user turns should set a default ratio other than 1, or
refuse the delimiter itself. With a ratio, user turns are cleaned of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenskip import ratio as ratio_map
from tokenskip.config import PromptConfig, check_ratio
from tokenskip.errors import ConfigError, ModelError
from tokenskip.ratio import RatioMap
from tokenskip.types import Message, Prompt

_BEGIN, _END = "{#- tokenskip: ratio control -#}", "{#- tokenskip: end -#}"

# Every construct here also exists in MiniJinja, so servers written in Rust or C++ render the same bytes.
# No loop is over `m['content']` itself: vLLM and SGLang take that for a template that wants content as parts, and hand
# parts to a model's own template that takes text.
# Only the caller sets the ratio: whenever one is asked for, a delimiter in any user turn is taken out first, also one
# that is put together of two parts, or appears only when another has been taken out (`<e<eos>os>`): such a text loses
# the delimiter's first character everywhere. System, assistant and tool turns are the operator's, and stay.
_CONTROL = """\
{%- if compression_ratio is defined and compression_ratio is not none and (compression_ratio | float) != 1.0 -%}
{%- set tsk = namespace(last=-1, out=[], parts=[], text=-1, given=[], all='') -%}
{%- set tsk.ratio = compression_ratio | float | round(4) -%}
{%- if tsk.ratio <= 0 or tsk.ratio > 1 -%}
{{- raise_exception('compression_ratio must be above 0 and at most 1, given: ' + (compression_ratio | string)) -}}
{%- endif -%}
{%- set tsk_cut = DELIMITER -%}
{%- set tsk_mark = tsk_cut + (tsk.ratio | string) + tsk_cut -%}
{%- for m in messages -%}{%- if m['role'] == 'user' -%}{%- set tsk.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- set tsk_end = tsk_mark if loop.index0 == tsk.last else '' -%}
{%- if m['role'] != 'user' or not m['content'] -%}
{%- set tsk.out = tsk.out + [m] -%}
{%- elif m['content'] is string -%}
{%- set tsk.all = m['content'] | replace(tsk_cut, '') -%}
{%- if tsk_cut in tsk.all -%}{%- set tsk.all = tsk.all | replace(tsk_cut[:1], '') -%}{%- endif -%}
{%- set tsk.out = tsk.out + [{'role': 'user', 'content': tsk.all + tsk_end}] -%}
{%- else -%}
{%- set tsk.given = m['content'] -%}{%- set tsk.parts = [] -%}{%- set tsk.text = -1 -%}{%- set tsk.all = '' -%}
{%- for p in tsk.given -%}
{%- if p['type'] == 'text' -%}
{%- set tsk.text = loop.index0 -%}{%- set tsk.all = tsk.all + (p['text'] | replace(tsk_cut, '')) -%}
{%- endif -%}
{%- endfor -%}
{%- for p in tsk.given -%}
{%- if p['type'] != 'text' -%}{%- set tsk.parts = tsk.parts + [p] -%}
{%- else -%}
{%- set tsk_text = p['text'] | replace(tsk_cut, '') -%}
{%- if tsk_cut in tsk.all -%}{%- set tsk_text = tsk_text | replace(tsk_cut[:1], '') -%}{%- endif -%}
{%- set tsk_mine = tsk_end if loop.index0 == tsk.text else '' -%}
{%- set tsk.parts = tsk.parts + [{'type': 'text', 'text': tsk_text + tsk_mine}] -%}
{%- endif -%}
{%- endfor -%}
{%- set tsk.out = tsk.out + [{'role': 'user', 'content': tsk.parts}] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = tsk.out -%}
{%- endif -%}
"""

_MARKER = "{%- set tsk_mark ="
_MAP_BEGIN, _MAP_END = "{#- tokenskip: map -#}", "{#- tokenskip: map end -#}"

PLAIN_TEMPLATE = "{%- for message in messages -%}{{ message['content'] }}{{ '\\n' }}{%- endfor -%}"
"""What a model without a chat template gets: every turn's content and a line break."""


def spell_ratio(ratio: float | str) -> str:
    """The one spelling of a ratio in prompts and file names: `0.6`, never `0.60000000001`.

    Raises:
        ConfigError: not a number above 0 and at most 1.
    """
    try:
        return str(check_ratio(float(ratio)))
    except ValueError:
        raise ConfigError(f"a ratio is a number above 0 and at most 1, such as 0.6; given: {ratio!r}") from None


def add_ratio_control(tokenizer: Any, delimiter: str = "eos_token") -> Any:
    """`tokenizer`, its chat template extended by `compression_ratio`; saving it carries the template along.

    `delimiter` is 'eos_token' or the text that encloses the ratio, for example '<|eot_id|>' for the adapters that the
    paper's authors released for Qwen. Calling it again replaces the control that is there; a map that `tokenskip
    calibrate` put into it stays.

    Raises:
        ModelError: the tokenizer has no eos token to enclose the ratio with, several templates by name, or one that
            fails on a single question or does not pass the end of a question on.
    """
    if delimiter == "eos_token" and not tokenizer.eos_token:
        raise ModelError("the tokenizer has no eos token: set prompt.delimiter to the text that encloses the ratio")
    template = tokenizer.chat_template or PLAIN_TEMPLATE
    if not isinstance(template, str):
        raise ModelError("the tokenizer has several named chat templates: keep one (tokenizer.chat_template = ...)")
    found = ratio_map.read(template)
    if _END in template:
        template = template.partition(_END)[2]
    literal = "eos_token" if delimiter == "eos_token" else json.dumps(delimiter, ensure_ascii=False)
    tokenizer.chat_template = _BEGIN + _CONTROL.replace("DELIMITER", literal) + _END + template
    try:
        _check_control(tokenizer, tokenizer.eos_token if delimiter == "eos_token" else delimiter)
    except ModelError:
        tokenizer.chat_template = template
        raise
    if found:
        tokenizer.chat_template = set_ratio_map(tokenizer.chat_template, found)
    return tokenizer


def set_ratio_map(template: str, found: RatioMap | None) -> str:
    """A chat template with ratio control that asks through `found`; in place of a map it has, or none with None."""
    assert has_ratio_control(template)
    control, end, rest = template.partition(_END)
    if _MAP_BEGIN in control:
        control = control.partition(_MAP_BEGIN)[0] + control.partition(_MAP_END)[2]
    if found:
        head, mark, tail = control.partition(_MARKER)
        control = head + _MAP_BEGIN + found.jinja() + _MAP_END + mark + tail
    return control + end + rest


def _check_control(tokenizer: Any, delimiter: str) -> None:
    """ModelError when the template under the control cannot carry the marker."""
    ask = [{"role": "user", "content": "Which?"}]
    try:
        rendered = _render(tokenizer, ask, 0.5)
    except ModelError:  # some templates insist on a system turn
        rendered = _render(tokenizer, [{"role": "system", "content": "Be kind."}, *ask], 0.5)
    if f"Which?{delimiter}0.5{delimiter}" not in rendered:
        raise ModelError(
            f"the chat template does not pass the end of a question on: asked for 'Which?{delimiter}0.5{delimiter}', "
            f"it rendered {rendered[-80:]!r}; set prompt.delimiter to another text, or mend the template"
        )


def _render(tokenizer: Any, messages: Sequence[Message], ratio: float) -> str:
    """The rendered prompt; ModelError with the template's own words when it refuses the messages."""
    from jinja2 import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, **ratio_kwargs(ratio)
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        hint = "; leave prompt.system out, or write it into prompt.template" if "system" in roles else ""
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the chat template fails on the turns {roles}: {reason}{hint}") from None
    return rendered


def mark_question(text: str, ratio: float, delimiter: str) -> str:
    """A user turn as the template's control writes it: the text without delimiters, and the marker; the text for 1."""
    if ratio == 1:
        return text
    text = text.replace(delimiter, "")
    if delimiter in text:
        text = text.replace(delimiter[:1], "")
    return f"{text}{delimiter}{spell_ratio(ratio)}{delimiter}"


def has_ratio_control(template: str | None) -> bool:
    """Whether a chat template knows `compression_ratio` the way this package writes it."""
    return bool(template) and _END in str(template)


class Prompts:
    """Questions -> prompts for one tokenizer and one `PromptConfig`; gives the tokenizer's template the ratio control.

    Raises:
        ModelError: a tokenizer without an eos token, or a template that cannot render the configured turns.
    """

    def __init__(self, tokenizer: Any, config: PromptConfig) -> None:
        if not tokenizer.eos_token:
            raise ModelError(
                'the tokenizer has no eos token, so no completion could end: add "eos_token" to tokenizer_config.json'
            )
        self.tokenizer = add_ratio_control(tokenizer, config.delimiter)
        self.config = config
        self.delimiter: str = tokenizer.eos_token if config.delimiter == "eos_token" else config.delimiter
        self.text(self.messages("Which?"))  # a template that refuses the system turn says so before a model loads

    def messages(self, question: str, instruction: str = "") -> tuple[Message, ...]:
        """The chat turns of a question; `instruction` goes behind it, as prompt-only baselines do."""
        return chat_turns(self.config, question, instruction)

    def text(self, messages: Sequence[Message], ratio: float = 1.0) -> str:
        """The rendered prompt, up to and including the beginning of the assistant's turn."""
        return _render(self.tokenizer, messages, ratio)

    def prompt(
        self, question: str, ratio: float = 1.0, *, instruction: str = "", prefill: str = "", cap: int | None = None
    ) -> Prompt:
        """A prompt with the token ids that are the same in training and inference."""
        messages = self.messages(question, instruction)
        ids = self.ids(self.text(messages, ratio)) + (self.ids(prefill) if prefill else [])
        return Prompt(messages=messages, ratio=ratio, token_ids=tuple(ids), prefill=prefill, max_new_tokens=cap)

    def ids(self, text: str) -> list[int]:
        """Token ids of text that is rendered already: nothing is added."""
        encoded: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return encoded

    def completion_ids(self, text: str) -> list[int]:
        """Token ids of a completion to train on: the text and the end-of-sequence token."""
        return [*self.ids(text), self.tokenizer.eos_token_id]

    def forced_answer(self) -> str:
        """What a serving-side thinking budget appends to a chain that is cut off, so that an answer follows."""
        return {
            "trigger": f"\n\n{self.config.trigger}",
            "boxed": "\n\nThe final answer is \\boxed{",
            "think": f"\n{self.config.think[1] if self.config.think else '</think>'}\n\n",
        }[self.config.answer]


def chat_turns(config: PromptConfig, question: str, instruction: str = "") -> tuple[Message, ...]:
    """The chat turns of a question; `instruction` goes behind it."""
    content = config.template.replace("{question}", question)
    if instruction:
        content = f"{content} {instruction}"
    system = ({"role": "system", "content": config.system},) if config.system else ()
    return (*system, {"role": "user", "content": content})


def ratio_kwargs(ratio: float) -> dict[str, str]:
    """The chat-template arguments of a ratio: none for 1, as servers and training data pass them."""
    return {} if ratio == 1 else {"compression_ratio": spell_ratio(ratio)}
