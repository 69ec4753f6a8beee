"""Cutting: exact budgets, nested cuts, sliced text. Every property holds for a toy counter and for a real BPE one."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tokenskip.config import PAPER_RATIOS, PruneConfig
from tokenskip.errors import StageError
from tokenskip.pruning import chain as chains
from tokenskip.pruning import corpus
from tokenskip.pruning.atoms import split_units
from tokenskip.pruning.chain import prune_chain, prune_chain_many
from tokenskip.pruning.corpus import corpus_thresholds, draw_ratio, prune_at, prune_trajectory
from tokenskip.tokens import TokenCounter, token_counter
from tokenskip.types import Pruned, Scores, Span, Trajectory

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
CHAIN = (
    "Okay, so let me think about this step by step.\n"
    "Step 1: Tom starts with 12 apples, and then he buys 5 more, so that makes 12 + 5 = 17 apples in total.\n"
    "Step 2: After that he gives half of the (green) ones away: 17 - 3 = 14.\n\n"
    '  So, well, "the number" of apples that he has in the end is $x = 14$.\n'
)
CONFIGS = [
    PruneConfig(unit=unit, atoms=atoms)
    for unit, atoms in (("token", True), ("token", False), ("word", True), ("word", False), ("step", True))
]


class RegexCounter:
    """A toy tokenizer whose merges depend on the neighbours, as BPE's do: digits pair up, spaces cling to words."""

    pattern = re.compile(r" ?[A-Za-z]{1,5}|\d{1,2}|\s+|.", re.DOTALL)

    def __call__(self, text: str) -> int:
        return len(self.pattern.findall(text))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in self.pattern.finditer(text)]


@cache
def bpe_counter() -> TokenCounter:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    sums = [f"{a} + {b} = {a + b} apples" for a in range(9) for b in range(9)]
    tokenizer.train_from_iterator([CHAIN, *sums], trainer)
    return token_counter(SimpleNamespace(backend_tokenizer=tokenizer))


COUNTERS = st.sampled_from([RegexCounter, bpe_counter]).map(lambda make: make())
MATHS = (" 12 + 5 = 17", " $x^2 = 9$", " $5", " \\frac{1}{2}", " 48/2", " 3")
PROSE = ("Tom", " has", ".", ",", " ", "\n", "\n\n", "  ", " (green)", ' "so"', " and/or", " well", "\n- ", "é", "—")
ALL_PIECES = (*MATHS, *PROSE, "\nStep 2:", " 价格很好", " 👍🏽")
PIECES = st.sampled_from(ALL_PIECES)
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=80), st.just(CHAIN))


def random_scores(cot: str, seed: int, share: float = 1.0) -> Scores:
    """Random values on the words of `cot`; with `share` below 1 some have none."""
    rng = random.Random(seed)
    spans = [Span(*match.span(), rng.random()) for match in re.finditer(r"\w+|[^\w\s]", cot) if rng.random() <= share]
    return Scores(scorer="random", spans=tuple(spans))


def ink(cot: str, ranges: Sequence[tuple[int, int]]) -> set[int]:
    return {index for start, end in ranges for index in range(start, end) if not cot[index].isspace()}


@given(TEXTS, st.integers(0, 99), st.sampled_from(CONFIGS), COUNTERS)
def test_cuts_are_nested_slices(cot: str, seed: int, config: PruneConfig, counter: TokenCounter) -> None:
    cuts = prune_chain_many(cot, random_scores(cot, seed, 0.8), (0.1, *PAPER_RATIOS), counter, config)
    for cut in cuts:
        assert cut.text == "".join(cot[start:end] for start, end in cut.kept)
        assert cut.n_tokens == counter(cot)
        assert cut.n_tokens_pruned == counter(cut.text)
        assert all(0 <= start < end <= len(cot) for start, end in cut.kept)
        assert all(a[1] < b[0] for a, b in pairwise(cut.kept))
    for smaller, larger in pairwise(cuts):
        assert ink(cot, smaller.kept) <= ink(cot, larger.kept)
    assert cuts[-1].text == cot


