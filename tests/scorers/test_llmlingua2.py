"""llmlingua2 on original text, and rule=llmlingua against the real package, on small checkpoints made here."""

import functools
import json
import os
import random
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenskip.errors import ConfigError, ModelError
from tokenskip.scorers._classifier import Classifier
from tokenskip.scorers.llmlingua2 import LLMLingua2, chunk, word_spans
from tokenskip.scorers.llmlingua_rule import LLMLinguaRule, _counter
from tokenskip.training.distill import Settings, build_vocab, distill
from tokenskip.types import Scores, Span, Trajectory

CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
RATES = (0.5, 0.6, 0.7, 0.9, 1.0)
SENTENCES = [
    "Natalia sold 48/2 = 24 clips in May.",
    "Step 1: She has 16 - 3 - 4 = <<16-3-4=9>>9 eggs, so she makes 9 * 2 = $18 every day.",
    "Thus $\\frac{3.5}{2} = 1.75$, and \\boxed{18} is the answer: (a) or {b}.",
    "for i in range(4): print(i ** 2)  # code_here",
    "Step 2:: Step: Step 3: It costs 1,000.50 dollars; 15% off!",
    "naïve café – “quoted” …",
    "The quick brown fox, being lazy, doubles its 12 apples again and again",
]
ODD = [
    *("", " ", "\n\t ", "word", "7", "x = y", "..,,!!", "a\n\nb\tc  d", "##x y z"),
    *("日本語の文章です。", "한국어 문장 하나.", "😀😀", "½ + ¼ = ¾, 10² ①"),
    *("[PAD] x y", "<s> <unk> plain </s> <mask> text", "[NEW0] is literal here"),
]


def texts() -> list[str]:
    rng = random.Random(0)
    made = [" ".join(rng.choices(SENTENCES, k=rng.randint(1, 5))) for _ in range(6)]
    made += ["\n".join(rng.choices(SENTENCES, k=rng.randint(2, 6))) for _ in range(10)]
    made.append(" ".join(rng.choices(SENTENCES[:4], k=45)))  # several chunks
    made.append("word " * 600)  # no place to cut a chunk
    return made + ODD + SENTENCES


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights large enough that probabilities differ."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.35 if "classifier" not in name else 1.0)
    return model.eval()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, str]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import (
        BertConfig,
        BertForTokenClassification,
        BertTokenizer,
        XLMRobertaConfig,
        XLMRobertaForTokenClassification,
        XLMRobertaTokenizer,
    )

    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}

    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False, initial_alphabet=list("▁:./,()")
    )
    unigram.train_from_iterator(SENTENCES * 4, trainer)
    scores = dict(json.loads(unigram.to_str())["model"]["vocab"])
    vocab = [(piece, 0.0) for piece in special]
    vocab += [(piece, score) for piece, score in scores.items() if piece not in special]
    vocab += [(c, -9.0) for c in ":.()," if c not in scores] + [("▁Step", -4.0)] * ("▁Step" not in scores)
    tokenizer = XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)])
    config = XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, **shape)
    xlmr = root / "tiny-xlm-roberta-large"
    spread(XLMRobertaForTokenClassification(config)).save_pretrained(xlmr)
    tokenizer.save_pretrained(xlmr)

    words = build_vocab(SENTENCES * 4, 400)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, do_lower_case=False)
    config = BertConfig(vocab_size=len(words), max_position_embeddings=512, **shape)
    bert = root / "tiny-bert-base-multilingual-cased"
    spread(BertForTokenClassification(config)).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    return {"xlmr": str(xlmr), "bert": str(bert)}


def cl100k_folder() -> str | None:
    """A folder that holds cl100k's vocabulary; this test never downloads it."""
    folders = [os.environ.get("TIKTOKEN_CACHE_DIR", ""), str(Path(tempfile.gettempdir()) / "data-gym-cache")]
    return next((folder for folder in folders if folder and (Path(folder) / CL100K).is_file()), None)


