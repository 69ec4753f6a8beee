"""The value that a phrase states: "12 + 5 = 17 apples, since …" gives 17; "12 more than 5" gives nothing smaller.

A phrase is what follows a marker, or a completion's last sentence. Reasons and remarks after a value are cut off; a
value
is never cut out of an expression, a list, a range or a number word.

    python -c "from tokenskip.answers.phrases import *; print(reduce_phrase('not 20 but 18', True))"
"""

from __future__ import annotations

import re

from tokenskip.answers.latex import plain
from tokenskip.answers.values import MAX_ANSWER, NUMBER, Quantity, read_quantity
from tokenskip.answers.words import NUMBER_WORDS, TALK

_CLAUSE = re.compile(
    r"""(?: [,;]\s+ (?:since|because|as|so|which|who|where|when|while|whereas|if|for|but|not|it|he|she|they|we
                    |this|that|there|with
                    |however|meaning|making|i\.e\.|e\.g\.|namely|the|a|an|after|assuming|given|rounded|porque|ya\sque|pues|weil
                    |da|denn|nicht|car|parce\sque|puisque|perch[ée]|poich[ée]|pois|want|omdat|bo|ponieważ|потому|так\sкак|поскольку)
          | \s (?:because|since|where|whereas|when|which|so\sthat|due\sto|i\.e\.|porque|weil|parce\sque
              |perch[ée]|потому)
        ) (?![^\W\d_]) | [，,]\s*(?:因为|因為|比|即|所以|而不是)""",
    re.VERBOSE | re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?:not|nicht|no es|n'est pas|non è|não é|不是)\b\s*.{1,60}?[,\s]+(?:but|sondern|sino|mais|ma|mas"
    r"|而是)(?:\s+rather)?\s+(.+)",
    re.I | re.S,
)
_NOT = re.compile(r"(?:not|n't|nicht|kein\w*|не|不是|ikke|inte)\b", re.IGNORECASE)
_LEAD_IN = re.compile(
    r"(?:that|therefore|thus|simply|just|indeed|actually|then|hence|given by|equal to|found to "
    r"be|precisely|clearly|now|also|"
    r"probably|most likely|likely|obviously|definitely|certainly|(?:I|we) (?:think|believe|guess)(?: it(?: "
    r"is|'s)| that)?|dass|que|"
    r"alors|donc|also|daher|simplement)[\s,:]+(?=\S)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\bI(?:'m|’m| am)? (?:sorry|not (?:sure|certain)|unsure|do(?:n't|n’t| not) (?:know|understand|have)|"
    r"(?:can(?:not|'t|’t)|am unable to|could(?:n't| not)) (?:solve|answer|tell|determine|say|find|help|provide|figure))"
    r"|\b(?:no idea|unable to (?:answer|solve|determine))\b|ich weiß (?:es )?nicht|je ne sais pas|no lo sé|não "
    r"sei|non lo so|"
    r"не знаю|我不知道|不知道|わかりません|모르",
    re.IGNORECASE,
)
_POLITE = re.compile(
    r"(?:I hope|hope (?:this|that|it)|let me know|feel free|please|thank|thanks|great|good luck|glad|happy to|if "
    r"you (?:have|need|want)|"
    r"is there anything|do you|would you|note that|remember|to (?:check|verify|confirm)|(?:let's|let us|we can) "
    r"(?:check|verify)|check:|"
    r"this (?:matches|checks|confirms|makes sense)|that(?:'s| is) (?:it|all|correct|right)|done|✓|✅)",
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"\b(?:than|als|que|более|больше|больш\w*)\b|^(?:so |and )?(?:that|this|these|it|das|dies|soit|cela|c'est|eso"
    r"|esto|son|это|ni)\b.*"
    r"\b(?:more|less|fewer|mehr|weniger|de plus|de moins|más|menos|больше|меньше|zaidi)\b|比.{1,12}[多少大小]|より",
    re.IGNORECASE,
)
_BREAKERS = re.compile(
    r"\b(?:not|or|between|than|least|most|except|half|twice|double|triple|thirds?|quarter|times|without|under"
    r"|below|above|up to|"
    r"maximum|minimum|never|oder|nicht|ou|zwischen|entre|или|между|mindestens|höchstens)\b|n't\b|[√^*/<>]|\\(?:sqrt|times|cdot|frac|pm)",
    re.IGNORECASE,
)
_EQUALS = re.compile(
    r"\s*(?:=|≈|\\approx|\\Rightarrow|→|⇒|->)\s*|\s+(?:is|are|was|were|equals?|makes?|gives?|i\.e\.|that "
    r"is|namely|ist|sind|est|sont|es|son|è|é)[\s:,]+"
    r"|(?<=[，,、])\s*(?:即|是)",
    re.IGNORECASE,
)
_DEFINITIONS = re.compile(r"(?:,|;|\band\b|\bor\b)[^=]{0,40}=")
_TOKEN = re.compile(rf"(?<![A-Za-z0-9.^_{{(]){NUMBER}|(?<=[$€£¥₹(]){NUMBER}", re.VERBOSE)
_HEAD_ENDS = re.compile(
    r"\s+(?:for|in|per|at|from|with|on|by|after|every|each|during|within|if|among|para|für|pour|por|per|в|за)\s", re.I
)
_MONEY_PAIR = re.compile(r"\\?\$?\s*(\d[\d,]*)\s*(?:dollars?)?\s*(?:and|,)\s*(\d{1,2})\s*cents?", re.IGNORECASE)
_NUMBER_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)?")
_COPULA = re.compile(r"(?:です|だ|である|でした|となります|になります|입니다|이다|예요|이에요|है|हैं|dir|dır|olur)[。.]?$")
_BULLET = re.compile(r"\A(?:[-*•–]\s+|#+\s+|\d{1,2}[.)]\s+(?=\S))")


