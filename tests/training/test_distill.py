"""A student that learns its teacher's mean, in a format that the llmlingua2 scorer loads."""

import json
import random
from dataclasses import replace

import pytest

from tokenskip.errors import ConfigError, StageError
from tokenskip.scorers.llmlingua2 import LLMLingua2
from tokenskip.training.distill import Settings, build_vocab, distill, token_values
from tokenskip.types import Scores, Span, Trajectory

IMPORTANT = ("adds", "takes", "doubles")


def chains(n: int, noise: float) -> list[Trajectory]:
    """Chains where verbs and numbers matter; the teacher's values are noisy."""
    rng = random.Random(0)
    made = []
    for i in range(n):
        words = ["well", "now"]
        for _ in range(5):
            words += [rng.choice(["so", "then", "next"]), "he", rng.choice(IMPORTANT), str(rng.randint(2, 99)), "."]
        cot, spans = "", []
        for word in words:
            cot += " " if cot else ""
            value = 5.0 * (word in IMPORTANT) + 3.0 * word.isdigit() + rng.gauss(0, noise)
            spans.append(Span(len(cot), len(cot) + len(word), value))
            cot += word
        scores = Scores(scorer="teacher", spans=tuple(spans))
        made.append(Trajectory(id=str(i), question="", gold="", cot=cot, scores=scores))
    return made


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    out = tmp_path_factory.mktemp("student")
    steps = []
    metrics = distill([chains(150, 2.0)], out, Settings(epochs=5), progress=lambda *step: steps.append(step))
    return out, metrics, steps


def test_the_student_learns_the_mean_and_is_small(student):
    out, metrics, steps = student
    assert metrics["n_held_out"] == 15
    assert metrics["held_out_spearman"] > 0.5
    assert [step[0] for step in steps] == list(range(1, steps[0][1] + 1))
    assert json.loads((out / "distill.json").read_text())["n_chains"] == 150
    assert sum(file.stat().st_size for file in out.iterdir()) < 4_000_000


def test_the_scorer_loads_it_and_gives_smooth_values(student):
    out, _, _ = student
    fresh = chains(5, 0.0)
    scored = LLMLingua2(out).score(fresh)
    by_word: dict[str, list[float]] = {}
    for item, scores in zip(fresh, scored, strict=True):
        for span in scores.spans:
            by_word.setdefault(item.cot[span.start : span.end], []).append(span.value)
    lowest_verb = min(value for verb in IMPORTANT for value in by_word[verb])
    highest_filler = max(value for word in ("so", "then", "he", ".") for value in by_word[word])
    lowest_number = min(value for word, found in by_word.items() if word.isdigit() for value in found)
    assert lowest_verb > highest_filler
    assert lowest_number > highest_filler
    assert max(by_word["he"]) - min(by_word["he"]) < 0.15


def test_the_same_seed_gives_the_same_student(tmp_path):
    def train(name: str, seed: int) -> bytes:
        distill([chains(12, 1.0)], tmp_path / name, Settings(epochs=1, seed=seed))
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert train("a", 0) == train("b", 0) != train("c", 1)


def test_of_two_teachers_the_mean_rank_is_learned(tmp_path):
    """One teacher wants verbs and numbers, the other the opposite: nothing is left to order them by."""
    one = chains(60, 0.0)
    opposite = []
    for item in one:
        spans = tuple(span._replace(value=-span.value) for span in item.scores.spans)
        opposite.append(replace(item, scores=Scores(scorer="other", spans=spans)))

    def spread(*teachers):
        distill(teachers, tmp_path / str(len(teachers)), Settings(epochs=3))
        (scores,) = LLMLingua2(tmp_path / str(len(teachers))).score(one[:1])
        values = [span.value for span in scores.spans]
        return max(values) - min(values)

    assert spread(one, opposite) < 0.2 < spread(one)


def test_it_goes_on_from_a_checkpoint(student, tmp_path):
    metrics = distill([chains(12, 0.0)], tmp_path, Settings(encoder=str(student[0]), epochs=1))
    assert metrics["settings"]["learning_rate"] == 3e-5
    assert metrics["held_out_spearman"] > 0.6


def test_token_values_are_means_over_shared_characters():
    spans = [Span(0, 2, 1.0), Span(3, 6, 4.0)]
    assert token_values([(0, 2), (1, 4), (2, 3), (5, 9), (7, 9)], spans) == [1.0, 2.5, None, 4.0, None]


def test_the_vocabulary_has_single_digits_only():
    vocab = build_vocab(["12 345 apples 12 345 apples " * 20], 500)
    assert {"1", "##2", "apples", "[PAD]", "~"} <= set(vocab)
    assert not [token for token in vocab if sum(map(str.isdigit, token)) and len(token.removeprefix("##")) > 1]
    assert vocab[0] == "[PAD]"


def test_mistakes_are_told_before_any_training(tmp_path):
    with pytest.raises(StageError, match="at least two scored chains; there are 0"):
        distill([[Trajectory(id="a", question="", gold="", cot="x")]], tmp_path)
    with pytest.raises(ConfigError, match="unknown size 'tinny'"):
        Settings(size="tinny")


def test_pooled_targets_make_a_word_equal_everywhere(tmp_path):
    """The spread of a word's values over its places is what a fine-tuned model cannot foresee."""
    data = chains(80, 2.0)

    def spread(pool: bool) -> float:
        out = tmp_path / str(pool)
        distill([data], out, Settings(epochs=4, pool=pool))
        values: dict[str, list[float]] = {}
        for item, scores in zip(data, LLMLingua2(out).score(data), strict=True):
            for span in scores.spans:
                values.setdefault(item.cot[span.start : span.end], []).append(span.value)
        return max(max(found) - min(found) for word, found in values.items() if word in IMPORTANT)

    assert spread(True) < spread(False)
