"""The stage candidates: the paper's bytes without other sources, what is chosen with them, and kills in between."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import recipe
from test_pipeline import Kill, Killing

from tokenskip import pipeline
from tokenskip.candidates.choose import Tally, ranked
from tokenskip.candidates.pool import Candidate, Question, questions
from tokenskip.config import RunConfig, check_config, load_recipe
from tokenskip.errors import ConfigError, RunError, StageError
from tokenskip.pruning.equations import check_written
from tokenskip.storage import layout
from tokenskip.storage.store import read_rows
from tokenskip.types import Trajectory

SOURCES = {"prune": {}, "prompt": {"instructions": ["be_concise", "lc"]}, "skip_steps": {}}
BEFORE = ("generate", "grade", "score", "prune")
PAPER = {"ratios": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], "per_trajectory": "one", "cut": "chain"}
BYTES = {
    "completions": "b3080fc85e4f8be4",
    "trajectories": "5210345fea9edf53",
    "scores": "30ea9feda59571da",
    "pruned": "ef5a4c34d429599d",
    "train": "8cce3e71ae8db8ad",
}
"""Digests of the files of a run under the paper's settings, as they were before there were other sources."""


def stages(path: Path, recipe_file: Path, *names: str, settings: tuple[str, ...] = (), progress: Any = None) -> None:
    with pipeline.Run(path, load_recipe(recipe_file, settings), progress) as run:
        for name in names:
            pipeline.STAGES[name](run)


def test_with_pruning_alone_every_byte_is_the_papers(tmp_path: Path, model_folder: Path) -> None:
    recipe_file = recipe(tmp_path, model_folder, score={"scorer": "random"}, prune=PAPER)
    stages(tmp_path / "run", recipe_file, *BEFORE, "candidates")
    digests = {
        name: hashlib.sha256((tmp_path / "run" / f"{name}.jsonl").read_bytes()).hexdigest()[:16] for name in BYTES
    }
    assert digests == BYTES
    assert not (tmp_path / "run" / "candidates.json").exists()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[Path, Path]:
    """(recipe, run folder) of a run whose candidates come from three sources."""
    folder = tmp_path_factory.mktemp("pool")
    recipe_file = recipe(folder, model_folder, candidates={"sources": SOURCES, "tolerance": 0.1})
    stages(folder / "run", recipe_file, *BEFORE, "candidates")
    return recipe_file, folder / "run"


def test_what_is_trained_on_is_right_and_near_its_ratio(pool: tuple[Path, Path]) -> None:
    _, path = pool
    wholes = {row["id"]: row for row in read_rows(path / "completions.jsonl")}
    graded = {row["id"]: row["dropped"] for row in read_rows(path / "trajectories.jsonl")}
    rows = list(read_rows(path / "train.jsonl"))
    for row in rows:
        whole = wholes[row["id"]]
        text = row["completion"][0]["content"]
        if row["ratio"] == 1:
            assert text == whole["output"]
            assert "source" not in row
        else:
            assert row["source"] in SOURCES
            assert abs(row["n_cot_tokens"] / whole["n_cot_tokens"] - row["ratio"]) <= 0.1
            assert text.endswith(f"The final answer is {whole['gold']}.")
        assert graded[row["id"]] is None
    info = json.loads((path / "candidates.json").read_text())
    n_below = sum(1 for row in rows if row["ratio"] < 1)
    assert sum(sum(source["won"].values()) for source in info["sources"].values()) == n_below
    assert info["rows"] == {ratio: sum(str(row["ratio"]) == ratio for row in rows) for ratio in info["rows"]}
    assert all(n + info["rows"][ratio] == 21 for ratio, n in info["missing"].items()), "24 questions, three cut off"
    assert info["sources"]["prompt"]["candidates"] == 21 * 3, "one of be_concise, one of lc at each ratio below 1"
    assert info["sources"]["prompt"]["right"] < 21 * 3, "what is wrong is kept as a record"


def test_each_candidate_is_as_likely_as_its_own_text(pool: tuple[Path, Path]) -> None:
    recipe_file, path = pool
    with pipeline.Run(path, load_recipe(recipe_file)) as run:
        found = list(questions(run.folder, [(source, run.folder) for source in SOURCES], logprobs=True))
    assert len(found) == 24
    values: dict[tuple[str, str], set[float | None]] = {}
    for question in found:
        for candidate in question.candidates:
            assert (candidate.logprob is None) == bool(candidate.text.dropped)
            values.setdefault((candidate.text.id, candidate.text.output), set()).add(candidate.logprob)
    assert max(map(len, values.values())) == 1, "the same text has the same log-probability, whatever its source"
    assert all(value is None or value < 0 for some in values.values() for value in some)


