"""An extracted answer is spelled as the completion spells it: what the reader writes for itself stays inside."""

from __future__ import annotations

import pytest

from tokenskip.answers.compare import compare, extract_answer
from tokenskip.answers.labels import extract_label


@pytest.mark.parametrize(
    "text",
    ["0$", "-0$", "(0$)", "0$ 1", "3$ + 4", "= 5$ / 2", "5 $", "x = 5$", r"\$9 before, \$5 after. x = 5$"],
)
@pytest.mark.parametrize("numeric", [True, False])
def test_money_has_no_escape_that_nobody_wrote(text: str, numeric: bool) -> None:
    answer = extract_answer(text, numeric=numeric)
    assert answer
    assert "\\$" not in answer
    assert answer in text


@pytest.mark.parametrize("numeric", [True, False])
def test_an_escape_that_the_completion_wrote_stays(numeric: bool) -> None:
    assert extract_answer(r"\$5/\$2", numeric=numeric) == r"\$5/\$2"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is both (A) $5 and (B)", "both (A) $5 and (B)"),
        (r"\boxed{both (A) for $5 and (B)}", "both (A) for $5 and (B)"),
    ],
)
def test_several_labels_with_money(text: str, label: str) -> None:
    assert extract_label(text) == label


def test_money_without_its_escape_is_still_money() -> None:
    answer = extract_answer("It was 12 more. Total = 5$", numeric=True)
    assert answer
    assert compare(answer, "$5").correct
    assert compare(answer, "5").correct
    assert not compare(answer, "5 kg").correct