def refuses(text: str) -> bool:
    """Whether a text says that there is no answer ("I don't know")."""
    return _REFUSAL.search(text) is not None


def clean(phrase: str) -> str:
    """A phrase without Markdown, quotes, and the punctuation and copula at its end."""
    phrase = re.sub(r"\*\*|__(?=\w)|(?<=\w)__|`", "", phrase).strip(" \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85*_")
    phrase = re.sub(r"(?<![.!\d])[!?]+$|(?<=\d)!$|[。！？।;；,，]+$", "", phrase)
    if phrase.endswith(".") and not re.search(r"(?:^|[\s.(])(?:[A-Za-z]\.)+[A-Za-z]?\.$", phrase):
        phrase = phrase[:-1]
    phrase = _COPULA.sub("", phrase)
    quoted = re.fullmatch(r"([\"'“「])(.*)[\"'”」]", phrase, re.DOTALL)
    return (quoted[2] if quoted else phrase).strip().strip('"“”').strip()


def reduce_phrase(phrase: str, numeric: bool, *, after: bool = False, boxed: bool = False) -> str | None:
    """The value that `phrase` states, or the whole phrase where it states something else; None where it is talk.

    `after`: it follows words such as "the answer is", after which "correct" is talk. `boxed`: it is a box's content.
    """
    phrase = clean(phrase)
    if not phrase or refuses(phrase):
        return None
    if len(phrase) > MAX_ANSWER:
        return phrase
    if match := _DENIAL.match(phrase):
        phrase = match[1]
    elif _NOT.match(phrase) and not boxed:
        return None
    while lead := _LEAD_IN.match(phrase):
        phrase = phrase[lead.end() :]
    if after and _is_talk(phrase):
        return None
    main = _main_clause(phrase)
    if numeric:
        for part in dict.fromkeys((main, phrase)):
            if number := the_number(part):
                return number
        return main if re.search(r"\d", main) or _has_number_word(main) or boxed else None
    return _value(main) or None


_BRACKETED = re.compile(r"(?<=[\w%$\])])(?:\s+\(|\s*（)(?![^()]*\\)[^()]*[)）]$")
"""A remark in brackets at the end: "45 minutes (30 + 15)"; directly after a letter it is an argument: f(x)."""


def _is_talk(phrase: str) -> bool:
    first = re.match(r"[^\W\d_][\w-]*", phrase)
    if first is None or first.group().casefold() not in TALK:
        return False
    return read_quantity(phrase, prose=True) is None


