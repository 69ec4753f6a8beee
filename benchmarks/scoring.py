"""LLMLingua-2 scoring: our `rule=llmlingua` against the official loop (one text at a time, one model pass per ratio).

Reads a JSONL file of texts (`--data`, keys question and answer, or cot) or makes chains of the embedded family; needs
the `llmlingua` package. Random weights of XLM-R's shape: the arithmetic is that of the real checkpoint, the decisions
are compared one by one. Writes JSON, the first thread count on top and all of them under `runs`:

- `speedup_cpu`: official CPU-seconds per text / ours; `identical`: every text of the official sample came out equal;
- `flop_ratio`: the arithmetic of the official loop / ours. The package pads every text to 512 tokens and runs the model
  once per ratio, so this follows from the texts' lengths alone (`mean_tokens`) and bounds the speedup, but for how well
  each side uses the machine: shorter texts, larger ratio. `--data` with your own texts says what you can expect;
- `sgemm_share`: ours, in useful arithmetic per CPU-second, as a share of what a large square-ish float32 matrix product
  reaches just before and after (the best of some bursts). Counted are the encoder's matrix products over real tokens
  (projections, feed-forward, attention scores and their use); not counted: padding, embeddings, softmax, GELU,
  LayerNorm, tokenizing, cutting.

With `--decisions` it measures instead what lower precision changes, on a trained model (`--model`, by default the
embedded one): the share of texts and of words that come out otherwise than in float32, and the time. `--trained-xlmr`
fits an XLM-R of its own to the data first; `--random` takes random weights of `--size`'s shape, whose decisions say
little, but whose time is the real checkpoint's. With `--memory` it measures the peak of resident memory of `tokenskip
prune FILE`, on a tenth of the texts, half and all of them, for several scorers with the embedded models. Neither needs
`llmlingua`.

    python benchmarks/scoring.py --size base --texts 16 --data GSM8K.jsonl
    python benchmarks/scoring.py --decisions --texts 100
    python benchmarks/scoring.py --memory --texts 7473 --data GSM8K.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

RATES = (0.5, 0.6, 0.7, 0.8, 0.9)
SHAPES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}


def load_texts(data: Path | None, n: int) -> list[str]:
    """`n` texts of a file, or chains of the embedded family."""
    if data is not None:
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()[:n]]
        return [row["cot"] if "cot" in row else f"{row['question']}\n{row['answer']}" for row in rows]
    sys.path.append(
        str(Path(__file__).resolve().parents[1] / "tools")
    )  # what built the embedded model is in no package
    from embedded_model.registers import document

    from tokenskip.embedded.family import stories

    documents = [document(story, "chatty", random.Random(i), bare=True) for i, story in enumerate(stories("train", n))]
    return [item.completion.rpartition("\n\n")[0] for item in documents]  # the chain: what is compressed


def make_checkpoint(size: str, texts: list[str], folder: Path) -> Path:
    """A random XLM-R token classifier with a small vocabulary of its own, under a name that the package accepts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification, XLMRobertaTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=2000, special_tokens=special, unk_token="<unk>", show_progress=False)
    unigram.train_from_iterator(texts, trainer)
    vocab = [(piece, score) for piece, score in json.loads(unigram.to_str())["model"]["vocab"]]
    tokenizer = XLMRobertaTokenizer(vocab=[*vocab, ("<mask>", 0.0)])
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, num_labels=2, **SHAPES[size]
    )
    torch.manual_seed(0)
    model = XLMRobertaForTokenClassification(config)
    with torch.no_grad():
        model.classifier.weight.normal_(0, 2 * config.hidden_size**-0.5)  # logits of standard deviation 2, as trained
    path = folder / f"{size}-xlm-roberta-large"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def trained_xlmr(texts: list[str], folder: Path) -> Path:
    """XLM-R's shape at four layers of 256, fitted for three epochs to a teacher that likes long words and figures."""
    from tokenskip.training.distill import Settings, distill
    from tokenskip.types import Scores, Span, Trajectory

    draw, chains = random.Random(0), []
    for i, text in enumerate(texts):
        words = re.finditer(r"\S+", text)
        spans = [Span(*w.span(), len(w[0]) + 4 * any(map(str.isdigit, w[0])) + draw.gauss(0, 1)) for w in words]
        chains.append(
            Trajectory(id=str(i), question="", gold="", cot=text, scores=Scores(scorer="teacher", spans=tuple(spans)))
        )
    start = make_checkpoint("small", texts, folder)
    distill([chains], folder / "trained", Settings(encoder=str(start), epochs=3, learning_rate=1e-3), device="cpu")
    return folder / "trained"


