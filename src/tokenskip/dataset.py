"""Stage 5: pruned trajectories -> the fine-tuning rows. Writes `train.jsonl`.

A row has the columns that TRL reads (`prompt`, `completion`, `chat_template_kwargs`) and beside them what happened:
the ratio asked for, the one achieved, the tokens. The completion is the pruned CoT and the untouched answer; a ratio
of 1 is the plain question with the whole chain (paper, section 3.3).
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenskip.prompts import Prompts, ratio_kwargs
from tokenskip.store import Row
from tokenskip.types import Trajectory


def training_rows(trajectory: Trajectory, prompts: Prompts) -> Iterator[Row]:
    """One row per pruned text that the verifier did not reject; none for a dropped trajectory."""
    if trajectory.dropped:
        return
    for cut in trajectory.pruned:
        if cut.rejected:
            continue
        yield {
            "id": trajectory.id,
            "ratio": cut.ratio,
            "achieved_ratio": round(cut.achieved_ratio, 4),
            "prompt": list(prompts.messages(trajectory.question)),
            "completion": [{"role": "assistant", "content": trajectory.head + cut.text + trajectory.tail}],
            "chat_template_kwargs": ratio_kwargs(cut.ratio),
            "n_cot_tokens": cut.n_tokens_pruned,
        }
