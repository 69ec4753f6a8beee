"""Calibration: the map against scipy, in Python and the template, and a model with a bent ratio control put right."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import examples, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from scripted_runs import recipe

from tokenskip import cli, pipeline
from tokenskip.config import load_recipe
from tokenskip.errors import ConfigError, StageError
from tokenskip.evaluation.budgets import token_budget
from tokenskip.evaluation.calibrate import asked_ratios, calibrate, default_grid, development_problems
from tokenskip.prompting.prompts import add_ratio_control, set_ratio_map
from tokenskip.ratio import RatioMap, fit, read, understood

ASK = [{"role": "user", "content": "How many?"}]


def test_a_map_by_hand() -> None:
    found = fit([(0.4, 0.56), (0.5, 0.625), (0.7, 0.6), (0.6, 0.65), (0.9, 0.885), (1.0, 1.0)])
    # .5, .6, .7 achieve .625, .65, .6: pooled to .625, from .5 to .7, so .6 stands for them
    assert found == RatioMap(((0.56, 0.4), (0.625, 0.6), (0.885, 0.9)))
    assert [found.prompted(ratio) for ratio in (0.56, 0.625, 0.755, 0.885, 1)] == [0.4, 0.6, 0.75, 0.9, 1]
    assert not found.reaches(0.5)
    with pytest.raises(ConfigError, match=r"ratio 0\.5 is outside of what calibration reached \(0\.56 to 0\.885\)"):
        found.prompted(0.5)
    clamped = RatioMap(found.knots, clamp=True)
    assert [clamped.prompted(ratio) for ratio in (0.1, 0.95)] == [0.4, 0.9]


def test_a_ratio_that_was_just_missed_is_reached() -> None:
    found = RatioMap(((0.51, 0.5), (0.89, 0.9)))
    assert [found.prompted(ratio) for ratio in (0.5, 0.49, 0.9)] == [0.5, 0.5, 0.9]
    assert not found.reaches(0.47)


def test_a_model_that_reads_trained_ratios_only_is_prompted_with_no_other() -> None:
    trained = (0.5, 0.6, 0.7, 1.0)
    # as measured on the embedded model: whatever ends in 5 is .5 to it, and what lies below is long
    measured = [(0.3, 0.78), (0.4, 0.74), (0.5, 0.505), (0.55, 0.511), (0.6, 0.612), (0.65, 0.508), (0.7, 0.703)]
    usable = understood(measured, trained)
    assert [prompted for prompted, _ in usable] == [0.5, 0.6, 0.7]
    found = fit([point for point in usable if point[0] in trained], steps=True)
    assert found == RatioMap(((0.505, 0.5), (0.612, 0.6), (0.703, 0.7)), steps=True)
    assert [found.prompted(ratio) for ratio in (0.5, 0.55, 0.56, 0.65, 0.66, 0.7)] == [0.5, 0.5, 0.6, 0.6, 0.7, 0.7]
    assert understood(points := [(0.4, 0.43), (0.5, 0.5), (0.55, 0.56), (0.6, 0.6)], trained) == points


def test_a_budget_is_what_all_but_the_longest_need() -> None:
    rows = [{"finish": "stop", "n_cot_tokens": n, "n_tokens": n + 10} for n in range(1, 201)]
    loops = [{"finish": "length", "n_cot_tokens": 512, "n_tokens": 512}] * 50
    assert token_budget([*rows, *loops]) == {"chain": 198, "answer": 209}, "two of 200 are longer, and one token to end"
    assert token_budget(rows[:1]) == {"chain": 1, "answer": 12}
    assert token_budget(loops) is None


def test_a_ratio_that_changes_nothing_has_no_map() -> None:
    assert fit([(0.5, 0.8), (0.7, 0.8), (0.9, 0.8)]) is None
    assert fit([(0.5, 0.9), (0.7, 0.8), (0.9, 0.7)]) is None, "backwards: all pooled"


def render(tokenizer: Any, ratio: Any) -> str:
    return str(tokenizer.apply_chat_template(ASK, add_generation_prompt=True, tokenize=False, compression_ratio=ratio))


@given(
    knots=st.lists(st.tuples(st.integers(5, 99), st.integers(5, 99)), min_size=2, max_size=6),
    ratio=st.integers(1, 99),
    clamp=st.booleans(),
    steps=st.booleans(),
)
@examples(60)
def test_the_template_asks_as_python_does(knots: list[tuple[int, int]], ratio: int, clamp: bool, steps: bool) -> None:
    asked, prompted = (sorted({knot[i] / 100 for knot in knots}) for i in (0, 1))
    if min(len(asked), len(prompted)) < 2:
        return
    found = RatioMap(tuple(zip(asked, prompted, strict=False)), clamp, steps)
    tokenizer = add_ratio_control(_once.setdefault("tokenizer", make_tokenizer()))
    tokenizer.chat_template = set_ratio_map(tokenizer.chat_template, found)
    if clamp or found.reaches(ratio / 100):
        assert f"<eos>{found.prompted(ratio / 100)}<eos>" in render(tokenizer, ratio / 100)
    else:
        with pytest.raises(Exception, match="is outside of what calibration reached"):
            render(tokenizer, ratio / 100)


_once: dict[str, Any] = {}


def test_a_map_can_be_read_replaced_and_taken_out(tokenizer: Any) -> None:
    before = add_ratio_control(tokenizer).chat_template
    one, other = RatioMap(((0.5, 0.4), (0.9, 0.8))), RatioMap(((0.3, 0.2), (0.6, 0.5)), clamp=True, steps=True)
    mapped = set_ratio_map(before, one)
    assert read(mapped) == one
    assert read(before) is None
    assert set_ratio_map(mapped, other) == set_ratio_map(before, other)
    assert set_ratio_map(mapped, None) == before
    tokenizer.chat_template = mapped
    assert read(add_ratio_control(tokenizer, "#").chat_template) == one, "kept where the control is replaced"
    assert "#0.6#" in render(tokenizer, 0.7)
    assert render(tokenizer, 1) == "<user>How many?\n<bot>"


def test_what_is_measured_and_what_is_asked() -> None:
    assert default_grid([0.5, 0.6, 1.0]) == [0.3, 0.4, 0.5, 0.55, 0.6, 0.8]
    assert asked_ratios([0.5, 1.0]) == [0.4, 0.5, 0.55, 0.65]


def bent(folder: Path, model_folder: Path, **options: Any) -> Path:
    return recipe(
        folder,
        model_folder,
        generate={"backend": "bent_ratio:BentRatio", "options": options, "max_new_tokens": 300},
        task={"train_limit": 4},
        evaluate={"arms": ["original", "tokenskip", "tokenskip_calibrated"], "ratios": [0.6, 1.0]},
    )


def adapter(path: Path, model_folder: Path) -> Path:
    """What `calibrate` reads of an adapter: weights and a template with ratio control."""
    from transformers import AutoTokenizer

    folder = path / "adapter"
    tokenizer = add_ratio_control(AutoTokenizer.from_pretrained(model_folder))
    tokenizer.save_pretrained(folder)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def test_calibration_puts_a_bent_ratio_right(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_recipe(bent(tmp_path, model_folder))
    path = tmp_path / "run"
    with pipeline.Run(path, config) as run, pytest.raises(StageError, match="has no adapter: train first"):
        calibrate(run, n=20)
    template = adapter(path, model_folder) / "chat_template.jinja"
    plain = template.read_text()
    with pipeline.Run(path, config) as run, pytest.raises(StageError, match=r"no calibration\.json yet: run `toke"):
        pipeline.evaluate(run)
    monkeypatch.setattr(sys, "argv", ["tokenskip", "calibrate", str(path), "-n", "20"])
    cli.main()
    shown = capsys.readouterr().out
    assert "problems: training problems that the run leaves out" in shown
    assert "not reached, are refused: 0.4" in shown
    found = json.loads((path / "calibration.json").read_text())
    checked = {row["asked"]: row for row in found["checks"]}
    assert checked[0.55]["before"] == pytest.approx(0.3 + 0.65 * 0.55, abs=0.02)
    assert checked[0.55]["prompted"] == pytest.approx(0.25 / 0.65, abs=0.03)
    assert found["error_before"] == pytest.approx((0.125 + 0.1075 + 0.0725 + 0.02) / 4, abs=0.01)  # .5 .55 .65 .8
    assert found["error_after"] < 0.02
    assert list(found["budgets"]) == ["0.5", "0.55", "0.65", "0.8", "1.0"]
    n_answer = found["budgets"]["1.0"]["answer"] - found["budgets"]["1.0"]["chain"]
    assert 0 < n_answer < 40, "the answer, and its end"
    for ratio, budget in found["budgets"].items():
        assert budget["chain"] == pytest.approx(float(ratio) * found["budgets"]["1.0"]["chain"], abs=3)
    assert "tokens that 99% of the answers need, for a server's limit: 0.5: " in shown
    assert set_ratio_map(template.read_text(), None) == plain
    files = {file.name: file.read_bytes() for file in (path / "calibration").iterdir()}
    cli.main()  # again: nothing is measured twice, the same map
    assert {file.name: file.read_bytes() for file in (path / "calibration").iterdir()} == files
    assert json.loads((path / "calibration.json").read_text()) == found

    with pipeline.Run(path, config) as run:
        pipeline.evaluate(run)
    lengths = {
        name: sum(json.loads(line)["n_cot_tokens"] for line in (path / "eval" / f"{name}.jsonl").open())
        for name in ("original", "tokenskip-0.6", "tokenskip_calibrated-0.6")
    }
    assert lengths["tokenskip-0.6"] / lengths["original"] > 0.67
    assert lengths["tokenskip_calibrated-0.6"] / lengths["original"] == pytest.approx(0.6, abs=0.02)
    out = load_recipe(tmp_path / "recipe.yaml", ["evaluate.ratios=[0.3]"])
    with pipeline.Run(path, out) as run, pytest.raises(ConfigError, match=r"ratio 0\.3 is outside"):
        pipeline.evaluate(run)
    (path / "adapter" / "adapter_model.safetensors").write_bytes(b"other")
    with pipeline.Run(path, config) as run, pytest.raises(StageError, match="was measured with another adapter"):
        calibrate(run, n=20)


def test_untrained_ratios_that_are_misread_are_not_prompted(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    adapter(path, model_folder)
    trained = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    recipe = load_recipe(bent(tmp_path, model_folder, last_digit=True), [f"prune.ratios={trained}"])
    with pipeline.Run(path, recipe):
        pass  # writes the run's configuration
    monkeypatch.setattr(sys, "argv", ["tokenskip", "calibrate", str(path), "-n", "20"])
    cli.main()
    found = json.loads((path / "calibration.json").read_text())
    assert found["steps"]
    read = {0.3, 0.4, *trained}  # it takes .3 and .4 for what they are
    assert {prompted for _, prompted in found["knots"]} == read - {1.0}
    assert {row["prompted"] for row in found["checks"]} <= read
    assert found["error_after"] < found["error_before"]
    shown = capsys.readouterr().out
    assert "read as something else: 0.55, 0.65, 0.75, 0.85, 0.95; the map prompts with none between" in shown


def test_an_adapter_that_ignores_the_ratio_cannot_be_calibrated(tmp_path: Path, model_folder: Path) -> None:
    config = load_recipe(bent(tmp_path, model_folder, ignores_ratio=True))
    adapter(tmp_path / "run", model_folder)
    with (
        pipeline.Run(tmp_path / "run", config) as run,
        pytest.raises(StageError, match=r"the ratio does not move the length of .*0\.5: 1\.00.*nothing to calibrate"),
    ):
        calibrate(run, n=20)


def test_development_problems_are_nobody_elses(tmp_path: Path, model_folder: Path) -> None:
    with pipeline.Run(tmp_path / "a", load_recipe(bent(tmp_path, model_folder))) as run:
        trained = {one.id for one in run.problems("train")}
        problems, source = development_problems(run, 10)
        assert len(problems) == 10
        assert not trained & {one.id for one in problems}
        assert source == "training problems that the run leaves out"
    seen = load_recipe(tmp_path / "recipe.yaml", ["task.train_limit=null"])
    with pipeline.Run(tmp_path / "b", seen) as run:
        assert development_problems(run, 10)[1] == "the last training problems, which the adapter has seen"
    embedded = load_recipe(None)
    with pipeline.Run(tmp_path / "c", embedded) as run:
        problems, source = development_problems(run, 30)
        assert source == "the task's development split"
        assert not {one.question for one in problems} & {one.question for one in run.problems("test")}
