"""Usage reports of the libraries underneath, switched off unless the user switched them on.

`tokenskip` itself reports nothing to anybody.
"""

from __future__ import annotations

import os
import sys

SWITCHES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and through it TRL's trainers and datasets
    "GRADIO_ANALYTICS_ENABLED": "False",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variable -> the value that switches reports off. Each library reads its own when it is imported."""


def switch_off() -> None:
    """Switch every library's reports off for this process and those it starts; a variable that is set stays."""
    chosen = SWITCHES.keys() & os.environ.keys()
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    if not chosen:  # the general switch, which would overrule a library's own that the user has set
        os.environ.setdefault("DO_NOT_TRACK", "1")
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None and "HF_HUB_DISABLE_TELEMETRY" not in chosen:  # imported earlier: it has read its variable
        hub.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]
