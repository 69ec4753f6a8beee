"""Each source of candidates: what it asks for, what it cuts, and a server that fails half way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, serving
from scripted_runs import chain, question, recipe

from tokenskip import pipeline
from tokenskip.config import PromptConfig, RunConfig, check_config, load_recipe
from tokenskip.errors import BackendError
from tokenskip.plugins import SOURCES, make_source
from tokenskip.prompting.prompts import Prompts, worked
from tokenskip.prompting.terse import TERSE, spelled
from tokenskip.pruning.equations import check_pruned
from tokenskip.sources._splice import splices
from tokenskip.sources.on_policy import OnPolicy
from tokenskip.sources.prompt import Prompt as PromptSource
from tokenskip.sources.prune import Prune
from tokenskip.sources.rewrite import Rewrite
from tokenskip.sources.sample import Sample
from tokenskip.sources.skip_steps import SkipSteps
from tokenskip.storage.store import read_rows
from tokenskip.tokens import token_counter
from tokenskip.types import Ask, Completion, Pruned, Request, Trajectory

TEXT = "Tom thinks about it.\nHe has 4 + 3 = 7 apples in all.\nThen he gives 2 away, so 7 - 2 = 5.\nThat is it."


def trajectory(number: int = 1, cot: str = TEXT, dropped: str | None = None) -> Trajectory:
    output = cot + "\nThe final answer is 5."
    tail = output[len(cot) :]
    return Trajectory(
        id=f"p{number}",
        question=f"Q{number}?",
        gold="5",
        cot=cot,
        tail=tail,
        output=output,
        n_cot_tokens=100,
        dropped=dropped,
    )


def stages(path: Path, recipe_file: Path, *names: str) -> None:
    with pipeline.Run(path, load_recipe(recipe_file)) as run:
        for name in names:
            pipeline.STAGES[name](run)


class Asked:
    """An `Ask` that remembers."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, requests: Sequence[Sequence[Request]]) -> list[list[Completion]]:
        self.requests += [request for several in requests for request in several]
        return [
            [Completion(text=f"{one.chain.id} {one.sample}", n_tokens=1) for one in several] for several in requests
        ]


def texts(found: Sequence[Sequence[Completion | Pruned]]) -> list[list[str]]:
    return [[one.text for one in several] for several in found]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_answers_for_each_chain_in_order(name: str, tokenizer: Any) -> None:
    config = check_config({"candidates": {"sources": {"prune": {}, name: {}}}}, "test")
    count = token_counter(Prompts(tokenizer, PromptConfig()).tokenizer)
    source = make_source(config, name, Asked(), count)
    found = source.candidates([trajectory(1), trajectory(2, dropped="incorrect"), trajectory(3)])
    assert len(found) == 3
    assert source.name == name
    for several in found:
        assert all(isinstance(one, Completion | Pruned) for one in several)
    assert source.candidates([]) == []
    if not isinstance(source, Prune):
        assert found[0]
        assert len(found[0]) == len(found[2])


def test_samples_of_one_question_are_told_apart() -> None:
    ask = Asked()
    found = Sample(ask, temperatures=(0.5, 1.0), samples=3).candidates([trajectory(1), trajectory(2)])
    assert texts(found) == [[f"p{k} {n}" for n in range(1, 7)] for k in (1, 2)]
    assert [request.temperature for request in ask.requests[:6]] == [0.5] * 3 + [1.0] * 3


def test_the_tuned_model_is_asked_at_every_ratio() -> None:
    ask = Asked()
    OnPolicy(ask, [0.8, 0.5], temperature=0.7, samples=2).candidates([trajectory()])
    assert [(request.ratio, request.sample) for request in ask.requests] == [(0.8, 1), (0.8, 2), (0.5, 3), (0.5, 4)]


