"""Tasks: all gold answers grade themselves, their perturbations do not, and files that are wrong say where."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenskip.answers.compare import normalise
from tokenskip.answers.math_verify import close_math_verify
from tokenskip.config import TaskConfig
from tokenskip.errors import ConfigError, DataError
from tokenskip.plugins import TASKS, load
from tokenskip.storage.jsonl import read_jsonl
from tokenskip.tasks.choice import Choice
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.tasks.gsm8k import Gsm8k
from tokenskip.tasks.jsonl import JsonlTask
from tokenskip.tasks.math500 import Math500

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the GSM8K and MATH-500 files are not at ../shared/data")


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left() -> Iterator[None]:
    yield
    close_math_verify()


@needs_data
def test_every_gsm8k_gold_grades_itself_and_nothing_else() -> None:
    train, test = str(DATA / "gsm8k/train.jsonl"), str(DATA / "gsm8k/test.jsonl")
    task = Gsm8k(TaskConfig(name="gsm8k", train=train, test=test))
    counts = {}
    for split in ("train", "test"):
        problems = list(task.problems(split))
        counts[split] = len(problems)
        assert len({problem.id for problem in problems}) == len(problems)
        for problem in problems:
            answer = task.extract(f"\nThe final answer is {problem.gold}.")
            assert answer is not None
            assert task.grade(answer, problem.gold).correct is True, problem
            value = int(problem.gold.replace(",", ""))
            for wrong in (f"{value + 1}", f"{value}.5", f"${value - 1:,} dollars"):
                assert task.grade(wrong, problem.gold).correct is False, (problem, wrong)
            assert value == 0 or task.grade(str(-value), problem.gold).correct is False
    assert counts == {"train": 7473, "test": 1319}


@needs_data
def test_every_gsm8k_solution_is_graded_as_gold() -> None:
    task = Gsm8k(TaskConfig(name="gsm8k"))
    for _, row in read_jsonl(DATA / "gsm8k/test.jsonl"):
        answer = task.extract(row["answer"])
        assert answer is not None
        assert task.grade(answer, row["answer"]).correct is True


@needs_data
def test_every_math500_gold_grades_itself() -> None:
    task = Math500(TaskConfig(name="math500", test=str(DATA / "math500/test.jsonl")))
    problems = list(task.problems("test"))
    assert len(problems) == 500
    assert problems[0].id == "test/precalculus/807.json"
    assert problems[0].level == "2"
    for problem, (_, row) in zip(problems, read_jsonl(DATA / "math500/test.jsonl"), strict=True):
        for text in (f" The final answer is $\\boxed{{{problem.gold}}}$.", row["solution"]):
            answer = task.extract(text)
            assert answer is not None
            assert task.grade(answer, problem.gold).correct is True, (problem, answer)


def perturbed(gold: str) -> Iterator[str]:
    """The gold answer with its last number one larger, or with one added."""
    numbers = list(re.finditer(r"\d+", gold))
    if numbers:
        yield gold[: numbers[-1].start()] + str(int(numbers[-1][0]) + 1) + gold[numbers[-1].end() :]
    if len(numbers) % 2 == 0:
        yield gold + "+1"


@needs_data
def test_every_math500_perturbation_is_wrong() -> None:
    task = Math500(TaskConfig(name="math500", test=str(DATA / "math500/test.jsonl")))
    for problem in task.problems("test"):
        for wrong in perturbed(problem.gold):
            assert normalise(wrong) != normalise(problem.gold)
            assert task.grade(wrong, problem.gold).correct is False, (problem.gold, wrong)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return str(path)


def test_own_problems(tmp_path: Path) -> None:
    rows = [{"q": "1+1?", "a": 2, "hard": 1}, {"q": "2+2?", "a": "4"}]
    fields = {"question": "q", "gold": "a", "level": "hard"}
    for name in ("mine.jsonl", "mine.json"):
        source = write(tmp_path / name, *(rows if name == "mine.jsonl" else [rows]))
        task = JsonlTask(TaskConfig(name="jsonl", train=source, fields=fields, options={"numeric": True}))
        problems = list(task.problems("train"))
        assert [(p.id, p.question, p.gold, p.level) for p in problems] == [
            ("train-1", "1+1?", "2", "1"),
            ("train-2", "2+2?", "4", None),
        ]
        assert len(list(task.problems("train", 1))) == 1
    assert task.grade(task.extract("that makes 4 of them") or "", "4").correct is True


def test_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "mine.parquet"
    datasets.Dataset.from_list([{"id": "a", "question": "1+1?", "gold": "2"}]).to_parquet(str(path))
    (problem,) = JsonlTask(TaskConfig(name="jsonl", test=str(path))).problems("test")
    assert (problem.id, problem.gold) == ("a", "2")


GOOD = {"id": "a", "question": "1+1?", "gold": "2"}


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([], "{} is empty"),
        (["", " "], "{} is empty"),
        ([GOOD, '{"id": "b", '], "{} line 2: malformed JSON"),
        ([GOOD, "", "[1]"], "{} line 3: a JSON object is needed, not list"),
        (["[" * 100_000], "{} line 1: malformed JSON"),
        ([{"id": "a", "question": "?"}], "{} line 1: field 'gold' is missing; fields present: id, question"),
        ([{**GOOD, "question": ""}], "{} line 1: field 'question' is empty"),
        ([{**GOOD, "gold": None}], "{} line 1: field 'gold' must be text or a number, not null"),
        ([GOOD, {**GOOD, "id": "b"}, GOOD], "{} line 3: duplicate id 'a', used before on line 1"),
    ],
)
def test_files_that_are_wrong(rows: list[object], error: str, tmp_path: Path) -> None:
    source = write(tmp_path / "mine.jsonl", *rows)
    with pytest.raises(DataError) as caught:
        list(JsonlTask(TaskConfig(name="jsonl", train=source)).problems("train"))
    assert str(caught.value).startswith(error.format(source))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8"):
        list(read_jsonl(path))


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert list(read_jsonl(path)) == [(1, GOOD)]


@pytest.mark.parametrize("source", ["missing.jsonl", "./missing", "a/b/c", "~/missing.parquet"])
def test_a_missing_file_is_found_before_anything_is_read(source: str) -> None:
    with pytest.raises(DataError, match="no such file; give a local"):
        Gsm8k(TaskConfig(name="gsm8k", train=source))


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub\n(OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError) as caught:
        list(Gsm8k(TaskConfig(name="gsm8k")).problems("train"))
    assert str(caught.value).startswith("openai/gsm8k:main: no local file, and not to be had from the hub")
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "\n" not in str(caught.value)


CSQA = {"id": "x1", "question": "Which?", "question_concept": "c", "answerKey": "B"}
CSQA |= {"choices": {"label": ["A", "B"], "text": ["wood", "iron"]}}
MMLU = {"question": "Which?", "subject": "physics", "choices": ["wood", "iron", "ice", "air"], "answer": 1}


@pytest.mark.parametrize(
    ("source", "row", "gold", "asked"),
    [
        ("tau/commonsense_qa", CSQA, "answerKey", ("tau/commonsense_qa", None, "test")),
        ("tau/commonsense_qa@validation", CSQA, "answerKey", ("tau/commonsense_qa", None, "validation")),
        ("cais/mmlu:all", MMLU, "answer", ("cais/mmlu", "all", "test")),
        ("cais/mmlu:all@auxiliary_train", MMLU, "answer", ("cais/mmlu", "all", "auxiliary_train")),
    ],
)
def test_a_hub_id_may_name_its_configuration_and_split(
    monkeypatch: pytest.MonkeyPatch, source: str, row: dict[str, Any], gold: str, asked: tuple[Any, ...]
) -> None:
    """The rows have the fields and types of the hub's dataset cards."""
    import datasets

    seen = []

    def load(hub_id: str, configuration: str | None, *, split: str) -> list[dict[str, Any]]:
        seen.append((hub_id, configuration, split))
        return [row]

    monkeypatch.setattr(datasets, "load_dataset", load)
    [problem] = Choice(TaskConfig(name="choice", test=source, fields={"gold": gold})).problems("test")
    assert (problem.gold, seen) == ("B", [asked])


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"name": "jsonl", "fields": {"answer": "a"}}, "unknown field 'answer'"),
        ({"name": "jsonl", "options": {"numerc": True}}, "did you mean 'numeric'"),
        ({"name": "jsonl", "options": {"numeric": "yes"}}, "true or false"),
        ({"name": "jsonl", "options": {"answer_fn": "nope"}}, "must be package.module:attr"),
        ({"name": "jsonl", "options": {"answer_fn": "no_such_module:f"}}, "there is no module 'no_such_module'"),
        ({"name": "jsonl", "options": {"answer_fn": "math:pi"}}, "float is no function"),
        ({"name": "choice", "options": {"choice": "c"}}, "did you mean 'choices'"),
        ({"name": "gsm8k", "options": {"numeric": True}}, "it has none"),
        ({"name": "embedded", "options": {"deve": True}}, "did you mean 'dev'"),
        ({"name": "embedded", "train": "mine.jsonl"}, "task.train needs a task that reads files"),
    ],
)
def test_a_configuration_that_is_wrong(config: dict[str, object], error: str) -> None:
    task_config = TaskConfig.model_validate(config)
    with pytest.raises(ConfigError, match=re.escape(error)):
        load("task", task_config.name, TASKS)(task_config)


