"""Whose code may run: a recipe, a run folder and a model are data, and data does not consent to code.

A plug-in that is no part of tokenskip runs when this user names it: on the command line (`--set score.scorer=…`), in
Python, or in the environment variable TOKENSKIP_TRUST, which lists packages and models:

    TOKENSKIP_TRUST=my_package tokenskip run mine.yaml
    TOKENSKIP_TRUST=my_package,someone/model tokenskip export runs/theirs -o rows

Code that comes with a model runs when a recipe or the command line says `model.trust_remote_code: true`; a run folder's
`config.json` may be somebody else's, so there the model must be in TOKENSKIP_TRUST as well. For the same reason the API
key in OPENAI_API_KEY goes to a server that only a run folder names when its host is in TOKENSKIP_TRUST, when the
address is that of OPENAI_BASE_URL, or when it is this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from tokenskip.errors import ConfigError

VARIABLE = "TOKENSKIP_TRUST"
HOMES = {
    "task": ("tokenskip.tasks",),
    "backend": ("tokenskip.backends",),
    "scorer": ("tokenskip.scorers",),
    "source": ("tokenskip.sources",),
    "answer_fn": ("tokenskip.answers.compare",),
}
"""Where our own plug-ins are. Any other module, even of ours, may do anything when it is imported or called."""

_PLACES = {
    "task.name": "task",
    "task.options.answer_fn": "answer_fn",
    "generate.backend": "backend",
    "score.scorer": "scorer",
}
KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key that servers are asked with, as every OpenAI client reads it."""
_THIS_MACHINE = re.compile(r"localhost|.*\.localhost|127(\.\d{1,3}){3}|::1")
_VLLM_IMPORTS = ("_cls", "_processors", "_plugin", "executor_backend", "kv_transfer_config", "compilation_config")
"""Ends of options with which vLLM imports what they name."""


def is_ours(kind: str, name: str) -> bool:
    """Whether a plug-in's name means one of ours: a name of a table, or a module in the folder of its kind."""
    module, colon, _ = name.partition(":")
    return not colon or any(module == home or module.startswith(f"{home}.") for home in HOMES[kind])


def foreign_code(config: Any) -> Iterator[tuple[str, str]]:
    """(setting, name) of everything outside of tokenskip whose code a run of this configuration imports or runs."""
    values = config.model_dump()
    for place, kind in _PLACES.items():
        name = _at(values, place)
        if isinstance(name, str) and not is_ours(kind, name):
            yield place, name
    for name in values["candidates"]["sources"]:
        if not is_ours("source", name):
            yield f"candidates.sources.{name}", name
    for option, value in config.generate.options.items():
        if config.generate.backend == "vllm" and option.endswith(_VLLM_IMPORTS) and value:
            yield f"generate.options.{option}", str(value)
    if config.model.trust_remote_code:
        yield "model.trust_remote_code", config.model.path
    if config.generate.backend == "vllm" and config.generate.options.get("trust_remote_code"):
        yield "generate.options.trust_remote_code", config.model.path


def servers(config: Any) -> Iterator[tuple[str, str]]:
    """(setting, host) of every server that a configuration names: an option `url`, or a model that is NAME@URL."""

    def walk(place: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(f"{place}.{key}", inner)
        elif isinstance(value, str) and (place.endswith(".url") or "@http" in value):
            address = value if place.endswith(".url") else f"http{value.partition('@http')[2]}"
            try:
                yield place, urlsplit(address if "://" in address else f"http://{address}").hostname or ""
            except ValueError:  # what is no address is refused where it is used
                return

    yield from walk("model.path", config.model.path)
    yield from walk("generate.options", config.generate.options)  # of any backend: its name may be a module's
    yield from walk("candidates.sources", config.candidates.sources)


def check_servers(config: Any, overrides: Sequence[str], source: str) -> None:
    """Nothing, where this user trusts every server that a run folder names, or has set no API key.

    Raises:
        ConfigError: says where the key would go, and what to type.
    """
    if not os.environ.get(KEY_VARIABLE, "").strip():
        return
    own = os.environ.get("OPENAI_BASE_URL", "")
    known = {*_trusted(), urlsplit(own if "://" in own else f"http://{own}").hostname}
    for place, host in servers(config):
        if host not in known and not _THIS_MACHINE.fullmatch(host) and not _is_said(place, overrides):
            raise ConfigError(
                f"{source}: {place} would send {KEY_VARIABLE} to {host}. If you trust it, put {VARIABLE}={host} before "
                f"the command; else take the key away: {KEY_VARIABLE}="
            )


def check_trust(config: Any, overrides: Sequence[str], source: str, *, recipe: bool) -> None:
    """Nothing, where all foreign code that a configuration names is trusted by this user.

    `overrides` are what the user laid over the data (--set); `recipe` says that the data is a recipe, whose
    `trust_remote_code` counts, and no run folder.

    Raises:
        ConfigError: says what would run, and what to type.
    """
    trusted = _trusted()
    for place, name in foreign_code(config):
        remote = place.endswith("trust_remote_code")
        package = name if remote else name.partition(":")[0].partition(".")[0]
        if _is_said(place, overrides) or {package, name.partition(":")[0]} & trusted or (remote and recipe):
            continue
        what = f"code that comes with the model {name}" if remote else f"{name}, which is no part of tokenskip"
        raise ConfigError(
            f"{source}: {place} would run {what}. If you trust it, put {VARIABLE}={package} before the command, or say "
            f"it yourself where the command takes it: --set {place}={'true' if remote else name}"
        )


def _trusted() -> set[str]:
    """What TOKENSKIP_TRUST lists."""
    return {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}


def _is_said(place: str, overrides: Sequence[str]) -> bool:
    """Whether the user has set what stands at a place, or a section around it."""
    return any(f"{place}.".startswith(f"{override.partition('=')[0].strip()}.") for override in overrides)


def _at(values: Mapping[str, Any], place: str) -> Any:
    """The value at a dotted place; None where there is none."""
    found: Any = values
    for key in place.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
