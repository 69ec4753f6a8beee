"""The scorers with a causal model: right numbers on tiny random models, and spans that hold for any text."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tokenskip.errors import ConfigError, DataError
from tokenskip.plugins import SCORERS, load
from tokenskip.scorers._causal import batches, encode, spans_of
from tokenskip.scorers.ablation import Ablation, effects
from tokenskip.scorers.contrast import Contrast
from tokenskip.scorers.goal_gradient import GoalGradient
from tokenskip.scorers.leave_one_out import LeaveOneOut
from tokenskip.scorers.mist import Mist
from tokenskip.scorers.random import RandomScorer
from tokenskip.scorers.surprisal import Surprisal
from tokenskip.types import Scores, Trajectory

COTS = [
    "Tom has 12 apples. He buys 5 more.\nStep 1: 12 + 5 = 17.",
    "Half: \\frac{1}{2} of 48 is 24.\n\n  So 48/2=24 😀 clips – done.",
    "x",
    "日本語の文です。 3 × 4 = 12.",
]


def trajectory(index: int, cot: str, **fields: str) -> Trajectory:
    return Trajectory(
        id=f"t{index}", question=f"How many? {index}", gold="17", cot=cot, tail="\n\nThe final answer is 17.", **fields
    )


TRAJECTORIES = [trajectory(i, cot) for i, cot in enumerate(COTS)]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokens.train_from_iterator([*COTS, "The final answer is 17."], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<eos>")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def model(request, tokenizer):
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.2,
        "tie_word_embeddings": request.param == "qwen2",
    }
    torch.manual_seed(0)
    config = (LlamaConfig if request.param == "llama" else Qwen2Config)(**shape)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def build(model, tokenizer):
    def render(item: Trajectory) -> list[int]:
        return tokenizer(f"Q: {item.question}\nA: ")["input_ids"]

    def make(cls, **options):
        return cls(model, tokenizer=tokenizer, render=render, **options)

    return make


def values(scores: Scores) -> list[float]:
    return [span.value for span in scores.spans]


SCORER_OPTIONS = [
    (Surprisal, {}),
    (GoalGradient, {}),
    (GoalGradient, {"goal": "numbers", "norm": "l2"}),
    (GoalGradient, {"goal": "chain", "layer": 1, "grad_x_input": True}),
    (Contrast, {}),
    (Mist, {}),
    (LeaveOneOut, {}),
    (LeaveOneOut, {"goal": "numbers", "unit": "word"}),
    (Ablation, {}),
    (Ablation, {"goal": "equations", "subsets": 5}),
]


@pytest.mark.parametrize(("cls", "options"), SCORER_OPTIONS)
def test_spans_are_in_order_and_inside_any_text_and_batches_change_nothing(build, cls, options):
    together = build(cls, **options).score(TRAJECTORIES)
    alone = [build(cls, batch_tokens=1, **options).score([item])[0] for item in TRAJECTORIES]
    assert len(together) == len(TRAJECTORIES)
    for item, scores, single in zip(TRAJECTORIES, together, alone, strict=True):
        assert scores.spans, item.cot
        position = 0
        for span in scores.spans:
            assert position <= span.start < span.end <= len(item.cot)
            position = span.end
        assert [span[:2] for span in scores.spans] == [span[:2] for span in single.spans]
        assert values(scores) == pytest.approx(values(single), rel=1e-3, abs=1e-4)
    assert all(parameter.grad is None for parameter in build(cls, **options).model.parameters())


def test_every_word_of_the_chain_has_a_value(build):
    for item, scores in zip(TRAJECTORIES, build(Surprisal).score(TRAJECTORIES), strict=True):
        covered = {i for span in scores.spans for i in range(span.start, span.end)}
        assert {i for i, c in enumerate(item.cot) if not c.isspace()} <= covered


def test_surprisal_is_the_negative_log_probability(build, tokenizer):
    scorer = build(Surprisal)
    item = TRAJECTORIES[0]
    (scores,) = scorer.score([item])
    prompt = scorer.render(item)
    own = tokenizer(item.cot + item.tail, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = scorer.model(torch.tensor([prompt + own])).logits[0]
    expected = [-torch.log_softmax(logits[len(prompt) + i - 1], -1)[token].item() for i, token in enumerate(own)]
    assert values(scores) == pytest.approx(expected[: len(scores.spans)], abs=1e-4)


def test_pieces_of_one_character_become_one_span_with_the_sum(build):
    item = TRAJECTORIES[1]
    (scores,) = build(Surprisal).score([item])
    emoji = item.cot.index("😀")
    assert [span[:2] for span in scores.spans].count((emoji, emoji + 1)) == 1
    assert spans_of([(0, 1), (0, 1), (1, 3)], [1.0, 2.0, 5.0], "😀 a", "sum")[0].value == 3.0


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("goal", ["answer", "numbers"])
def test_goal_gradient_is_the_derivative_of_the_goals_loss(build, goal, layer):
    """Against finite differences: move one hidden state along its gradient and look at the loss."""
    scorer = build(GoalGradient, goal=goal, norm="l2", layer=layer)
    item = TRAJECTORIES[0]
    (scores,) = scorer.score([item])
    encoded = encode(item, scorer.tokenizer, scorer.render)
    ids = torch.tensor([encoded.ids])
    positions = encoded.goal_positions(goal)
    answer_text = "".join(item.cot + item.tail)[encoded.answer[0] : encoded.answer[1]]
    assert answer_text == "17"
    block = scorer.model.model.layers[layer]
    model = scorer.model.double()
    try:

        def loss(shift: torch.Tensor) -> torch.Tensor:
            hook = block.register_forward_pre_hook(lambda _, args: (args[0] + shift, *args[1:]))
            logits = model(ids).logits[0]
            hook.remove()
            picked = torch.log_softmax(logits, -1)
            return -sum(picked[p - 1, ids[0, p]] for p in positions)

        shift = torch.zeros(1, ids.shape[1], 32, dtype=torch.double, requires_grad=True)
        gradient = torch.autograd.grad(loss(shift), shift)[0][0, encoded.n_prompt :]
        norms = gradient.norm(dim=-1)[: len(scores.spans)]
        behind = torch.tensor([sum(p > encoded.n_prompt + i for p in positions) for i in range(len(norms))])
        expected = norms / behind  # a mean over the goal's tokens that come after
        assert values(scores) == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-5)
        at = int(expected.argmax())
        step = torch.zeros(1, ids.shape[1], 32, dtype=torch.double)
        step[0, encoded.n_prompt + at] = 1e-3 * gradient[at] / norms[at]
        with torch.no_grad():
            slope = (loss(step) - loss(-step)) / 2e-3
        assert slope.item() / behind[at].item() == pytest.approx(values(scores)[at], rel=1e-2)
    finally:
        model.float()


def test_tokens_behind_the_goal_have_no_gradient_and_the_goal_may_be_the_numbers(build):
    scorer = build(GoalGradient)
    encoded = encode(TRAJECTORIES[0], scorer.tokenizer, scorer.render)
    goals = ("answer", "numbers", "equations", "chain")
    answer, numbers, equations, chain = (encoded.goal_positions(goal) for goal in goals)
    assert set(answer) < set(numbers) < set(equations) < set(chain)
    assert min(chain) == encoded.n_prompt


@pytest.mark.parametrize("goal", ["answer", "numbers", "chain"])
def test_leave_one_out_is_the_drop_when_the_unit_is_really_removed(build, goal):
    scorer = build(LeaveOneOut, goal=goal)
    item = TRAJECTORIES[0]
    (scores,) = scorer.score([item])
    assert item.cot[slice(*scores.spans[-1][:2])] == "12 + 5 = 17."

    def likelihood(cot: str, after: int) -> float:
        own = scorer.tokenizer(cot + item.tail, add_special_tokens=False, return_offsets_mapping=True)
        prompt = scorer.render(item)
        ids = prompt + own["input_ids"]
        with torch.no_grad():
            picked = torch.log_softmax(scorer.model(torch.tensor([ids])).logits[0], -1)
        total, answer = 0.0, (cot + item.tail).rindex("17")
        for i, (start, end) in enumerate(own["offset_mapping"]):
            piece = (cot + item.tail)[start:end]
            counts = start < answer + 2 and end > answer
            if start < len(cot) and goal != "answer":
                counts = goal == "chain" or any(map(str.isdigit, piece))
            if counts and start >= after:
                total += picked[len(prompt) + i - 1, ids[len(prompt) + i]].item()
        return total

    for span in scores.spans:
        start = span.start
        while start and item.cot[start - 1] == " ":
            start -= 1
        without = likelihood(item.cot[:start] + item.cot[span.end :], start)
        assert span.value == pytest.approx(likelihood(item.cot, span.end) - without, abs=1e-3)


def test_effects_are_those_of_a_linear_model():
    """y = 3 where unit 0 is kept, -1 where unit 1 is, and 5 for what is always kept: the slopes come back."""
    draw = np.random.default_rng(0)
    kept = (draw.random((4000, 20)) < draw.uniform(0.2, 0.9, (4000, 1))).astype(float)
    kept[:, 19] = 1
    found = 5 + 3 * kept[:, 0] - kept[:, 1]
    values = effects(kept, found)
    assert values[:2] == pytest.approx([3, -1], abs=0.3)
    assert np.abs(values[2:19]).max() < 0.3


def test_ablation_keeps_what_holds_the_goal_and_is_the_same_in_any_order(build):
    scorer = build(Ablation, goal="equations")
    first = scorer.score(TRAJECTORIES)
    assert scorer.score(TRAJECTORIES[::-1])[::-1] == first
    assert build(Ablation, goal="equations", seed=1).score(TRAJECTORIES) != first
    by_text = {TRAJECTORIES[0].cot[span.start : span.end]: span.value for span in first[0].spans}
    top = len(encode(TRAJECTORIES[0], scorer.tokenizer, scorer.render).goal_positions("equations"))
    assert by_text["12 + 5 = 17."] == by_text["12"] == top
    assert all(abs(value) < top for text, value in by_text.items() if text.isalpha())


def test_contrast_is_zero_without_information_and_changes_with_the_answer(build):
    (one,) = build(Contrast).score([TRAJECTORIES[0]])
    (other,) = build(Contrast).score([replace(TRAJECTORIES[0], tail="\n\nThe final answer is 99.", gold="99")])
    assert values(one) != pytest.approx(values(other), abs=1e-3)


def test_mist_is_a_mix_of_two_z_scores(build):
    item = TRAJECTORIES[0]
    mixed, needed, enough = (values(build(Mist, necessity=w).score([item])[0]) for w in (0.6, 1.0, 0.0))
    assert mixed == pytest.approx([0.6 * a + 0.4 * b for a, b in zip(needed, enough, strict=True)], abs=1e-4)
    for part in (needed, enough):
        part = torch.tensor(part)
        assert part.mean().item() == pytest.approx(0, abs=1e-4)
        assert part.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


def test_the_answer_is_the_graded_one_or_the_gold_one_or_the_whole_tail(build):
    scorer = build(GoalGradient)

    def answer(**fields: str) -> str:
        item = encode(replace(TRAJECTORIES[0], **fields), scorer.tokenizer, scorer.render)
        return item.text[item.answer[0] : item.answer[1]]

    assert answer() == "17"
    assert answer(gold="99") == TRAJECTORIES[0].tail
    assert answer(tail="", gold="99") == "99"
    with pytest.raises(DataError, match=r"^t0: goal_gradient scores a chain by its answer"):
        scorer.score([replace(TRAJECTORIES[0], tail="", gold="")])
    assert build(Surprisal).score([replace(TRAJECTORIES[0], tail="", gold="")])[0].spans


def test_an_empty_prompt_begins_with_the_end_token(model, tokenizer):
    scorer = Surprisal(model, tokenizer=tokenizer, render=lambda _: [])
    assert len(scorer.score(TRAJECTORIES)) == len(TRAJECTORIES)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (GoalGradient, {"goal": "answers"}),
        (GoalGradient, {"layer": 9}),
        (GoalGradient, {"norm": "l3"}),
        (Mist, {"necessity": 2}),
        (LeaveOneOut, {"unit": "letter"}),
        (Ablation, {"subsets": 2}),
        (Surprisal, {"batch_tokens": 0}),
    ],
)
def test_wrong_options_are_the_users_to_mend(build, cls, options):
    with pytest.raises(ConfigError):
        build(cls, **options)


def test_batches_hold_the_budget_and_everything_once():
    lengths = [5, 9, 2, 40, 7, 7, 1]
    got = list(batches(lengths, 20))
    assert sorted(i for batch in got for i in batch) == list(range(7))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 20 for batch in got)
    assert list(batches([], 20)) == []


def test_random_depends_on_the_id_and_the_seed_alone():
    scorer = RandomScorer(seed=1)
    first = scorer.score(TRAJECTORIES)
    assert scorer.score(TRAJECTORIES[::-1])[::-1] == first
    assert RandomScorer(seed=2).score(TRAJECTORIES) != first
    assert values(first[0])[:2] == pytest.approx([0.6051931, 0.4028470])  # the same on every machine
    for item, scores in zip(TRAJECTORIES, first, strict=True):
        assert all(item.cot[s.start : s.end].strip() == item.cot[s.start : s.end] for s in scores.spans)


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_every_named_scorer_loads_and_knows_its_name(name):
    assert load("scorer", name, SCORERS).name == name


class _Letters:
    """A tokenizer that gives every character a token; only what `encode` asks for."""

    is_fast = True
    bos_token_id = eos_token_id = None

    def __call__(self, text, **_):
        return {"input_ids": [ord(c) for c in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}

    def decode(self, ids):
        return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("prompt", "head"),
    [
        ("<user>Q<assistant><think>\n", ""),  # the template opens the block (DeepSeek-R1)
        ("<user>Q<assistant>", "<think>\n"),  # the model writes the tag (Qwen3)
        ("<user>Q<assistant><think>\n", "<think>\n"),  # the scorer's template opens what the target wrote itself
        ("<user>Q<assistant><think>", "<think>\n"),
    ],
)
def test_a_think_tag_is_scored_once(prompt, head):
    item = replace(TRAJECTORIES[0], head=head)
    encoded = encode(item, _Letters(), lambda _: [ord(c) for c in prompt])
    text = "".join(map(chr, encoded.ids))
    assert text.count("<think>") == 1
    assert text.endswith(item.cot + item.tail)
    assert text[encoded.n_prompt :] == encoded.text


def test_the_head_is_the_scorers_to_add(monkeypatch, tokenizer):
    """What `plugins` renders is the prompt alone: with the head in it as well, the tag was scored twice."""
    from tokenskip import plugins
    from tokenskip.config import RunConfig
    from tokenskip.models.loading import load_tokenizer
    from tokenskip.prompting.prompts import Prompts

    config = RunConfig()
    prompts = Prompts(load_tokenizer(config.model), config.prompt)
    monkeypatch.setattr(plugins, "load_model", lambda *_: None)
    given = plugins._causal_model(config, prompts)
    item = replace(TRAJECTORIES[0], head="<think>\n")
    assert given["render"](item) == list(prompts.prompt(item.question).token_ids)
    ids = encode(item, given["tokenizer"], given["render"]).ids
    assert given["tokenizer"].decode(ids).count("<think>") == 1
