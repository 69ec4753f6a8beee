"""What the saved chat template carries: other arguments' defaults, the date of the run, and the trained ratios."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, serving
from conftest import make_tokenizer
from scripted_runs import recipe
from transformers import AutoTokenizer

from tokenskip import pipeline
from tokenskip import run as run_module
from tokenskip.commands.preview import _settings_of
from tokenskip.config import PromptConfig, check_config, load_recipe
from tokenskip.errors import ConfigError, ModelError, RunError
from tokenskip.generation.split import split_completion
from tokenskip.prompting.chat_template import (
    TemplateSettings,
    add_ratio_control,
    is_dated,
    read_settings,
    unread_kwargs,
)
from tokenskip.prompting.prompts import Prompts, example_answer
from tokenskip.run import Run
from tokenskip.storage.store import read_rows

ASK = [{"role": "user", "content": "How many?"}]
DAY = datetime.date(2024, 7, 5)
TURNS = "{%- for m in messages -%}{{ '<' + m['role'] + '>' + m['content'] + '\n' }}{%- endfor -%}"
THINKING = (
    TURNS + "{%- if add_generation_prompt -%}{{ '<bot>' }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}{{ '<think>\n\n</think>\n\n' }}{%- endif -%}"
    "{%- endif -%}"
)
DATED = {
    "llama": "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{{ 'Today Date: ' + date_string + '\n' }}" + TURNS,
    "mistral": '{%- set today = strftime_now("%Y-%m-%d") %}{{ today }}' + TURNS,
    "granite": "{%- macro head(f) -%}{{ strftime_now(f) }}{%- endmacro -%}{{ head('%B %d, %Y') }}" + TURNS,
    "seconds": "{{ strftime_now('%A %H:%M:%S %j') }}" + TURNS,
}
SHOWN = {"llama": "05 Jul 2024", "mistral": "2024-07-05", "granite": "July 05, 2024", "seconds": "Friday 00:00:00 187"}


def render(tokenizer: Any, **options: Any) -> str:
    return str(tokenizer.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False, **options))


def with_template(template: str, settings: TemplateSettings | None = None) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return add_ratio_control(tokenizer, settings=settings)


def model_with(template: str, model_folder: Path, folder: Path) -> Path:
    """A copy of the test model with another chat template."""
    shutil.copytree(model_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


# -- arguments


def test_arguments_are_defaults_that_a_caller_overrides(tmp_path: Path) -> None:
    tokenizer = with_template(THINKING, TemplateSettings(template_kwargs={"enable_thinking": False}))
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for one in (tokenizer, saved):
        assert render(one).endswith("<bot><think>\n\n</think>\n\n")
        assert render(one, enable_thinking=True).endswith("<bot>")
        assert render(one, compression_ratio=0.5) == "<user>How many?<eos>0.5<eos>\n<bot><think>\n\n</think>\n\n"
    assert "enable_thinking" in undeclared(tokenizer.chat_template), "vLLM passes on what a template reads"


def undeclared(template: str) -> set[str]:
    import jinja2
    from jinja2.meta import find_undeclared_variables

    return find_undeclared_variables(jinja2.Environment().parse(template))


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "a'b\"c{{ }} #} é", [1, [None]], {"a": {"b": "#-#}"}}])
def test_any_value_of_json_is_an_argument(value: Any) -> None:
    settings = TemplateSettings(template_kwargs={"given": value})
    tokenizer = with_template(TURNS + "{{ given | tojson }}", settings)
    assert json.loads(render(tokenizer).partition("\n")[2]) == value
    assert read_settings(tokenizer.chat_template) == settings
    again = add_ratio_control(tokenizer, "#").chat_template
    assert read_settings(again) == settings, "kept where the control is replaced"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("compression_ratio", "is set by tokenskip"),
        ("messages", "is set by tokenskip"),
        ("tools", "is set by tokenskip"),
        ("add_generation_prompt", "is set by tokenskip"),
        ("strftime_now", "is set by tokenskip"),
        ("tsk_mark", "is set by tokenskip"),
        ("a-b", "no name of a template argument"),
        ("if", "no name of a template argument"),
    ],
)
def test_an_argument_that_clashes_is_refused(name: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        check_config({"prompt": {"template_kwargs": {name: 1}}}, "mine")


def test_arguments_for_the_server_alone_are_refused() -> None:
    extra = {"extra": {"chat_template_kwargs": {"enable_thinking": False}}}
    with pytest.raises(ConfigError, match=r"give them as prompt\.template_kwargs"):
        check_config({"generate": {"backend": "openai", "options": extra}}, "mine")


def test_a_closed_think_block_has_no_chain_inside() -> None:
    settings = {"template_kwargs": {"enable_thinking": False}}
    tokenizer = make_tokenizer()
    tokenizer.chat_template = THINKING
    with pytest.raises(ModelError, match="closes the think block before the model writes"):
        Prompts(tokenizer, PromptConfig(answer="think", **settings))
    prompts = Prompts(tokenizer, PromptConfig(answer="boxed", **settings))
    split = split_completion("1 + 1 = 2.\nSo \\boxed{2}.", "stop", prompts.config)
    assert (split.head, split.cot, split.tail) == ("", "1 + 1 = 2.", "\nSo \\boxed{2}.")


def test_a_recipes_own_think_tags_are_used_wherever_a_thought_ends() -> None:
    tags = ("[THINK]", "[/THINK]")
    config = PromptConfig(answer="think", think=tags)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = THINKING.replace("<think>", tags[0]).replace("</think>", tags[1])
    prompts = Prompts(tokenizer, config)
    assert prompts.forced_answer() == "\n[/THINK]\n\n"
    split = split_completion("3 + 4 = 7." + example_answer(config, "7"), "stop", config)
    assert (split.cot, split.reason) == ("3 + 4 = 7.", None)
    with pytest.raises(ModelError, match="closes the think block before the model writes"):
        Prompts(tokenizer, config.model_copy(update={"template_kwargs": {"enable_thinking": False}}))


def test_ask_renders_as_an_adapter_without_its_run_was_trained(tmp_path: Path) -> None:
    settings = TemplateSettings(template_kwargs={"enable_thinking": False}, date=DAY)
    with_template(THINKING, settings).save_pretrained(tmp_path)
    found = _settings_of(tmp_path, "embedded", []).prompt
    assert (found.template_kwargs, found.date) == ({"enable_thinking": False}, DAY)
    given = _settings_of(tmp_path, "embedded", ["prompt.template_kwargs={enable_thinking: true}"]).prompt
    assert given.template_kwargs == {"enable_thinking": True}


def test_what_a_template_never_reads() -> None:
    assert unread_kwargs(THINKING, ["enable_thinking", "enable_thinkin", "messages"]) == ["enable_thinkin"]
    assert unread_kwargs(DATED["llama"], ["date_string", "today"]) == ["today"]
    prefixed = with_template(THINKING, TemplateSettings(template_kwargs={"typo": 1})).chat_template
    assert unread_kwargs(prefixed, ["typo"]) == ["typo"], "our own prefix does not count"
    assert unread_kwargs("{% generation %}{{ flag }}{% endgeneration %}", ["flag", "x"]) == ["x"]


def test_the_server_gets_what_is_trained_on(tmp_path: Path, model_folder: Path) -> None:
    """Generate through a server, then the training rows: the same arguments, and the same prompt ids."""
    model = model_with(THINKING, model_folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    with serving(ChatServer(tokenizer, lambda _: "Well, 1 + 1 = 2.\n\nThe final answer is 17.")) as server:
        config = load_recipe(
            recipe(tmp_path, model),
            [
                "prompt.template_kwargs={enable_thinking: false}",
                "generate.backend=openai",
                f"generate.options={{url: '{server.url}', served: {server.model}}}",
                "task.train_limit=3",
            ],
        )
        with Run(tmp_path / "run", config) as job:
            pipeline.generate(job)
            prompts = job.prompts
        bodies = list(server.bodies)
    assert bodies
    for body in bodies:
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
        served = AutoTokenizer.from_pretrained(model).apply_chat_template(
            body["messages"], add_generation_prompt=True, tokenize=False, **body["chat_template_kwargs"]
        )
        assert served == prompts.text(body["messages"])


# -- the date


@pytest.mark.parametrize("name", DATED)
def test_a_pinned_date_is_the_same_every_day(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_dated(DATED[name])
    tokenizer = with_template(DATED[name], TemplateSettings(date=DAY))
    assert SHOWN[name] in render(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    assert render(AutoTokenizer.from_pretrained(tmp_path), compression_ratio=0.5) == render(
        tokenizer, compression_ratio=0.5
    )


def test_a_caller_may_give_another_date_where_the_template_takes_one() -> None:
    tokenizer = with_template(DATED["llama"], TemplateSettings(date=DAY))
    assert "Today Date: 1 Jan 2030" in render(tokenizer, date_string="1 Jan 2030")


def test_a_run_that_is_continued_on_another_day_renders_the_same(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with(DATED["seconds"], model_folder, tmp_path / "model")
    config = load_recipe(recipe(tmp_path, model, train={"trainer": {"max_steps": 1}}))
    monkeypatch.setattr(run_module, "today", lambda: DAY)
    with Run(tmp_path / "run", config) as job:
        first = job.prompts.text(job.prompts.messages("How many?"))
        for stage in ("generate", "grade", "score", "prune"):
            getattr(pipeline, stage)(job)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["prompt"]["date"] == "2024-07-05"
    monkeypatch.setattr(run_module, "today", lambda: DAY + datetime.timedelta(days=9))
    with Run(tmp_path / "run", config) as job:  # the recipe names no date: the folder's holds
        assert job.prompts.text(job.prompts.messages("How many?")) == first
        pipeline.train(job)
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    row = next(iter(read_rows(tmp_path / "run" / "train.jsonl")))
    served = saved.apply_chat_template(
        row["prompt"], add_generation_prompt=True, tokenize=False, **row["chat_template_kwargs"]
    )
    assert served.startswith(SHOWN["seconds"])
    with Run(tmp_path / "other", config) as job:
        assert job.prompts.text(job.prompts.messages("How many?")) != first, "a new run begins on its own day"
    with (
        pytest.raises(RunError, match=r"prompt\.date"),
        Run(tmp_path / "run", load_recipe(tmp_path / "recipe.yaml", ["prompt.date=2025-01-01"])),
    ):
        pass


def test_a_template_without_a_date_pins_none(tmp_path: Path, model_folder: Path) -> None:
    with Run(tmp_path / "run", load_recipe(recipe(tmp_path, model_folder))) as job:
        assert job.config.prompt.date is None


# -- the trained ratios


@pytest.mark.parametrize(
    ("asked", "prompted"),
    [(0.1, 0.6), (0.5, 0.6), (0.6, 0.6), (0.7, 0.6), (0.71, 0.8), (0.9, 0.8), (0.91, 1.0), (1.0, 1.0), ("0.65", 0.6)],
)
def test_a_saved_template_keeps_to_the_trained_ratios(asked: Any, prompted: float) -> None:
    settings = TemplateSettings(ratios=(0.8, 0.6, 1.0))
    tokenizer = with_template(TURNS, settings)
    marker = "" if prompted == 1 else f"<eos>{prompted}<eos>"
    assert render(tokenizer, compression_ratio=asked) == f"<user>How many?{marker}\n"
    assert settings.nearest(float(asked)) == prompted
    exact = "" if float(asked) == 1 else f"<eos>{asked}<eos>"
    assert render(tokenizer, compression_ratio=asked, compression_ratio_unmapped=True) == f"<user>How many?{exact}\n"


def test_the_strict_form_refuses() -> None:
    tokenizer = with_template(TURNS, TemplateSettings(ratios=(0.6, 0.8, 1.0), strict=True))
    with pytest.raises(Exception, match=r"compression_ratio 0\.5 was not trained: ask for one of 0\.6, 0\.8, 1\.0"):
        render(tokenizer, compression_ratio=0.5)
    assert "<eos>0.8<eos>" in render(tokenizer, compression_ratio="0.80")
    assert render(tokenizer, compression_ratio=1.0) == "<user>How many?\n"


@pytest.mark.parametrize(
    ("untrained", "expected"), [("nearest", "<eos>0.5<eos>"), ("pass", "<eos>0.45<eos>"), ("refuse", None)]
)
def test_training_saves_the_template_as_the_recipe_says(untrained: Any, expected: str | None, tmp_path: Path) -> None:
    prompts = Prompts(make_tokenizer(), PromptConfig(untrained=untrained))
    assert "<eos>0.45<eos>" in prompts.text(prompts.messages("How many?"), 0.45), "ours ask for the very ratio"
    prompts.save_tokenizer(tmp_path, (0.5, 0.7, 1.0))
    assert "<eos>0.45<eos>" in prompts.text(prompts.messages("How many?"), 0.45)
    served = prompts.served_by(tmp_path)
    if expected is None:
        with pytest.raises(ModelError, match="was not trained"):
            served.text(ASK, 0.45)
    else:
        assert expected in served.text(ASK, 0.45)
        assert served.prompted(0.45) == float(expected.removeprefix("<eos>").removesuffix("<eos>"))


def test_a_model_that_was_trained_before_does_not_bend_the_next_training(tmp_path: Path) -> None:
    Prompts(make_tokenizer(), PromptConfig()).save_tokenizer(tmp_path, (0.5, 1.0))
    prompts = Prompts(AutoTokenizer.from_pretrained(tmp_path), PromptConfig())
    assert "<eos>0.8<eos>" in prompts.text(prompts.messages("How many?"), 0.8)
