"""Modules of a room import each other one way: also inside functions and under TYPE_CHECKING there are no circles."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mipp

ROOT = Path(mipp.__file__).parent
ROOMS = ["sharing", "encoding", "paillier", "crypto", "ring", "params", "cpu", "errors"]


def modules():
    """Dotted name and path of every module of ROOMS; packages are left out, as they only gather names."""
    for room in ROOMS:
        paths = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else sorted((ROOT / room).rglob("*.py"))
        for path in paths:
            if path.name != "__init__.py":
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imported(source, package, known):
    """Modules among ``known`` that a source text of ``package`` imports anywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif node.module and node.module.split(".")[0] == "mipp":
                base = ()
            else:
                continue
            name = ".".join((*base, *(node.module or "").split("."))).strip(".").removeprefix("mipp").strip(".")
            for candidate in (name, *(f"{name}.{alias.name}".strip(".") for alias in node.names)):
                if candidate in known:
                    yield candidate
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.removeprefix("mipp.") in known:
                    yield alias.name.removeprefix("mipp.")


def graph():
    found = dict(modules())
    return {
        name: set(imported(path.read_text(), path.relative_to(ROOT).parent.parts, found)) - {name}
        for name, path in found.items()
    }


def test_imports_have_no_circles():
    TopologicalSorter(graph()).prepare()


def test_the_walk_sees_imports():
    """The test above can fail: imports in functions and under TYPE_CHECKING are seen, and circles are found."""
    edges = graph()
    assert {"paillier.keys", "paillier.codec", "paillier.powers"} <= edges["paillier.array"]
    assert "errors" in edges["params"] and "crypto.schedule" in edges["paillier.keys"]
    source = "if TYPE_CHECKING:\n from .array import A\ndef f():\n from . import files\n from mipp.errors import B\n"
    known = {"paillier.array", "paillier.files", "errors"}
    assert set(imported(source, ("paillier",), known)) == known
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