def _main_clause(phrase: str) -> str:
    """A phrase without the reason or remark at its end."""
    if match := _CLAUSE.search(phrase, 1):
        phrase = phrase[: match.start()].rstrip(" ,;，")
    remark = _BRACKETED.search(phrase)
    if remark and "(" not in phrase[: remark.start()] and phrase.count("$", 0, remark.start()) % 2 == 0:
        phrase = phrase[: remark.start()].rstrip() or phrase
    return phrase


def the_number(phrase: str) -> str | None:
    """The one number that a phrase gives, as it is written there; None when it gives none or several."""
    if not (re.search(r"\d", phrase) or _has_number_word(phrase) or re.search(r"[¼-¾⅐-⅞]", phrase)):
        return None
    if phrase.isascii() and phrase.isdecimal() and len(phrase) <= 18:
        return phrase
    text = plain(phrase)
    if whole := _as_written(text):
        return whole
    if money := _MONEY_PAIR.fullmatch(text):
        return f"${money[1]}.{int(money[2]):02d}"
    if not _DEFINITIONS.search(text[text.find("=") + 1 :] if "=" in text else ""):
        for part in reversed(_EQUALS.split(text)):
            if number := _as_written(part):
                return number
    return _only_number(text)


def _as_written(text: str) -> str | None:
    """`text` cut down to its number, when all of it is one number with words that change nothing."""
    quantity = read_quantity(text, prose=True)
    if quantity is None:
        return None
    words = text.split()
    for end in range(1, len(words) + 1):
        part = " ".join(words[:end])
        shorter = read_quantity(part)
        if shorter and shorter.value == quantity.value and shorter.percent == quantity.percent:
            return part.replace("\\$", "$").rstrip(" .,;:*_\"')`").lstrip(" *_\"'(`")
    return text.strip()


def _only_number(text: str) -> str | None:
    tokens = list(_TOKEN.finditer(text))
    if not tokens:
        return _number_in_words(text)
    first = tokens[0]
    if len(tokens) > 1:
        if first.start() <= 3 and (end := _HEAD_ENDS.search(text, first.end())):
            return _as_written(text[: end.start()])
        values = {read_quantity(token.group()) for token in tokens}
        if len(values) > 1:
            return None
    before = text[: first.start()]
    alone = re.search(r"(?:^|[\s(:])(?:[-–]|\\?\$|€|£|¥|₹|R\$)*\s*$", before) and not _BREAKERS.search(before)
    if not alone and not (before and before[-1] > "\u2e80"):  # scripts without spaces
        return None
    signed = re.search(r"(?<![\w)])[-–]?\\?[$€£¥₹]?$", before)
    start = signed.start() if signed else first.start()
    return _as_written(text[start:])


def _number_in_words(text: str) -> str | None:
    words = [match for match in _NUMBER_WORD.finditer(text) if _is_number_word(match.group())]
    if not words or _BREAKERS.search(text[: words[0].start()]):
        return None
    return _as_written(text[words[0].start() :])


def _is_number_word(word: str) -> bool:
    return all(part in NUMBER_WORDS and NUMBER_WORDS[part] != 1 for part in word.casefold().split("-"))


def _has_number_word(text: str) -> bool:
    return any(word in NUMBER_WORDS or word in ("half", "dozen") for word in re.findall(r"[^\W\d_]+", text.casefold()))


