"""Answers: what equals what, what hostile text may do (nothing), and what becomes of a trajectory."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenskip.config import PromptConfig, TaskConfig
from tokenskip.errors import DataError
from tokenskip.generation import answers
from tokenskip.generation.answers import compare, extract_answer, extract_boxed, normalise, parse_number
from tokenskip.generation.grade import grade_rows, grade_trajectory
from tokenskip.generation.math_verify import MathVerify, close_math_verify, math_verify
from tokenskip.tasks.gsm8k import Gsm8k
from tokenskip.tasks.math500 import Math500
from tokenskip.types import Trajectory


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left() -> Iterator[None]:
    yield
    close_math_verify()


@pytest.mark.parametrize(
    ("answer", "gold", "reason"),
    [
        ("72", "72", "equal text"),
        ("72.00", "72", "equal number"),
        ("72.", "72", "equal text"),
        ("1,450,000", "1450000", "equal number"),
        ("$18", "18", "equal text"),
        ("\\$18.50", "18.5", "equal number"),
        ("18 dollars", "18", "equal number"),
        ("60 miles per hour", "60", "equal number"),
        ("20%", "20\\%", "equal text"),
        ("20\\%", "0.2", "equal number"),
        ("20", "20%", "equal number"),
        ("−3", "-3", "equal text"),
        ("0.5", "\\frac12", "equal number"),
        ("9/5", "1\\frac{4}{5}", "equal number"),
        (".35625", "0.35625", "equal number"),
        ("\\dfrac{17}{50}", "\\frac{17}{50}", "equal text"),
        ("90", "90^\\circ", "equal text"),
        ("10080", "10,\\!080", "equal number"),
        ("15", "15\\mbox{ cm}^2", "equal number"),
        ("Evelyn", "\\text{Evelyn}", "equal text"),
        ("C", "\\text{(C)}", "equal text"),
        ("2516", "2516_8", "equal number"),
        ("4210_5", "4210_{5}", "equal number"),
        ("(b+2)(a+5)", "(a+5)(b+2)", "math-verify"),
        ("5", "x=5", "math-verify"),
        ("7, 5, 3", "3, 5, 7", "equal list"),
        ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt 3}", "math-verify"),
        ("[-2,7]", "x \\in [-2,7]", "math-verify"),
        ("\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}", "\\begin{pmatrix} -\\frac13 \\\\ \\frac23 \\end{pmatrix}",
         "math-verify"),
    ],
)  # fmt: skip
def test_equal(answer: str, gold: str, reason: str) -> None:
    grade = compare(answer, gold)
    assert (grade.correct, grade.reason) == (True, reason)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("73", "72"),
        ("-72", "72"),
        ("20%", "20"),
        ("7 2", "72"),
        ("0.333", "\\frac{1}{3}"),
        ("tea", "\\text{eat}"),
        ("stew", "west"),
        ("\\text{(B)}", "\\text{(C)}"),
        ("2516_9", "2516_8"),
        ("15 cm^3", "15\\mbox{ cm}^2"),
        ("2xy", "2"),
        ("(2,4]", "(2,4)"),
        ("3, 5", "3, 5, 7"),
        ("\\sqrt{52}", "\\sqrt{51}"),
        ("nothing at all", "72"),
        ("}{", "72"),
        ("\\frac{1}{0}", "1"),
    ],
)
def test_different(answer: str, gold: str) -> None:
    grade = compare(answer, gold)
    assert (grade.correct, grade.reason) == (False, "differs")


def test_a_power_tower_takes_the_limit_and_the_next_answer_is_graded() -> None:
    slow = MathVerify(limit_s=1.0)
    try:
        assert slow.equal("x", "y") is False
        process = slow._process
        assert slow.equal("10^{10^{10}}", "y+1") in (None, False)
        assert slow.equal("10^{10^{9}}-x", "10^{10^{10}}-x-1") is not True
        assert slow.equal("b+a", "a+b") is True
        assert process is not None
    finally:
        slow.close()
    assert slow._process is None


@pytest.mark.skipif(not hasattr(signal, "ITIMER_PROF"), reason="this system has no timers of CPU time")
def test_the_limit_is_cpu_time() -> None:
    own = MathVerify(limit_s=0.5)
    try:
        assert own.equal("b+a", "a+b") is True
        process = own._process
        assert process is not None
        threading.Timer(1.0, os.kill, (process.pid, signal.SIGCONT)).start()
        process.send_signal(signal.SIGSTOP)  # as on a machine that has no time for it
        assert own.equal("c+a", "a+c") is True
        assert own.equal("10^{10^{10}}", "y+1") is None
        assert process.wait() == -signal.SIGPROF
    finally:
        own.close()


def test_a_killed_worker_costs_one_answer() -> None:
    own = MathVerify()
    try:
        assert own.equal("b+a", "a+b") is True
        assert own._process is not None
        own._process.kill()
        own._process.wait()
        assert own.equal("c+a", "a+c") is None
        assert own.equal("d+a", "a+d") is True
    finally:
        own.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the worker, then give it half a second."""
    assert math_verify().equal("b+a", "a+b") is True
    monkeypatch.setattr(math_verify(), "limit_s", 0.5)


