"""The first mistake in a recipe's values, as one line that names the key, the value, and what is allowed. Pure."""

from __future__ import annotations

import json
from typing import get_args

from pydantic import BaseModel, ValidationError

from tokenskip.errors import shorten, unknown_name


def first_mistake(error: ValidationError, root: type[BaseModel]) -> str:
    """One line about the first of `error`'s mistakes; `root` is the model that the values were read as."""
    mistake = error.errors()[0]
    where = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        return unknown_name("key", where, _keys_beside(mistake["loc"], root))
    message = mistake["msg"].removeprefix("Value error, ")
    try:
        given = json.dumps(mistake["input"], default=str)
    except (ValueError, RecursionError):  # YAML can hold itself
        given = str(mistake["input"])
    return shorten(f"{where}: {message}" if where else message) + (
        "" if "given:" in message else f"; given: {shorten(given)}"
    )


def _keys_beside(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """All keys allowed beside an unknown one, as dotted keys."""
    model = root
    values: type[BaseModel] | None = None  # the model of a mapping's values, such as the arms in `evaluate.define`
    prefix = ""
    for part in location[:-1]:
        prefix = f"{prefix}{part}."
        if part not in model.model_fields:
            model = values or model
            continue
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        values = next(
            (one for one in get_args(annotation) if isinstance(one, type) and issubclass(one, BaseModel)), None
        )
    return [prefix + name for name in model.model_fields]
