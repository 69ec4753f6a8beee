"""The ratio control: the prefix that teaches a chat template to take `compression_ratio`.

The marker is the paper's (section 3.3): `question <eos> γ <eos>` after the last user turn; γ = 1 is the plain
question. The prefix rewrites `messages` and then lets the model's own template run untouched:

    tokenizer = add_ratio_control(AutoTokenizer.from_pretrained(...))
    tokenizer.apply_chat_template(messages, add_generation_prompt=True, compression_ratio=0.6)

Without `compression_ratio`, or with 1 or None, the rendering is the original template's, byte for byte. That includes
a delimiter that a user wrote: a server that lets strangers write user turns should set a default ratio other than 1, or
refuse the delimiter itself. With a ratio, user turns are cleaned of it.

What a model was trained under can be part of the prefix (`TemplateSettings`), so that any server renders as training
did: default values of other template arguments, a fixed date, and the trained ratios.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import pairwise
from typing import Any

from tokenskip import ratio as ratio_map
from tokenskip.errors import ConfigError, ModelError
from tokenskip.prompting.bounded import LimitError, bounded
from tokenskip.prompting.effort import EFFORT, effort_piece, read_effort, without_effort
from tokenskip.ratio import TENTHS, UNMAPPED, Ratio, RatioMap, RatioRange, Spelling, covers, spell
from tokenskip.types import Message

_BEGIN, _END = "{#- tokenskip: ratio control -#}", "{#- tokenskip: end -#}"

# Every construct here also exists in MiniJinja and in llama.cpp's engine, so servers written in Rust or C++ render the
# same bytes. The latter has no filter `round`.
# No loop is over `m['content']` itself: vLLM and SGLang take that for a template that wants content as parts, and hand
# parts to a model's own template that takes text.
# Only the caller sets the ratio: whenever one is asked for, a delimiter in any user turn is taken out first, also one
# that is put together of two parts, or appears only when another has been taken out (`<e<eos>os>`): such a text loses
# the delimiter's first character everywhere. System, assistant and tool turns are the operator's, and stay.
_CONTROL = """\
{%- if compression_ratio is defined and compression_ratio is not none and (compression_ratio | float) != 1.0 -%}
{%- set tsk = namespace(last=-1, out=[], parts=[], text=-1, given=[], all='') -%}
{%- set tsk.ratio = (((compression_ratio | float) * SCALE + 0.5) | int) / SCALE -%}
{%- if tsk.ratio <= 0 or tsk.ratio > 1 -%}
{{- raise_exception('compression_ratio must be above 0 and at most 1, given: ' + (compression_ratio | string)) -}}
{%- endif -%}
{%- set tsk_cut = DELIMITER -%}
{%- set tsk_mark = tsk_cut + SPELLED + tsk_cut -%}
{%- for m in messages -%}{%- if m['role'] == 'user' -%}{%- set tsk.last = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- set tsk_end = tsk_mark if loop.index0 == tsk.last and tsk.ratio != 1 else '' -%}
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
_FIRST = _CONTROL.partition("\n")[0]
_LOW = "((tsk.ratio * 10 + 0.001) | int)"  # tenths; 0.7 * 10 may be a little less than 7
_MORE = f"(((tsk.ratio * 100 + 0.5) | int) - 10 * {_LOW})"
_WRITTEN = {
    "short": "(tsk.ratio | string)",
    "decimals": "((tsk.ratio | string) + '0')[:4]",
    "scale": f"('0000000000' | replace('0', '{TENTHS}'[{_LOW}:{_LOW} + 1]))[:10 - {_MORE}]"
    f" + ('0000000000' | replace('0', '{TENTHS}'[{_LOW} + 1:{_LOW} + 2]))[:{_MORE}]",
}
"""`Ratio.written` as template text."""
_MAP_BEGIN, _MAP_END = "{#- tokenskip: map -#}", "{#- tokenskip: map end -#}"
_SETTINGS = "{#- tokenskip: settings "

PLAIN_TEMPLATE = "{%- for message in messages -%}{{ message['content'] }}{{ '\\n' }}{%- endfor -%}"
"""What a model without a chat template gets: every turn's content and a line break."""

