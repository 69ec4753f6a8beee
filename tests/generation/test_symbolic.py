"""Symbolic answers of many kinds: equal ones are right in both directions, others are not."""

# fmt: off
# ruff: noqa: E501

from collections.abc import Iterator

import pytest

from tokenskip.generation.answers import close_math_verify, compare, extract_answer
from tokenskip.generation.labels import extract_label

PAIRS = [
 ("x^2-1","(x-1)(x+1)"),("(x+1)(x+2)","x^2+3x+2"),("x(x+2)","x^2+2x"),("(a+b)^2","a^2+2ab+b^2"),(r"\sin^2 x+\cos^2 x","1"),
 (r"2\sin x\cos x",r"\sin 2x"),(r"\tan x",r"\frac{\sin x}{\cos x}"),(r"\sec^2 x - \tan^2 x","1"),(r"\frac{1}{\sqrt{2}}",r"\frac{\sqrt{2}}{2}"),
 (r"\sqrt{12}",r"2\sqrt{3}"),(r"\sqrt[3]{54}",r"3\sqrt[3]{2}"),(r"\frac{1}{\sqrt{3}-\sqrt{2}}",r"\sqrt{3}+\sqrt{2}"),
 (r"\frac{x^2-4}{x-2}","x+2"),(r"\frac{1}{x}+\frac{1}{y}",r"\frac{x+y}{xy}"),("(x-y)^3","x^3-3x^2y+3xy^2-y^3"),
 (r"\ln 8",r"3\ln 2"),(r"e^{2\ln 3}","9"),(r"\log_2 8","3"),("[1,2]",r"1 \le x \le 2"),(r"(1,\infty)","x > 1"),
 (r"(-\infty,1)\cup(1,\infty)",r"x \ne 1"),(r"\{1,2,3\}",r"\{3,2,1\}"),(r"\{\sqrt{4},1\}",r"\{1,2\}"),
 (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),(r"\begin{pmatrix}\frac{2}{4}\\ \sqrt{4}\end{pmatrix}",r"\begin{pmatrix}1/2\\2\end{pmatrix}"),
 (r"\begin{pmatrix}x^2-1\\1\end{pmatrix}",r"\begin{pmatrix}(x-1)(x+1)\\1\end{pmatrix}"),
 ("y=2x+1","2x-y+1=0"),("x^2+y^2=4","y^2+x^2-4=0"),(r"x \ge 3",r"3 \le x"),("2x > 4","x > 2"),("(1+i)^2","2i"),(r"\frac{1}{i}","-i"),
 (r"\binom{5}{2}","10"),(r"\frac{n!}{(n-1)!}","n"),(r"\frac{\pi}{4}+\frac{\pi}{4}",r"\frac{\pi}{2}"),("2^{n+1}",r"2\cdot 2^n"),(r"|{-3}|","3"),
 (r"\cos(\pi/3)",r"\frac12"),(r"(2\sqrt{3}, 30^\circ)",r"(\sqrt{12}, 30^\circ)"),(r"a^2 - 2ab + b^2","(b-a)^2"), (r"\frac{-b+\sqrt{b^2-4ac}}{2a}", r"\frac{\sqrt{b^2-4ac}-b}{2a}"),
 (r"x^{\frac12}",r"\sqrt{x}"),(r"\cosh x",r"\frac{e^x+e^{-x}}{2}"),
]
DIFFERENT = [("x^2-1","(x-1)^2"),(r"\sin 2x",r"2\sin x"),("[1,2]","1<x<2"),(r"\sqrt{12}",r"3\sqrt{2}"),("y=2x+1","y=2x-1"),(r"\{1,2\}","(1,2)"),("10^{-20}x","10^{-21}x"),(r"\frac{1}{2004!}",r"\frac{1}{2006!}"),("11","2x+1=11"),("x > 2","x < 2"),("x>2",r"x \ge 2")]


@pytest.fixture(autouse=True, scope="module")
def _no_process_is_left() -> Iterator[None]:
    yield
    close_math_verify()


def test_equal_pairs_are_right() -> None:
    lost = [(a, b) for pair in PAIRS for a, b in (pair, pair[::-1]) if compare(a, b).correct is not True]
    assert not lost


def test_different_pairs_are_wrong() -> None:
    taken = [(a, b) for pair in DIFFERENT for a, b in (pair, pair[::-1]) if compare(a, b).correct is not False]
    assert not taken


REPEATED = [" ", "\n", "a.b.", "The final answer is ", "answer to ", "\\boxed{", "(", "[", "*", "$", "1,", "1 ", "1/", "-", "<answer>",
            "</think>", "{", "!", ". ", "Mr. ", "答案是", "option A ", "wrong to say the ", "1.234,"]


@pytest.mark.parametrize("piece", REPEATED)
def test_a_hundred_thousand_characters_are_read_in_linear_time(piece: str) -> None:
    """No assertion about time: what is quadratic here takes minutes, and the suite's time limit ends it."""
    text = f"The final answer is {piece * (100_000 // len(piece))}"
    for numeric in (False, True):
        extract_answer(text, numeric=numeric, trigger="The final answer is")
    extract_label(text)
