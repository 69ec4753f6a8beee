"""Teach a language model to think in fewer tokens, and choose how few.

The names in `__all__` are the public API; each is imported when it is first used, so that `import tokenskip` is light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenskip.api import run_recipe, score_texts
    from tokenskip.config import PromptConfig, PruneConfig, RunConfig, load_recipe
    from tokenskip.errors import ConfigError, TokenskipError
    from tokenskip.evaluation.schema import load_results
    from tokenskip.generation.split import split_completion
    from tokenskip.prompting.chat_template import add_ratio_control
    from tokenskip.pruning.chain import prune_chain
    from tokenskip.tokens import token_counter
    from tokenskip.types import Problem, Pruned, Scores, Span, Trajectory

    __version__: str

__all__ = [
    "ConfigError",
    "Problem",
    "PromptConfig",
    "PruneConfig",
    "Pruned",
    "RunConfig",
    "Scores",
    "Span",
    "TokenskipError",
    "Trajectory",
    "__version__",
    "add_ratio_control",
    "load_recipe",
    "load_results",
    "prune_chain",
    "run_recipe",
    "score_texts",
    "split_completion",
    "token_counter",
]

_MODULES = {
    "api": ("run_recipe", "score_texts"),
    "config": ("PromptConfig", "PruneConfig", "RunConfig", "load_recipe"),
    "errors": ("ConfigError", "TokenskipError"),
    "evaluation.schema": ("load_results",),
    "generation.split": ("split_completion",),
    "prompting.chat_template": ("add_ratio_control",),
    "pruning.chain": ("prune_chain",),
    "tokens": ("token_counter",),
    "types": ("Problem", "Pruned", "Scores", "Span", "Trajectory"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("tokenskip")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