_TEMPLATE_ERRORS = (TypeError, ValueError, AttributeError, RecursionError)
_DIRECTIVES = (
    *("%-d", "%-m", "%-H", "%-I", "%-M", "%-j", "%-y"),
    *(f"%{letter}" for letter in "aAbBcCdDeFghHIjmMnpRsStTuUVwWxXyYzZ"),
)
"""What `strftime` knows; the date is pinned to midnight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSettings:
    """What a model was trained under, as far as its chat template says it.

    `template_kwargs`: values of other template arguments where the caller gives none. `date`: what `strftime_now` says
    instead of today. `ratios`: what was trained, a list or a range; another ratio becomes the nearest of them, or is
    refused (`strict`). `spelling`: how a ratio is written.
    """

    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    date: date | None = None
    ratios: tuple[float, ...] = ()
    strict: bool = False
    spelling: Spelling = "short"

    def nearest(self, ratio: float) -> float:
        """The trained ratio that `ratio` is prompted as, the lower of two equally near; itself where none are known."""
        if isinstance(self.ratios, RatioRange):
            return round(min(max(ratio, self.ratios.low), self.ratios.high), 2)
        return next((trained for upper, trained in self._pieces() if ratio <= upper), ratio)

    def _pieces(self) -> list[tuple[float, float]]:
        """(up to this ratio, prompt with this), ascending."""
        ordered = sorted(self.ratios)
        if not ordered:
            return []
        return [*((round((low + high) / 2, 6), low) for low, high in pairwise(ordered)), (1.0, ordered[-1])]

    def dump(self) -> str:
        """The comment that `read_settings` reads; empty where there is nothing to say."""
        values = {
            "template_kwargs": dict(self.template_kwargs),
            "date": self.date.isoformat() if self.date else None,
            "ratios": self.ratios.dump() if isinstance(self.ratios, RatioRange) else list(self.ratios),
            "strict": self.strict,
            "spelling": None if self.spelling == "short" else self.spelling,
        }
        values = {name: value for name, value in values.items() if value}
        return f"{_SETTINGS}{json.dumps(values).replace('#', chr(92) + 'u0023')} -#}}" if values else ""

    def prefix(self) -> str:
        """Template text in front of everything: default arguments, and a `strftime_now` of the pinned date."""
        lines = [
            f"{{%- if {name} is not defined -%}}{{%- set {name} = {_literal(value)} -%}}{{%- endif -%}}\n"
            for name, value in self.template_kwargs.items()
        ]
        if self.date:
            midnight = datetime(self.date.year, self.date.month, self.date.day)
            spelled = "".join(f" | replace('{name}', {_literal(midnight.strftime(name))})" for name in _DIRECTIVES)
            lines.append(f"{{%- macro strftime_now(tsk_format) -%}}{{{{- tsk_format{spelled} -}}}}{{%- endmacro -%}}\n")
        return "".join(lines)

    def ratio_piece(self) -> str:
        """Template text that moves `tsk.ratio` to the nearest trained ratio, or refuses it; off with `UNMAPPED`."""
        if not self.ratios:
            return ""
        begin, end = f"{{%- if {UNMAPPED} is not defined or not {UNMAPPED} -%}}\n", "{%- endif -%}\n"
        span = self.ratios if isinstance(self.ratios, RatioRange) else None
        if self.strict:
            listed = f"tsk.ratio not in {_literal([float(ratio) for ratio in self.ratios])}"
            return (
                f"{begin}{{%- if {f'tsk.ratio < {span.low} or tsk.ratio > {span.high}' if span else listed} -%}}"
                "{{- raise_exception('compression_ratio ' + (tsk.ratio | string) + "
                f"' was not trained: ask for one of {spell(self.ratios)}') -}}}}{{%- endif -%}}\n{end}"
            )
        if span:
            bounds = [
                f"{{%- if tsk.ratio {sign} {bound} -%}}{{%- set tsk.ratio = {bound} -%}}{{%- endif -%}}\n"
                for sign, bound in (("<", span.low), (">", span.high))
            ]
            return begin + "".join(bounds) + end
        lines, word = begin, "if"
        for upper, trained in self._pieces():
            lines += f"{{%- {word} tsk.ratio <= {upper!r} -%}}{{%- set tsk.ratio = {float(trained)!r} -%}}\n"
            word = "elif"
        return lines + "{%- endif -%}\n" + end


def read_settings(template: str | None) -> TemplateSettings:
    """The settings inside a chat template; all defaults where it has none."""
    _, found, rest = (template or "").partition(_SETTINGS)
    if not found:
        return TemplateSettings()
    try:
        values = json.loads(rest.partition(" -#}")[0])
        day, ratios = values.get("date"), values.get("ratios", ())
        spelling = values.get("spelling", "short")
        if spelling not in _WRITTEN:
            raise ValueError(spelling)
        return TemplateSettings(
            template_kwargs=dict(values.get("template_kwargs", {})),
            date=date.fromisoformat(day) if day else None,
            ratios=RatioRange.read(ratios) if isinstance(ratios, dict) else tuple(map(Ratio, ratios)),
            strict=bool(values.get("strict", False)),
            spelling=spelling,
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ModelError("the settings of the ratio control in the chat template are damaged: train again") from None


def _literal(value: Any) -> str:
    """A value of JSON as Jinja and MiniJinja both spell it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(str(key))}: {_literal(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def add_ratio_control(tokenizer: Any, delimiter: str = "eos_token", settings: TemplateSettings | None = None) -> Any:
    """`tokenizer`, its chat template extended by `compression_ratio`; saving it carries the template along.

    `delimiter` is 'eos_token' or the text that encloses the ratio, for example '<|eot_id|>' for the adapters that the
    paper's authors released for Qwen. Calling it again replaces the control that is there; a map that `tokenskip
    calibrate` put into it stays, and so do its settings where none are given.

    Raises:
        ModelError: the tokenizer has no eos token to enclose the ratio with, several templates by name, or one that
            fails on a single question or does not pass the end of a question on.
    """
    if delimiter == "eos_token" and not tokenizer.eos_token:
        raise ModelError("the tokenizer has no eos token: set prompt.delimiter to the text that encloses the ratio")
    template = tokenizer.chat_template or PLAIN_TEMPLATE
    if not isinstance(template, str):
        raise ModelError("the tokenizer has several named chat templates: keep one (tokenizer.chat_template = ...)")
    mapping, effort = ratio_map.read(template), read_effort(template)
    settings = read_settings(template) if settings is None else settings
    template = own_template(template)
    literal = "eos_token" if delimiter == "eos_token" else json.dumps(delimiter, ensure_ascii=False)
    control = _CONTROL.replace("SCALE", str(10 ** (4 if settings.spelling == "short" else 2)))
    control = control.replace("SPELLED", _WRITTEN[settings.spelling]).replace("DELIMITER", literal)
    prefix = _BEGIN + settings.dump() + settings.prefix() + control + _END
    tokenizer.chat_template = prefix + template
    try:
        _check_control(tokenizer, tokenizer.eos_token if delimiter == "eos_token" else delimiter, settings.spelling)
    except ModelError:
        tokenizer.chat_template = template
        raise
    tokenizer.chat_template = _put_effort(set_ratio_map(tokenizer.chat_template, mapping), effort)
    return tokenizer


def own_template(template: str) -> str:
    """The model's own template, without a ratio control in front."""
    return template.partition(_END)[2] if _END in template else template


def set_ratio_map(template: str, mapping: RatioMap | None) -> str:
    """A chat template with ratio control that asks through `mapping`, in place of a map it has.

    With None it keeps to the trained ratios, where its settings name some.
    """
    assert has_ratio_control(template)
    control, end, rest = template.partition(_END)
    if _MAP_BEGIN in control:
        control = control.partition(_MAP_BEGIN)[0] + control.partition(_MAP_END)[2]
    piece = mapping.jinja() if mapping else read_settings(control).ratio_piece()
    if piece:
        head, mark, tail = control.partition(_MARKER)
        control = head + _MAP_BEGIN + piece + _MAP_END + mark + tail
    return control + end + rest


def set_effort(template: str, effort: Mapping[str, float], *, over: bool = False) -> str:
    """A chat template with ratio control that takes `reasoning_effort` as `effort` says, in place of a map it has.

    Raises:
        ModelError: the model's own template reads the word, unless `over`; ConfigError: a ratio that was not trained.
    """
    assert has_ratio_control(template)
    if effort and not over and reads_effort(template):
        raise ModelError(
            f"the model's own chat template reads {EFFORT}, and would get the word as well: leave it to that template "
            "(compression_ratio stays), or insist with `tokenskip effort RUN --map ... --over`"
        )
    _check_supported(template, effort)
    return _put_effort(template, effort)


def _put_effort(template: str, effort: Mapping[str, float]) -> str:
    control, end, rest = template.partition(_END)
    head, first, tail = without_effort(control).partition(_FIRST)
    return head + effort_piece(effort) + first + tail + end + rest


def _check_supported(template: str, effort: Mapping[str, float]) -> None:
    """ConfigError where the template would write another ratio than the map promises."""
    mapping, trained = ratio_map.read(template), read_settings(template).ratios
    for word, ratio in effort.items():
        known = covers(trained, ratio)
        reached = mapping.reaches(ratio) if mapping else not trained or known
        if ratio == 1 or (known if word == "none" else reached):
            continue
        if mapping and word != "none":
            raise ConfigError(f"{word}={Ratio(ratio)}: calibration reached {mapping.low:g} to {mapping.high:g}")
        allowed = spell(trained) or "nothing that the template names"
        raise ConfigError(f"{word}={Ratio(ratio)} was not trained: take one of {allowed}")


def reads_effort(template: str | None) -> bool:
    """Whether a model's own template reads `reasoning_effort`."""
    return EFFORT in own_template(template or "")


def has_ratio_control(template: str | None) -> bool:
    """Whether a chat template knows `compression_ratio` the way this package writes it."""
    return bool(template) and _END in str(template)


def is_dated(template: str | None) -> bool:
    """Whether a model's own template shows today's date."""
    return "strftime_now" in own_template(template or "")


def unread_kwargs(template: str | None, names: Iterable[str]) -> list[str]:
    """Those of `names` that a model's own template never reads."""
    from jinja2 import Environment, TemplateError
    from jinja2.meta import find_undeclared_variables

    plain = re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", own_template(template or ""))  # transformers' own tag
    try:
        read = find_undeclared_variables(Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain))
    except TemplateError:
        return []
    return [name for name in names if name not in read]


def _check_control(tokenizer: Any, delimiter: str, spelling: Spelling) -> None:
    """ModelError when the template under the control cannot carry the marker."""
    question = [{"role": "user", "content": "Which?"}]
    try:
        rendered = render(tokenizer, question, 0.5, trial=True)
    except ModelError:  # some templates insist on a system turn
        rendered = render(tokenizer, [{"role": "system", "content": "Be kind."}, *question], 0.5, trial=True)
    marked = mark_question("Which?", 0.5, delimiter, spelling)
    if marked not in rendered:
        raise ModelError(
            f"the chat template does not pass the end of a question on: asked for {marked!r}, "
            f"it rendered {rendered[-80:]!r}; set prompt.delimiter to another text, or mend the template"
        )


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    ratio: float,
    template: str | None = None,
    *,
    trial: bool = False,
    template_kwargs: Mapping[str, Any] | None = None,
) -> str:
    """The rendered prompt, by the tokenizer's template or another; ModelError with its own words when it refuses.

    The first rendering is a `trial`, bounded in time, memory and size: a template is somebody's program.
    """
    from jinja2 import TemplateError

    def apply() -> str:
        kwargs = {**(template_kwargs or {}), **ratio_kwargs(ratio)}
        text: str = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, chat_template=template, **kwargs
        )
        return text

    try:
        rendered = bounded(apply) if trial else apply()
    except (LimitError, TemplateError, LookupError, ArithmeticError, *_TEMPLATE_ERRORS) as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        hint = "; leave prompt.system out, or write it into prompt.template" if "system" in roles else ""
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the chat template fails on the turns {roles}: {reason}{hint}") from None
    return rendered


def ratio_kwargs(ratio: float) -> dict[str, str]:
    """The chat-template arguments of a ratio: none for 1, as servers and training data pass them."""
    return {} if ratio == 1 else {"compression_ratio": str(Ratio.parse(ratio))}


def mark_question(text: str, ratio: float, delimiter: str, spelling: Spelling = "short") -> str:
    """A user turn as the template's control writes it: the text without delimiters, and the marker; the text for 1."""
    if ratio == 1:
        return text
    text = text.replace(delimiter, "")
    if delimiter in text:
        text = text.replace(delimiter[:1], "")
    return f"{text}{delimiter}{Ratio.parse(ratio).written(spelling)}{delimiter}"
