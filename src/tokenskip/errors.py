"""Every error that a user can cause, and nothing else.

    TokenskipError              one clear line, exit code 2 on the command line
    ├── ConfigError             a recipe or an option: what was given, what is allowed, what to type
    ├── DataError               an input file: which line of which file, and what is wrong with it
    ├── ModelError              a model, tokenizer, adapter or chat template that cannot be used
    ├── BackendError            a server or an engine that does not answer as it must
    ├── RunError                a run folder: locked, unwritable, written under another configuration
    └── StageError              a stage that has nothing to work on: run the one before, or get better data

A trajectory that went wrong (wrong answer, no answer, cut off) is not an error but a record: see `types.Trajectory`.
A bug is none of these and crashes with its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class TokenskipError(Exception):
    """Base of every error that is the user's to mend; its text is one line that says how."""


class ConfigError(TokenskipError):
    """A recipe, an option or a name that is not allowed."""


class DataError(TokenskipError):
    """An input file that cannot be read as asked; names the file and the line."""


class ModelError(TokenskipError):
    """A model, tokenizer, adapter or chat template that cannot be used."""


class BackendError(TokenskipError):
    """An engine or a server that is missing, unreachable, or does not do what was asked."""


class RunError(TokenskipError):
    """A run folder that cannot be used: locked, unwritable, or belonging to another configuration."""


class StageError(TokenskipError):
    """A stage without input, or with no usable input."""


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> str:
    """One line for a name that does not exist: the given one, the nearest, and all that are allowed."""
    names = sorted(allowed)
    given = given if len(given) <= 80 else given[:80] + "…"
    near = get_close_matches(given, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {given!r}{hint}: allowed are {', '.join(names)}"


def shorten(text: str) -> str:
    """At most 300 characters of a text that a user gave, for a line that quotes it."""
    return text if len(text) <= 300 else text[:300] + "…"
