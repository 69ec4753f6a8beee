"""Where a chain may be cut, and the equation check that reads what a cut chain states."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenskip
from tokenskip.pruning.atoms import check_pruned, equations, split_units
from tokenskip.pruning.equations import value

UNITS: tuple[Literal["token", "word", "step"], ...] = ("token", "word", "step")
MATHS = ("12 + 5 = 17", "$x^2 = 9$", "$5", "%", "\\frac{1}{2}", "48/2 = <<48/2=24>>24", "\\[", "(", ")")
PROSE = (
    "Tom",
    "3",
    "apples",
    ".",
    ",",
    " ",
    " ",
    "\n",
    "\n\n",
    "  ",
    "\r\n",
    '"',
    "and/or",
    "Step 2:",
    "- ",
    "价格",
    "👍🏽",
)
PIECES = st.sampled_from((*MATHS, *PROSE, "é", "`a b`"))
TEXTS = st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60))


def units_of(text: str, unit: Literal["token", "word", "step"] = "token", atoms: bool = True) -> list[str]:
    return [text[start:end] for start, end in split_units(text, unit, atoms)]


@given(TEXTS, st.sampled_from(UNITS), st.booleans(), st.booleans())
def test_units_cover_the_text(
    text: str, unit: Literal["token", "word", "step"], atoms: bool, with_offsets: bool
) -> None:
    offsets = [match.span() for match in re.finditer(r" ?\w{1,3}|\S| +|\n+", text)] if with_offsets else None
    units = split_units(text, unit, atoms, offsets)
    assert "".join(text[start:end] for start, end in units) == text
    assert all(start < end for start, end in units)
    for start, end in units:  # a new line never hides in the white space before a unit
        piece = text[start:end]
        assert piece.isspace() or "\n" not in piece[: len(piece) - len(piece.lstrip())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Yes", ["Yes"]),
        ("So 2 + 3 = 5 apples.", ["So", " 2 + 3 = 5", " apples", "."]),
        ("48/2=24 and 12,000.50 or $5, 25% off", ["48/2=24", " and", " 12,000.50", " or", " $5", ",", " 25%", " off"]),
        ("pay $5 and $6 now", ["pay", " $5", " and", " $6", " now"]),
        ("\\frac{1}{2}x = 3", ["\\frac{1}{2}x = 3"]),
        ("so $a + b$ is \\boxed{12}", ["so", " $a + b$", " is", " \\boxed{12}"]),
        ("get \\(x = 2\\), \\[\n y = 3\n\\]", ["get", " \\(x = 2\\)", ",", " \\[\n y = 3\n\\]"]),
        ("call foo_bar(x) or `a b`", ["call", " foo_bar(x)", " or", " `a b`"]),
        ("sold 48/2 = <<48/2=24>>24 clips", ["sold", " 48/2 = <<48/2=24>>24", " clips"]),
        ("earned 12/60 = $<<12/60=0.2>>0.2", ["earned", " 12/60 = $<<12/60=0.2>>0.2"]),
        ("48 clips / 2 = 24 clips", ["48 clips / 2 = 24", " clips"]),
        ("5 eggs * $2/egg = $10", ["5 eggs * $2/egg = $10"]),
        ("12 plus 5 is 17.", ["12 plus 5 is 17."]),
        ("(3 + 4) * 2 = 14", ["(3 + 4) * 2 = 14"]),
        ("a (3 + 4", ["a", " (", "3 + 4"]),
        ("Step 1: Tom's and/or 12-year-old", ["Step 1:", " Tom's", " and/or", " 12-year-old"]),
        ("- one\n2. two", ["-", " one", "\n", "2.", " two"]),
        ("a\n\n  b\n", ["a", "\n\n", "  b", "\n"]),
        ("He is 12 - well, old", ["He", " is", " 12", " -", " well", ",", " old"]),
        ("今天3元", ["今", "天", "3", "元"]),
    ],
)
def test_atoms(text: str, expected: list[str]) -> None:
    pieces = units_of(text)
    assert pieces == expected


def test_offsets_divide_scripts_without_word_spaces() -> None:
    text = "今天天气好"
    assert split_units(text, "token", True, [(0, 2), (2, 4), (4, 5)]) == [(0, 2), (2, 4), (4, 5)]


def test_raw_tokens_without_atoms() -> None:
    text = "unhappy 12.\n\nYes"
    offsets = [(0, 2), (2, 7), (7, 9), (9, 10), (10, 13), (13, 16)]  # the fifth token is ".\n\n"
    pieces = [text[start:end] for start, end in split_units(text, "token", False, offsets)]
    assert pieces == ["un", "happy", " 1", "2", ".", "\n\n", "Yes"]
    assert units_of("half words never", atoms=False) == ["half", " words", " never"]


@pytest.mark.parametrize(
    ("text", "unit", "atoms", "expected"),
    [
        ("so 12 + 5 = 17 apples.", "word", True, ["so", " 12 + 5 = 17", " apples."]),
        ("so 12 + 5 = 17", "word", False, ["so", " 12", " +", " 5", " =", " 17"]),
        ("one. Two\nthree", "step", True, ["one. Two", "\n", "three"]),
        ("Mr. Tom has 3. He buys 2! 1. Yes", "step", True, ["Mr. Tom has 3.", " He buys 2!", " 1. Yes"]),
        ("好的。是的。", "step", True, ["好的。", "是的。"]),
        ("It is $a. b$ here. Done", "step", True, ["It is $a. b$ here.", " Done"]),
    ],
)
def test_words_and_steps(text: str, unit: Literal["word", "step"], atoms: bool, expected: list[str]) -> None:
    assert units_of(text, unit, atoms) == expected


@given(
    st.sampled_from(["12 + 5 = 17", "48/2=24", "\\frac{1}{2}x = 3", "$x^2 - 1$", "3,400.5", "\\boxed{a + b}", "f(x)"]),
    st.sampled_from(["Then we get", "Tom", "So,", "It follows (see above) that"]),
    st.sampled_from([" apples.", ".", ", so it is done", "\nNext"]),
)
def test_mathematics_is_never_divided(atom: str, before: str, after: str) -> None:
    text = f"{before} {atom}{after}"
    start, end = len(before) + 1, len(before) + 1 + len(atom)
    cuts = {start for start, _ in split_units(text, "token", True)}
    assert not any(start < cut < end for cut in cuts)


def test_long_adversarial_text_is_fast() -> None:
    """Nothing backtracks: a bounded number of steps for texts made to trap the expressions (guarded by the timeout)."""
    for text in (
        "{" * 5000,
        "\\frac{" * 2000,
        "$" * 5000,
        "\\[" * 2000,
        "\\text{" * 2000,
        "1 + " * 5000,
        "((((1" * 1000,
        "<<" * 4000,
    ):
        assert "".join(units_of(text)) == text
        check_pruned(text + "=", text + " =")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 + 5 = 17 apples", ["12 + 5 = 17"]),
        ("1,000 × 2 = $2,000.00", ["1000 * 2 = 2000"]),
        ("2 + 3 = 5 = 10/2", ["2 + 3 = 5", "5 = 10 / 2"]),
        ("48 clips / 2 = 24", ["48 / 2 = 24"]),
        ("12 plus 5 equals 17", ["12 + 5 = 17"]),
        ("$\\frac{300}{2} = 150$", ["( ( 300 ) / ( 2 ) ) = 150"]),
        ("sold 48/2 = <<48/2=24>>24 clips", ["48 / 2 = 24", "48 / 2 = 24"]),
        ("the total = 5", ["= 5"]),
        ("if a == b or a <= 3", []),
        ("**2 + 2 = 4**", ["2 + 2 = 4"]),
        ("- 2 + 2 = 4", ["2 + 2 = 4"]),
        ("no equation here", []),
    ],
)
def test_equations(text: str, expected: list[str]) -> None:
    assert [str(equation) for equation in equations(text)] == expected


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        ("2 + 3 * 4", Fraction(14)),
        ("( 2 + 3 ) * 4", Fraction(20)),
        ("2 ( 3 + 4 )", Fraction(14)),
        ("- 3 - - 4", Fraction(1)),
        ("2 ^ 10", Fraction(1024)),
        ("2 ^ 3 ^ 2", Fraction(512)),
        ("- 2 ^ 2", Fraction(-4)),
        ("25%", Fraction(1, 4)),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("1 / 3", Fraction(1, 3)),
        ("8 4", None),
        ("x + 1", None),
        ("1 / 0", None),
        ("( 1", None),
        ("9 ^ 9 ^ 9 ^ 9", None),
        ("2 ^ 0.5", None),
        ("", None),
        (" ".join(["("] * 90 + ["1"] + [")"] * 90), None),
        ("9" * 60, None),
        (" ".join(["1", "+"] * 5000), None),
    ],
)
def test_values_are_exact_and_bounded(side: str, expected: Fraction | None) -> None:
    assert value(side) == expected


@pytest.mark.parametrize(
    ("original", "pruned", "reason"),
    [
        ("They have 8 × 4 = 32 legs.", "have 8 4 = 32.", "new equation '8 4 = 32'"),
        ("So \\frac{300}{2} = 150", "So {300{2 = 150", "new equation '{ 300 { 2 = 150'"),
        ("300 + 300 + 35 = 600 + 35 = 635", "300 + 35 = 600 + 35", "false equation '300 + 35 = 600 + 35'"),
        ("He has 8. Then 4 + 3 = 7.", "8 4 + 3 = 7.", "new equation '8 4 + 3 = 7'"),
        ("He has 8. Then 4 + 3 = 7.", "8. 4 + 3 = 7.", None),
        ("So 12 - 8 = 4. Then 4 + 3 = 7.", "12 - 8 4 + 3 = 7.", "new equation '12 - 8 4 + 3 = 7'"),
        ("He has 5. Then 8 * 4 = 32.", "5 8 4 = 32.", "new equation '5 8 4 = 32'"),
        ("It is 12 + 5 = 17.", "It is 12 + 5 =.", "new equation '12 + 5 ='"),
        ("It is 12 + 5 = 17.", "5 = 17", "false equation '5 = 17'"),
        ("Solve x = 3 now", "= 3", "new equation '= 3'"),
        ("12 plus 5 equals 17", "12 5 equals 17", "new equation '12 5 = 17'"),
        ("We know 2 + 2 = 5, wrong.", "2 + 2 = 5", None),
        ("12 + 5 = 17 apples", "12+5=17", None),
        ("2 + 3 = 5 = 10/2", "2 + 3 = 10/2", None),
        ("The total cost = 12 + 5 = 17", "cost = 12 + 5 = 17", None),
        ("48 clips / 2 = 24", "48 / 2 = 24", None),
        ("5 * 2 = $10.00", "5 × 2 = 10", None),
        ("sold 48/2 = <<48/2=24>>24 clips", "48/2 = <<48/2=24>>24", None),
        ("sold 48/2 = <<48/2=24>>24 clips", "48/2 = 24", None),
        ("nothing at all", "nothing", None),
        ("", "", None),
    ],
)
def test_equation_check(original: str, pruned: str, reason: str | None) -> None:
    assert check_pruned(original, pruned) == reason


@given(TEXTS)
def test_a_text_states_what_it_states(text: str) -> None:
    assert check_pruned(text, text) is None


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python before 3.11.5 matches `(?:a|b)*+` wrongly (cpython issue 106052); `(?>(?:a|b)*)` says the same."""
    possessive = re.compile(r"\)(?:[*+?]|\{\{?[\d,]+\}\}?)\+")
    source = Path(tokenskip.__file__).parent
    found = [
        f"{file.relative_to(source)}:{number}"
        for file in source.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if possessive.search(line) and not line.lstrip().startswith("#")
    ]
    assert not found
