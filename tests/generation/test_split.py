"""Where completions divide: cases that look like what models write, and the identity that everything hangs on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenskip.config import PromptConfig
from tokenskip.generation.generate import trajectory_of
from tokenskip.generation.split import UNCLOSED, split_completion
from tokenskip.types import Completion, Finish, Problem

TRIGGER = PromptConfig(answer="trigger")
BOXED = PromptConfig(answer="boxed")
THINK = PromptConfig(answer="think")

CASES: dict[str, tuple[PromptConfig, str, str]] = {  # the output is the two parts, CoT and tail, put together
    "one line": (TRIGGER, "12 + 5 = 17.", " The final answer is 17."),
    "own line": (TRIGGER, "Step 1: 12 + 5 = 17", "\n\nThe final answer is: 17"),
    "So,": (TRIGGER, "12 + 5 = 17.", "\nSo, the final answer is $17$."),
    "bold": (TRIGGER, "It is 17.", "\n\n**The final answer is** $\\boxed{17}$."),
    "the last of two": (TRIGGER, "The final answer is what we want. 12 + 5 = 17.", " The final answer is 17."),
    "a chain of one sentence": (TRIGGER, "12 + 5 = 17, so", " the final answer is 17"),
    "a decimal is no end": (TRIGGER, "Half of 7.", " With 3.5 left, the final answer is 3.5"),
    "a list number is no end": (TRIGGER, "1. Add 12 and 5.", "\n2. So the final answer is 17."),
    "words behind": (TRIGGER, "12 + 5 = 17.", " The final answer is 17. I hope it is correct."),
    "only an answer": (TRIGGER, "", "The final answer is 17."),
    "own words": (PromptConfig(trigger="Réponse :"), "On a 12 + 5 = 17.", "\nRéponse : 17"),
    "chinese": (PromptConfig(trigger="答案是"), "12 + 5 = 17。", "所以答案是17。"),
    "box": (BOXED, "We add 12 and 5.", " So we get $12 + 5 = \\boxed{17}$."),
    "the last box": (BOXED, "Try \\boxed{3}. No.", "\nIt is \\boxed{17}.\n"),
    "box in an equation": (BOXED, "\\[\n\\begin{align*}\nS &= a - b \\\\", "\n&= \\boxed{p - q}.\n\\end{align*}\n\\]"),
    "box in the only sentence": (BOXED, "", "We get $12 + 5 = \\boxed{17}$."),
    "llama on gsm8k": (
        TRIGGER,
        "## Step 1: 16 - 3 - 4 = 9\nShe sells 9.\n\n## Step 2: 9 * 2 = 18",
        "\n\nThe final answer is: $\\boxed{18}$",
    ),
    "qwen on gsm8k": (
        BOXED,
        "She has \\( 16 - 3 - 4 = 9 \\) eggs.\n\n\\[ 9 \\times 2 = 18 \\]",
        "\n\nTherefore, Janet makes \\(\\boxed{18}\\) dollars.",
    ),
    "box in a display of its own": (BOXED, "We get\n\\[ 3 + 4 = 7 \\]\nso the sum is:", "\n\\[\n\\boxed{7}\n\\]"),
    "box between dollars": (BOXED, "It is 7.", "\n\n$$\n\\boxed{7}\n$$"),
    "box in an aligned display": (BOXED, "It is 7.", "\n\\[\n\\begin{aligned}\nx &= \\boxed{7}\n\\end{aligned}\n\\]"),
    "box with braces": (BOXED, "Halve it.", " The answer is $\\boxed{\\frac{1}{\\sqrt{2}}}$."),
    "choice": (TRIGGER, "A bank is no river.\nOnly (C) fits.", "\nThe final answer is (C)."),
    "r1: the box stands in both": (
        THINK,
        "Okay. 9 * 2 is \\boxed{18}? Let me check. Yes.",
        "\n</think>\n\n**Answer:** \\boxed{18}",
    ),
    "qwen3 without thinking": (THINK, "", "\n\n</think>\n\nIt is 18."),
    "think": (THINK, "Okay, 12 + 5 is 17. Wait, yes.", "\n</think>\n\nThe answer is \\boxed{17}."),
    "think twice": (THINK, "Hm.", "\n</think>\nA </think> in the answer: 17"),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    prompt, cot, tail = CASES[name]
    split = split_completion(cot + tail, "stop", prompt)
    assert (split.head, split.cot, split.tail, split.reason) == ("", cot, tail, None)


@pytest.mark.parametrize("opening", ["<think>\n", "<think>", "\n<think>\n"])
def test_an_opening_tag_in_the_output_is_not_part_of_the_chain(opening: str) -> None:
    split = split_completion(opening + "Hm, 17.\n</think>\n17", "stop", THINK)
    assert (split.head, split.cot, split.tail, split.reason) == (opening, "Hm, 17.", "\n</think>\n17", None)


@pytest.mark.parametrize(
    ("prompt", "output", "finish", "reason"),
    [
        (TRIGGER, "12 + 5 = 1", "length", "truncated"),
        (TRIGGER, "12 + 5 = 17. The final answer is 1", "length", "truncated"),
        (TRIGGER, "12 + 5 = 17.", "stop", "no answer"),
        (BOXED, "So it is 17.", "stop", "no answer"),
        (THINK, "Hm, 12 + 5 =", "length", "truncated"),
        (THINK, "Hm, 17. Done.", "stop", "no answer: the thought is not closed"),
        (TRIGGER, "", "error", "no answer"),
    ],
)
def test_without_an_answer_everything_is_chain(prompt: PromptConfig, output: str, finish: Finish, reason: str) -> None:
    split = split_completion(output, finish, prompt)
    assert (split.cot, split.tail, split.reason) == (output, "", reason)


PIECES = ["The final answer is", "THE FINAL ANSWER IS", "\\boxed{", "}", "<think>\n", "</think>", "\n", ". ", " ", "17",
          "İ", "2. ", "。", "$", "so "]  # fmt: skip


@given(
    pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=8)),
    answer=st.sampled_from(["trigger", "boxed", "think"]),
    finish=st.sampled_from(["stop", "length", "error"]),
)
def test_the_parts_are_always_the_whole(pieces: list[str], answer: Any, finish: Any) -> None:
    output = "".join(pieces)
    split = split_completion(output, finish, PromptConfig(answer=answer))
    assert split.head + split.cot + split.tail == output
    assert (split.reason is None) == bool(split.tail)
    if split.reason is None:
        assert split.cot == split.cot.rstrip()
        mark = {"trigger": "the final answer is", "boxed": "\\boxed{", "think": "</think>"}[answer]
        assert mark in split.tail.lower()


def test_a_megabyte_takes_no_time() -> None:
    text = "It is \\boxed{" * 80_000 + ". " * 100_000
    assert split_completion(text, "stop", BOXED).reason is None
    assert split_completion(text + " The final answer is 3", "stop", TRIGGER).tail.endswith("answer is 3")


def test_an_unclosed_think_block_is_recorded_as_the_reason() -> None:
    problem = Problem(id="a", question="?", gold="17")
    for text, reason in (("<think>\nHm, 17. Done.", UNCLOSED), ("<think>\nHm.\n</think>\n17", None)):
        one = trajectory_of(problem, 1.0, Completion(text=text, n_tokens=5), THINK, len)
        assert (one.head, one.dropped) == ("<think>\n", reason)
