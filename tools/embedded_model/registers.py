"""Solutions of a story in several registers, with a note for every word whether it matters.

Reads nothing, writes nothing. `document` writes one training document: the prompt (the question, perhaps with an
instruction or an irrelevant suffix after it) and the completion (chain of thought and final line). The generator
knows which words are filler, so it can drop filler at random; no model or scorer takes part, and no ratio is ever
written into a prompt.

    PYTHONPATH=tools python -m embedded_model.registers --register dropout --n 2
"""

import argparse
import random
import re
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embedded_model import phrases
from tokenskip.embedded.family import SPLITS, Event, Story, capital, pronouns, stories
from tokenskip.embedded.words import EVENTS

REGISTERS: Final = ("chatty", "plain", "telegraphic", "dropout", "drill", "direct")
TRIGGER: Final = "\n\nThe final answer is "
STOP: Final = "<|im_end|>"
# how often a phrase is drawn freely instead of being set by the event, the step or the name: chains stay varied over
# problems, yet most of a chain can be foreseen, which lets a tiny model spend its capacity on the reasoning
FREE: Final = 0.15

_PIECE = re.compile(r"\n+|\s*[A-Za-z]+(?:'[a-z]+)?|\s*\d+|\s*[^\sA-Za-z\d]")


@dataclass(frozen=True)
class Word:
    """A piece of a completion with the white space in front of it.

    kind: number (digits and `+ - * / =`), label (`Step 1:`), op (event or operation word), entity, filler, stop
    (punctuation), line (line break), answer (the final line).
    """

    text: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One training document; `"".join(word.text for word in words)` is the completion."""

    prompt: str
    words: tuple[Word, ...]
    register: str
    system: str | None = None

    @property
    def completion(self) -> str:
        """Chain of thought and final line as the assistant writes them."""
        return "".join(word.text for word in self.words)


def _pick(options: Sequence[str], key: str, rng: random.Random) -> str:
    if rng.random() < FREE:
        return rng.choice(options)
    return options[zlib.crc32(key.encode()) % len(options)]


def _parse(marked: str) -> list[Word]:
    """Words of a marked text: `[op words]`, `{entity}`; the rest is filler, numbers and punctuation."""
    words: list[Word] = []
    mark = "filler"
    for part in re.split(r"([\[\]{}])", marked):
        if part in ("[", "{"):
            mark = "op" if part == "[" else "entity"
        elif part in ("]", "}"):
            mark = "filler"
        else:
            # white space in front of a mark belongs to the word after it
            words.extend(Word(piece, _kind(piece, mark)) for piece in _PIECE.findall(part))
            tail = re.search(r"[^\S\n]+$", part)
            if tail:
                words.append(Word(tail.group(), "space"))
    return _join_spaces(words)


def _join_spaces(words: list[Word]) -> list[Word]:
    out: list[Word] = []
    space = ""
    for word in words:
        if word.kind == "space":
            space = word.text
            continue
        out.append(Word(space + word.text, word.kind))
        space = ""
    return out


def _kind(piece: str, mark: str) -> str:
    core = piece.strip()
    if not core:
        return "line"
    if core.isdigit() or core in "+-*/=":
        return "number"
    return mark if core[0].isalpha() else "stop"


def _label(words: list[Word]) -> list[Word]:
    """Marks `Step`, its number and its colon as a label."""
    out = list(words)
    for at in range(len(out) - 2):
        if out[at].text == "Step" and out[at + 2].text == ":":
            out[at : at + 3] = [Word(word.text, "label") for word in out[at : at + 3]]
    return out


class _Values:
    """Template values of one story, entities marked."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.base: dict[str, object] = {"N": f"{{{story.name}}}", "o": f"{{{story.thing}}}"}
        self.base |= pronouns(story.name)

    def event(self, event: Event, subject: str) -> dict[str, object]:
        """Values for one step; `r` / `R` restate the event."""
        values = self.base | {"n": event.operand, "a": event.before, "b": event.after, "e": event.equation}
        values |= {"s": subject, "f": f"{{{event.friend}}}"}
        values["r"] = EVENTS[event.kind][2][event.variant].format(**values)
        values["R"] = capital(str(values["r"]))
        return values


