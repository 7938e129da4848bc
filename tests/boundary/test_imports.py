"""Imports run one way. The arrows of the house, from the top floor down; a module may use floors below its own."""

import ast
from pathlib import Path

import mipp

ROOT = Path(mipp.__file__).parent
FLOORS = [
    {"__main__"},
    {"cli", "compat", "demo"},
    {"evaluation"},
    {"deployment"},
    {"roles"},
    {"protocol", "store", "features", "io"},
    {"sharing", "ring", "paillier", "encoding", "crypto"},
    {"_native"},
]
EVERYBODY = {"errors", "params", "cpu"}
# within a floor, who may use whom
BESIDE = {
    ("cli", "demo"), ("sharing", "crypto"), ("paillier", "crypto"), ("store", "protocol"), ("features", "io"),
("sharing", "ring"), }  # fmt: skip


def floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def imports(path):
    """Rooms of mipp that a file imports, also inside functions."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - (node.level - 1)]
                target = (*base, *(node.module.split(".") if node.module else ()))
            elif (node.module or "").split(".")[0] == "mipp":
                target = tuple(node.module.split(".")[1:])
            else:
                continue
            yield from ([target[0]] if target else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "mipp" and len(parts) > 1:
                    yield parts[1]


def test_imports_run_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        room = parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for used in imports(path):
            if used == room or used in EVERYBODY or used in ("__version__", "__init__"):
                continue
            if room in EVERYBODY:
                ok = used == "_native" and room == "cpu"
            else:
                ok = floor(used) > floor(room) or (room, used) in BESIDE
            if not ok:
                wrong.append(f"{path.relative_to(ROOT)} imports {used}")
    assert not wrong


def test_the_walk_sees_imports():
    """The test above can fail."""
    assert "store" in set(imports(ROOT / "roles" / "server.py"))
    assert "features" in set(imports(ROOT / "demo" / "run.py"))
    assert "_native" in set(imports(ROOT / "sharing.py"))


def test_native_code_knows_no_python_outside_its_bindings():
    source = ROOT.parent / "csrc"
    if not source.is_dir():
        return
    for path in source.rglob("*"):
        if path.suffix in (".h", ".cpp") and path.parent.name != "bindings":
            text = path.read_text()
            assert "Python.h" not in text and "pybind11" not in text, path


def test_starting_up_is_light():
    """``import mipp`` loads neither Numba nor Pillow: the command line starts at once."""
    import subprocess
    import sys

    code = "import sys, mipp, mipp.cli; print([m for m in ('numba', 'PIL', 'rich.progress') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
