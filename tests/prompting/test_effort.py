"""`reasoning_effort` as a second name of a ratio: what the template makes of a word, and what is refused."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tokenizer
from jinja2 import Environment, nodes

from tokenskip.config import PromptConfig, check_config
from tokenskip.errors import ConfigError, ModelError
from tokenskip.prompting.chat_template import TemplateSettings, add_ratio_control, set_effort, set_ratio_map
from tokenskip.prompting.effort import WORDS, check_effort, parse_effort, read_effort
from tokenskip.prompting.prompts import Prompts
from tokenskip.ratio import RatioMap, RatioRange

ASK = [{"role": "user", "content": "How many?"}]
MAP = {"low": 0.5, "medium": 0.7, "high": 1.0}
TRAINED = TemplateSettings(ratios=(0.5, 0.7, 0.9, 1.0))


def render(tokenizer: Any, **options: Any) -> str:
    return str(tokenizer.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False, **options))


@pytest.fixture
def mapped() -> Any:
    """A tokenizer whose template knows three words."""
    tokenizer = add_ratio_control(make_tokenizer(), settings=TRAINED)
    tokenizer.chat_template = set_effort(tokenizer.chat_template, MAP)
    return tokenizer


def test_a_word_is_another_name_of_its_ratio(mapped: Any) -> None:
    for word, ratio in MAP.items():
        assert render(mapped, reasoning_effort=word) == render(mapped, compression_ratio=ratio)
    assert render(mapped, reasoning_effort="low") != render(mapped, reasoning_effort="medium") != render(mapped)


def test_compression_ratio_wins(mapped: Any) -> None:
    wanted = render(mapped, compression_ratio=0.9)
    for word in (*WORDS, "", "LOW", 0.5, None):
        assert render(mapped, reasoning_effort=word, compression_ratio=0.9) == wanted
    assert render(mapped, reasoning_effort="low", compression_ratio=1) == render(mapped)
    assert render(mapped, reasoning_effort="low", compression_ratio=None) == render(mapped, compression_ratio=0.5)


@pytest.mark.parametrize("word", ["none", "minimal", "xhigh", "max", "LOW", " low", "", 0.5, 1, True, None, ["low"]])
def test_another_word_leaves_the_prompt_alone(mapped: Any, word: Any) -> None:
    assert render(mapped, reasoning_effort=word) == render(mapped) == render(make_tokenizer())


def test_a_map_is_replaced_taken_out_and_kept(mapped: Any) -> None:
    assert read_effort(mapped.chat_template) == MAP
    before = mapped.chat_template
    other = set_effort(before, {"minimal": 0.7})
    assert read_effort(other) == {"minimal": 0.7}
    assert set_effort(other, MAP) == before, "nothing of the other one is left"
    assert set_effort(before, {}) == add_ratio_control(make_tokenizer(), settings=TRAINED).chat_template
    assert add_ratio_control(mapped).chat_template == before, "the control was put in again"
    calibrated = set_ratio_map(before, RatioMap(((0.45, 0.5), (0.95, 0.9))))
    assert read_effort(calibrated) == MAP
    mapped.chat_template = calibrated
    assert render(mapped, reasoning_effort="medium") == render(mapped, compression_ratio=0.7), "through the map"
    assert set_ratio_map(calibrated, None) == before


def test_every_engine_has_the_filters_of_the_control() -> None:
    """llama.cpp's engine has no `round`, for one; the tests on a real server compare the bytes."""
    made = [add_ratio_control(make_tokenizer(), settings=TRAINED).chat_template]
    of_range = TemplateSettings(ratios=RatioRange(0.3, 1.0), spelling="decimals", date=datetime.date(2024, 7, 5))
    made += [add_ratio_control(make_tokenizer(), settings=of_range).chat_template, set_effort(made[0], MAP)]
    made += [set_ratio_map(made[0], RatioMap(((0.45, 0.5), (0.95, 0.9)), steps=steps)) for steps in (False, True)]
    for template in made:
        used = {node.name for node in Environment().parse(template).find_all(nodes.Filter)}
        assert used <= {"float", "int", "string", "replace"}


