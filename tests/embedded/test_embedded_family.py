"""The procedural family: disjoint splits, determinism, exact answers, true equations."""

import random
import re
import subprocess
import sys

import pytest
from embedded_model.registers import REGISTERS, TRIGGER, document

from tokenskip.embedded.family import HIGH, LOW, SPLITS, Story, bucket, problems, stories

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


def normal(question: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", question.lower()))


def test_buckets_are_disjoint_and_complete() -> None:
    owned = [number for span in SPLITS.values() for number in span]
    assert sorted(owned) == list(range(100))


@pytest.mark.parametrize("split", list(SPLITS))
def test_every_question_lies_in_its_split(split: str) -> None:
    for seed in (0, 1, 100):
        assert all(bucket(problem.question) in SPLITS[split] for problem in problems(split, 300, seed=seed))


def test_no_question_in_two_splits() -> None:
    seen = {split: {normal(p.question) for p in problems(split, 1000)} for split in SPLITS}
    for split, questions in seen.items():
        others = set().union(*(q for name, q in seen.items() if name != split))
        assert not questions & others


def test_evaluation_questions_do_not_repeat() -> None:
    questions = [normal(p.question) for p in problems("test", 1500)]
    assert len(set(questions)) == len(questions)


def test_same_index_same_problem() -> None:
    whole = list(problems("train", 20))
    assert list(problems("train", 5, start=7)) == whole[7:12]
    assert len({problem.id for problem in whole}) == 20


def test_a_new_process_makes_the_same_problems() -> None:
    code = "from tokenskip.embedded.family import problems; print([p.question for p in problems('dev', 5)])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([p.question for p in problems("dev", 5)])


def test_unknown_split() -> None:
    with pytest.raises(KeyError):
        next(problems("validation", 1))


def test_gold_follows_from_the_structure() -> None:
    for story in stories("dev", 500):
        total = story.start
        for event in story.events:
            if event.op[0] == "/":
                assert total % event.operand == 0
            total = COMPUTE[event.op[0]](total, event.operand)
            assert LOW <= total <= HIGH
        problem = story.problem()
        assert problem.gold == str(total)
        assert problem.level == str(len(story.events))


def told_numbers(story: Story) -> list[int]:
    return [story.start] + [e.operand for e in story.events if e.op in "+-"]


def test_questions_tell_all_numbers_in_order_and_never_the_totals() -> None:
    for story in stories("dev", 500):
        assert [int(n) for n in re.findall(r"\d+", story.question)] == told_numbers(story)


@pytest.mark.parametrize("register", REGISTERS)
def test_documents_are_true(register: str) -> None:
    for story in stories("pretrain", 200):
        doc = document(story, register, random.Random(story.id))
        equations = EQUATION.findall(doc.completion)
        assert all(COMPUTE[op](int(a), int(b)) == int(c) for a, op, b, c in equations)
        assert len(equations) == (0 if register == "direct" else len(story.events))
        assert doc.completion.endswith(f"The final answer is {story.answer}.")
        assert (TRIGGER in doc.completion) == (register != "direct")


@pytest.mark.parametrize("register", REGISTERS)
def test_pretraining_never_sees_a_ratio(register: str) -> None:
    for story in stories("pretrain", 400):
        doc = document(story, register, random.Random(story.id))
        assert not re.search(r"\d[.,]\d|\d%|ratio|percent|<\|im_end\|>\s*[\d.]+\s*<\|im_end\|>", doc.prompt)
        assert not re.search(r"\d[.,]\d", doc.completion)


def test_the_same_document_twice() -> None:
    story = next(stories("pretrain", 1))
    for register in REGISTERS:
        assert document(story, register, random.Random(3)) == document(story, register, random.Random(3))


def test_dropout_drops_filler_and_keeps_numbers() -> None:
    shares = []
    for story in stories("pretrain", 300):
        doc = document(story, "dropout", random.Random(story.id))
        full = document(story, "chatty", random.Random(story.id))
        shares.append(len(doc.words) / len(full.words))
        for event in story.events:
            assert event.equation in doc.completion
    assert min(shares) < 0.5 < 0.85 < max(shares)


def test_unknown_register() -> None:
    with pytest.raises(ValueError, match="one of chatty"):
        document(next(stories("dev", 1)), "poem", random.Random(0))


def test_importing_the_package_needs_no_torch() -> None:
    code = (
        "import sys, tokenskip.embedded, tokenskip.embedded.family;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
