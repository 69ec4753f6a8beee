"""What the scorers with a causal language model share: encode, batch, run, and turn token values into spans.

The token sequence of a trajectory is `render(trajectory)` (the prompt ids of its question, generation prompt
included), the tokens of its `head` (mostly empty), and the tokens of `cot + tail`, tokenized as one text without
special tokens. A token belongs to the CoT when it begins inside it; one that reaches over its end is clipped. White
space at either end of a token is left out of its span, so that spans mark the same characters whether a tokenizer glues
the space to the word or not; a token of nothing but white space keeps its span. Tokens that share characters (the byte
pieces of one emoji) become one span.

Batches are sorted by length and filled up to `batch_tokens`, padding included; padding is on the right and, under
a causal mask, changes no number before it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch

from tokenskip.errors import ConfigError, DataError, ModelError, unknown_name
from tokenskip.types import Scores, Span, Trajectory

Render = Callable[[Trajectory], list[int]]
Goal = Literal["answer", "numbers", "equations", "steps", "chain"]
GOALS = ("answer", "numbers", "equations", "steps", "chain")
_OPERATORS = frozenset("+-−–*/×÷·=<>^%")
IGNORE = -100
_ROWS = 2048  # rows of logits that are turned into float32 log-probabilities at once


@dataclass(frozen=True, slots=True)
class Encoded:
    """One trajectory as tokens: `ids[n_prompt:]` are the tokens of `text`, `offsets` their characters in it."""

    ids: tuple[int, ...]
    n_prompt: int
    text: str
    n_cot_chars: int
    offsets: tuple[tuple[int, int], ...]
    answer: tuple[int, int]

    @property
    def n_cot_tokens(self) -> int:
        """How many of the tokens after the prompt begin inside the CoT."""
        return sum(start < self.n_cot_chars for start, _ in self.offsets)

    def goal_positions(self, goal: Goal, after: int = 0) -> list[int]:
        """Positions in `ids` of the tokens that `goal` consists of, as far as they begin at character `after` or later.

        answer: the tokens of the answer. numbers: those, and every token of the CoT with a digit. equations: those, and
        every one that is an operator (a step goes wrong by its sign as often as by its numbers). steps: those, and what
        every line begins with (another step, or the end). chain: the answer and every token of the CoT. The prompt is
        never part of a goal.
        """
        positions = []
        low, high = self.answer
        for index, (start, end) in enumerate(self.offsets):
            wanted = start < high and end > low
            if start < self.n_cot_chars and goal != "answer":
                token = self.text[start:end]
                wanted = wanted or goal == "chain" or any(c.isdigit() for c in token)
                wanted = wanted or (goal in ("equations", "steps") and token.strip() in _OPERATORS)
            wanted = wanted or (goal == "steps" and _begins_line(self.text, start, end))
            if wanted and start >= after:
                positions.append(self.n_prompt + index)
        return positions


def _begins_line(text: str, start: int, end: int) -> bool:
    """Whether the first character of text[start:end] that is no white space is the first such one after a newline."""
    core = start + len(text[start:end]) - len(text[start:end].lstrip())
    return core < end and text[:core].rstrip(" \t").endswith("\n")


def check_choice(kind: str, given: str, allowed: Sequence[str]) -> None:
    """ConfigError unless `given` is one of `allowed`."""
    if given not in allowed:
        raise ConfigError(unknown_name(kind, given, allowed))


def check_batch_tokens(given: int) -> None:
    """ConfigError unless it is a budget."""
    if given < 1:
        raise ConfigError(f"score.batch_tokens is a number of tokens, at least 1; given: {given}")


def find_answer(trajectory: Trajectory) -> tuple[str, tuple[int, int]]:
    """The tail and where in `cot + tail` the answer is, as characters.

    It is the last place in the tail of the graded answer, else of the gold one; else the whole tail. A trajectory
    without a tail (a CoT alone, from a user's file) gets its gold answer on a separate line; with no answer at all
    the range is empty.
    """
    tail, n = trajectory.tail, len(trajectory.cot)
    if not tail.strip():
        gold = trajectory.gold.strip()
        return f"\n{gold}", (n + 1, n + 1 + len(gold))
    extracted = trajectory.grade.extracted if trajectory.grade else None
    for answer in (extracted, trajectory.gold):
        if answer and answer.strip():
            at = tail.rfind(answer.strip())
            if at >= 0:
                return tail, (n + at, n + at + len(answer.strip()))
    return tail, (n, n + len(tail))


def encode(trajectory: Trajectory, tokenizer: Any, render: Render, cot: str | None = None) -> Encoded:
    """The tokens of a trajectory, or of the same with another CoT."""
    tail, (low, high) = find_answer(trajectory)
    shift = 0 if cot is None else len(cot) - len(trajectory.cot)
    cot = trajectory.cot if cot is None else cot
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} gives no character offsets: scoring needs a fast tokenizer")
    text = cot + tail
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    prompt = list(render(trajectory))
    if trajectory.head and not _opens(prompt, trajectory.head, tokenizer):
        prompt += tokenizer(trajectory.head, add_special_tokens=False)["input_ids"]
    if not prompt:
        first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
        if first is None:
            raise ModelError("the prompt is empty and the tokenizer has no token to begin a text with")
        prompt = [first]
    return Encoded(
        ids=(*prompt, *encoding["input_ids"]),
        n_prompt=len(prompt),
        text=text,
        n_cot_chars=len(cot),
        offsets=tuple((int(a), int(b)) for a, b in encoding["offset_mapping"]),
        answer=(low + shift, high + shift),
    )


def _opens(prompt: Sequence[int], head: str, tokenizer: Any) -> bool:
    """Whether the prompt ends with `head`: the scorer's template may open the tag that the target wrote itself."""
    ending: str = tokenizer.decode(prompt[-len(head) - 8 :])  # a token has a character at least
    return ending.rstrip().endswith(head.strip())


def need_answers(encoded: Iterable[Encoded], trajectories: Iterable[Trajectory], scorer: str) -> None:
    """DataError naming the first trajectory that has no answer at all."""
    for item, trajectory in zip(encoded, trajectories, strict=True):
        if item.answer[0] >= item.answer[1]:
            raise DataError(
                f"{trajectory.id}: {scorer} scores a chain by its answer, and this one has none: "
                "give 'answer' (or 'output'), or use --scorer surprisal"
            )


def spans_of(
    offsets: Sequence[tuple[int, int]], values: Sequence[float], text: str, combine: Literal["sum", "mean"] = "mean"
) -> tuple[Span, ...]:
    """Token values as spans over `text`: in order, clipped to it, tokens that share characters combined into one."""
    groups: list[tuple[int, int, list[float]]] = []
    for (start, end), value in zip(offsets, values, strict=True):
        end = min(end, len(text))
        if start >= end:
            if groups:
                groups[-1][2].append(value)  # a token without characters of its own counts with the one before
            continue
        if groups and start < groups[-1][1]:
            groups[-1] = (groups[-1][0], max(end, groups[-1][1]), [*groups[-1][2], value])
        else:
            groups.append((start, end, [value]))
    spans = []
    for start, end, members in groups:
        piece = text[start:end]
        if piece.strip():
            start += len(piece) - len(piece.lstrip())
            end -= len(piece) - len(piece.rstrip())
        total = sum(members)
        spans.append(Span(start, end, total if combine == "sum" else total / len(members)))
    return tuple(spans)


def cot_scores(name: str, item: Encoded, values: Sequence[float], combine: Literal["sum", "mean"] = "mean") -> Scores:
    """`values` of the CoT's tokens as the scores of a trajectory."""
    n = item.n_cot_tokens
    return Scores(scorer=name, spans=spans_of(item.offsets[:n], values[:n], item.text[: item.n_cot_chars], combine))


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices, longest first, in batches whose longest member times their number is at most `batch_tokens`.

    A sequence longer than the budget makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(rows: Sequence[Sequence[int]], device: Any, filler: int = 0) -> tuple[Any, Any]:
    """Right-padded ids and attention mask, each (batch, seq)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), filler, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = 1
    return ids.to(device), mask.to(device)


def token_logprobs(model: Any, items: Sequence[Encoded]) -> list[list[float]]:
    """log p(token | all tokens before it) of every token after the prompt, one list an item.

    Logits are computed from the shortest prompt of the batch on where the model can leave the rest out.
    """
    ids, mask = pad([item.ids for item in items], model.device)
    first = min(item.n_prompt for item in items) - 1
    kept = {"logits_to_keep": ids.shape[1] - first} if _can_cut_logits(model) else {}
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **kept).logits
        begin = ids.shape[1] - logits.shape[1]
        rows = []
        for i, item in enumerate(items):
            after_prompt = logits[i, item.n_prompt - 1 - begin : len(item.ids) - 1 - begin]
            rows.append(gather_logprobs(after_prompt, ids[i, item.n_prompt : len(item.ids)]).cpu().tolist())
    return rows


def logprobs_in_batches(model: Any, items: Sequence[Encoded], batch_tokens: int) -> list[list[float]]:
    """`token_logprobs` of any number of items, in their order."""
    rows: list[list[float]] = [[] for _ in items]
    for batch in batches([len(item.ids) for item in items], batch_tokens):
        for index, row in zip(batch, token_logprobs(model, [items[i] for i in batch]), strict=True):
            rows[index] = row
    return rows


def gather_logprobs(logits: Any, targets: Any) -> Any:
    """log softmax(logits)[target] in float32, (rows,); never more than `_ROWS` rows of float32 at a time."""
    parts = [
        -torch.nn.functional.cross_entropy(chunk.float(), target, reduction="none")
        for chunk, target in zip(logits.split(_ROWS), targets.split(_ROWS), strict=True)
    ]
    return torch.cat(parts) if parts else logits.new_zeros(0)


def goal_logprob(logits: Any, ids: Any, positions: Sequence[Sequence[int]]) -> Any:
    """Sum over the batch of the log-likelihood of each row's goal tokens; a scalar to differentiate."""
    rows = [i for i, row in enumerate(positions) for _ in row]
    where = torch.tensor([p for row in positions for p in row], dtype=torch.long, device=ids.device)
    which = torch.tensor(rows, dtype=torch.long, device=ids.device)
    picked = logits[which, where - 1].float()
    return -torch.nn.functional.cross_entropy(picked, ids[which, where], reduction="sum")


def _can_cut_logits(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@dataclass(eq=False, repr=False)
class CausalScorer:
    """Base of the scorers with a causal language model: encodes, batches, and puts the results back in input order.

    A subclass sets `name`, adds its options as fields (checked in `__post_init__`) and writes `_score_batch`. The model
    is used as it is (its device, dtype and weights are not touched) and nothing of a batch is kept when it is done.
    """

    name = ""
    needs_answer = False

    model: Any
    _: KW_ONLY
    tokenizer: Any
    render: Render
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        check_batch_tokens(self.batch_tokens)
        self.model.eval()

    def score(self, trajectories: Sequence[Trajectory]) -> list[Scores]:
        """One `Scores` a trajectory, in the same order."""
        encoded = [encode(trajectory, self.tokenizer, self.render) for trajectory in trajectories]
        if self.needs_answer:
            need_answers(encoded, trajectories, self.name)
        results: list[Scores | None] = [None] * len(encoded)
        for batch in batches([len(item.ids) for item in encoded], self.batch_tokens):
            scored = self._score_batch([encoded[i] for i in batch], [trajectories[i] for i in batch])
            for i, scores in zip(batch, scored, strict=True):
                results[i] = scores
        return [scores for scores in results if scores is not None]

    def _score_batch(self, items: list[Encoded], trajectories: list[Trajectory]) -> list[Scores]:
        raise NotImplementedError
