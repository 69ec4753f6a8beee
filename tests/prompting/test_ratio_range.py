"""Ratios from a range: how a recipe names them, which a chain is cut to, and how prompts and servers spell them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tokenizer
from scripted_runs import recipe

from tokenskip import pipeline
from tokenskip.config import RunConfig, check_config, load_recipe
from tokenskip.errors import ConfigError, ModelError
from tokenskip.prompting.chat_template import TemplateSettings, add_ratio_control, mark_question, read_settings
from tokenskip.prompting.prompts import Prompts
from tokenskip.pruning.corpus import draw_ratios
from tokenskip.ratio import Ratio, RatioRange, covers, spaced, spell
from tokenskip.run import Run
from tokenskip.storage.store import TRAIN, read_rows

RANGE = {"from": 0.3, "to": 1.0}
ASK = [{"role": "user", "content": "How many?"}]


def prompt(tokenizer: Any, ratio: Any) -> str:
    return str(tokenizer.apply_chat_template(ASK, tokenize=False, compression_ratio=ratio))


def test_a_range_is_its_hundredths() -> None:
    ratios = RatioRange(0.3, 1.0, without=(0.33, 0.97))
    assert (len(ratios), ratios[0], ratios[-1]) == (69, 0.3, 1.0)
    assert 0.33 not in ratios
    assert all(type(ratio) is Ratio and len(str(ratio)) <= 4 for ratio in ratios)
    assert RatioRange.read(ratios.dump()).dump() == ratios.dump()
    assert (spell(ratios), spell((1.0, 0.5))) == ("0.3 to 1.0", "0.5, 1.0")
    assert spaced(ratios) == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert spaced(RatioRange(0.35, 0.9)) == (0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert [covers(ratios, ratio) for ratio in (0.29, 0.3, 0.333, 0.97, 1.0)] == [False, True, True, True, True]


def test_a_recipe_with_a_range_writes_two_decimals_and_reads_back() -> None:
    config = check_config({"prune": {"ratios": RANGE, "per_trajectory": 6}}, "x")
    assert isinstance(config.prune.ratios, RatioRange)
    assert (config.prompt.spelling, config.prune.rows_per_chain) == ("decimals", 6)
    stored = config.model_dump(mode="json")
    assert stored["prune"]["ratios"] == RANGE
    assert check_config(stored, "x") == config
    assert config.model_copy() == RunConfig.model_validate(config.model_dump())
    assert check_config({}, "x").prompt.spelling == "short", "the paper's form"
    scale = {"prune": {"ratios": RANGE}, "prompt": {"spelling": "scale"}}
    assert check_config(scale, "x").prompt.spelling == "scale"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("prune.ratios={from: 0.3}", "a range is {from: 0.3, to: 1.0}"),
        ("prune.ratios={from: 0.3, to: 1.0, step: 2}", "a range is {from: 0.3, to: 1.0}"),
        ("prune.ratios={from: 0.9, to: 0.4}", "from a lower to a higher ratio of two decimals; given: from 0.9 to 0.4"),
        ("prune.ratios={from: 0, to: 1.0}", "a ratio is a number above 0 and at most 1"),
        ("prune.ratios={from: 0.333, to: 1.0}", "of two decimals"),
        ("prune.ratios={from: low, to: 1.0}", "a ratio is a number above 0"),
        ("prune.per_trajectory=0", "one, all, or how many ratios a chain is cut to"),
        ("prune.per_trajectory=some", "one, all, or how many ratios a chain is cut to"),
    ],
)
def test_a_range_that_is_none_is_one_line(setting: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(None, [setting])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_all_of_a_range_are_too_many() -> None:
    with pytest.raises(ConfigError, match="all needs a list of ratios; of a range, say how many to draw"):
        load_recipe(None, ["prune.ratios={from: 0.3, to: 1.0}", "prune.per_trajectory=all"])


def test_draws_span_the_range_and_hold_the_whole_chain() -> None:
    ratios = RatioRange(0.3, 1.0)
    draws = [draw_ratios(f"train-{index}", ratios, 3, 6) for index in range(2000)]
    assert draws == [draw_ratios(f"train-{index}", ratios, 3, 6) for index in range(2000)]
    assert draws != [draw_ratios(f"train-{index}", ratios, 4, 6) for index in range(2000)]
    for drawn in draws:
        assert len(drawn) == 6
        assert drawn[-1] == 1.0
        assert all(first < second for first, second in pairwise(drawn))
        assert [min(4, int((ratio - 0.3) / 0.14 + 1e-9)) for ratio in drawn[:-1]] == [0, 1, 2, 3, 4]
    counts = [sum(ratio in drawn for drawn in draws) for ratio in ratios[:-1]]
    assert min(counts) > 2000 / 14 / 2, "every ratio is drawn about equally often"
    assert draw_ratios("a", (0.5, 1.0, 0.8), 0, 3) == (0.5, 0.8, 1.0)
    assert draw_ratios("a", (0.5, 1.0, 0.8), 0, 1) == (1.0,)


@pytest.mark.parametrize(
    ("asked", "prompted"),
    [(0.1, "0.30"), (0.3, "0.30"), ("0.5", "0.50"), (0.55, "0.55"), (0.333, "0.33"), (0.999, ""), (1, "")],
)
def test_a_saved_template_keeps_inside_the_range(asked: Any, prompted: str) -> None:
    settings = TemplateSettings(ratios=RatioRange(0.3, 1.0), spelling="decimals")
    tokenizer = add_ratio_control(make_tokenizer(), settings=settings)
    assert read_settings(tokenizer.chat_template) == settings
    shown = prompt(tokenizer, asked)
    assert (f"How many?<eos>{prompted}<eos>" in shown) if prompted else ("<eos>" not in shown)
    assert settings.nearest(float(asked)) == (float(prompted) if prompted else 1.0)


@pytest.mark.parametrize("asked", [step / 100 for step in range(1, 100)] + [0.29 + 0.29, 0.666, "0.5"])
def test_a_scale_is_ten_digits_with_the_ratio_as_their_mean(asked: Any) -> None:
    tokenizer = add_ratio_control(make_tokenizer(), settings=TemplateSettings(spelling="scale"))
    assert read_settings(tokenizer.chat_template).spelling == "scale"
    written = prompt(tokenizer, asked).partition("How many?<eos>")[2].partition("<eos>")[0]
    assert mark_question("How many?", float(asked), "<eos>", "scale") == f"How many?<eos>{written}<eos>"
    tenths = [10 if digit == "X" else int(digit) for digit in written]
    assert len(tenths) == 10
    assert max(tenths) - min(tenths) <= 1
    assert sum(tenths) == round(float(asked) * 100)


def test_the_whole_chain_has_no_scale() -> None:
    tokenizer = add_ratio_control(make_tokenizer(), settings=TemplateSettings(spelling="scale"))
    assert "<eos>" not in prompt(tokenizer, 1.0)


def test_a_spelling_that_nobody_knows_is_damage() -> None:
    tokenizer = add_ratio_control(make_tokenizer(), settings=TemplateSettings(spelling="scale"))
    with pytest.raises(ModelError, match="damaged"):
        read_settings(tokenizer.chat_template.replace('"scale"', '"runes"'))


def test_the_strict_form_refuses_what_is_outside() -> None:
    settings = TemplateSettings(ratios=RatioRange(0.4, 0.9), strict=True, spelling="decimals")
    tokenizer = add_ratio_control(make_tokenizer(), settings=settings)
    assert "<eos>0.55<eos>" in prompt(tokenizer, 0.55)
    for ratio in (0.39, 0.95):
        with pytest.raises(Exception, match=r"was not trained: ask for one of 0\.4 to 0\.9"):
            prompt(tokenizer, ratio)


def test_training_rows_and_servers_spell_a_ratio_alike(tmp_path: Path, model_folder: Path) -> None:
    path = recipe(tmp_path, model_folder, prune={"ratios": RANGE, "per_trajectory": 3})
    with Run(tmp_path / "run", load_recipe(path)) as run:
        for stage in (pipeline.generate, pipeline.grade, pipeline.score, pipeline.prune):
            stage(run)
        rows = list(read_rows(tmp_path / "run" / TRAIN))
        assert {row["ratio"] for row in rows} - {0.5, 0.8, 1.0}, "not the tenths only"
        texts = [run.prompts.text(row["prompt"], row["ratio"]) for row in rows]
        for row, text in zip(rows, texts, strict=True):
            marked = mark_question(row["prompt"][-1]["content"], row["ratio"], "<eos>", "decimals")
            assert marked in text
            assert (f"<eos>{row['ratio']:.2f}<eos>" in text) == (row["ratio"] < 1)
        run.prompts.save_tokenizer(tmp_path / "saved", run.config.prune.ratios)
        served = run.prompts.served_by(tmp_path / "saved")
        assert [served.text(row["prompt"], row["ratio"]) for row in rows] == texts
        assert "0.3 to 1.0" in served.trained()


def test_a_model_that_was_trained_on_a_range_can_be_trained_on_a_list(tmp_path: Path) -> None:
    ranged = check_config({"prune": {"ratios": RANGE}}, "x")
    Prompts(make_tokenizer(), ranged.prompt).save_tokenizer(tmp_path, ranged.prune.ratios)
    from transformers import AutoTokenizer

    prompts = Prompts(AutoTokenizer.from_pretrained(tmp_path), RunConfig().prompt)
    assert "<eos>0.5<eos>" in prompts.text(ASK, 0.5)