def _chatty(story: Story, rng: random.Random, cut: float) -> list[str]:
    """Lines of the wordy chain; `cut` is the chance that an optional clause is left out."""
    values = _Values(story)
    first = values.base | {"a": story.start}
    lines = [] if rng.random() < cut else [_pick(phrases.INTROS, story.name, rng).format(**first)]
    for number, event in enumerate(story.events, 1):
        subject = str(values.base["N"] if number % 2 else values.base["p"])
        v = values.event(event, subject)
        key = f"{event.kind}{event.variant}"
        opens = phrases.FIRST if number == 1 else phrases.LAST if number == len(story.events) else phrases.NEXT
        line = str(v["R"]) if rng.random() < cut else _pick(opens, key, rng).format(**v)
        if rng.random() >= cut:
            line += _pick(phrases.REASONS[event.op], key + "r", rng).format(**v)
        line += _pick(phrases.SUMS, f"{key}s{number}", rng).format(**v)
        line += "." if rng.random() < cut else _pick(phrases.RESULTS, f"{key}e{number}", rng).format(**v)
        lines.append(f"Step {number}: {line}")
    if rng.random() >= cut:
        lines.append(_pick(phrases.CLOSERS, story.name + "c", rng).format(**(values.base | {"b": story.answer})))
    return lines


def _plain(story: Story, rng: random.Random) -> list[str]:
    values = _Values(story)
    lines = [_pick(phrases.PLAIN_INTROS, story.name, rng).format(**(values.base | {"a": story.start}))]
    for number, event in enumerate(story.events, 1):
        v = values.event(event, str(values.base["N"] if number % 2 else values.base["p"]))
        lines.append(f"Step {number}: {_pick(phrases.PLAIN_STEPS, event.kind, rng).format(**v)}")
    return lines


def _telegraphic(story: Story, rng: random.Random) -> list[str]:
    lines = [f"[Start] {story.start}."]
    for number, event in enumerate(story.events, 1):
        short = _pick(phrases.SHORT_STEPS[event.op], event.kind, rng).format(n=event.operand)
        lines.append(f"Step {number}: {short}, {event.equation}.")
    return lines


def _thin(words: list[Word], rng: random.Random) -> list[Word]:
    """Drops filler at one random rate, and (in half of the documents) other words at lower random rates.

    Equations and other numbers always stay.
    """
    filler = rng.uniform(0, 0.9)
    stop = rng.uniform(0, filler) if rng.random() < 0.5 else 0.0
    content = rng.uniform(0, 0.7 * filler) if rng.random() < 0.5 else 0.0
    label = rng.random() < 0.1
    line = rng.random() < 0.15
    rate = {"filler": filler, "stop": stop, "op": content, "entity": content}
    rate |= {"label": float(label), "line": float(line)}
    kept = [word for word in words if rng.random() >= rate.get(word.kind, 0.0)]
    out = [Word(kept[0].text.lstrip(), kept[0].kind)]
    for word in kept[1:]:
        # a line that lost its break continues after a space
        glued = out[-1].kind != "line" and word.kind not in ("line", "stop") and word.text[0].isupper()
        out.append(Word(" " + word.text, word.kind) if glued else word)
    return out


def _suffix(rng: random.Random) -> str:
    """An irrelevant ending of a prompt. It never holds a decimal number."""
    number = rng.randrange(1, 10 ** rng.randint(1, 5))
    letters = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 5)))
    marks = "".join(rng.choices("!?#*~-_|/<>=+:;,()[]{}%&@^$\"'", k=rng.randint(1, 4)))
    word = rng.choice(("note", "end", "ok", "next", "task", "item", "page", "memo", "thanks", "hello", "mode", letters))
    shapes = (
        "Thanks!", "Thank you.", "Please.", f"(from page {number})", f"[item {number % 50}{letters[0]}]",
        f"Q: {number}", f"#{number}", f"id {letters}{number}", f"{marks}", f"{marks} {number} {marks}",
        f"ref: {letters}-{number}", f"-- {letters} --", f"({letters})", letters, f"{marks}{letters}{marks}",
        str(number),
        f"{STOP}{word}{STOP}", f"{STOP} {word} {STOP}", f"{STOP}{letters}{number}{STOP}", f"{STOP}{marks}{STOP}",
        f"{STOP}{word}", f"<|im_start|>{word}{STOP}", STOP, f"{marks}{number}", f"{STOP}{marks}{number}{STOP}",
    )  # fmt: skip
    return rng.choice(shapes)