@given(TEXTS, st.integers(0, 99), st.floats(0.05, 1.0), st.sampled_from(CONFIGS))
def test_one_ratio_alone_gives_the_same_cut(cot: str, seed: int, ratio: float, config: PruneConfig) -> None:
    scores, counter = random_scores(cot, seed), RegexCounter()
    alone = prune_chain(cot, scores, ratio, counter, config)
    assert alone == prune_chain_many(cot, scores, (0.5, ratio, 0.9), counter, config)[1]


@given(TEXTS, st.integers(0, 99), st.sampled_from([0.3, 0.5, 0.6, 0.8]), COUNTERS)
def test_budget_is_met_within_one_atom(cot: str, seed: int, ratio: float, counter: TokenCounter) -> None:
    """The budget lies between this cut and the one with a unit more or less (at least one unit is always kept)."""
    config = PruneConfig(verify=False)
    scores = random_scores(cot, seed)
    if not cot.strip():
        return
    chain = chains.Chain(cot, scores, counter, config)
    budget = ratio * counter(cot)
    n_kept = chain.n_kept(ratio)
    error = abs(chain.count(n_kept) - budget)
    beside = [n for n in (n_kept - 1, n_kept + 1) if 1 <= n <= len(chain.units)]
    steps = [abs(chain.count(n) - chain.count(n_kept)) for n in beside]
    assert n_kept == 1 or error <= max(steps)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.unit}-{config.atoms}")
@pytest.mark.parametrize("cot", ["", " \n ", "One", "\n\nOne two\n", "价格很好。👍🏽", CHAIN])
def test_ratio_one_is_the_identity(cot: str, config: PruneConfig) -> None:
    for counter in (RegexCounter(), bpe_counter()):
        pruned = prune_chain(cot, random_scores(cot, 0), 1.0, counter, config)
        assert pruned.text == cot
        assert pruned.achieved_ratio == 1.0
        if cot.strip():  # all units kept is the same as never having cut
            chain = chains.Chain(cot, random_scores(cot, 0), counter, config)
            assert chain.text(chain.best(len(chain.units))) == cot


def test_a_chain_is_never_cut_to_nothing() -> None:
    assert prune_chain("One", random_scores("One", 0), 0.1, RegexCounter(), PruneConfig()).text == "One"
    assert prune_chain("", Scores(scorer="s", spans=()), 0.1, RegexCounter(), PruneConfig()).text == ""


@given(st.integers(0, 999), st.sampled_from([0.4, 0.5, 0.7, 0.9]))
def test_lines_and_mathematics_survive(seed: int, ratio: float) -> None:
    cot = "\n".join(f"{n}. Then, well, he has ({n} + 1) = {n + 1} of the \\frac{{{n}}}{{7}} apples." for n in range(8))
    pruned = prune_chain(cot, random_scores(cot, seed), ratio, bpe_counter(), PruneConfig())
    lines = [match.span() for match in re.finditer(r".+", cot)]
    kept = ink(cot, pruned.kept)
    assert len(pruned.text.splitlines()) == sum(any(start <= i < end for i in kept) for start, end in lines)
    assert not any(line[:1].isspace() or not line for line in pruned.text.splitlines())
    for start, end in split_units(cot, "token", True):
        atom = ink(cot, [(start, end)])
        assert atom <= kept or not atom & kept
    for match in re.finditer(r"\(\d \+ 1\) = \d|\\frac\{\d\}\{7\}", cot):
        assert ink(cot, [match.span()]) <= kept or not ink(cot, [match.span()]) & kept


def test_words_never_stick_together() -> None:
    cot = 'He said "Hello (again) to all" of them—and left.'
    for seed in range(60):
        for ratio in (0.2, 0.4, 0.6, 0.8):
            text = prune_chain(cot, random_scores(cot, seed), ratio, RegexCounter(), PruneConfig()).text
            assert set(re.findall(r"\w+", text)) <= set(re.findall(r"\w+", cot))
            assert not text.startswith(" ")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("She buys 4 more. Then we get 3 + 4 = 7, fine", "4. 3 + 4 = 7,"),
        ("another 4 of them so now 3 + 4 = 7, fine", "4 now 3 + 4 = 7,"),
        ("Step 1: 4 more.\nThen 3 + 4 = 7.", "Step 1: 4\n3 + 4 = 7."),  # a line of its own keeps it apart
        ("so now 3 + 4 = 7.", "3 + 4 = 7."),
    ],
)
def test_a_number_never_runs_into_the_equation_behind_it(line: str, kept: str) -> None:
    """Only numbers and equations matter here; the mark between them is kept as well, and nothing is rejected."""
    spans = [Span(start=m.start(), end=m.end(), value=1.0) for m in re.finditer(r"Step \d:|\d", line)]
    counter = RegexCounter()
    pruned = prune_at(line, Scores(scorer="test", spans=tuple(spans)), 0.5, 0.5, counter, PruneConfig())
    assert (pruned.text, pruned.rejected) == (kept, None)