@pytest.mark.usefixtures("impatient")
def test_the_tower_through_compare_cannot_be_told_or_differs() -> None:
    grade = compare("10^{10^{10}}", "x^2")
    assert grade.correct is not True


@pytest.mark.parametrize("wrap", ["{}", "\\text{{{}}}", "${}$", "x = {}", "\\frac{{{}}}{{1}}"])
def test_model_text_is_never_executed(wrap: str, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    code = wrap.format(f"__import__('os').system('touch {target}')")
    assert compare(code, "x^2").correct is not True
    assert compare("x", code).correct is not True
    assert not target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "9" * 1_000_000,
        "{" * 2000 + "1" + "}" * 2000,
        "\\frac{" * 200_000,
        "$" * 1_000_001,
        "(" * 1_000_000,
        "1," * 500_000,
    ],
)
def test_huge_answers_are_not_looked_at(text: str) -> None:
    grade = compare(text, "72")
    assert (grade.correct, grade.reason) == (None, "answer too long")
    assert len(grade.extracted or "") < 300
    extracted = extract_answer(f"The answer is {text}", numeric=True)
    assert extracted is None or compare(extracted, "72").correct is not True
    extract_answer(f"\\boxed{{{text}}}")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "text", ["{" * 490 + "1" + "}" * 490, "\\sqrt{" * 160 + "x" + "}" * 160, "(" * 990, "\\frac{" * 160]
)
def test_deep_nesting_is_bounded(text: str) -> None:
    assert compare(text, "x^2").correct is not True


def test_the_worker_does_not_import_torch_and_its_parent_neither() -> None:
    code = (
        "import sys\nfrom tokenskip.generation import grade\n"
        "from tokenskip.tasks import embedded, gsm8k, jsonl, math500\n"
        "from tokenskip.generation.answers import compare\nassert compare('a+b', 'b+a').correct\n"
        "assert not {'torch', 'sympy', 'math_verify', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert "torch" not in Path(answers.__file__).with_name("math_verify_worker.py").read_text(encoding="utf-8")


def test_one_math_verify_process() -> None:
    assert math_verify() is math_verify()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1} or \\boxed{2}", "2"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\text{a \\} b}}", "\\text{a \\} b}"),
        ("\\boxed{1", None),
        ("\\boxed{}", None),
        ("1", None),
    ],
)
def test_boxes(text: str, expected: str | None) -> None:
    assert extract_boxed(text) == expected


@pytest.mark.parametrize(
    ("text", "number", "other"),
    [
        ("\nSo, the final answer is $17$.", "17", "17"),
        (" The final answer is 12 + 5 = 17 apples.", "17", "12 + 5 = 17 apples"),
        ("The final answer is: **1,450** dollars", "1,450", "1,450 dollars"),
        ("The final answer is -3.5.", "-3.5", "-3.5"),
        ("The final answer is \\[\n\\boxed{17}\n\\]", "17", "17"),
        ("5 in all.\n#### 72", "72", "72"),
        ("\n</think>\n\n17", "17", "17"),
        ("In total 3 + 4 is 7 apples.", "7", "7 apples"),
        ("Answer: x = 5. I hope it is correct.", "5", "x = 5"),
        ("The answer is 72 or 73", "72 or 73", "72 or 73"),
        ("The final answer is", None, "The final answer is"),
        ("   ", None, None),
    ],
)
def test_extraction(text: str, number: str | None, other: str | None) -> None:
    assert extract_answer(text, numeric=True) == number
    assert extract_answer(text) == other


def test_ones_own_trigger_is_a_marker_as_the_others_are() -> None:
    assert extract_answer("\\boxed{1}\n#### 3\nVerdict: 2", trigger="verdict", numeric=True) == "2"
    assert extract_answer("\\boxed{1} Verdict: 2\n#### 3", trigger="verdict", numeric=True) == "3"


