"""Text that was written by others, made safe for a terminal: what it says is shown, what it commands is not done.

print(printable(reply))         # \\x1b]0;title\\x07 instead of a new title
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment

_COMMANDS = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but for tab and line feed
    "\u202a-\u202e\u2066-\u2069"  # turn the reading direction around
    "\u2028\u2029\ufeff"  # start a line where no terminal shows one
    "\ud800-\udfff"  # halves of characters
    "\U000e0000-\U000e007f]"  # letters that are not seen
)


def printable(text: str) -> str:
    """`text` with control characters, direction overrides and halves of characters escaped; line breaks and tabs stay.

    ESC, the C1 controls (which some terminals obey as they obey ESC), carriage return and backspace could set titles,
    clear the screen, fake links or overwrite a line.
    """
    if text.isascii() and text.isprintable():
        return text
    return _COMMANDS.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: object, limit: int = 300) -> str:
    """The printable text of a message from elsewhere as one line of at most `limit` characters."""
    line = " ".join(printable(str(text)[: 8 * limit]).split())
    return line if len(line) <= limit else f"{line[:limit]}…"


def console(**options: Any) -> Console:
    """A console of rich that prints texts as `printable` shows them, whatever they come in."""
    from rich.console import Console
    from rich.segment import Segment

    class Printable(Console):
        def render(self, *arguments: Any, **more: Any) -> Iterable[Segment]:
            for segment in super().render(*arguments, **more):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return Printable(**options)


def replace_unencodable() -> None:
    """Let standard output and error write "?" for a character that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
