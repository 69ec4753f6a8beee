"""Recipe files as plain values: YAML with the numbers of YAML 1.2, shipped recipes by name, and `extends`.

    extends: paper               # a shipped recipe, or a path relative to this file
    name: mine
    model: {path: Qwen/Qwen2.5-7B-Instruct}

A recipe that extends another says only what differs: mappings are merged key by key, everything else replaces.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tokenskip.errors import ConfigError, shorten, unknown_name

SHIPPED = Path(__file__).parent

SHORT = {"engine": "name", "calibrate": "n", "grpo": "steps"}
"""Section -> the field that may stand for it: `grpo: 200` is `grpo: {steps: 200}`."""

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)
"""What reading YAML ends in: a 13th month, 5,000 digits and a nesting of thousands are no YAMLError."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `5e-5` as a number, as YAML 1.2 does; PyYAML follows YAML 1.1, where it is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""[-+]? (?: (?: \.\d+ | \d+\.\d* ) (?: [eE][-+]?\d+ )?    # .5, 5., 5.0e-5
                    | \d+ [eE][-+]?\d+ ) \Z                          # 5e-5""",
        re.VERBOSE,
    ),
    list("-+.0123456789"),
)


def read_value(text: str) -> Any:
    """A value as YAML reads it; one of `UNREADABLE` where it is none."""
    return yaml.load(text, _Loader)


def find_recipe(name: str | Path, folder: Path | None = None) -> Path:
    """The file that `name` means: a path (relative to `folder`), or a shipped recipe's name.

    Raises:
        ConfigError: neither.
    """
    path = Path(folder or "", name).expanduser()
    shipped = SHIPPED / f"{name}.yaml"
    if path.exists() or not shipped.exists():
        return path
    return shipped


def shipped_names() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(file.stem for file in SHIPPED.glob("*.yaml"))


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The values of a recipe, laid over those of the recipe it extends.

    Raises:
        ConfigError: a file that is not there or not YAML, or recipes that extend each other.
    """
    return _read(path, ())


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        names = " -> ".join(file.name for file in (*before, path))
        raise ConfigError(f"{before[0]}: recipes extend each other in a circle: {names}")
    values = _values(path)
    if "extends" not in values:
        return values
    extended = values.pop("extends")
    if not isinstance(extended, str) or not extended.strip():
        raise ConfigError(f"{path}: extends takes one recipe, a shipped name or a path; given: {extended!r}")
    base = find_recipe(extended.strip(), path.parent)
    if not base.exists():
        raise ConfigError(
            f"{path}: extends: {unknown_name('recipe', extended, shipped_names())}, or a path relative to this file"
        )
    return merged(_read(base, (*before, path.resolve())), values)


def _values(path: Path) -> dict[str, Any]:
    try:
        loaded = read_value(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no recipe {path}: give a YAML file, or the name of a shipped one ({', '.join(shipped_names())})"
        ) from None
    except (OSError, *UNREADABLE) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {shorten(' '.join(str(error).split()))}") from None
    if not isinstance(loaded or {}, dict):
        raise ConfigError(f"{path} must hold sections such as 'model:' and 'task:', not a {type(loaded).__name__}")
    return loaded or {}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`: mappings key by key, everything else replaces."""
    result = dict(below)
    for key, value in above.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def lay_over(values: dict[str, Any], override: str) -> None:
    """Set the dotted key of `section.key=value` in `values`; the value is read as YAML, so lists and numbers work.

    Raises:
        ConfigError: no `=`, a value that is not YAML, or a key inside something that is no section.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {shorten(override)!r}: write it as section.key=value, for example train.epochs=3")
    try:
        value = read_value(text)
    except UNREADABLE:
        raise ConfigError(f"--set {shorten(override)!r}: the value is not YAML") from None
    *sections, last = key.strip().split(".")
    for section in sections:
        if section in SHORT and isinstance(values.get(section), str | int):
            values[section] = {SHORT[section]: values[section]}
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {shorten(override)!r}: {shorten(section)!r} is not a section")
    if last in SHORT and not sections and isinstance(value, str | int) and isinstance(values.get(last), dict):
        values, last = values[last], SHORT[last]  # its other settings stay
    values[last] = value
