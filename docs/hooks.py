"""Hooks of mkdocs: pages made from files elsewhere in the repository, and links to them.

Pages link to files by their paths in the repository, so that links work where the repository is browsed. In the site, a
link to a file that has a page leads to that page; a link to a file without one becomes plain text.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "pages"
#: file of the repository -> page of the site
FIXED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "rooms/benchmarks.md",
}
#: code in a fence, a link, or code in a line; whichever begins first
_TOKEN = re.compile(r"^```.*?^```|(?<!!)\[([^\]]*)\]\(([^)\s]+)\)|`[^`\n]+`", re.M | re.S)


def elsewhere() -> dict[str, str]:
    """Files outside of the pages that have a page: path in the repository -> page."""
    found = dict(FIXED)
    for readme in sorted([*ROOT.glob("mipp/**/README.md"), *ROOT.glob("csrc/*/README.md")]):
        path = readme.relative_to(ROOT)
        found[path.as_posix()] = f"rooms/{'-'.join(path.parent.parts)}.md"
    for example in sorted(ROOT.glob("docs/examples/*.py")):
        found[example.relative_to(ROOT).as_posix()] = f"examples/{example.stem}.md"
    return found


def page_of(path: str) -> str | None:
    """The page of a file of the repository, or None."""
    if path.startswith("docs/pages/") and (ROOT / path).is_file():
        return path.removeprefix("docs/pages/")
    return elsewhere().get(path)


def relinked(text: str, source: str, page: str) -> str:
    """Markdown ``text`` of the repository's file ``source``, with its links as page ``page`` has them."""

    def replaced(match: re.Match[str]) -> str:
        label, target = match.groups()
        address, _, anchor = (target or "").partition("#")
        if not address or "://" in address or address.startswith("mailto:"):
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(source), address)).replace(os.sep, "/")
        found = page_of(path)
        if found is None:
            return label
        relative = os.path.relpath(found, os.path.dirname(page) or ".").replace(os.sep, "/")
        return f"[{label}]({relative}{'#' + anchor if anchor else ''})"

    out, at = [], 0
    for match in _TOKEN.finditer(text):
        # a formula's "table[limb][entry]" is no link by reference
        out += [text[at : match.start()].replace("][", "]\\["), replaced(match)]
        at = match.end()
    return "".join([*out, text[at:].replace("][", "]\\[")])


def example_page(path: Path) -> str:
    code = path.read_text()
    doc = ast.get_docstring(ast.parse(code)) or path.stem
    return f"# {path.name}\n\n{doc}\n\n```python\n{code}```\n"


def on_files(files: Any, config: Any) -> Any:
    for source, page in elsewhere().items():
        if page == "index.md" or files.get_file_from_path(page) is not None:
            continue
        path = ROOT / source
        text = example_page(path) if path.suffix == ".py" else relinked(path.read_text(), source, page)
        file = File.generated(config, page, content=text)
        file.inclusion = file.inclusion.NOT_IN_NAV if page.startswith(("rooms/", "examples/")) else file.inclusion
        files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = page.file.src_uri
    return relinked(markdown, f"docs/pages/{source}", source) if (PAGES / source).is_file() else markdown
