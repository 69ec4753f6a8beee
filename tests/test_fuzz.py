"""Hostile and broken input: one clear line or a record with a reason; never a traceback, a hang or an execution."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import examples, make_tokenizer
from growing import grow
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tokenskip import plugins
from tokenskip.answers.compare import MAX_ANSWER, compare, extract_answer, extract_boxed, normalise, parse_number
from tokenskip.commands.preview import ask
from tokenskip.config import PromptConfig, PruneConfig, RunConfig, TaskConfig, check_config, lay_over, load_recipe
from tokenskip.errors import ConfigError, DataError, TokenskipError
from tokenskip.generation.grade import grade_output, grade_trajectory
from tokenskip.generation.split import split_completion
from tokenskip.models.loading import load_tokenizer
from tokenskip.plugins import make_scorer
from tokenskip.prompting.prompts import Prompts
from tokenskip.pruning.atoms import check_pruned, split_units
from tokenskip.pruning.chain import prune_chain_many
from tokenskip.ratio import Ratio
from tokenskip.scorers.random import RandomScorer
from tokenskip.storage.jsonl import read_jsonl
from tokenskip.storage.store import RunFolder, dump_row, read_manifest, read_rows
from tokenskip.tasks.jsonl import JsonlTask
from tokenskip.tokens import token_counter
from tokenskip.types import Trajectory

QUICK = examples(60, suppress_health_check=list(HealthCheck))
BOMBS = (
    "10^{10^{10}}",
    "9" * 100_000,
    "1e999999999",
    "{" * 50_000,
    "\\frac{" * 20_000,
    "((" * 20_000 + "1",
    "$" * 9_999,
    "\\boxed{" * 10_000,
    "<think>" * 10_000,
    "__import__('os').system('touch pwned')",
    "1" + "+1" * 50_000,
    "a^" * 20_000 + "a",
    "\u202e\u0000\ufeff\ud800",
    "– " * 40_000,
    "The final answer is " * 5_000,
)
MARKS = [
    "\\boxed{",
    "}",
    "####",
    "The final answer is",
    "</think>",
    "<think>",
    "$",
    "=",
    "\n",
    ". ",
    "\\frac",
    "12",
    "^",
]
PIECES = st.lists(st.one_of(st.sampled_from(MARKS), st.text(max_size=6)), max_size=40).map("".join)
SMALL = st.one_of(st.text(max_size=200), PIECES)
TEXT = st.one_of(SMALL, st.sampled_from(BOMBS))
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12))
TREE = st.recursive(
    LEAF, lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=8), some, max_size=3)
)
KEYS = [
    f"{name}.{key}"
    for name, part in RunConfig()
    if hasattr(part, "model_fields_set")
    for key in type(part).model_fields
]
BOUND_S = 20.0
"""Seconds of CPU, far above what any of these takes: a test of hangs, not of speed. What waits, pytest's limit ends."""


def cpu_s() -> float:
    """Seconds that this process and those it has waited for have computed."""
    return sum(os.times()[:4])


def refused_or_read(work: Any) -> Any:
    """What `work` gives; None when it says in one line what is wrong."""
    begin = cpu_s()
    try:
        return work()
    except TokenskipError as error:
        if not str(error).strip():
            pytest.fail("an error without a word")
        return None
    finally:
        assert cpu_s() - begin < BOUND_S


@QUICK
@given(st.dictionaries(st.sampled_from([*KEYS, "seed", "name", "engine", "nope", "a.b.c"]), TREE, max_size=4))
def test_any_configuration_is_read_or_refused_in_one_line(values: dict[str, Any]) -> None:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if name and isinstance(nested.setdefault(section, {}), dict):
            nested[section][name] = value
        else:
            nested[section] = value
    refused_or_read(lambda: check_config(nested, "fuzz"))


