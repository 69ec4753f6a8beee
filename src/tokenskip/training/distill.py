"""Train your own compressor: a small token classifier that learns the importance some other scorer gave.

Reads trajectories with `scores` (the teacher's); writes a folder in LLMLingua-2's format (a token-classification model
with two labels and its tokenizer, `distill.json` with the metrics), which the `llmlingua2` scorer and the `llmlingua`
package load.

    tokenskip distill RUN --teacher goal_gradient -o DIR

Why: a per-chain importance is noisy, and a model that is trained on noisily pruned chains cannot foresee which token
goes, so it ignores the ratio. The student sees a whole chain but not the teacher's noise; what it fits is the mean:

    u = rank of a token's importance among all tokens of the corpus, in [0, 1]; of several teachers, the mean
    loss = - u log p(keep) - (1 - u) log p(drop)      minimised by p(keep) = E[u | context]

Soft labels in place of LLMLingua-2's kept/dropped ones (their equation 4), because a ratio needs an order, not a class.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tokenskip.config import ModelConfig
from tokenskip.errors import ConfigError, ModelError, StageError, unknown_name
from tokenskip.models.loading import load_tokenizer, load_weights
from tokenskip.storage.outputs import check_folder, new_folder
from tokenskip.types import Span, Trajectory

Size = Literal["tiny", "small"]
Progress = Callable[[int, int, float], None]
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 256},
    "small": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 1024},
}
MAX_LENGTH = 512
_IGNORE = -1.0


@dataclass(frozen=True, slots=True)
class Example:
    """A piece of a chain as the encoder reads it: ids with framing, and the target of each (-1: none)."""

    ids: list[int]
    targets: np.ndarray[Any, np.dtype[np.float32]]
    chain: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a student is fitted.

    `encoder` is a checkpoint to start from (folder or hub id); None trains one from scratch at `size`, with a WordPiece
    vocabulary of the chains. `learning_rate` defaults to 2e-3 from scratch and 3e-5 from a checkpoint. `pool` gives
    every occurrence of a word the mean importance of all its occurrences (numbers count as one word), so that the
    student scores a word alike wherever it occurs and a fine-tuned model can foresee what is left out.

    Raises:
        ConfigError: a setting that is not allowed.
    """

    encoder: str | None = None
    size: Size = "tiny"
    epochs: float = 3.0
    learning_rate: float | None = None
    batch_tokens: int = 2048
    vocab_size: int = 2048
    held_out: float = 0.1
    pool: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ConfigError(unknown_name("size", self.size, SIZES))
        if self.epochs <= 0 or not 0 <= self.held_out < 1 or self.batch_tokens < 1:
            raise ConfigError("distill needs epochs above 0, held_out in [0, 1) and batch_tokens of at least 1")