def test_a_ratio_that_the_template_cannot_write_is_refused() -> None:
    template = add_ratio_control(make_tokenizer(), settings=TRAINED).chat_template
    for effort, said in (
        ({"low": 0.55}, "low=0.55 was not trained: take one of 0.5, 0.7, 0.9, 1.0"),
        ({"none": 0.3}, "none=0.3 was not trained"),
    ):
        with pytest.raises(ConfigError, match=said):
            set_effort(template, effort)
    calibrated = set_ratio_map(template, RatioMap(((0.5, 0.5), (0.8, 0.9))))
    assert read_effort(set_effort(calibrated, {"low": 0.55})) == {"low": 0.55}
    with pytest.raises(ConfigError, match=r"low=0.3: calibration reached 0.5 to 0.8"):
        set_effort(calibrated, {"low": 0.3})
    anything = add_ratio_control(make_tokenizer()).chat_template
    assert read_effort(set_effort(anything, {"low": 0.33})) == {"low": 0.33}
    with pytest.raises(ConfigError, match=r"none=0.3 was not trained: take one of nothing that the template names"):
        set_effort(anything, {"none": 0.3})


def test_a_template_that_reads_the_word_itself_is_left_to_it() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ reasoning_effort }}" + tokenizer.chat_template
    template = add_ratio_control(tokenizer, settings=TRAINED).chat_template
    with pytest.raises(ModelError, match=r"own chat template reads reasoning_effort.*--over"):
        set_effort(template, MAP)
    tokenizer.chat_template = set_effort(template, MAP, over=True)
    assert render(tokenizer, reasoning_effort="low") == "low" + render(
        add_ratio_control(make_tokenizer(), settings=TRAINED), compression_ratio=0.5
    )
    fresh = make_tokenizer()
    fresh.chat_template = "{{ reasoning_effort }}" + fresh.chat_template
    with pytest.raises(ModelError, match=r"prompt\.effort: the model's own chat template reads reasoning_effort"):
        Prompts(fresh, PromptConfig(effort=MAP))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lo=.5", "'lo' is no reasoning effort: allowed are none, minimal, low"),
        ("low=2", "low: a ratio is a number above 0 and at most 1"),
        ("low=0", "low: a ratio is a number above 0"),
        ("low=x", "low: a ratio is a number"),
        ("low=", "low: a ratio is a number"),
        ("low", "a map is words and ratios, such as low=.5,medium=.7,high=1; given: 'low'"),
        ("", "a map is words and ratios"),
        ("low=.5,", "a map is words and ratios"),
        ("low=.5,low=.6", "a map is words and ratios"),
        ("low=.9,high=.5", "low=0.9 asks for a longer chain than high=0.5"),
    ],
)
def test_a_map_that_is_none(typed: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        parse_effort(typed)


def test_a_recipe_says_it_and_the_saved_template_carries_it(tmp_path: Path) -> None:
    config = check_config({"prompt": {"effort": {"high": 1, "low": 0.5}}, "prune": {"ratios": [0.5, 1.0]}}, "x").prompt
    assert list(config.effort) == ["low", "high"]
    prompts = Prompts(make_tokenizer(), config)
    prompts.save_tokenizer(tmp_path, (0.5, 1.0))
    assert read_effort((tmp_path / "chat_template.jinja").read_text()) == {"low": 0.5, "high": 1.0}
    assert not read_effort(prompts.tokenizer.chat_template), "ours ask for the very ratio"
    for prompt, said in (
        ({"effort": {"low": 0.55}}, r"prompt\.effort: low=0.55 is not trained: prune\.ratios are 0.5, 1.0"),
        ({"effort": {"lo": 0.5}}, "'lo' is no reasoning effort"),
        ({"effort": {"low": 0.5}, "template_kwargs": {"reasoning_effort": "low"}}, "both say what reasoning_effort is"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_config({"prompt": prompt, "prune": {"ratios": [0.5, 1.0]}}, "x")


def test_every_word_is_kept_in_order() -> None:
    assert list(check_effort(dict.fromkeys(reversed(WORDS), 1.0))) == list(WORDS)