def test_edges_and_paragraphs_stay() -> None:
    cot = "\nOne x\ny y\n\nTwo x\n"
    spans = tuple(Span(*match.span(), float(match.group() in ("One", "Two"))) for match in re.finditer(r"\w+", cot))
    pruned = prune_at(cot, Scores(scorer="s", spans=spans), 0.5, 0.5, RegexCounter(), PruneConfig())
    assert pruned.text == "\nOne\n\nTwo\n"


def test_importance_is_a_weighted_mean_without_white_space() -> None:
    cot = "abcd ef gh"
    spans = (Span(0, 1, 4.0), Span(1, 7, 1.0), Span(9, 10, float("nan")))
    values = chains._importances(cot, [(0, 4), (4, 7), (7, 10)], Scores(scorer="s", spans=spans))
    assert values == [(4 + 3) / 4, 1.0, float("-inf")]


def test_equal_importance_keeps_the_earlier() -> None:
    pruned = prune_chain("a b c d", Scores(scorer="s", spans=(Span(0, 7, 1.0),)), 0.5, RegexCounter(), PruneConfig())
    assert pruned.text == "a b"


def test_equation_check_marks_but_keeps_the_text() -> None:
    cot = "There are 8 * 4 = 32 legs here"
    spans = tuple(Span(*match.span(), float(match.group() in "8 4 = 32")) for match in re.finditer(r"\S+", cot))
    scores = Scores(scorer="s", spans=spans)
    for unit in ("token", "word"):
        config = PruneConfig(unit=unit, atoms=False)
        pruned = prune_chain(cot, scores, 0.45, lambda text: len(text.split()), config)
        assert (pruned.text, pruned.rejected) == ("8 4 = 32", "new equation '8 4 = 32'")
        unchecked = config.model_copy(update={"verify": False})
        assert prune_chain(cot, scores, 0.45, RegexCounter(), unchecked).rejected is None
    assert prune_chain(cot, scores, 0.5, RegexCounter(), PruneConfig()).rejected is None


def _corpus(n_chains: int) -> list[tuple[str, Scores]]:
    rng = random.Random(7)
    items = []
    for index in range(n_chains):
        words = [rng.choice(["well", "so", "12", "apples", "3 + 4 = 7", "then", "x.", "the\n"]) for _ in range(60)]
        items.append((" ".join(words), random_scores(" ".join(words), index)))
    return items


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: f"{config.unit}-{config.atoms}")
def test_corpus_cut_meets_the_mean(config: PruneConfig) -> None:
    items = _corpus(300)
    thresholds = corpus_thresholds(items, PAPER_RATIOS, bpe_counter(), config)
    previous: list[Pruned] = []
    for ratio in PAPER_RATIOS:
        cuts = [prune_at(cot, scores, ratio, thresholds[ratio], bpe_counter(), config) for cot, scores in items]
        achieved = sum(cut.n_tokens_pruned for cut in cuts) / sum(cut.n_tokens for cut in cuts)
        assert achieved == pytest.approx(ratio, abs=0.01)
        for smaller, larger, (cot, _) in zip(previous, cuts, items, strict=False):
            assert ink(cot, smaller.kept) <= ink(cot, larger.kept)
        previous = cuts
    assert len({cut.achieved_ratio for cut in previous}) == 1  # ratio 1: everything


def test_corpus_cut_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    items = _corpus(300)
    whole = corpus_thresholds(items, (0.5,), RegexCounter(), PruneConfig())
    monkeypatch.setattr(corpus, "MAX_CORPUS_UNITS", 6000)
    monkeypatch.setattr(corpus, "MAX_CORPUS_CHAINS", 50)
    sampled = corpus_thresholds(iter(items), (0.5,), RegexCounter(), PruneConfig())
    assert sampled == corpus_thresholds(items[::-1], (0.5,), RegexCounter(), PruneConfig())  # not a matter of order
    assert sampled[0.5] == pytest.approx(whole[0.5], abs=0.05)