def distill(
    teachers: Sequence[Iterable[Trajectory]],
    out: Path,
    settings: Settings | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the encoder, save it to `out`, and return the metrics.

    `teachers` are the same trajectories with the scores of one teacher each; of several, the mean rank is learned.
    `progress` is called with (step, steps, loss). `metrics["held_out_spearman"]` is the rank correlation with the
    teacher over the tokens of chains that were not trained on.

    Raises:
        StageError: fewer than two scored chains.
        ModelError: `settings.encoder` cannot be loaded.
    """
    import torch

    check_folder(out, or_empty=True)
    settings = settings or Settings()
    rate = settings.learning_rate or (3e-5 if settings.encoder else 2e-3)
    settings = replace(settings, learning_rate=rate)
    pairs = [
        (same[0].cot, [t.scores.spans for t in same if t.scores])
        for same in zip(*teachers, strict=True)
        if same[0].cot and all(t.scores and t.scores.spans for t in same)
    ]
    if len(pairs) < 2:
        raise StageError(f"distill needs at least two scored chains; there are {len(pairs)}: score a run first")
    start = time.perf_counter()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        texts = [text for text, _ in pairs]
        model, tokenizer = _load(settings.encoder) if settings.encoder else _build(texts, settings)
        train, test = _examples(pairs, tokenizer, settings)
        loss = _fit(model.to(device), train, settings, progress)
    metrics = {
        "n_chains": len(pairs),
        "n_held_out": len({example.chain for example in test}),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "n_tokens": int(sum((example.targets >= 0).sum() for example in train)),
        "loss": loss,
        "train_spearman": _correlation(model, train[:200]),
        "held_out_spearman": _correlation(model, test),
        "time_s": round(time.perf_counter() - start, 1),
        "settings": asdict(settings),
    }
    with new_folder(out, or_empty=True) as draft:
        model.to("cpu").save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "distill.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def token_values(offsets: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[float | None]:
    """The teacher's value of each token: the mean over spans, weighted by the characters shared; None where none."""
    values: list[float | None] = []
    first = 0
    for start, end in offsets:
        while first < len(spans) and spans[first].end <= start:
            first += 1
        at, total, weight = first, 0.0, 0
        while at < len(spans) and spans[at].start < end:
            shared = min(end, spans[at].end) - max(start, spans[at].start)
            if shared > 0:
                total, weight = total + shared * spans[at].value, weight + shared
            at += 1
        values.append(total / weight if weight else None)
    return values


def _load(encoder: str) -> tuple[Any, Any]:
    """A checkpoint and its tokenizer; of the model only the head may be missing, which is trained."""
    from transformers import AutoModelForTokenClassification

    model = load_weights(AutoModelForTokenClassification, encoder, fresh="classifier.", num_labels=2)
    if model.config.model_type not in ("xlm-roberta", "bert"):
        raise ModelError(f"distill needs an XLM-RoBERTa or BERT encoder; {encoder} is {model.config.model_type!r}")
    return model, load_tokenizer(ModelConfig(path=encoder))


def _build(texts: Sequence[str], settings: Settings) -> tuple[Any, Any]:
    """A BERT with random weights and its tokenizer."""
    from transformers import BertConfig, BertForTokenClassification, BertTokenizer

    vocab = build_vocab(texts, settings.vocab_size)
    tokenizer = BertTokenizer(
        vocab={token: i for i, token in enumerate(vocab)}, do_lower_case=False, model_max_length=MAX_LENGTH
    )
    config = BertConfig(
        vocab_size=len(vocab),
        max_position_embeddings=MAX_LENGTH,
        type_vocab_size=1,
        pad_token_id=0,
        num_labels=2,
        id2label={0: "drop", 1: "keep"},
        label2id={"drop": 0, "keep": 1},
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **SIZES[settings.size],
    )
    return BertForTokenClassification(config), tokenizer


def build_vocab(texts: Sequence[str], size: int) -> list[str]:
    """A cased WordPiece vocabulary: every printable ASCII character, the frequent words, and digits only one by one.

    Single digits make the student treat 7 and 52 as what they are, numbers, however rare the number itself is.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=False)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False, min_frequency=2, limit_alphabet=500
    )
    trained.train_from_iterator(texts, trainer)
    printable = [chr(code) for code in range(33, 127)]
    learnt = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    words = [token for token, _ in learnt if not (len(token.removeprefix("##")) > 1 and any(map(str.isdigit, token)))]
    return list(dict.fromkeys([*special, *printable, *(f"##{c}" for c in printable), *words]))


def _examples(
    pairs: Sequence[tuple[str, Sequence[Sequence[Span]]]], tokenizer: Any, settings: Settings
) -> tuple[list[Example], list[Example]]:
    """Training and held-out pieces; targets are ranks over all training tokens, so that the test is not looked at."""
    order = np.random.default_rng(settings.seed).permutation(len(pairs))
    n_test = min(len(pairs) - 1, round(settings.held_out * len(pairs)))
    held = set(order[:n_test].tolist())
    texts = [text for text, _ in pairs]
    encodings = [
        tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False) for text in texts
    ]
    encoded = [encoding["input_ids"] for encoding in encodings]
    offsets = [encoding["offset_mapping"] for encoding in encodings]
    by_teacher = [
        _ranks([token_values(places, spans) for places, spans in zip(offsets, one, strict=True)], held)
        for one in zip(*(spans for _, spans in pairs), strict=True)
    ]
    targets = [np.nan_to_num(np.mean(ranks, axis=0), nan=_IGNORE) for ranks in zip(*by_teacher, strict=True)]
    if settings.pool:
        _pool(encoded, targets, held, tokenizer)
    train: list[Example] = []
    test: list[Example] = []
    for i, (ids, target) in enumerate(zip(encoded, targets, strict=True)):
        for at in range(0, len(ids), MAX_LENGTH - 2):
            piece = target[at : at + MAX_LENGTH - 2]
            example = Example(
                ids=[tokenizer.cls_token_id, *ids[at : at + MAX_LENGTH - 2], tokenizer.sep_token_id],
                targets=np.concatenate([[_IGNORE], piece, [_IGNORE]]).astype(np.float32),
                chain=i,
            )
            (test if i in held else train).append(example)
    return train, test


def _ranks(values: Sequence[Sequence[float | None]], held: set[int]) -> list[np.ndarray[Any, Any]]:
    """One teacher's values as ranks among those of the training chains, in [0, 1]; NaN where it has none."""
    arrays = [np.array([np.nan if value is None else value for value in chain]) for chain in values]
    known = np.concatenate([chain[~np.isnan(chain)] for i, chain in enumerate(arrays) if i not in held])
    levels, counts = np.unique(known, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2) / max(1, counts.sum() - 1)  # mean rank of a tie
    return [np.where(np.isnan(chain), np.nan, np.interp(chain, levels, ranks)) for chain in arrays]


def _pool(
    encoded: Sequence[list[int]], targets: Sequence[np.ndarray[Any, Any]], held: set[int], tokenizer: Any
) -> None:
    """Replace the targets of training chains by the mean over all occurrences of the same token, in place."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    numbers = len(tokens)
    kind = np.array([numbers if any(map(str.isdigit, token)) else i for i, token in enumerate(tokens)])
    total, count = np.zeros(numbers + 1), np.zeros(numbers + 1)
    for i in range(len(encoded)):
        if i not in held:
            known = targets[i] >= 0
            np.add.at(total, kind[encoded[i]][known], targets[i][known])
            np.add.at(count, kind[encoded[i]][known], 1)
    mean = total / np.maximum(count, 1)
    for i in range(len(encoded)):
        if i not in held:
            targets[i][:] = np.where(targets[i] >= 0, mean[kind[encoded[i]]], _IGNORE)


def _batch(examples: Sequence[Example], model: Any) -> tuple[Any, Any, Any]:
    """ids, attention mask and targets, each (batch, seq), right-padded."""
    import torch

    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), model.config.pad_token_id or 0, dtype=torch.long)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    targets = torch.full((len(examples), width), _IGNORE)
    for i, example in enumerate(examples):
        n = len(example.ids)
        ids[i, :n], mask[i, :n] = torch.tensor(example.ids), 1
        targets[i, :n] = torch.from_numpy(example.targets)
    return ids.to(model.device), mask.to(model.device), targets.to(model.device)


def _fit(model: Any, train: list[Example], settings: Settings, progress: Progress | None) -> float:
    """AdamW with warm-up and linear decay; the mean loss of the last tenth of the steps."""
    import torch

    rng = np.random.default_rng(settings.seed)
    plan = _shuffled(train, settings.batch_tokens, rng)
    steps = max(1, round(settings.epochs * len(plan)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1, steps // 20), max(0.02, 1 - step / steps))
    )
    losses: list[float] = []
    model.train()
    while len(losses) < steps:
        for batch in plan[: steps - len(losses)]:
            ids, mask, targets = _batch([train[i] for i in batch], model)
            known = targets >= 0
            logits = model(input_ids=ids, attention_mask=mask).logits[known].float()
            soft = torch.stack([1 - targets[known], targets[known]], dim=-1)
            loss = torch.nn.functional.cross_entropy(logits, soft)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress is not None:
                progress(len(losses), steps, losses[-1])
        plan = _shuffled(train, settings.batch_tokens, rng)
    model.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))


def _shuffled(train: list[Example], batch_tokens: int, rng: np.random.Generator) -> list[list[int]]:
    """Batches of about equal length with other members each epoch, in random order."""
    from tokenskip.scorers._causal import batches

    jitter = rng.integers(0, 16, len(train))
    plan = list(batches([len(example.ids) + int(j) for example, j in zip(train, jitter, strict=True)], batch_tokens))
    rng.shuffle(plan)
    return plan


def _correlation(model: Any, examples: Sequence[Example]) -> float | None:
    """Spearman's rank correlation of p(keep) with the targets over all tokens; None without examples."""
    import torch
    from scipy.stats import spearmanr

    if not examples:
        return None
    got, wanted = [], []
    with torch.inference_mode():
        for at in range(0, len(examples), 16):
            ids, mask, targets = _batch(examples[at : at + 16], model)
            logits = model(input_ids=ids, attention_mask=mask).logits
            known = targets >= 0
            got.append((logits[..., 1] - logits[..., 0])[known].float().cpu().numpy())
            wanted.append(targets[known].cpu().numpy())
    predictions, targets = np.concatenate(got), np.concatenate(wanted)
    if np.ptp(predictions) == 0 or np.ptp(targets) == 0:  # a constant has no ranks to compare
        return None
    return round(float(spearmanr(predictions, targets).statistic), 4)