@pytest.fixture
def counting(monkeypatch) -> str:
    """Both sides count with the same encoding: cl100k where it is at hand, else a stand-in of single bytes."""
    tiktoken = pytest.importorskip("tiktoken")
    folder = cl100k_folder()
    if folder is not None:
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", folder)
        return "cl100k"
    encoding = tiktoken.Encoding(
        "bytes", pat_str=r"\w+|\W", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={"<|x|>": 256}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda _: encoding)
    return "bytes"


@pytest.mark.extras
def test_words_are_counted_in_cl100k(counting):
    if counting != "cl100k":
        pytest.skip("cl100k is not at hand: set TIKTOKEN_CACHE_DIR to a folder with " + CL100K)
    count = _counter()
    assert [count(word) for word in ("hello world", "▁", "▁hello", "", "<|endoftext|>")] == [2, 2, 3, 0, 7]


@functools.cache
def reference(path: str, counting: str):
    """The real package's compressor."""
    from llmlingua import PromptCompressor

    state = torch.random.get_rng_state()
    compressor = PromptCompressor(path, device_map="cpu", use_llmlingua2=True, model_config={})
    torch.random.set_rng_state(state)
    return compressor


def exact(path: str, counting: str, options: str) -> tuple[LLMLinguaRule, Any]:
    """Ours and the package's compressor, both in float64.

    In float32 two words can be so nearly equally probable that the order of a sum decides, the sooner since a forced
    piece counts 1.0 in a word's mean, beside which the others' last digits are lost.
    """
    pytest.importorskip("llmlingua")
    ours, theirs = LLMLinguaRule(path, device="cpu", **OPTIONS[options]), reference(path, counting)
    ours._extend_model()  # the package draws `[NEWi]` when it loads, in float32; drawn in float64 they would be others
    ours.model.double()
    theirs.model.double()
    return ours, theirs


OPTIONS = {
    "official-qwen": {},
    "official-llama3": {"force_tokens": ["Step", ":"], "force_reserve_digit": True, "drop_consecutive": True},
    "newline": {"force_tokens": ["\n", ".", "="], "drop_consecutive": True},
}


def solutions(n: int) -> list[str]:
    """GSM8K's questions with their solutions where the file is at hand, else chains of the embedded family."""
    file = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"
    if file.exists():
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines()[:n])
        return [f"{row['question']}\n{row['answer']}" for row in rows]
    from embedded_model.registers import document

    from tokenskip.embedded.family import stories

    return [document(story, "chatty", random.Random(0)).completion for story in stories("train", n)]


@pytest.fixture(scope="module")
def trained(checkpoints, tmp_path_factory) -> dict[str, str]:
    """The checkpoints, fitted for a moment to a teacher that likes long words and figures, a little at random."""
    rng = random.Random(0)
    chains = []
    for i, text in enumerate(solutions(60)):
        words = re.finditer(r"\S+", text)
        spans = [Span(*w.span(), len(w[0]) + 4 * any(map(str.isdigit, w[0])) + rng.gauss(0, 1)) for w in words]
        scores = Scores(scorer="teacher", spans=tuple(spans))
        chains.append(Trajectory(id=str(i), question="", gold="", cot=text, scores=scores))
    made = {}
    for family, path in checkpoints.items():
        out = tmp_path_factory.mktemp("trained") / Path(path).name
        distill([chains], out, Settings(encoder=path, epochs=2, learning_rate=2e-3), device="cpu")
        made[family] = str(out)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", ["xlmr", "bert"])
def test_solutions_are_cut_as_the_package_does(trained, counting, family, options):
    rates = (0.5, 0.6, 0.7, 0.8, 0.9)
    cases = solutions(160)[60:]
    cases.append("\n".join(cases[:6]))  # several chunks
    rule, theirs = exact(trained[family], counting, options)
    ours = rule.compress(cases, rates)
    for text, row in zip(cases, ours, strict=True):
        for rate, mine in zip(rates, row, strict=True):
            expected = theirs.compress_prompt(text, rate=rate, **OPTIONS[options])["compressed_prompt"]
            assert mine == expected, (text, rate)
    assert all(len(set(row)) == len(rates) for row in ours), "every rate cuts otherwise"


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", ["xlmr", "bert"])
def test_every_decision_is_the_packages(checkpoints, counting, family, options):
    ours, theirs = exact(checkpoints[family], counting, options)
    cases = texts()
    got = ours.compress(cases, RATES)
    compared = 0
    for text, row in zip(cases, got, strict=True):
        for rate, mine in zip(RATES, row, strict=True):
            try:
                expected = theirs.compress_prompt(text, rate=rate, **OPTIONS[options])["compressed_prompt"]
            except IndexError:  # nothing but unknown tokens
                assert mine == "" or text.startswith("[NEW0]")
                continue
            assert mine == expected, (text, rate)
            compared += 1
    assert compared > 150
    assert len({row[0] for row in got}) > 20, "the checkpoint decides nothing"


