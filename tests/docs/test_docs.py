"""Pages stay true: links lead somewhere, commands and snippets work, the reference has every command and name."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from mipp.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
pytestmark = pytest.mark.skipif(not PAGES.is_dir(), reason="no docs beside the tests")

TEXTS = sorted(
    {
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md") if (ROOT / name).is_file()),
        *ROOT.glob("benchmarks/README.md"),
        *PAGES.rglob("*.md"),
        *ROOT.glob("mipp/**/README.md"),
        *ROOT.glob("csrc/*/README.md"),
    }
)
GUIDES = [t for t in TEXTS if t.is_relative_to(PAGES) or t.parent == ROOT]
#: modules of the reference
MODULES = [
    "mipp", "mipp.compat.ann_benchmarks", "mipp.compat.big_ann_benchmarks",
    "mipp.compat.faiss", "mipp.compat.langchain", "mipp.compat.phe",
    "mipp.compat.sklearn", "mipp.cpu", "mipp.encoding", "mipp.errors", "mipp.evaluation.evaluate",
    "mipp.evaluation.metrics", "mipp.features", "mipp.paillier", "mipp.params", "mipp.ring", "mipp.sharing",
]  # fmt: skip
#: a link, whose text may be code, or code
_LINK = re.compile(r"\[(?:[^\]`]|`[^`]*`)*\]\(([^)\s]+)\)|`[^`\n]+`")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def _fenceless(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(text):
    """Anchors of a text's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", _fenceless(text), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken(path, text):
    """Links of a text that lead nowhere."""
    found = []
    for target in _LINK.findall(_fenceless(text)):
        if not target or "://" in target or target.startswith("mailto:"):
            continue
        address, _, anchor = target.partition("#")
        other = (path.parent / address).resolve()
        there = (
            anchors(other.read_text() if address else text) if anchor and (other.is_file() or not address) else set()
        )
        if not other.exists() or (anchor and anchor not in there):
            found.append(target)
    return found


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path):
    assert not broken(path, path.read_text())


def test_the_search_for_links_can_fail():
    text = "# A b\n[x](#a-b) [`y`](gone.md) [z](README.md#gone) `[no](link.md)`\n```\n[no](link.md)\n```\n"
    assert broken(ROOT / "README.md", text) == ["gone.md", "README.md#gone"]


# --- snippets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [t for t in GUIDES if t.parent != ROOT and blocks(t.read_text(), "python")], ids=name_of
)
def test_python_snippets_run(path, tmp_path, monkeypatch):
    """A page's blocks run one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(path.read_text(), "python"):
        exec(compile(block, str(path), "exec"), names)


def commands(group=cli, path=("mipp",)):
    yield path, group
    for name in sorted(getattr(group, "commands", {})):
        yield from commands(group.commands[name], (*path, name))


def printed_commands(text):
    """Lines of shell blocks, and code of the text, that call the command."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    lines += [line[4:] for line in text.splitlines() if line.startswith("    mipp ")]
    lines += [" ".join(code.split()) for code in re.findall(r"`(mipp\s[^`]+)`", _fenceless(text))]
    return [line for line in (re.sub(r"\s+#.*", "", line) for line in lines) if re.match(r"mipp( |$)", line)]


def wrong_command(line):
    """Why a printed command would be refused as wrong usage, or nothing."""
    command, words = cli, shlex.split(line)[1:]
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-") or words[0] == "COMMAND":
            return ""
        name = words.pop(0)
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    known = {o for p in command.params if isinstance(p, click.Option) for o in [*p.opts, *p.secondary_opts]}
    unknown = [w for w in words if re.match(r"--?[a-z]", w) and w not in known | {"--help", "-h"}]
    return f"no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_printed_commands_exist(path):
    wrong = {line: why for line in printed_commands(path.read_text()) if (why := wrong_command(line))}
    assert not wrong


def test_the_search_for_commands_can_fail():
    text = "`mipp gone`\n```sh\nmipp init --gone 3    # a comment\nmipp status\n```\n"
    assert [wrong_command(line) for line in printed_commands(text)] == ["no option --gone", "", "no command gone"]


# --- references -----------------------------------------------------------------------------------------------------


def test_command_reference_is_complete():
    """``python docs/commands.py`` writes it."""
    page = (PAGES / "commands.md").read_text()
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    there = {" ".join(path): command for path, command in commands()}
    assert set(sections) == set(there)
    for name, command in there.items():
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert all(f"`{o}`" in sections[name] for o in [*option.opts, *option.secondary_opts]), (name, option.name)


def test_every_page_is_on_the_way():
    """Each page is named in the site's navigation, and each room's README on the page of rooms."""
    navigation = (ROOT / "docs" / "mkdocs.yml").read_text()
    for page in PAGES.rglob("*.md"):
        assert f": {page.relative_to(PAGES).as_posix()}\n" in navigation
    rooms = (PAGES / "rooms.md").read_text()
    for text in TEXTS:
        if text.name == "README.md" and text.parent != ROOT:
            assert f"(../../{name_of(text)})" in rooms, name_of(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not (find_spec("mkdocs") and find_spec("mkdocstrings_handlers")):
        pytest.skip("the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ROOT / "docs/mkdocs.yml", "-d", folder]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_reference_has_every_public_name(site, module):
    pages = "".join(p.read_text() for p in (site / "api").glob("*.html"))
    if module.endswith("langchain"):
        pytest.importorskip("langchain_core", reason="langchain-core (extra langchain) is not installed")
    found = importlib.import_module(module)
    for name in found.__all__:
        thing = getattr(found, name)
        if (inspect.isclass(thing) or inspect.isroutine(thing)) and not name.startswith("__"):
            ids = [f'id="{m}.{thing.__qualname__}"' for m in {module, thing.__module__, *MODULES}]
            assert any(i in pages for i in ids), f"{module}.{name}"


def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"((?:https?:)?//[^\"]+)\"", page.read_text()
        )
        assert not loaded, page
