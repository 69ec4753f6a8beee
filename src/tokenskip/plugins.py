"""Names -> tasks, backends and scorers: three literal tables, and `package.module:attr` for a user's own.

To add one: write its file, add one line here, write its test.
"""

from __future__ import annotations

import importlib
from typing import Any

from tokenskip.errors import ConfigError, unknown_name

TASKS = {
    "embedded": "tokenskip.tasks.embedded:EmbeddedTask",
    "gsm8k": "tokenskip.tasks.gsm8k:Gsm8k",
    "math500": "tokenskip.tasks.math500:Math500",
    "jsonl": "tokenskip.tasks.jsonl:JsonlTask",
    "choice": "tokenskip.tasks.choice:Choice",
}
BACKENDS = {
    "hf": "tokenskip.backends.hf:HfBackend",
    "openai": "tokenskip.backends.openai:OpenAIBackend",
    "vllm": "tokenskip.backends.vllm:VllmBackend",
    "scripted": "tokenskip.backends.scripted:ScriptedBackend",
}
SCORERS = {
    "surprisal": "tokenskip.scorers.surprisal:Surprisal",
    "goal_gradient": "tokenskip.scorers.goal_gradient:GoalGradient",
    "random": "tokenskip.scorers.random:RandomScorer",
    "llmlingua2": "tokenskip.scorers.llmlingua2:LLMLingua2",
    "leave_one_out": "tokenskip.scorers.leave_one_out:LeaveOneOut",
    "ablation": "tokenskip.scorers.ablation:Ablation",
    "mist": "tokenskip.scorers.mist:Mist",
    "contrast": "tokenskip.scorers.contrast:Contrast",
}


def load(kind: str, name: str, table: dict[str, str]) -> Any:
    """The class or factory that `name` stands for in `table`, or that `package.module:attr` points to.

    Raises:
        ConfigError: there is no such name, module or attribute.
    """
    target = table.get(name, name)
    module_name, colon, attribute = target.partition(":")
    if not colon:
        raise ConfigError(unknown_name(kind, name, table) + ", or package.module:attr of your own")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            raise ConfigError(f"{kind} {name!r} needs the package {error.name!r}: pip install {error.name}") from None
        raise ConfigError(f"{kind} {name!r}: there is no module {module_name!r} to import") from None
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigError(f"{kind} {name!r}: module {module_name!r} has no {attribute!r}") from None