def peak_flops(hidden: int, intermediate: int) -> float:
    """Floating-point operations per CPU-second of a large float32 matrix product; the best of several."""
    a, b = torch.randn(1024, hidden), torch.randn(hidden, intermediate)
    best = 0.0
    for _ in range(8):
        begin = time.process_time()
        for _ in range(4):
            a @ b
        best = max(best, 4 * 2 * 1024 * hidden * intermediate / (time.process_time() - begin))
    return best


def model_flops(lengths: list[int], size: str) -> float:
    """Multiply-adds x 2 of the encoder's matrix products over rows of these lengths, no padding."""
    shape = SHAPES[size]
    h, f = shape["hidden_size"], shape["intermediate_size"]
    per_row = [n * (2 * (4 * h * h + 2 * h * f) + 4 * n * h) for n in lengths]
    return float(sum(per_row)) * shape["num_hidden_layers"]


def measure(path: Path, texts: list[str], n_reference: int, size: str, threads: int) -> dict[str, Any]:
    """One thread count: CPU-seconds per text of both, and whether they agree.

    As many rounds as reference texts, so that what else the machine does falls on both sides: in each, ours scores all
    texts and the package one. Figures are the rounds' medians, `*_range` their least and greatest.
    """
    from llmlingua import PromptCompressor

    from tokenskip.scorers.llmlingua_rule import LLMLinguaRule

    rule = LLMLinguaRule(str(path), device="cpu")
    official = PromptCompressor(str(path), device_map="cpu", use_llmlingua2=True, model_config={})
    torch.set_num_threads(threads)
    rule.compress(texts[:1], RATES)
    shape = SHAPES[size]["hidden_size"], SHAPES[size]["intermediate_size"]
    lengths = [len(rule.tokenizer.tokenize(text)) + 2 for text in texts]
    flops = model_flops(lengths, size) / len(texts)
    rounds, identical = [], True
    peak = peak_flops(*shape)
    for text in texts[:: max(1, len(texts) // n_reference)][:n_reference]:
        ours, ours_s, ours_wall = timed(lambda: rule.compress(texts, RATES))
        theirs, theirs_s, theirs_wall = timed(
            lambda text=text: [official.compress_prompt(text, rate=rate)["compressed_prompt"] for rate in RATES]
        )
        identical &= ours[texts.index(text)] == theirs
        before, peak = peak, peak_flops(*shape)
        ours_s, ours_wall = ours_s / len(texts), ours_wall / len(texts)
        best = max(before, peak)
        rounds.append((ours_s, theirs_s, ours_wall, theirs_wall, theirs_s / ours_s, best, flops / ours_s / best))
    ours_s, theirs_s, ours_wall, theirs_wall, speedup, best, share = map(median, zip(*rounds, strict=True))
    return {
        "threads": threads,
        "ours_cpu_s": round(ours_s, 4),
        "official_cpu_s": round(theirs_s, 4),
        "ours_wall_s": round(ours_wall, 4),
        "official_wall_s": round(theirs_wall, 4),
        "speedup_cpu": round(speedup, 2),
        "speedup_cpu_range": [round(pick(one[4] for one in rounds), 2) for pick in (min, max)],
        "flop_ratio": round(len(RATES) * model_flops([512], size) / flops, 2),
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "sgemm_gflops": round(best / 1e9, 1),
        "sgemm_share": round(share, 3),
        "sgemm_share_range": [round(pick(one[6] for one in rounds), 3) for pick in (min, max)],
        "identical": identical,
        "n_texts": len(texts),
        "n_reference": len(rounds),
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What `work` returns, its CPU-seconds and its seconds on the clock."""
    begin, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - begin, time.perf_counter() - wall


def cutter(scorer: str, model: str, dtype: str) -> Callable[[list[str]], list[list[str]]]:
    """Texts -> what is left of each at every rate: by `rule=llmlingua`, or by a scorer under our own rule."""
    if scorer == "rule llmlingua":
        from tokenskip.scorers.llmlingua_rule import LLMLinguaRule

        rule = LLMLinguaRule(model, device="cpu", dtype=dtype)
        return lambda texts: rule.compress(texts, RATES)
    from tokenskip.commands.files import FilePruner
    from tokenskip.types import Trajectory

    pruner = FilePruner(scorer, model, overrides=["model.device=cpu", f"model.dtype={dtype}"])

    def cut(texts: list[str]) -> list[list[str]]:
        chains = [Trajectory(id=str(i), question="", gold="1", cot=text) for i, text in enumerate(texts)]
        return [[one.text for one in cuts] for cuts in pruner.prune(chains, RATES)]

    return cut


def changed_decisions(scorer: str, model: str, texts: list[str], dtypes: list[str]) -> dict[str, Any]:
    """Per dtype: the share of (text, rate) pairs and of kept words unlike float32, and CPU-seconds per text."""
    found: dict[str, Any] = {}
    reference: list[list[str]] = []
    for dtype in ("float32", *dtypes):
        cut = cutter(scorer, model, dtype)
        cut(texts[:1])
        begin = time.process_time()
        cuts = cut(texts)
        found[dtype] = {"cpu_s": round((time.process_time() - begin) / len(texts), 5)}
        reference = reference or cuts
        pairs = [pair for ours, theirs in zip(cuts, reference, strict=True) for pair in zip(ours, theirs, strict=True)]
        changed = sum((Counter(a.split()) - Counter(b.split())).total() for a, b in pairs)
        lost = sum((Counter(b.split()) - Counter(a.split())).total() for a, b in pairs)
        words = sum(len(b.split()) for _, b in pairs)
        found[dtype]["texts_changed"] = round(sum(a != b for a, b in pairs) / len(pairs), 5)
        found[dtype]["words_changed"] = round((changed + lost) / words, 6)
    return {"scorer": scorer, "model": model, "n_texts": len(texts), "rates": list(RATES), "dtypes": found}


def main() -> None:
    """Measure, print and write the results; the top-level keys are those of the first thread count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SHAPES, default="base")
    parser.add_argument("--texts", type=int, default=24, help="texts that ours scores")
    parser.add_argument("--reference", type=int, default=3, help="rounds; in each the package scores one text as well")
    parser.add_argument("--data", type=Path, help="JSONL with question and answer, or cot")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--decisions", action="store_true", help="what lower precision changes, instead")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"], help="for --decisions")
    parser.add_argument("--model", default="embedded", help="for --decisions: a trained checkpoint")
    parser.add_argument("--scorer", help="for --decisions: a scorer's name (rule llmlingua); for --memory: one of all")
    parser.add_argument("--trained-xlmr", action="store_true", help="for --decisions: fit a small XLM-R to the data")
    parser.add_argument("--random", action="store_true", help="for --decisions: random weights of --size's shape")
    parser.add_argument("--memory", action="store_true", help="peak memory of `tokenskip prune FILE`, instead")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    texts = load_texts(args.data, args.texts)
    if args.memory:
        scorers = [args.scorer] if args.scorer else list(PRUNE)
        found = {scorer: memory(texts, scorer, (10, 2, 1)) for scorer in scorers}
        write({"n_texts": len(texts), "scorers": found}, args.json)
        return
    if args.decisions:
        torch.set_num_threads(args.threads[0])
        with tempfile.TemporaryDirectory() as folder:
            make = partial(make_checkpoint, args.size) if args.random else trained_xlmr
            model = str(make(texts, Path(folder))) if args.random or args.trained_xlmr else args.model
            write(changed_decisions(args.scorer or "rule llmlingua", model, texts, args.dtypes), args.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = make_checkpoint(args.size, texts, Path(folder))
        runs = [measure(path, texts, args.reference, args.size, threads) for threads in args.threads]
    keys = ("speedup_cpu", "flop_ratio", "sgemm_share", "identical")
    write({"size": args.size, **{key: runs[0][key] for key in keys}, "runs": runs}, args.json)


PRUNE = {
    "llmlingua2": ("--scorer", "llmlingua2"),
    "llmlingua2, rule llmlingua": ("--rule", "llmlingua"),
    "surprisal": ("--scorer", "surprisal"),
    "goal_gradient": ("--scorer", "goal_gradient"),
}


def memory(texts: list[str], scorer: str, parts: Sequence[int] = (10, 1)) -> dict[str, Any]:
    """Peak resident MiB and CPU-seconds of pruning a tenth of the texts, and all of them, each in a fresh process."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        for n in (len(texts) // part for part in parts):
            rows = [{"id": str(i), "cot": text, "answer": "1"} for i, text in enumerate(texts[:n])]
            source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            options = [*PRUNE[scorer], "--model", "embedded", "--ratio", "0.5", "--ratio", "0.7", "--preview", "0"]
            command = [sys.executable, "-m", "tokenskip", "prune", str(source), *options, "-o", str(out)]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
            cpu_s = usage.ru_utime + usage.ru_stime
            found[str(n)] = {"peak_mib": round(usage.ru_maxrss / 1024, 1), "cpu_s": round(cpu_s, 1)}
    return found


def write(result: dict[str, Any], file: Path | None) -> None:
    """Print the results, and keep them where asked."""
    print(json.dumps(result, indent=2))
    if file:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
