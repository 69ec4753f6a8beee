"""`prune`: the chain's own tokens, the least important left out (the paper, section 3.2).

The stages score and prune make its candidates; `pruned.jsonl` holds them.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenskip.types import Completion, Pruned, Trajectory


class Prune:
    """What the stage prune has cut."""

    name = "prune"

    def candidates(self, chains: Sequence[Trajectory]) -> list[list[Completion | Pruned]]:
        """See `Source.candidates`."""
        return [list(chain.pruned) for chain in chains]
