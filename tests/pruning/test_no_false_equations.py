"""No pruned chain claims what the original did not, as `arithmetic_prose` reads both: it shares no code with us."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
from arithmetic_prose import false_claims
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st

from tokenskip.config import PruneConfig
from tokenskip.pruning.chain import prune_chain, prune_chain_many
from tokenskip.scorers.random import RandomScorer
from tokenskip.types import Scores, Span, Trajectory

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def count(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def random_scores(text: str, seed: int) -> Scores:
    rng = random.Random(seed)
    return Scores(
        scorer="random", spans=tuple(Span(*m.span(), rng.random()) for m in re.finditer(r"\w+|[^\w\s]", text))
    )


@pytest.mark.parametrize(
    ("text", "n_false"),
    [
        ("half of 48 = 24", 0), ("48 = 24", 1), ("the sum of 3 and 4 = 7", 0), ("4 = 7", 1), ("3 more than 4 = 7", 0),
        ("25% of 80 = 20", 0), ("of 80 = 20", 1), ("√16 = 4", 0), ("twice 6 is 12", 0), ("6 is 12", 1),
        ("10/3 = 3.33", 0), ("5! = 120", 0), ("5 = 120", 1),
        ("3 dozen eggs = 36", 0), ("8 4 = 32", 1), ("x + 3 = 9", 0),
        ("48 clips / 2 = 24 clips", 0), ("2x + 3 = 11", 0), ("+ 3 = 11", 1), ("2 + 2 = 5 = 10 / 2", 1),
    ],
)  # fmt: skip
def test_the_evaluator_reads_prose(text: str, n_false: int) -> None:
    assert len(false_claims(text)) == n_false


# --- chains of arithmetic prose, drawn from a grammar ---

Said = tuple[str, Fraction]
NUMBERS = st.integers(2, 60).map(lambda n: (str(n), Fraction(n)))
NOUNS = st.sampled_from(["apples", "clips", "dollars", "eggs", "miles", "hours", "pages"])


def _phrases(inner: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        inner.map(lambda a: (f"half of {a[0]}", a[1] / 2)),
        inner.map(lambda a: (f"a third of {a[0]}", a[1] / 3)),
        inner.map(lambda a: (f"a quarter of {a[0]}", a[1] / 4)),
        inner.map(lambda a: (f"twice {a[0]}", a[1] * 2)),
        inner.map(lambda a: (f"double {a[0]}", a[1] * 2)),
        inner.map(lambda a: (f"25% of {a[0]}", a[1] / 4)),
        inner.map(lambda a: (f"1/2 of {a[0]}", a[1] / 2)),
        NUMBERS.map(lambda a: (f"{a[0]} squared", a[1] ** 2)),
        NUMBERS.map(lambda a: (f"√{int(a[1]) ** 2}", a[1])),
        NUMBERS.map(lambda a: (f"the square root of {int(a[1]) ** 2}", a[1])),
        NUMBERS.map(lambda a: (f"{a[0]} dozen", a[1] * 12)),
        pairs.map(lambda p: (f"the sum of {p[0][0]} and {p[1][0]}", p[0][1] + p[1][1])),
        pairs.map(lambda p: (f"the product of {p[0][0]} and {p[1][0]}", p[0][1] * p[1][1])),
        pairs.map(lambda p: (f"the difference between {p[0][0]} and {p[1][0]}", p[0][1] - p[1][1])),
    )


SUMS = st.tuples(NUMBERS, st.sampled_from("+-*/×÷"), NUMBERS, st.booleans()).map(
    lambda t: (
        f"{t[0][0]} {t[1]} {t[2][0]}" if t[3] else f"{t[0][0]}{t[1]}{t[2][0]}",
        {"+": t[0][1] + t[2][1], "-": t[0][1] - t[2][1], "*": t[0][1] * t[2][1], "×": t[0][1] * t[2][1]}.get(
            t[1], t[0][1] / t[2][1]
        ),
    )
)
MORE = st.tuples(NUMBERS, NUMBERS).map(lambda p: (f"{p[0][0]} more than {p[1][0]}", p[0][1] + p[1][1]))
LESS = st.tuples(NUMBERS, NUMBERS).map(lambda p: (f"{p[0][0]} less than {p[1][0]}", p[1][1] - p[0][1]))
NESTED = st.one_of(_phrases(NUMBERS), _phrases(_phrases(NUMBERS)))
SAID = st.one_of(SUMS, SUMS, NESTED, MORE, LESS)


def _written(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


EQUATIONS = st.tuples(SAID, st.sampled_from([" = ", "=", " equals ", " is ", " = "]), NOUNS, st.integers(0, 3)).map(
    lambda t: (
        t[0][0]
        + t[1]
        + ("" if t[3] != 2 else f"{_written(t[0][1] - 1)} + 1 = ")
        + _written(t[0][1])
        + ("" if t[3] == 1 else f" {t[2]}")
    )
)
ALGEBRA = st.tuples(st.integers(2, 9), st.integers(1, 9), st.sampled_from("xny")).map(
    lambda t: f"{t[0]}{t[2]} + {t[1]} = {t[0] * 3 + t[1]}"
)
UNITS = st.integers(2, 9).map(lambda n: f"{n} hours = {60 * n} minutes")
OPENINGS = st.sampled_from(
    ["So ", "Then he has ", "Tom pays ", "", "Since there are 4 of them, ", "It follows that ", "Next, she finds that ",
     "He gives away half of it, so ", "The total cost of 3 bags is ", "After 5 days, we get ", "Now "]
)  # fmt: skip
ENDINGS = st.sampled_from([". ", ", ", ".\n", "; ", " and then 2 more. ", " in all. ", " for 6 friends.\n", " so "])
CHAINS = st.lists(
    st.tuples(OPENINGS, st.one_of(EQUATIONS, EQUATIONS, EQUATIONS, ALGEBRA, UNITS), ENDINGS).map("".join),
    min_size=1,
    max_size=6,
).map("".join)


@examples(400)
@given(CHAINS, st.integers(0, 2**32))
def test_no_pruned_chain_claims_what_the_original_does_not(cot: str, seed: int) -> None:
    claimed = false_claims(cot)
    for cut in prune_chain_many(cot, random_scores(cot, seed), RATIOS, count, PruneConfig()):
        if not cut.rejected:
            assert false_claims(cut.text) <= claimed, cut.text


@pytest.mark.parametrize("unit", ["token", "word", "step"])
@given(CHAINS, st.integers(0, 2**32))
def test_nor_does_it_in_other_units_or_without_atoms(unit, cot: str, seed: int) -> None:  # type: ignore[no-untyped-def]
    claimed = false_claims(cot)
    for atoms in (True, False):
        config = PruneConfig(unit=unit, atoms=atoms)
        for cut in prune_chain_many(cot, random_scores(cot, seed), (0.4, 0.6, 0.8), count, config):
            if not cut.rejected:
                assert false_claims(cut.text) <= claimed, cut.text


# --- GSM8K's own solutions ---


def _gsm8k(raw: bool, ratio: float, every: int) -> tuple[list[tuple[str, str]], float]:
    """The solutions whose accepted cut makes a false claim of its own, with it, and the share that was rejected."""
    wrong, rejected, n_chains = [], 0, 0
    scorer = RandomScorer()
    with GSM8K.open(encoding="utf-8") as lines:
        for index, line in enumerate(lines):
            if index % every:
                continue
            cot = json.loads(line)["answer"].split("\n####")[0]
            cot = cot if raw else re.sub(r"<<[^<>]*>>", "", cot)
            scores = scorer.score([Trajectory(id=str(index), question="", gold="", cot=cot)])[0]
            cut = prune_chain(cot, scores, ratio, count, PruneConfig())
            n_chains += 1
            rejected += cut.rejected is not None
            if not cut.rejected and not false_claims(cut.text) <= false_claims(cot):
                wrong.append((cot, cut.text))
    return wrong, rejected / n_chains


@pytest.mark.skipif(not GSM8K.exists(), reason="../shared/data/gsm8k is not beside this repository")
@pytest.mark.parametrize("raw", [False, True])
def test_300_solutions_of_gsm8k(raw: bool) -> None:
    for ratio in (0.3, 0.5, 0.8):
        wrong, rejected = _gsm8k(raw, ratio, every=25)
        assert not wrong
        assert rejected < 0.05


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not GSM8K.exists(), reason="../shared/data/gsm8k is not beside this repository")
@pytest.mark.parametrize("raw", [False, True])
def test_all_solutions_of_gsm8k(raw: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for ratio in RATIOS:
        wrong, rejected = _gsm8k(raw, ratio, every=1)
        with capsys.disabled():
            print(f"\nGSM8K {'raw' if raw else 'plain'} at {ratio}: {rejected:.2%} rejected, {len(wrong)} false")
        assert not wrong
        assert ratio != 0.5 or rejected < 0.05