@pytest.mark.parametrize("stop", range(1, 20, 4))
def test_a_killed_collection_goes_on_to_the_same_bytes(pool: tuple[Path, Path], tmp_path: Path, stop: int) -> None:
    recipe_file, path = pool
    for name in ("completions", "trajectories", "scores", "pruned"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    with pytest.raises(Kill):
        stages(tmp_path, recipe_file, "candidates", progress=Killing(stop))
    for file in (tmp_path / "candidates").glob("*.jsonl"):
        if len(file.read_bytes()) < len((path / "candidates" / file.name).read_bytes()):
            file.write_bytes(file.read_bytes()[:-30])
    stages(tmp_path, recipe_file, "candidates")
    stages(tmp_path, recipe_file, "candidates")  # the second time there is nothing to do
    names = [f"candidates/{file.name}" for file in sorted((path / "candidates").iterdir())]
    assert len(names) == 5, "pruned.jsonl has the candidates of prune"
    for name in (*names, "train.jsonl", "candidates.json"):
        assert (tmp_path / name).read_bytes() == (path / name).read_bytes(), name


def test_the_report_shows_what_won_and_the_chains(pool: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = pool
    shutil.copytree(path, tmp_path / "run")
    settings = ("evaluate.arms=[original]", "evaluate.latency_samples=0")
    stages(tmp_path / "run", recipe_file, "evaluate", "report", settings=settings)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    info = json.loads((path / "candidates.json").read_text())
    assert {source["source"]: source["won"] for source in results["pool"]["sources"]} == {
        name: counts["won"] for name, counts in info["sources"].items()
    }
    assert len(results["chosen"][0]["chains"]) == 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Where the short chains came from" in page
    assert "skip_steps" in page


def question(*candidates: tuple[str, int, float], dropped: str | None = None) -> Question:
    whole = Trajectory(id="q", question="?", gold="1", output="whole", n_cot_tokens=100)
    made = [
        Candidate(source, Trajectory(id="q", question="?", gold="1", output=f"{source}{n}", n_cot_tokens=n), logprob)
        for source, n, logprob in candidates
    ]
    return Question([whole], made)


@pytest.mark.parametrize(
    ("prefer", "order"),
    [
        ("likely", ["sample52", "prune50", "sample46"]),
        ("nearest", ["prune50", "sample52", "sample46"]),
        ("shortest", ["sample46", "prune50", "sample52"]),
        ("listed", ["prune50", "sample52", "sample46"]),
    ],
)
def test_the_rule_decides_who_is_first(prefer: str, order: list[str]) -> None:
    settings = {"candidates": {"sources": ["prune", "sample"], "prefer": prefer}}
    config = check_config(settings, "test")
    pool = question(("sample", 46, -3.0), ("prune", 50, -2.0), ("sample", 52, -1.0), ("sample", 56, -0.1))
    assert [candidate.text.output for candidate in ranked(pool, 0.5, config)] == order


def test_equal_texts_count_once_and_dropped_ones_never() -> None:
    config = check_config({"candidates": {"sources": ["prune", "sample"]}}, "test")
    pool = question(("prune", 50, -2.0), ("prune", 50, -2.0))
    assert len(ranked(pool, 0.5, config)) == 1
    pool.candidates[0].text.drop("incorrect")
    dropped = Question(pool.chains, [Candidate("prune", one.text.drop("incorrect"), None) for one in pool.candidates])
    assert ranked(dropped, 0.5, config) == []


def test_the_length_is_the_mean_of_the_finished_chains() -> None:
    chains = [Trajectory(id="q", question="?", gold="1", n_cot_tokens=n) for n in (100, 200)]
    cut = Trajectory(id="q", question="?", gold="1", n_cot_tokens=900, finish="length")
    assert Question([*chains, cut], []).n_cot_tokens == 150
    assert Question([cut], []).n_cot_tokens == 0


def test_a_source_without_candidates_is_named_and_the_others_go_on(
    pool: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    recipe_file, path = pool
    for name in ("completions", "trajectories", "scores", "pruned"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    silent = "candidates.sources={prune: {}, 'test_candidates:Silent': {}}"
    stages(tmp_path, recipe_file, "candidates", settings=(silent, "candidates.prefer=nearest"))
    info = json.loads((tmp_path / "candidates.json").read_text())
    assert info["sources"]["test_candidates:Silent"]["candidates"] == 0
    assert sum(info["sources"]["prune"]["won"].values()) > 0
    settings = (silent, "candidates.prefer=nearest", "evaluate.arms=[original]", "evaluate.latency_samples=0")
    stages(tmp_path, recipe_file, "evaluate", "report", settings=settings)
    warnings = json.loads((tmp_path / "results.json").read_text())["warnings"]
    assert any(
        "source test_candidates:Silent has no candidate near any ratio (0 right of 0)" in one for one in warnings
    )


class Silent:
    """A source that has nothing."""

    name = "silent"

    def candidates(self, chains: Any) -> list[list[Any]]:
        return [[] for _ in chains]


class Broken:
    """A source with a bug that shows at one chain."""

    name = "broken"

    def candidates(self, chains: Any) -> list[list[Any]]:
        if any(chain.id == "p3" for chain in chains):
            raise RuntimeError("no third")
        return [[] for _ in chains]


def test_nothing_near_any_ratio_is_one_line(pool: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = pool
    for name in ("completions", "trajectories"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    settings = ("candidates.sources=[skip_steps]", "prune.ratios=[0.01, 1.0]", "candidates.tolerance=0.001")
    with pytest.raises(
        StageError, match=r"^no candidate is within 0\.001 of any ratio \(skip_steps: \d+ right of \d+\)"
    ):
        stages(tmp_path, recipe_file, *BEFORE, "candidates", settings=settings)
    assert not (tmp_path / "train.jsonl").exists()
    assert not (tmp_path / "scores.jsonl").exists(), "nothing is to be pruned"


def test_a_source_that_raises_at_one_chain_has_a_record_of_it(pool: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = pool
    for name in ("completions", "trajectories", "scores", "pruned"):
        shutil.copy(path / f"{name}.jsonl", tmp_path)
    settings = ("candidates.sources={prune: {}, 'test_candidates:Broken': {}}", "candidates.prefer=nearest")
    stages(tmp_path, recipe_file, "candidates", settings=settings)
    made = {row["id"]: row["candidates"] for row in read_rows(tmp_path / "candidates/test_candidates-Broken.jsonl")}
    assert [one["dropped"] for one in made["p3"]] == ["backend error: RuntimeError: no third"]
    assert not any(made[id] for id in made if id != "p3")


def test_a_ratio_that_nothing_comes_near_is_left_out(pool: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = pool
    shutil.copytree(path, tmp_path / "run")
    (tmp_path / "run" / "candidates.json").unlink()
    info = json.loads((path / "candidates.json").read_text())
    info["rows"]["0.5"] = 0
    (tmp_path / "run" / "candidates.json").write_text(json.dumps(info))
    from tokenskip.storage.store import RunFolder
    from tokenskip.training.dataset import trained_ratios

    assert trained_ratios(RunFolder(tmp_path / "run", load_recipe(recipe_file))) == (0.8, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": ["prune", "promt"]}, r"unknown source 'promt' \(did you mean 'prompt'\?\)"),
        ({"sources": {"sample": {"temperature": 1}}}, r"candidates\.sources\.sample: unknown option 'temperature'"),
        ({"sources": {"sample": {"temperatures": [0]}}}, "source sample: temperatures are above 0"),
        ({"sources": {"sample": {"temperatures": 1}}}, r"candidates\.sources\.sample=.*not iterable|object"),
        ({"sources": {"prompt": {"instructions": ["be_brief"]}}}, "unknown instruction 'be_brief'"),
        ({"sources": {"prompt": {"instructions": "be_concise"}}}, "instructions is a list"),
        ({"sources": {"rewrite": {}}}, r"candidates\.sources\.rewrite needs another model: set .*server"),
        ({"sources": {"rewrite": {"server": {"uri": "x"}}}}, r"rewrite\.server: unknown option 'uri'"),
        ({"sources": {"prune": {}, "on_policy": {"samples": 2}}}, "samples=2 needs a temperature above 0"),
        ({"sources": {"prune": {"x": 1}}}, r"candidates\.sources\.prune: unknown option 'x'"),
    ],
)
def test_a_mistake_in_a_source_is_one_line_before_anything_loads(
    settings: dict[str, Any], message: str, tmp_path: Path, model_folder: Path
) -> None:
    recipe_file = recipe(tmp_path, model_folder, candidates=settings)
    with pytest.raises(ConfigError, match=message):
        pipeline.Run(tmp_path / "run", load_recipe(recipe_file))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": {"sources": ["on_policy"]}}, "on_policy asks the tuned model, .*add prune"),
        ({"candidates": {"sources": []}}, "candidates.sources"),
        ({"candidates": {"sorces": {}}}, r"unknown key 'candidates\.sorces' \(did you mean 'candidates\.sources'"),
        ({"rounds": {"count": 2}}, r"^recipe: the section rounds is now a source: write candidates="),
        ({"rounds": 1}, r"the section rounds is now a source.*given: rounds=1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(settings, "recipe")


def test_an_older_run_without_rounds_can_still_be_read() -> None:
    assert check_config({"rounds": {"count": 0, "tolerance": 0.1}}, "config.json") == RunConfig()


def test_of_a_range_a_written_chain_is_trained_on_under_what_it_achieved_and_a_cut_under_its_ratio(
    tmp_path: Path, model_folder: Path
) -> None:
    prune = {"ratios": {"from": 0.3, "to": 1.0}, "per_trajectory": 4}
    recipe_file = recipe(tmp_path, model_folder, candidates={"sources": SOURCES, "tolerance": 0.1}, prune=prune)
    stages(tmp_path / "run", recipe_file, *BEFORE, "candidates")
    rows = [row for row in read_rows(tmp_path / "run" / "train.jsonl") if row["ratio"] < 1]
    assert len({row["ratio"] for row in rows}) > 5
    written = [row for row in rows if row["source"] != "prune" and 0.3 < row["achieved_ratio"] < 0.99]
    assert written
    assert all(abs(row["ratio"] - row["achieved_ratio"]) <= 0.0051 for row in written)
    pruned = read_rows(tmp_path / "run" / "pruned.jsonl")
    ratios = {row["id"]: [cut["ratio"] for cut in row.get("pruned", [])] for row in pruned}
    cut = [row for row in rows if row["source"] == "prune"]
    assert cut
    assert all(row["ratio"] in ratios[row["id"]] for row in cut)
    info = json.loads((tmp_path / "run" / "candidates.json").read_text())
    assert list(info["rows"]) == ["1.0", "0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3"], "counted by the tenth"
    assert sum(info["rows"].values()) == sum(1 for _ in read_rows(tmp_path / "run" / "train.jsonl"))


def test_settings_that_a_file_was_made_under_may_not_change(pool: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = pool
    shutil.copytree(path, tmp_path / "run")
    other = "candidates.sources.prompt.instructions=[be_concise]"
    with pytest.raises(RunError, match=r"candidates\.sources\.prompt\.instructions: .*choose another --out"):
        stages(tmp_path / "run", recipe_file, "candidates", settings=(other,))
    with pytest.raises(RunError, match=r"prune\.ratios: "):
        stages(tmp_path / "run", recipe_file, "candidates", settings=("prune.ratios=[0.4, 1.0]",))
    more = ("candidates.sources.sample={samples: 1}", "candidates.prefer=nearest", "candidates.tolerance=0.2")
    stages(tmp_path / "run", recipe_file, "candidates", settings=more)
    info = json.loads((tmp_path / "run" / "candidates.json").read_text())
    assert set(info["sources"]) == {*SOURCES, "sample"}
    assert info["tolerance"] == 0.2


def test_chains_that_are_cut_anew_are_measured_anew(pool: tuple[Path, Path], tmp_path: Path) -> None:
    recipe_file, path = pool
    shutil.copytree(path, tmp_path / "run")
    before = (path / "candidates" / "prune.logprobs.jsonl").read_bytes()
    stages(tmp_path / "run", recipe_file, "prune", "candidates", settings=("prune.unit=word",))
    assert (tmp_path / "run" / "candidates" / "prune.logprobs.jsonl").read_bytes() != before


def test_a_model_may_write_new_equations_but_no_false_ones() -> None:
    original = "He has 4 + 3 = 7 apples."
    assert check_written(original, "Together 3 + 4 = 7.") is None
    assert check_written(original, "First 4 + 2 = 6, then 6 + 1 = 7.") is None
    assert check_written(original, "First 4 + 2 = 6, then 6 + 1 = 8.") == "false equation '6 + 1 = 8'"


def test_a_tally_without_candidates_has_every_source() -> None:
    config = check_config({"candidates": {"sources": ["prune", "sample"]}}, "test")
    assert set(Tally(config.candidates, ["prune", "sample"], (0.5, 1.0)).summary()["sources"]) == {"prune", "sample"}


@pytest.mark.parametrize(
    ("there", "key", "fixed"),
    [
        (["adapter"], "candidates.limit", False),
        (["adapter"], "candidates.prefer", False),
        (["adapter", "round-1"], "candidates.limit", True),
        (["adapter", "candidates.json"], "candidates.limit", True),
        (["adapter"], "candidates.sources.sample", True),
        (["candidates.json"], "candidates.limit", False),
    ],
)
def test_how_to_choose_is_fixed_once_something_was_chosen_and_trained_on(
    there: list[str], key: str, fixed: bool, tmp_path: Path
) -> None:
    """A run that was trained on pruned chains alone can still have a round under other settings."""
    for name in there:
        (tmp_path / name).mkdir()
    assert layout._has_begun(tmp_path, key) == fixed