LATEX = [
    "\\boxed{",
    "}",
    "{",
    "\\frac",
    "$",
    "####",
    "answer is",
    "12",
    ",",
    ".",
    "\\",
    "</think>",
    "\n",
    "%",
    "^\\circ",
    "_8",
]


@given(st.lists(st.sampled_from(LATEX) | st.text(max_size=6)).map("".join))
@example("####\x1f")
def test_any_text_can_be_looked_at(text: str) -> None:
    for numeric in (False, True):
        answer = extract_answer(text, numeric=numeric)
        assert answer is None or answer.strip()
    parse_number(text)
    extract_boxed(text)
    if normalise(text) and len(text) <= answers.MAX_ANSWER:
        assert compare(text, text).correct is True


@given(st.integers(), st.integers(min_value=1, max_value=10**9))
def test_numbers_are_exact(over: int, under: int) -> None:
    assert parse_number(f"\\frac{{{over}}}{{{under}}}") == parse_number(f"{over}/{under}")
    assert parse_number(f"{over:,}") == over
    assert compare(str(over), str(over + under)).correct is False


def trajectory(**fields: object) -> Trajectory:
    base = {"id": "a", "question": "?", "gold": "17", "cot": "12 + 5 = 17.", "tail": " The final answer is 17."}
    return Trajectory(**(base | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "correct", "dropped"),
    [
        ({}, True, None),
        ({"gold": "18"}, False, "incorrect"),
        ({"tail": ""}, None, "ungradable: no answer"),
        ({"tail": " The final answer is"}, None, "ungradable: no answer"),
        ({"tail": " The final answer is " + "9" * 1500}, None, "ungradable: answer too long"),
        ({"tail": "", "finish": "length"}, None, "truncated"),
        ({"cot": "", "tail": "", "finish": "error"}, None, "backend error: no completion"),
        ({"finish": "error", "dropped": "backend error: 503"}, None, "backend error: 503"),
        ({"cot": " \n"}, True, "empty CoT"),
        ({"cot": "", "gold": "18"}, False, "incorrect"),
    ],
)
def test_a_trajectory_keeps_its_first_reason(
    fields: dict[str, object], correct: bool | None, dropped: str | None
) -> None:
    graded = grade_trajectory(trajectory(**fields), Gsm8k(TaskConfig(name="gsm8k")))
    assert graded.grade is not None
    assert (graded.grade.correct, graded.dropped) == (correct, dropped)


def test_rows_of_anyone() -> None:
    outputs = {
        "The final answer is 72.": True,
        "It is $\\boxed{72}$.": True,
        "48 + 24 = 72\n#### 72": True,
        "So the answer is 72 clips.": True,
        "48 + 24 = 72 clips": True,
        "#### 73": False,
        "I do not know.": None,
        "": None,
    }
    rows = [{"id": n, "gold": "48 + 24 = 72\n#### 72", "output": output} for n, output in enumerate(outputs)]
    graded = list(grade_rows(enumerate(rows, 1), Gsm8k(TaskConfig(name="gsm8k")), PromptConfig()))
    assert [row["correct"] for row in graded] == list(outputs.values())
    assert [row["id"] for row in graded] == list(range(len(outputs)))
    assert set(graded[0]) == {"id", "correct", "reason", "extracted"}


def test_rows_of_mathematics() -> None:
    rows = [{"id": "a", "gold": "\\frac{14}{3}", "output": "Thus $x = \\boxed{\\frac{28}{6}}$."}]
    (graded,) = grade_rows(enumerate(rows, 1), Math500(TaskConfig(name="math500")), PromptConfig())
    assert (graded["correct"], graded["extracted"]) == (True, "\\frac{28}{6}")


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([{"id": "a", "gold": "1"}], "mine.jsonl line 1: field 'output' is missing; fields present: id, gold"),
        ([{"id": "a", "output": "1"}], "mine.jsonl line 1: field 'gold' is missing; fields present: id, output"),
        ([{"id": "a", "gold": "1", "output": "1"}] * 2, "mine.jsonl line 2: duplicate id 'a', used before on line 1"),
        ([{"id": "a", "gold": "1", "output": ["1"]}], "mine.jsonl line 1: field 'output' must be text"),
    ],
)
def test_rows_that_are_wrong(rows: list[dict[str, object]], error: str) -> None:
    with pytest.raises(DataError) as caught:
        list(grade_rows(enumerate(rows, 1), Gsm8k(TaskConfig(name="gsm8k")), PromptConfig(), "mine.jsonl"))
    assert str(caught.value).startswith(error)