@pytest.mark.extras
def test_the_preset_is_the_three_options_and_one_pass_serves_all_rates(checkpoints, counting):
    preset = LLMLinguaRule(checkpoints["xlmr"], device="cpu", preset="official-llama3")
    spelled = LLMLinguaRule(checkpoints["xlmr"], device="cpu", **OPTIONS["official-llama3"])
    assert preset.compress(SENTENCES, RATES) == spelled.compress(SENTENCES, RATES)
    calls = []
    hook = preset.model.classifier.register_forward_hook(lambda *_: calls.append(1))
    preset.compress(SENTENCES[:2], RATES)
    hook.remove()
    assert len(calls) == 1


@pytest.mark.extras
def test_where_the_package_raises_we_say_what_is_wrong(checkpoints, counting, tmp_path):
    rule = LLMLinguaRule(checkpoints["bert"], device="cpu")
    with pytest.raises(ConfigError, match="a rate is a number above 0"):
        rule.compress(["x"], [0.0])
    assert rule.compress(["<|endoftext|> is text here", "🙂"], [0.5])[1] == [""]
    assert rule.compress([], [0.5]) == []
    with pytest.raises(ConfigError, match="unknown preset 'qwen'"):
        LLMLinguaRule(checkpoints["bert"], preset="qwen")
    with pytest.raises(ModelError, match="cannot be loaded as a token classifier"):
        LLMLinguaRule(str(tmp_path / "nothing"))