def test_instructions_with_a_ratio_are_given_once_a_ratio() -> None:
    ask = Asked()
    ways = ["be_concise", "lc", "budget", "Use {budget} tokens, {p}% fewer."]
    PromptSource(ask, [0.8, 0.5], len, instructions=ways).candidates([trajectory()])
    assert [request.instruction for request in ask.requests] == [
        "Be concise.",
        "Please reduce 20% of the words in your Chain-of-Thought process.",
        "Please reduce 50% of the words in your Chain-of-Thought process.",
        "Let's think step by step and use less than 80 tokens.",
        "Let's think step by step and use less than 50 tokens.",
        "Use 80 tokens, 20% fewer.",
        "Use 50 tokens, 50% fewer.",
    ]
    assert all(request.ratio == 1 for request in ask.requests), "the untouched model knows no ratio"


def test_the_four_prompts_of_the_paper_and_todays_are_there() -> None:
    assert {"be_concise", "only_numbers", "abbreviate", "lc", "draft", "budget", "seeded"} == set(TERSE)
    assert {name for name, way in TERSE.items() if way.per_ratio} == {"lc", "budget"}
    assert spelled("{budget} {p}", 0.001, 3) == "1 99.9", "a budget is a token at least"


@pytest.mark.parametrize("answer", ["trigger", "boxed", "think"])
def test_worked_examples_have_the_recipes_format(answer: Any, tokenizer: Any) -> None:
    prompts = Prompts(tokenizer, PromptConfig(answer=answer, system="Solve.", template="Q: {question}"))
    shots = worked(prompts.config, TERSE["draft"].shots)
    messages = prompts.messages("How many?", "Be brief.", system="In notes.", shots=shots)
    assert [turn["role"] for turn in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert messages[0]["content"] == "Solve.\nIn notes."
    assert messages[-1]["content"] == "Q: How many? Be brief."
    assert all(turn["content"].endswith("Be brief.") for turn in messages[1::2])
    mark = {"trigger": "The final answer is 8.", "boxed": "\\boxed{8}.", "think": "\\boxed{8}."}[answer]
    assert messages[2]["content"].endswith(mark)


def test_steps_that_calculate_go_last_and_texts_stay_slices(tokenizer: Any) -> None:
    count = token_counter(Prompts(tokenizer, PromptConfig()).tokenizer)
    [cuts] = SkipSteps(count).candidates([trajectory()])
    assert [one.text.count("\n") + 1 for one in cuts] == [3, 2, 1]
    assert "7 - 2 = 5" in cuts[1].text
    assert "4 + 3 = 7" in cuts[1].text
    for cut in cuts:
        assert isinstance(cut, Pruned)
        assert "".join(TEXT[start:end] for start, end in cut.kept) == cut.text
        assert cut.n_tokens_pruned == count(cut.text) < cut.n_tokens == count(TEXT)
        assert (cut.rejected is None) == (check_pruned(TEXT, cut.text) is None)
    assert SkipSteps(count).candidates([trajectory(cot="One line only"), trajectory(dropped="incorrect")]) == [[], []]


def test_at_most_so_many_cuts_of_a_long_chain(tokenizer: Any) -> None:
    count = token_counter(Prompts(tokenizer, PromptConfig()).tokenizer)
    cot = "\n".join(f"Line {number} says {number} + 1 = {number + 1}." for number in range(60))
    [cuts] = SkipSteps(count, most=8).candidates([trajectory(cot=cot)])
    assert 6 <= len(cuts) <= 8


def test_a_wrong_chain_is_not_rewritten_and_braces_in_texts_mean_nothing() -> None:
    ask = Asked()
    odd = trajectory(cot="The set {p} and {budget} has 5.")
    assert texts(Rewrite(ask, [0.5]).candidates([odd, trajectory(2, dropped="incorrect")])) == [["p1 1"], []]
    content = ask.requests[0].content
    assert content is not None
    assert "The set {p} and {budget} has 5.\nThe final answer is 5." in content
    assert "about 50 tokens (50% fewer" in content


def rewritten(body: Any) -> str:
    """What the other model makes of a solution: its equations, and the answer; every fourth is wrong."""
    text = body.messages[-1]["content"]
    a, b = (int(word) for word in text.split("Tom has ")[1].replace(" apples. He buys", "").split()[:2])
    return f"{a} + {b} = {a + b}.\n\nThe final answer is {a + b + (a % 4 == 0)}."


def test_a_rewriting_server_that_fails_half_way_is_resumed(tmp_path: Path, model_folder: Path, tokenizer: Any) -> None:
    prompts = Prompts(tokenizer, PromptConfig())
    with serving(ChatServer(prompts.tokenizer, rewritten)) as server:
        options = {"url": server.url, "served": "tiny", "retries": 1, "concurrency": 2}
        sources = {"prune": {}, "rewrite": {"server": options}}
        candidates = {"sources": sources, "prefer": "nearest", "tolerance": 0.3}
        recipe_file = recipe(tmp_path, model_folder, candidates=candidates)
        stages(tmp_path / "run", recipe_file, "generate", "grade", "score", "prune")
        server.die_after = 11
        with pytest.raises(BackendError, match="same command continues from here"):
            stages(tmp_path / "run", recipe_file, "candidates")
        n_before = len(server.bodies)
        server.die_after = None
        server.stop()
        server.start()  # on another port
        options["url"] = server.url
        stages(tmp_path / "run", recipe(tmp_path, model_folder, candidates=candidates), "candidates")
        contents = [json.dumps(body["messages"]) for body in server.bodies]
    assert 0 < n_before < len(contents)
    rows = list(read_rows(tmp_path / "run" / "candidates" / "rewrite.jsonl"))
    made = {row["id"]: row["candidates"] for row in rows}
    assert len(made) == 24
    assert sum(map(len, made.values())) == 17 * 2, "each right chain at the two ratios below 1"
    assert {one["dropped"] for one in made["p8"]} == {"incorrect"}
    assert {one["dropped"] for one in made["p3"]} == {None}
    answered = [content for content in contents if contents.count(content) == 1]
    assert len(answered) >= 11 - 2, "what was answered before was not asked for again"


def test_a_chain_of_the_scripted_model_is_what_these_tests_take_it_for() -> None:
    assert chain(3, 4, 7).count("=") == 1
    assert "Tom has 3 apples. He buys 4 more" in question(3, 4)


def test_sources_are_asks(tokenizer: Any) -> None:
    ask: Ask = Asked()
    assert RunConfig().candidates.is_paper
    assert ask([]) == []


PLAIN = "He has 4 + 3 = 7.\nThen 7 - 2 = 5.\n\nThe final answer is 5."
TERSE_ANSWER = "4 + 3 = 7\n7 - 2 = 5\n\nThe final answer is 5."


def test_a_splice_begins_as_a_longer_version_and_goes_on_as_the_next_shorter_one() -> None:
    first, second, third = TEXT.splitlines()[:3]
    end = "\n\nThe final answer is 5."
    assert splices(TEXT, [TERSE_ANSWER, PLAIN]) == [
        f"He has 4 + 3 = 7.\n7 - 2 = 5{end}",
        f"{first}\nHe has 4 + 3 = 7.\nThen 7 - 2 = 5.{end}",
        f"{first}\n{second}\nThen 7 - 2 = 5.{end}",
        f"{first}\n{second}\n{third}{end}",
    ]


@pytest.mark.parametrize(
    "other",
    [
        "7 - 2 = 5\n\nThe final answer is 5.",  # a calculation is missing
        "7 - 2 = 5\n4 + 3 = 7\n\nThe final answer is 5.",  # another order
        "4 + 3 = 7\n2 + 3 = 5\n\nThe final answer is 5.",  # another way
        "First, 4 + 3 = 7.\n7 - 2 = 5\n5 = 5\n\nThe final answer is 5.",  # one more
        "Five, since two of seven are gone.\n\nThe final answer is 5.",  # nothing calculated
        TEXT + " " * 9 + "That is it, and that is really all there is to it.\n\nThe final answer is 5.",  # longer
        "",
    ],
)
def test_versions_that_calculate_otherwise_are_not_joined(other: str) -> None:
    assert splices(TEXT, [other]) == []


def test_nothing_is_joined_where_nothing_is_calculated() -> None:
    assert splices("It is a bird.\nBirds have wings.\nSo it flies.", ["Birds fly.\n\nThe answer is yes."]) == []


def test_a_thought_of_hundreds_of_steps_has_no_more_splices_than_are_needed() -> None:
    sums = [f"{n} + 1 = {n + 1}" for n in range(300)]
    found = splices("\n".join(f"Now we see that {one}." for one in sums), ["\n".join([*sums, "#### 300"])])
    assert 10 <= len(found) <= 16
    assert len(found[0]) < 0.7 * len(found[-1]), "from short to long"


def test_two_equations_of_one_step_stay_together() -> None:
    whole = "We see that 2 + 2 = 4, and then that 4 * 3 = 12.\nNow we get to 12 - 1 = 11."
    assert splices(whole, ["2 + 2 = 4\n4 * 3 = 12\n12 - 1 = 11\n\n#### 11"]) == [
        "We see that 2 + 2 = 4, and then that 4 * 3 = 12.\n12 - 1 = 11\n\n#### 11"
    ]


@pytest.mark.parametrize(
    ("whole", "short", "first"),
    [
        (  # one line: sentences are the steps
            "At first there are 3 × 4 = 12 eggs. After that she eats two, so 12 − 2 = 10 are left.",
            "3 × 4 = 12. 12 − 2 = 10. \\boxed{10}",
            "At first there are 3 × 4 = 12 eggs. 12 − 2 = 10. \\boxed{10}",
        ),
        (
            "<think>\nZuerst rechnen wir 3 * 4 = 12 Eier aus.\nDavon gehen zwei ab, also 12 - 2 = 10.",
            "<think>\n3 * 4 = 12\n12 - 2 = 10\n</think>\n10",
            "<think>\nZuerst rechnen wir 3 * 4 = 12 Eier aus.\n12 - 2 = 10\n</think>\n10",
        ),
        (
            "首先一共有 3 * 4 = 12 个鸡蛋。\n然后她吃了两个，所以 12 - 2 = 10。",
            "3 * 4 = 12\n12 - 2 = 10\n答案是 10",
            "首先一共有 3 * 4 = 12 个鸡蛋。\n12 - 2 = 10\n答案是 10",
        ),
    ],
)
def test_other_shapes_are_spliced_as_well(whole: str, short: str, first: str) -> None:
    assert first in splices(whole, [short])


def test_the_source_prompt_splices_what_it_was_answered() -> None:
    def ask(requests: Sequence[Sequence[Request]]) -> list[list[Completion]]:
        finishes = ("stop", "length")
        return [[Completion(text=TERSE_ANSWER, n_tokens=9, finish=finish) for finish in finishes] for _ in requests]

    ways = ["be_concise", "draft"]
    chains = [trajectory(1), trajectory(2, dropped="incorrect")]
    plain = PromptSource(ask, [0.5], len, instructions=ways).candidates(chains)
    spliced = PromptSource(ask, [0.5], len, instructions=ways, splice=True).candidates(chains)
    assert [len(several) for several in plain] == [2, 2]
    assert [len(several) for several in spliced] == [5, 2], "a wrong chain is joined with nothing"
    for one in spliced[0][2:]:
        assert isinstance(one, Completion)
        assert check_pruned(f"{TEXT}\n{TERSE_ANSWER}", one.text) is None
        assert one.n_tokens == len(one.text)