@pytest.mark.parametrize("name", ["jsonl", "math500"])
def test_a_split_without_a_source(name: str) -> None:
    with pytest.raises(ConfigError, match=r"set task\.train to a \.jsonl file"):
        list(load("task", name, TASKS)(TaskConfig(name=name)).problems("train"))


def test_a_gsm8k_row_without_an_answer(tmp_path: Path) -> None:
    source = write(tmp_path / "mine.jsonl", {"question": "?", "answer": "5"}, {"question": "?", "answer": "five, say"})
    with pytest.raises(DataError, match="line 2: field 'answer' holds no number"):
        list(Gsm8k(TaskConfig(name="gsm8k", test=source)).problems("test"))


def test_embedded_problems_are_the_same_every_time_and_grade_themselves() -> None:
    task = EmbeddedTask(TaskConfig())
    first, again = list(task.problems("test", 20)), list(task.problems("test", 20))
    assert first == again
    assert len(first) == 20
    dev = EmbeddedTask(TaskConfig(options={"dev": True}))
    questions = [{p.question for p in t.problems(s, 50)} for t, s in ((task, "train"), (task, "test"), (dev, "test"))]
    assert not questions[0] & questions[1]
    assert not questions[1] & questions[2]
    for problem in first:
        answer = task.extract(f" The final answer is {problem.gold}.")
        assert answer is not None
        assert task.grade(answer, problem.gold).correct is True
        assert task.grade(str(int(problem.gold) + 1), problem.gold).correct is False