def test_corpus_cut_of_nothing() -> None:
    assert corpus_thresholds([], (0.5, 1.0), RegexCounter(), PruneConfig())[1.0] == float("-inf")


def test_trajectories() -> None:
    trajectory = Trajectory(id="t", question="q", gold="14", cot=CHAIN, scores=random_scores(CHAIN, 0))
    pruned = prune_trajectory(trajectory, (0.5, 1.0), RegexCounter(), PruneConfig()).pruned
    assert [cut.ratio for cut in pruned] == [0.5, 1.0]
    corpus = PruneConfig(cut="corpus")
    again = prune_trajectory(trajectory, (0.5, 1.0), RegexCounter(), corpus, {0.5: 0.5, 1.0: float("-inf")}).pruned
    assert again[1].text == CHAIN
    assert 0.3 < again[0].achieved_ratio < 0.7
    unscored = Trajectory(id="t7", question="q", gold="14", cot=CHAIN)
    assert prune_trajectory(unscored, (1.0,), RegexCounter(), PruneConfig()).pruned[0].text == CHAIN
    with pytest.raises(StageError, match="'t7' has no scores"):
        prune_trajectory(unscored, (0.5,), RegexCounter(), PruneConfig())


def test_ratios_are_drawn_uniformly_and_repeatably() -> None:
    drawn = [draw_ratio(f"train-{index}", PAPER_RATIOS, 3) for index in range(6000)]
    assert drawn == [draw_ratio(f"train-{index}", PAPER_RATIOS, 3) for index in range(6000)]
    assert drawn != [draw_ratio(f"train-{index}", PAPER_RATIOS, 4) for index in range(6000)]
    assert all(abs(drawn.count(ratio) - 1000) < 150 for ratio in PAPER_RATIOS)


def test_padding_set_elsewhere_does_not_change_counts() -> None:
    backend: Any = Tokenizer.from_str(bpe_counter()._tokenizer.to_str())  # type: ignore[attr-defined]
    backend.enable_padding(length=500)
    backend.enable_truncation(3)
    assert token_counter(SimpleNamespace(backend_tokenizer=backend))(CHAIN) == bpe_counter()(CHAIN)
    slow = SimpleNamespace(encode=lambda text, add_special_tokens: text.split())
    assert token_counter(slow)("two words") == 2


@pytest.mark.skipif(not GSM8K.exists(), reason="the GSM8K rows are not beside this repository")
def test_gsm8k_solutions() -> None:
    with GSM8K.open(encoding="utf-8") as lines:
        answers = [json.loads(line)["answer"].split("\n####")[0] for line, _ in zip(lines, range(250), strict=False)]
    rejected: dict[bool, int] = {True: 0, False: 0}
    ratio_sum = 0.0
    for index, cot in enumerate(answers):
        scores = random_scores(cot, index)
        for atoms in (True, False):
            unit: Literal["token", "word"] = "token" if atoms else "word"
            cut = prune_chain(cot, scores, 0.6, bpe_counter(), PruneConfig(unit=unit, atoms=atoms))
            rejected[atoms] += cut.rejected is not None
            ratio_sum += cut.achieved_ratio * atoms
    assert ratio_sum / len(answers) == pytest.approx(0.6, abs=0.01)
    assert rejected[True] < 0.12 * len(answers)  # even random importances break few chains...
    assert rejected[False] > 4 * rejected[True]  # ...while atoms are on


def test_decisions_stay_as_they_are() -> None:
    """A digest of what is kept of 300 texts.

    It may change only where a decision is meant to change; the changelog then says so.
    """
    rng, digest = random.Random(0), hashlib.sha256()
    for index in range(300):
        cot = "".join(rng.choices(ALL_PIECES, k=rng.randrange(60))) + CHAIN[: rng.randrange(len(CHAIN))]
        for cut in prune_chain_many(cot, random_scores(cot, index), (0.3, 0.5, 0.7), RegexCounter(), PruneConfig()):
            digest.update(f"{cut.kept} {cut.n_tokens_pruned} {cut.rejected}\n".encode())
    assert digest.hexdigest() == "6043172ed73746c67fd785c497dabda606adbb88ad00402fe6cc5243e46b4095"
