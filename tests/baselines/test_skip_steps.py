"""How many steps are left out of what is trained on, by hand and by the model itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from random_llama import embedded_prompts

from tokenskip.baselines import skip_steps
from tokenskip.baselines.skip_steps import Skipped
from tokenskip.config import TaskConfig
from tokenskip.prompting.prompts import Prompts
from tokenskip.tasks.embedded import EmbeddedTask
from tokenskip.types import Completion, Prompt, Sampling

WHOLE = Skipped("Tom has 12 apples.", ("12 + 3 = 15", "15 * 2 = 30", "30 - 1 = 29"), 0, "29")


@pytest.fixture
def prompts() -> Prompts:
    return embedded_prompts()


def test_the_warm_start_leaves_out_one_step_and_never_the_last() -> None:
    chains = [WHOLE] * 200 + [WHOLE._replace(steps=("12 + 3 = 15",))] * 50
    short = skip_steps.warm(chains, seed=0)
    assert len(short) == int(skip_steps.WARM * 200), "a chain of one step has none to spare"
    assert {one.steps for one in short} == {WHOLE.steps[1:], (WHOLE.steps[0], WHOLE.steps[2])}
    assert {one.left_out for one in short} == {1}


def test_what_the_model_wrote_is_kept_only_if_right_and_of_that_many_steps() -> None:
    two, one = "15 * 2 = 30\n30 - 1 = 29", "30 - 1 = 29"
    assert skip_steps.kept(WHOLE, 1, two, True) == WHOLE._replace(steps=("15 * 2 = 30", "30 - 1 = 29"), left_out=1)
    assert skip_steps.kept(WHOLE, 1, two, False) is None
    assert skip_steps.kept(WHOLE, 1, two, None) is None
    assert skip_steps.kept(WHOLE, 1, one, True) is None
    assert skip_steps.kept(WHOLE, 2, one, True) is not None


class Scripted:
    """Answers the questions it is asked, in turn."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = texts, []  # type: ignore[var-annotated]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.asked += [prompt.messages[-1]["content"] for prompt in prompts]
        return [Completion(text=text, n_tokens=9) for text in self.texts]

    def close(self) -> None:
        raise AssertionError


def test_expansion_asks_for_fewer_steps_and_grades_what_comes(prompts: Prompts) -> None:
    answer = "\n\nThe final answer is 29."
    backend = Scripted(
        f"15 * 2 = 30\n30 - 1 = 29{answer}", f"29{answer}", "15 * 2 = 30\n30 - 1 = 29\n\nThe final answer is 3."
    )
    task = EmbeddedTask(TaskConfig(name="embedded"))
    short = WHOLE._replace(steps=("1 + 1 = 2",))
    found = skip_steps.expand([WHOLE, short, WHOLE, WHOLE], 1, backend, prompts, task, 64)
    assert backend.asked == ["Tom has 12 apples. Leave out 1 step."] * 3, "no chain of one step is asked for fewer"
    assert found == [WHOLE._replace(steps=("15 * 2 = 30", "30 - 1 = 29"), left_out=1)]


def test_a_row_says_how_many_and_ends_in_the_answer(prompts: Prompts) -> None:
    row = skip_steps.row_of(WHOLE._replace(left_out=2, steps=("30 - 1 = 29",)), prompts)
    text = prompts.tokenizer.decode(row.ids)
    assert "apples. Leave out 2 steps.<|im_end|>" in text
    assert text.endswith("assistant\n30 - 1 = 29\n\nThe final answer is 29.<|im_end|>")
    assert skip_steps.instruction(1) == "Leave out 1 step."
