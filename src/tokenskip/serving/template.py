"""The chat template that lies beside an adapter or a model: what it supports, and the effort map in it.

tokenskip effort runs/NAME --map low=.5,medium=.7,high=1
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenskip.errors import ModelError
from tokenskip.prompting.chat_template import has_ratio_control, set_effort
from tokenskip.storage.disk import write_atomically

TEMPLATE = "chat_template.jinja"


def template_of(folder: Path) -> str:
    """The template with ratio control in a folder.

    Raises:
        ModelError: it has none.
    """
    file = folder / TEMPLATE
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if not has_ratio_control(text):
        raise ModelError(f"no {TEMPLATE} with tokenskip's ratio control in {folder}: give what `tokenskip train` made")
    return text


def change_effort(folder: Path, effort: Mapping[str, float], *, over: bool = False) -> Path:
    """Put a map into the template of a folder, or with an empty one take it out; returns the changed file.

    Raises:
        ModelError: no template with ratio control, or one that reads the word itself (unless `over`);
            ConfigError: a ratio that the template does not support.
    """
    changed = set_effort(template_of(folder), effort, over=over)
    write_atomically(folder / TEMPLATE, changed)
    return folder / TEMPLATE