def last_word(tail: str) -> str | None:
    """An `answer_fn` as a user writes it."""
    return tail.split()[-1].strip(".") if tail.strip() else None


def test_an_answer_function_of_ones_own() -> None:
    task = JsonlTask(TaskConfig(name="jsonl", options={"answer_fn": f"{__name__}:last_word"}))
    assert task.extract("\nThe final answer is not 7 but red.") == "red"
    assert task.grade(task.extract(" So it is red.") or "", "red").correct is True
    assert task.extract("  ") is None
    broken = JsonlTask(TaskConfig(name="jsonl", options={"answer_fn": "math:sqrt"}))
    with pytest.raises(ConfigError, match=r"answer_fn math:sqrt failed on 'x': TypeError"):
        broken.extract("x")


CSQA = {
    "id": "1afa02df", "question": "Where would you find a bank that is wet?", "question_concept": "bank",
    "choices": {"label": ["A", "B", "C"], "text": ["town", "river", "market"]}, "answerKey": "B",
}  # fmt: skip
MMLU = {
    "question": "What is the order of 2 in Z_7?", "subject": "abstract_algebra", "choices": ["1", "2", "3", "6"],
    "answer": 2,
}  # fmt: skip
ARC = {"question": "Ice is?", "choices": {"label": ["1", "2"], "text": ["warm", "cold"]}, "answer": "2"}