@pytest.mark.extras
def test_without_cl100k_the_error_says_how_to_get_it(checkpoints, monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")

    def offline(_: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tiktoken, "encoding_for_model", offline)
    with pytest.raises(ConfigError, match=rf"ConnectionError.*TIKTOKEN_CACHE_DIR.*{CL100K}"):
        LLMLinguaRule(checkpoints["bert"])


@pytest.mark.extras
def test_a_loaded_model_and_the_random_state_stay_as_they_were(checkpoints, counting):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(checkpoints["xlmr"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["xlmr"])
    before, size, state = len(tokenizer), model.config.vocab_size, torch.random.get_rng_state()
    rule = LLMLinguaRule(model, tokenizer=tokenizer, force_tokens=["\n"])
    assert "\n" in rule.compress(["So it is.\nAnd more words follow here."], [0.5])[0][0]
    assert (len(tokenizer), model.config.vocab_size) == (before, size)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("family", ["xlmr", "bert"])
def test_texts_laid_end_to_end_are_scored_as_the_padded_ones(checkpoints, family):
    classifier = Classifier(checkpoints[family], device="cpu", batch_tokens=300)
    rng = random.Random(1)
    pad = classifier.model.config.pad_token_id
    rows = [[rng.randrange(5, 90) for _ in range(rng.choice((1, 2, 7, 60, 200, 512)))] for _ in range(30)]
    rows[3][0] = rows[7][-1] = pad  # the padding token written in a text
    masks = [[1] * len(row) for row in rows]
    masks[5][0] = 0
    packed = dict(classifier.keep_probabilities(rows, masks))
    batched = []
    hook = classifier.model.classifier.register_forward_hook(lambda _, given, __: batched.append(given[0].dim()))
    list(classifier.keep_probabilities(rows, masks))
    hook.remove()
    assert {2, 3} == set(batched), "both ways are taken"
    classifier.packed = False
    padded = dict(classifier.keep_probabilities(rows, masks))
    assert packed.keys() == padded.keys() == set(range(30))
    for i, row in enumerate(rows):
        assert packed[i].shape == (len(row),)
        assert packed[i] == pytest.approx(padded[i], abs=2e-5), i
    assert list(classifier.keep_probabilities([])) == []


@pytest.mark.parametrize("framing", ["trained", "upstream"])
@pytest.mark.parametrize("family", ["xlmr", "bert"])
def test_our_rule_scores_the_original_text(checkpoints, family, framing):
    scorer = LLMLingua2(checkpoints[family], device="cpu", framing=framing)
    items = [Trajectory(id=str(i), question="", gold="", cot=text) for i, text in enumerate(texts())]
    together = scorer.score(items)
    scorer.batch_tokens = 1
    for item, scores, (alone,) in zip(items, together, (scorer.score([item]) for item in items), strict=True):
        position = 0
        for span in scores.spans:
            assert position <= span.start < span.end <= len(item.cot)
            assert 0 <= span.value <= 1
            assert not item.cot[span.start].isspace()
            position = span.end
        assert [s.value for s in scores.spans] == pytest.approx([s.value for s in alone.spans], abs=1e-4)
    long = items[10]
    assert {i for span in together[10].spans for i in range(span.start, span.end)} == {
        i for i, c in enumerate(long.cot) if not c.isspace()
    }


def test_framing_is_what_the_model_was_trained_with(checkpoints):
    trained = LLMLingua2(checkpoints["xlmr"], device="cpu")
    upstream = LLMLingua2(checkpoints["xlmr"], device="cpu", framing="upstream")
    assert trained.frame == (0, 2)
    assert upstream.frame == (3, 3)
    assert LLMLingua2(checkpoints["bert"], device="cpu").frame == (2, 3)


def test_long_texts_are_cut_behind_a_full_stop_or_newline():
    text = "aa bb. cc dd\nee ff gg hh"
    offsets = [(i, i + 2) for i in (0, 3)] + [(5, 6)] + [(i, i + 2) for i in (7, 10, 13, 16, 19, 22)]
    pieces = chunk(text, offsets, 4)
    assert pieces == [(0, 3), (3, 5), (5, 9)]
    assert [text[offsets[a][0] : offsets[b - 1][1]] for a, b in pieces] == ["aa bb.", "cc dd", "ee ff gg hh"]
    assert chunk("a" * 9, [(i, i + 1) for i in range(9)], 4) == [(0, 4), (4, 8), (8, 9)]
    assert chunk("", [], 4) == []


def test_a_word_is_the_mean_of_its_tokens():
    spans = word_spans("ab 12.", [(0, 1), (1, 2), (2, 4), (4, 6)], [0.0, 1.0, 0.5, 0.7])
    assert [span[:2] for span in spans] == [(0, 2), (3, 5), (5, 6)]
    assert [span.value for span in spans] == pytest.approx([0.5, 0.6, 0.7])


def test_wrong_models_and_options_are_the_users_to_mend(checkpoints, tmp_path):
    from transformers import BertConfig, BertForTokenClassification

    with pytest.raises(ConfigError, match="unknown framing"):
        LLMLingua2(checkpoints["bert"], framing="cls")
    with pytest.raises(ConfigError, match="unknown dtype"):
        LLMLingua2(checkpoints["bert"], dtype="int8")
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=3)
    with pytest.raises(ModelError, match="2 labels"):
        LLMLingua2(BertForTokenClassification(config), tokenizer=object())
    with pytest.raises(ModelError, match="needs its tokenizer"):
        LLMLingua2(BertForTokenClassification(config))


@pytest.mark.slow
def test_the_package_loads_a_distilled_student(counting, tmp_path):
    pytest.importorskip("llmlingua")
    from test_distill import chains

    student = tmp_path / "student-bert-base-multilingual-cased"
    distill([chains(40, 0.5)], student, Settings(epochs=2))
    cases = [item.cot for item in chains(5, 0.0)]
    ours = LLMLinguaRule(str(student), device="cpu").compress(cases, [0.5])
    theirs = reference(str(student), counting)
    assert [row[0] for row in ours] == [theirs.compress_prompt(c, rate=0.5)["compressed_prompt"] for c in cases]
