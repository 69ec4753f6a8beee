"""How important a word is on the whole: a run's scores averaged over its training chains, for colouring other texts.

Evaluation problems are not scored. The report colours their chains by what the scorer said of the same words in the
training chains: a word's importance is its mean rank in its chain (0 least, 1 most), and `level` its fifth among all
words. Numbers count as one word. Pure: trajectories in, a table of words out.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from tokenskip.types import Trajectory

LEVELS = 5
LONGEST_WORD = 40
"""Characters; what is longer is a text without spaces and not looked up."""
_WORD = re.compile(r"\S+")


def word_key(word: str) -> str:
    """What a word is looked up as: no case, no marks around it, every number `0`. templates/report.js does the same."""
    return re.sub(r"[0-9]+", "0", re.sub(r"^[\W_]+|[\W_]+$", "", word.lower()))


def word_levels(scored: Iterable[Trajectory], texts: Iterable[str]) -> dict[str, int]:
    """Level 0-4 of every word of `texts` that occurs in the scored chains, five levels over the words of the chains."""
    total: dict[str, float] = defaultdict(float)
    seen: dict[str, int] = defaultdict(int)
    for trajectory in scored:
        for word, rank in _ranks(trajectory):
            total[word] += rank
            seen[word] += 1
    means = {word: total[word] / seen[word] for word in total}
    ordered = sorted(means.values())
    edges = [ordered[len(ordered) * k // LEVELS] for k in range(1, LEVELS)] if ordered else []
    wanted = {word_key(word) for text in texts for word in _WORD.findall(text) if len(word) <= LONGEST_WORD}
    return {word: bisect_right(edges, means[word]) for word in sorted(wanted) if word in means}


def _ranks(trajectory: Trajectory) -> Iterable[tuple[str, float]]:
    """(word, mean rank of its scored parts within the chain) of every word of one chain that has any."""
    spans = trajectory.scores.spans if trajectory.scores else ()
    values = sorted(span.value for span in spans)
    at = 0
    for word in _WORD.finditer(trajectory.cot):
        while at < len(spans) and spans[at].end <= word.start():
            at += 1
        ranks, k = [], at
        while k < len(spans) and spans[k].start < word.end():
            ranks.append((bisect_right(values, spans[k].value) - 0.5) / len(values))
            k += 1
        key = word_key(word.group())
        if ranks and key:
            yield key, sum(ranks) / len(ranks)
