"""For the site only: links that leave docs/ (to code, to ARCHITECTURE.md) become plain names of those files.

The same pages are read in the repository, where such links work; on the site they would lead nowhere. A link to a file
that does not exist is left as it is, so that `mkdocs build --strict` still complains about it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs calls this with each page's source."""
    docs = Path(config["docs_dir"]).resolve()
    folder = (docs / page.file.src_uri).parent

    def plain(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        inside = target.is_relative_to(docs)
        return link[0] if inside or not target.exists() else link[1]

    return LINK.sub(plain, markdown)
