# ruff: noqa: F401, F811 - fixtures of other tests
"""`tokenskip prune FILE --rule llmlingua`: the package's text for every line, counts that can be checked, one pass."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from scripted_runs import write_jsonl
from test_cli import call, fails
from test_llmlingua2 import OPTIONS, SENTENCES, checkpoints, counting, reference

from tokenskip.pruning.equations import check_pruned

RATIOS = ("--ratio", "0.5", "--ratio", "0.7", "--ratio", "1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Chains with lines, equations, signs that XLM-R does not know, and one of several chunks."""
    chains = [*SENTENCES, "\n".join(SENTENCES[:3]), " ".join(SENTENCES * 20), ""]
    return write_jsonl(tmp_path / "in.jsonl", [{"id": f"c{i}", "cot": cot} for i, cot in enumerate(chains)])


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["official-qwen", "official-llama3"])
@pytest.mark.parametrize("family", ["xlmr", "bert"])
def test_the_text_is_the_packages(
    monkeypatch: Any, checkpoints: Any, counting: str, source: Path, tmp_path: Path, family: str, preset: str
) -> None:
    pytest.importorskip("llmlingua", reason="the package that the rule is compared with: pip install llmlingua==0.2.2")
    theirs, out = reference(checkpoints[family], counting), tmp_path / "out.jsonl"
    model = ("--model", checkpoints[family], "--preset", preset)
    assert call(monkeypatch, "prune", source, *RATIOS, *model, "-o", out, "--preview", 0) == 0
    cots = {row["id"]: row["cot"] for row in lines_of(source)}
    rows = lines_of(out)
    assert [(row["id"], row["ratio"]) for row in rows] == [(id, ratio) for id in cots for ratio in (0.5, 0.7, 1.0)]
    changed = 0
    for row in rows:
        expected = theirs.compress_prompt(cots[row["id"]], rate=row["ratio"], **OPTIONS[preset])
        assert row["pruned"] == expected["compressed_prompt"]
        assert (row["n_cl100k"], row["n_cl100k_pruned"]) == (expected["origin_tokens"], expected["compressed_tokens"])
        changed += row["pruned"] != cots[row["id"]]
    assert changed > 12


@pytest.mark.extras
def test_the_lines_can_be_checked(
    monkeypatch: Any, capsys: Any, checkpoints: Any, counting: str, source: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    out, calls = tmp_path / "out.jsonl", []
    from tokenskip.scorers._classifier import Classifier

    run = Classifier.keep_probabilities
    monkeypatch.setattr(
        Classifier, "keep_probabilities", lambda self, rows, masks: calls.append(len(rows)) or run(self, rows, masks)
    )
    options = ("--rule", "llmlingua", "--scorer", "llmlingua2", "--model", checkpoints["bert"])
    assert call(monkeypatch, "prune", source, *RATIOS, *options, "-o", out, "--force-tokens", r"\n") == 0
    shown = capsys.readouterr().out
    assert "30 pruned texts of 10 chains" in shown
    assert len(calls) == 1, "several ratios cost one pass"
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["bert"])
    cots = {row["id"]: row["cot"] for row in lines_of(source)}
    for row in lines_of(out):
        assert row["n_tokens_pruned"] == len(tokenizer(row["pruned"], add_special_tokens=False)["input_ids"])
        assert row["achieved_ratio"] == pytest.approx(row["n_tokens_pruned"] / (row["n_tokens"] or 1), abs=1e-4) or (
            row["n_tokens"] == 0 and row["achieved_ratio"] == 1
        )
        assert row["rejected"] == check_pruned(cots[row["id"]], row["pruned"])
        assert "kept" not in row
    at_half = next(row for row in lines_of(out) if row["id"] == f"c{len(SENTENCES)}")
    assert at_half["pruned"].count("\n") == 2, "the forced line breaks"


def test_mistakes_are_told_before_a_model_loads(
    monkeypatch: Any, fails: Any, checkpoints: Any, counting: str, source: Path, tmp_path: Path, model_folder: Path
) -> None:
    import transformers

    out = ("-o", tmp_path / "out.jsonl")
    bert = ("--model", checkpoints["bert"])

    def loads(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForTokenClassification, "from_pretrained", loads)
    rule = ("--rule", "llmlingua")
    assert "needs --scorer llmlingua2; given: surprisal" in fails("prune", source, *rule, "--scorer", "surprisal", *out)
    assert "unknown rule 'lingua'" in fails("prune", source, "--rule", "lingua", *out)
    assert "unknown preset 'qwen'" in fails("prune", source, *bert, "--preset", "qwen", *out)
    assert "--preset belongs to --rule llmlingua" in fails(
        "prune", source, "--rule", "tokenskip", "--preset", "official-qwen", *out
    )
    assert "--force-reserve-digit belongs to" in fails("prune", source, "--force-reserve-digit", *out)
    both = ("--preset", "official-llama3", "--force-tokens", ".")
    assert "give the preset, or these options" in fails("prune", source, *bert, *both, *out)
    assert "prune.cut has no effect" in fails("prune", source, *bert, *rule, "--set", "prune.cut=corpus", *out)
    assert "score.options has no effect" in fails("prune", source, *rule, "--set", "score.options={framing: x}", *out)
    assert "no model folder" in fails("prune", source, *rule, "--model", "./nope", *out)
    assert "needs an XLM-RoBERTa or BERT" in fails("prune", source, *rule, "--model", model_folder, *out)
    assert "above 0 and at most 1" in fails("prune", source, *bert, *rule, "--ratio", "1.5", *out)
    assert "pip install tiktoken" in without_tiktoken(monkeypatch, fails, "prune", source, *bert, *rule, *out)
    assert not out[1].exists()


def without_tiktoken(monkeypatch: Any, fails: Any, *arguments: object) -> str:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tiktoken", None)
        return str(fails(*arguments))


def test_an_encoder_without_a_trained_head_is_refused(
    fails: Any, capsys: Any, counting: str, source: Path, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # the command does so itself, but too late once transformers is imported
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    config = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "bare")
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(tmp_path / "bare")
    capsys.readouterr()
    for rule in ("llmlingua", "tokenskip"):
        options = ("--rule", rule, "--scorer", "llmlingua2", "--model", tmp_path / "bare")
        line = fails("prune", source, *options, "-o", tmp_path / "out.jsonl")
        assert "is no trained token classifier: it has no weights for classifier.bias" in line
