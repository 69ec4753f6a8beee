"""Names that a recipe may give to arguments of the chat template (`prompt.template_kwargs`)."""

from __future__ import annotations

import keyword
import re

from tokenskip.errors import shorten

_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_ARGUMENTS = frozenset(
    {
        *("compression_ratio", "compression_ratio_unmapped", "messages", "tools", "documents", "add_generation_prompt"),
        *("continue_final_message", "tokenize", "chat_template", "conversation", "padding", "truncation", "max_length"),
        *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "template_kwargs"),
        *("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"),
        *("raise_exception", "strftime_now", "loop", "self", "super", "caller", "varargs", "kwargs", "namespace"),
        *("range", "dict", "true", "false", "none"),
    }
)
"""Names that the ratio control, transformers' `apply_chat_template` or Jinja give a meaning of their own."""


def check_argument(name: str) -> None:
    """ValueError unless `name` can be an argument of a recipe's own."""
    if not _ARGUMENT.fullmatch(name) or keyword.iskeyword(name):
        raise ValueError(f"{shorten(name)!r} is no name of a template argument (letters, digits and _)")
    if name in RESERVED_ARGUMENTS or name.startswith("tsk"):
        raise ValueError(f"{name} is set by tokenskip or by the caller of the template: leave it out")
