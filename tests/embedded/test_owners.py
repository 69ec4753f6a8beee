"""Stories of several owners: independent parts, true solutions, and nothing else of the family moved."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import pairwise

import pytest

from tokenskip.config import TaskConfig
from tokenskip.embedded import family, owners
from tokenskip.embedded import words as W
from tokenskip.errors import ConfigError
from tokenskip.tasks.embedded import EmbeddedTask

EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
SHIPPED = "34711bbc168220363d4707a10c8811921af7de084264324eca5162e5f9b1dd9d"
"""SHA-256 of the first 500 stories of every split, as they were before stories of several owners came."""


def test_the_stories_of_one_owner_are_what_they_were_byte_for_byte() -> None:
    fields = [[(p.id, p.question, p.gold, p.level) for p in family.problems(split, 500)] for split in family.SPLITS]
    assert hashlib.sha256(repr(fields).encode()).hexdigest() == SHIPPED
    default, one = (EmbeddedTask(TaskConfig(name="embedded", options=o)) for o in ({}, {"owners": 1}))
    assert list(default.problems("test", 50)) == list(one.problems("test", 50)) == list(family.problems("test", 50))


def test_every_solution_is_true_and_ends_in_the_gold_answer() -> None:
    for problem in owners.problems("dev", 300, most=3):
        assert problem.solution
        plan, *parts, total = problem.solution.split("\n\n")[0].split("\n")
        names = plan.split(", ")
        assert problem.level == str(len(names)) == str(len(parts))
        assert [part.partition(":")[0] for part in parts] == names
        found = [[tuple(equation) for equation in EQUATION.findall(line)] for line in (*parts, total)]
        assert all(COMPUTE[op](int(a), int(b)) == int(c) for line in found for a, op, b, c in line)
        assert all(before[3] == after[0] for line in found for before, after in pairwise(line))
        assert sum(int(line[-1][3]) for line in found[:-1]) == int(problem.gold) == int(found[-1][-1][3])
        assert problem.solution.endswith(f"The final answer is {problem.gold}.")


def test_no_part_names_another_owner() -> None:
    people = set(W.HE + W.SHE)
    for problem in owners.problems("dev", 200, most=3):
        names = (problem.solution or "").split("\n")[0].split(", ")
        starts = [problem.question.index(name) for name in names]
        assert starts == sorted(starts), "the plan names the owners in the order of the story"
        for name, start, end in zip(names, starts, [*starts[1:], None], strict=True):
            told = set(re.findall(r"[A-Z][a-z]+", problem.question[start:end])) & people
            assert not told & set(names) - {name} or end is not None, (name, told)
            assert name in told


def test_questions_lie_in_their_split_and_differ() -> None:
    for split in ("train", "dev", "test"):
        questions = [problem.question for problem in owners.problems(split, 200, most=2)]
        assert all(family.bucket(question) in family.SPLITS[split] for question in questions)
        assert len(set(questions)) == len(questions)
    assert list(owners.problems("dev", 5, start=3)) == list(owners.problems("dev", 10))[3:8]


def test_the_setting_draws_up_to_so_many_owners() -> None:
    for most in (2, 3):
        task = EmbeddedTask(TaskConfig(name="embedded", options={"owners": most}))
        levels = {int(problem.level or 0) for problem in task.problems("train", 60)}
        assert levels == set(range(2, most + 1))
        assert all(problem.solution for problem in task.development(3))
        [problem] = task.problems("test", 1)
        assert task.grade(task.extract(problem.solution or "") or "", problem.gold).correct


@pytest.mark.parametrize("value", [0, 4, True, "two", 2.5])
def test_other_numbers_of_owners_are_refused_in_one_line(value: object) -> None:
    with pytest.raises(ConfigError, match=f"task.options.owners must be 1, 2 or 3; given: {json.dumps(value)[:1]}?"):
        EmbeddedTask(TaskConfig(name="embedded", options={"owners": value}))
    with pytest.raises(ConfigError, match="did you mean 'owners'"):
        EmbeddedTask(TaskConfig(name="embedded", options={"owner": 2}))