_VERB = (
    r"(?:is|are|was|were|equals?|be|becomes?|get|gets|have|has|obtain|gives?|yields?|find|makes?|ist|sind|lautet|hat|est|sont|"
    r"es|son|è|sono|é|são|adalah|là)"
)
_SUBJECT = re.compile(
    rf"(?P<subject>.{{1,160}}?)\s+{_VERB}(?:\s+(?:thus|therefore|then|simply|exactly|only|that|equal "
    rf"to))?\s*[:,]?\s+(?P<value>.+)",
    re.I | re.S,
)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\begin\{(?:align|aligned|equation|gather|gathered)\*?\}(.*?)(?:\\end\{|\Z)", re.DOTALL)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_NAMED = re.compile(r"\s*[a-zA-Z](?:_\{?\w+\}?|\([a-zA-Z]\))?\s*")


def _value(phrase: str) -> str:
    """A phrase cut down to its value where its form shows it: a formula alone, or "SUBJECT is VALUE"."""
    phrase = phrase.strip()
    displayed = phrase.startswith(("$$", "\\[", "\\begin{align", "\\begin{equation", "\\begin{gather"))
    if displayed:
        return last_side(display_content(phrase))
    formula = _FORMULA.fullmatch(phrase)
    if formula:
        return next(group for group in formula.groups() if group is not None).strip().rstrip(".,")
    if (subject := _SUBJECT.fullmatch(phrase)) and len(subject["value"].split()) <= 6 and "=" not in subject["subject"]:
        return _value(subject["value"])
    return re.sub(r"\\[()]", "", phrase).strip()


def display_content(text: str) -> str:
    """What a displayed formula holds: its last row, without the marks around it."""
    text = re.sub(r"^\s*(?:\$\$|\\\[)|(?:\$\$|\\\])\s*$", "", text.strip())
    if environment := _ENVIRONMENT.search(text):
        text = environment[1]
    if "\\begin{" not in text:
        rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", text) if row.strip(" \n\t&.")]
        text = rows[-1].replace("&", "") if rows else ""
    return text.strip().rstrip(".,;").strip()


def last_side(formula: str) -> str:
    """The right side of a chain of equalities; an equation that defines a single variable stays as it is."""
    sides = re.split(r"(?<![<>!\\:])=|\\approx|\\equiv(?!\w)", formula)
    if len(sides) < 2 or (len(sides) == 2 and _NAMED.fullmatch(sides[0])) or "\\begin" in formula:
        return formula.strip()
    if len(sides) == 2 and (re.search(r"[a-zA-Z]", _COMMAND.sub("", sides[1])) or sides[1].strip() == "0"):
        return formula.strip()
    return sides[-1].strip()


_CONSEQUENCE = re.compile(
    r"[,;]\s+(?:and\s+)?(?:so|thus|therefore|hence|which\s+(?:is|means|gives|makes))\s", re.IGNORECASE
)
_OPENERS = re.compile(r"(?:let|we|i|so|then|first|now|to|in order|suppose|consider|next|since|if)\b", re.IGNORECASE)


def reduce_last(sentence: str, numeric: bool) -> tuple[bool, str | None]:
    """Whether a sentence at the end of a completion decides about its answer, and the value that it gives."""
    sentence = clean(_BULLET.sub("", sentence.strip(" *"), count=1))
    if not sentence or _POLITE.match(sentence):
        return False, None
    if numeric:
        if not (re.search(r"\d", sentence) or _has_number_word(sentence)) or _REMARK.search(sentence):
            return False, None
        sentence = re.sub(r"^(?:so|thus|therefore|hence|then|in total|altogether)[\s,]+", "", sentence, flags=re.I)
        sentence = _CONSEQUENCE.split(sentence)[-1]
        if number := the_number(_main_clause(sentence)) or the_number(sentence):
            return True, number
        if denied := re.search(r"\bis (not .{1,60})", sentence):
            return True, denied[1]
        words = re.search(r"[^\W\d_]{2,}", re.sub(r"\\[a-z]+", "", plain(sentence)))
        return True, None if words else sentence
    main = _main_clause(sentence)
    if _NOT.match(main):
        return True, None
    formulas = list(_FORMULA.finditer(main))
    if formulas and formulas[-1].end() >= len(main) - 1:
        before = main[: formulas[-1].start()]
        if not re.search(r"\b(?:than|except|not|or|by|of|and|from|to|for)\s*$", before, re.I):
            content = next(group for group in formulas[-1].groups() if group is not None)
            return True, last_side(display_content(content))
    if (subject := _SUBJECT.fullmatch(main)) and len(subject["value"].split()) <= 6:
        return True, _value(subject["value"])
    sides = main.split("=")
    if len(sides) > 1:
        return True, last_side(main)
    label = re.fullmatch(r"[^:]{1,40}:\s+(\S.*)", main)
    if label and len(label[1].split()) <= 6:
        return True, label[1]
    if (len(main.split()) <= 4 and not _OPENERS.match(main)) or read_quantity(main):
        return True, _value(main)
    return True, None


__all__ = ["Quantity", "clean", "reduce_last", "reduce_phrase", "refuses", "the_number"]