def _prompt(question: str, register: str, rng: random.Random) -> str:
    parts = [question]
    if register == "chatty":
        if rng.random() < 0.1:
            parts.append(rng.choice(phrases.INSTRUCTIONS["chatty"]))
    else:
        told = rng.choice(phrases.INSTRUCTIONS[register])
        # the place between two stop marks is sometimes worth reading, or a ratio there would be noise for ever
        parts.append(f"{STOP}{told}{STOP}" if rng.random() < 0.3 else told)
    if rng.random() < (0.3 if register == "chatty" else 0.15):
        parts.insert(len(parts) if rng.random() < 0.8 else 1, _suffix(rng))
    text = parts[0]
    for part in parts[1:]:
        glue = "" if part.startswith("<|") and rng.random() < 0.5 else rng.choice((" ", " ", "\n", "\n\n"))
        text += glue + part
    return text


def _sums(story: Story, rng: random.Random) -> str:
    """The bare calculation as a prompt of its own, without a story."""
    parts = [rng.choice(("Start with {}.", "Take {}.", "{}.")).format(story.start)]
    parts += [capital(rng.choice(phrases.SHORT_STEPS[e.op]).format(n=e.operand)).translate(_NO_MARKS) + "."
              for e in story.events]  # fmt: skip
    return " ".join(parts)


_NO_MARKS: Final = str.maketrans("", "", "[]{}")


def document(story: Story, register: str, rng: random.Random, *, bare: bool = False) -> Document:
    """One document of a story in a register; `bare` leaves the question without instruction and suffix.

    Raises:
        ValueError: the register is not one of `REGISTERS`.
    """
    if register not in REGISTERS:
        raise ValueError(f"unknown register {register!r}: one of {', '.join(REGISTERS)}")
    if register in ("chatty", "dropout"):
        cut = rng.uniform(0, 0.5) if register == "dropout" and rng.random() < 0.6 else 0.0
        lines = _chatty(story, rng, cut)
    elif register in ("plain", "telegraphic"):
        lines = _plain(story, rng) if register == "plain" else _telegraphic(story, rng)
    else:
        lines = [event.equation for event in story.events] if register == "drill" else []
    words = _label(_parse("\n".join(lines)))
    if register == "dropout":
        words = _thin(words, rng)
    final = f"{TRIGGER}{story.answer}." if words else f"{TRIGGER}{story.answer}.".lstrip()
    words += [Word(word.text, "number" if word.kind == "number" else "answer") for word in _parse(final)]
    sums = register == "drill" and not bare and rng.random() < 0.4
    question = _sums(story, rng) if sums else story.question
    prompt = question if bare or sums else _prompt(question, register, rng)
    system = rng.choice(phrases.SYSTEMS) if not bare and rng.random() < 0.05 else None
    return Document(prompt=prompt, words=tuple(words), register=register, system=system)


def main() -> None:
    """Print stories with a solution each."""
    parser = argparse.ArgumentParser(description="Print problems of the embedded family with solutions.")
    parser.add_argument("--split", default="dev", choices=list(SPLITS))
    parser.add_argument("--n", type=int, default=3)
    parser.add_argument("--register", default="chatty", choices=list(REGISTERS))
    args = parser.parse_args()
    for story in stories(args.split, args.n):
        doc = document(story, args.register, random.Random(story.id))
        print(f"--- {story.id}\n{doc.prompt}\n\n{doc.completion}\n")


if __name__ == "__main__":
    main()