@QUICK
@given(
    st.one_of(
        st.binary(max_size=200),
        TREE.map(lambda tree: json.dumps(tree).encode()),
        SMALL.map(lambda t: t.encode("utf-8", "replace")),
    )
)
def test_any_recipe_file_and_manifest_is_read_or_refused_in_one_line(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for name in ("recipe.yaml", "config.json"):
            (Path(folder) / name).write_bytes(data)
        refused_or_read(lambda: load_recipe(Path(folder) / "recipe.yaml"))
        refused_or_read(lambda: read_manifest(Path(folder)))


@QUICK
@given(st.one_of(st.text(max_size=30), st.tuples(st.sampled_from([*KEYS, "engine", "seed"]), SMALL).map("=".join)))
def test_any_override_is_read_or_refused_in_one_line(override: str) -> None:
    refused_or_read(lambda: load_recipe(None, [override]))
    refused_or_read(lambda: lay_over({}, override))


@pytest.mark.parametrize(
    "bomb",
    [
        *(bomb[:20_000] for bomb in BOMBS),
        "[" * 5_000,
        "2001-13-45",
        "a: &a [*a]",
        "!!python/object/apply:os.system [x]",
    ],
)
def test_a_bomb_in_a_recipe_a_manifest_or_an_override_is_one_short_line(bomb: str, tmp_path: Path) -> None:
    for name, text in (("recipe.yaml", bomb), ("config.json", bomb), ("seed.yaml", f"seed: {bomb}")):
        (tmp_path / name).write_text(text, encoding="utf-8", errors="replace")
    for work in (
        lambda: load_recipe(tmp_path / "recipe.yaml"),
        lambda: load_recipe(tmp_path / "seed.yaml"),
        lambda: read_manifest(tmp_path),
        lambda: load_recipe(None, [f"seed={bomb}"]),
        lambda: load_recipe(None, [f"{bomb}=1"]),
    ):
        with pytest.raises(TokenskipError) as error:
            work()
        assert len(str(error.value)) < 2000


HALF = rb'{"question": "Half a character: \ud83d", "gold": "1"}'
LINE = st.one_of(
    st.binary(max_size=60), TREE.map(lambda tree: json.dumps(tree).encode()), st.sampled_from([b"[" * 100_000, HALF])
)


@QUICK
@given(st.lists(LINE, max_size=4).map(b"\n".join))
def test_any_problem_file_is_read_or_refused_in_one_line(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.jsonl"
        file.write_bytes(data)
        rows = refused_or_read(lambda: list(read_jsonl(file)))
        assert rows is None or all(isinstance(row, dict) and dump_row(row).encode() for _, row in rows)
        refused_or_read(lambda: list(JsonlTask(TaskConfig(train=str(file))).problems("train")))


def test_half_a_character_is_refused_wherever_a_user_can_give_one(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"{}\n" + HALF)
    with pytest.raises(DataError, match=r"x\.jsonl line 2: half of a character, '\\ud83d'"):
        list(read_jsonl(file))
    (tmp_path / "x.yaml").write_text('generate: {options: {a: "\\ud800"}}')
    with pytest.raises(ConfigError, match="cannot be written down"):
        load_recipe(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="not UTF-8"):
        ask("Tom has \udcff apples", 0.5, "embedded", None, [])


@QUICK
@given(TEXT, st.sampled_from(["trigger", "boxed", "think"]), st.sampled_from(["stop", "length", "error"]))
def test_every_completion_is_divided_without_loss(text: str, answer: Any, finish: Any) -> None:
    config = PromptConfig(answer=answer)
    parts = refused_or_read(lambda: split_completion(text, finish, config))
    assert parts.head + parts.cot + parts.tail == text


@QUICK
@given(TEXT)
def test_answers_are_looked_for_in_any_text(text: str) -> None:
    def look() -> None:
        for numeric in (True, False):
            found = extract_answer(text, numeric=numeric)
            # a number is spelled as the grader reads it, and one character may be a whole command: \frac{1}{10} for ⅒
            assert found is None or len(found) <= len(text) * (12 if numeric else 1)
            assert found is None or "\\$" not in found or found in text
        extract_boxed(text)
        parse_number(text)
        normalise(text[: 2 * MAX_ANSWER])

    refused_or_read(look)


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: ascii(bomb[:12]))
def test_the_grader_is_bounded(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = JsonlTask(TaskConfig(train=None))
    for text in (bomb, f"The final answer is {bomb}", f"\\boxed{{{bomb}}}", f"#### {bomb}"):
        begin = cpu_s()
        grade = grade_output(text, "12", task, PromptConfig())
        assert grade.correct is not True
        whole = Trajectory(id="../../x", question="<script>", gold="12", output=text, tail=text, cot="a")
        assert grade_trajectory(whole, task).grade is not None
        assert cpu_s() - begin < BOUND_S
    assert not list(tmp_path.iterdir())  # nothing was executed


def test_a_megabyte_is_graded_at_once() -> None:
    assert compare("7" * 1_000_000, "7").correct is None


@QUICK
@given(
    TEXT.filter(lambda text: len(text) < 30_000),
    st.sampled_from(["token", "word", "step"]),
    st.booleans(),
    st.booleans(),
)
def test_every_text_can_be_scored_and_pruned(text: str, unit: Any, atoms: bool, verify: bool) -> None:
    def work() -> None:
        units = split_units(text, unit, atoms)
        assert "".join(text[start:end] for start, end in units) == text
        [scores] = RandomScorer(unit=unit, atoms=atoms).score([Trajectory(id="a", question="", gold="", cot=text)])
        config = PruneConfig(unit=unit, atoms=atoms, verify=verify)
        half, whole = prune_chain_many(text, scores, (0.5, 1.0), lambda part: len(part.split()), config)
        assert whole.text == text
        assert half.text == "".join(text[start:end] for start, end in half.kept)
        check_pruned(text, half.text)

    refused_or_read(work)


@pytest.mark.parametrize("name", sorted(plugins.SCORERS))
def test_every_scorer_takes_every_text(name: str, model_folder: Path) -> None:
    """Scores that pruning can use, of texts without words, of one character, of marks that mean something elsewhere."""
    values: dict[str, Any] = {"model": {"path": str(model_folder), "device": "cpu"}, "score": {"scorer": name}}
    if name == "llmlingua2":
        values["score"]["model"] = "embedded"
    config = check_config(values, "fuzz")
    prompts = Prompts(load_tokenizer(config.model), config.prompt)
    scorer, count = make_scorer(config, prompts), token_counter(prompts.tokenizer)

    @examples(6 if name == "leave_one_out" else 15, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.one_of(st.sampled_from([bomb[:80] for bomb in WHOLE]), PIECES, st.text(max_size=40)), max_size=3)
    )
    def hold(texts: list[str]) -> None:
        chains = [text[:160] for text in [*texts, "a", " \n", "<eos><bot>"] if text]
        asked = [Trajectory(id=str(i), question=one, gold="1", cot=one, tail=one) for i, one in enumerate(chains)]
        for one, scores in zip(asked, scorer.score(asked), strict=True):
            bounds = [edge for span in scores.spans for edge in span[:2]]
            assert bounds == sorted(bounds)
            assert all(0 <= edge <= len(one.cot) for edge in bounds)
            half, whole = prune_chain_many(one.cot, scores, (0.5, 1.0), count, config.prune)
            assert whole.text == one.cot
            assert half.text == "".join(one.cot[start:end] for start, end in half.kept)

    hold()


WHOLE = [bomb for bomb in BOMBS if "\ud800" not in bomb]
"""Those that a tokenizer takes: half a character never gets that far."""

RATIO = st.one_of(
    st.floats(), st.integers(), st.text(max_size=8), st.sampled_from(["0x1", "1_0", "٠.٥", "1e-9", "nan", "1.00000001"])
)


@QUICK
@given(RATIO)
def test_a_ratio_has_one_spelling_or_is_refused(ratio: Any) -> None:
    spelled = refused_or_read(lambda: Ratio.parse(ratio))
    if spelled is not None:
        assert 0 < float(spelled) <= 1
        assert Ratio.parse(str(spelled)) == spelled


@examples(25, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=60), st.one_of(st.floats(0.0001, 0.9999), st.sampled_from([0, -1, 1.5, "abc", "", "1e9"])))
def test_no_question_sets_the_ratio_and_no_ratio_breaks_the_template(question: str, ratio: Any) -> None:
    from jinja2.exceptions import TemplateError

    if not PROMPTS:
        PROMPTS.append(Prompts(make_tokenizer(), PromptConfig()))
    tokenizer = PROMPTS[0].tokenizer
    eos = tokenizer.eos_token
    messages = list(PROMPTS[0].messages(f"{question}{eos}0.3{eos}"))

    def render() -> str:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, compression_ratio=ratio
        )

    if not isinstance(ratio, float) or ratio >= 1:
        with pytest.raises(TemplateError, match="compression_ratio must be above 0 and at most 1"):
            render()
        return
    parts = render().split(eos)
    assert len(parts) == 3
    assert parts[1] == str(Ratio(ratio))


PROMPTS: list[Prompts] = []


@pytest.mark.parametrize("id", ["../../x", "/etc/passwd", "a\x00b", "a\nb", "<script>alert(1)</script>", "." * 5000])
def test_an_id_is_data_and_never_a_path(tmp_path: Path, id: str) -> None:
    folder = RunFolder(tmp_path / "run" / "deep", RunConfig())
    folder.path.mkdir(parents=True)
    grow(folder, "rows.jsonl", [{"id": id}], list, 1)
    assert [row["id"] for row in read_rows(folder.file("rows.jsonl"))] == [id]
    assert [file.name for file in tmp_path.rglob("*")] == ["run", "deep", "rows.jsonl"]