@pytest.mark.parametrize(
    ("row", "fields", "question", "gold", "level"),
    [
        (CSQA, {"gold": "answerKey"}, "Where would you find a bank that is wet?\n(A) town\n(B) river\n(C) market",
         "B", None),
        (MMLU, {}, "What is the order of 2 in Z_7?\n(A) 1\n(B) 2\n(C) 3\n(D) 6", "C", "abstract_algebra"),
        (ARC, {}, "Ice is?\n(A) warm\n(B) cold", "B", None),
        ({**ARC, "answer": "cold"}, {}, "Ice is?\n(A) warm\n(B) cold", "B", None),
    ],
)  # fmt: skip
def test_choices(row: dict[str, object], fields: dict[str, str], question: str, gold: str, level: str | None,
                 tmp_path: Path) -> None:  # fmt: skip
    source = write(tmp_path / "mine.jsonl", row)
    task = load("task", "choice", TASKS)(TaskConfig(name="choice", test=source, fields=fields))
    (problem,) = task.problems("test")
    assert (problem.question, problem.gold, problem.level) == (question, gold, level)
    for letter in "ABCD":
        answer = task.extract(f"\nThe final answer is ({letter}).")
        assert answer is not None
        assert task.grade(answer, problem.gold).correct is (letter == gold)


@pytest.mark.parametrize(
    ("tail", "letter"),
    [
        (" The final answer is C.", "C"),
        (" The final answer is: (C) market", "C"),
        ("\n\n**The final answer is** **C**", "C"),
        (" So the answer is \\boxed{C}.", "C"),
        (" It is $\\boxed{\\text{(C)}}$", "C"),
        (" It is \\boxed{C) market}", "C"),
        ("\n</think>\n\nC. market", "C"),
        ("\n</think>\n\nNot (A), but (C).", "C"),
        (" The correct answer is option C, not a bank.", "C"),
        (" The answer is a market.", None),
        (" I would say market.", None),
        ("", None),
    ],
)
def test_a_letter_is_found_only_where_it_is_the_answer(tail: str, letter: str | None) -> None:
    assert load("task", "choice", TASKS)(TaskConfig(name="choice")).extract(tail) == letter


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"choices": None}, "field 'choices' must be a list of choices"),
        ({"choices": "A or B"}, "field 'choices' must be a list of choices"),
        ({"choices": ["one"]}, "2 to 26 choices"),
        ({"choices": {"label": ["A"], "text": ["x", "y"]}}, "a label for each"),
        ({"answer": -1}, "gold answer '-1' is none of A, B, C, D"),
        ({"answer": "4"}, "gold answer '4' is none of A, B, C, D"),
        ({"answer": "E"}, "gold answer 'E' is none of A, B, C, D"),
    ],
)
def test_choices_that_are_wrong(change: dict[str, object], error: str, tmp_path: Path) -> None:
    source = write(tmp_path / "mine.jsonl", MMLU, {**MMLU, **change})
    with pytest.raises(DataError, match=error) as caught:
        list(load("task", "choice", TASKS)(TaskConfig(name="choice", test=source)).problems("test"))
    assert str(caught.value).startswith(f"{source} line 2: ")


def test_a_whole_solution_as_gold_of_math(tmp_path: Path) -> None:
    source = write(tmp_path / "mine.jsonl", {"problem": "?", "solution": "So $x = \\boxed{\\frac{1}{2}}$."})
    task = Math500(TaskConfig(name="math500", train=source, fields={"gold": "solution"}))
    assert [problem.gold for problem in task.problems("train")] == ["\\frac{1}{2}"]
