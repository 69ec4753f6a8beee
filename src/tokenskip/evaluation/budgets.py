"""How many tokens an answer at a ratio needs, for the hard limit of a server. Pure.

{"chain": 181, "answer": 203}      # 99% of the answers that came to an end needed no more
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tokenskip.storage.store import Row

QUANTILE = 0.99
"""Of the answers that came to an end: what a limit cuts off beyond it are the longest one in a hundred."""


def token_budget(rows: Sequence[Row]) -> dict[str, int] | None:
    """Tokens of the chain, and of chain, answer and end token; None where no answer came to an end."""
    ended = [row for row in rows if row["finish"] == "stop"]
    if not ended:
        return None
    # the smallest number that the quantile does not exceed: a limit between two answers would cut the longer one
    at = math.ceil(QUANTILE * len(ended)) - 1
    chains, answers = (sorted(row[name] for row in ended) for name in ("n_cot_tokens", "n_tokens"))
    return {"chain": chains[at], "answer": answers[at] + 1}
