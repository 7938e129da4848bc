"""Imports run one way: between rooms from the top floor down, and nowhere in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

import mipp

ROOT = Path(mipp.__file__).parent
#: from the top down; a module may use floors below its own
FLOORS = [
    {"__main__"},
    {"cli", "app", "compat", "demo"},
    {"evaluation"},
    {"deployment"},
    {"client", "server"},
    {"schemes"},
    {"mpc", "backends", "store"},
    {"rpc"},
    {"sharing", "ring", "pir", "paillier", "lattice", "encoding", "features", "io", "crypto"},
    {"_native"},
]
EVERYBODY = {"errors", "params", "cpu"}
# within a floor, who may use whom
BESIDE = {
    ("cli", "app"), ("cli", "demo"), ("sharing", "crypto"), ("sharing", "ring"), ("pir", "io"), ("paillier", "crypto"),
    ("paillier", "io"), ("lattice", "crypto"), ("features", "io"), ("features", "encoding"), ("crypto", "io"),
}  # fmt: skip
#: what a client never touches: the other side, where it keeps rows, and where it multiplies them
NEVER = {("client", "store"), ("client", "backends")}


def floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def imported(path, root=ROOT, package="mipp"):
    """Modules that a file imports, as tuples of names below the package, also inside functions and for types only."""
    here = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = (node.module or "").split(".") if node.module else []
            if node.level:
                base = [*here[: len(here) - (node.level - 1)], *names]
            elif names[:1] == [package]:
                base = names[1:]
            else:
                continue
            for alias in node.names:
                yield tuple(base), alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names = alias.name.split(".")
                if names[0] == package and len(names) > 1:
                    yield tuple(names[1:]), ""


def rooms_used(path):
    for base, name in imported(path):
        yield base[0] if base else name


def module_graph(root, package):
    """Module -> modules that it imports, files as names without suffix."""
    files = {p.relative_to(root).with_suffix("").parts: p for p in root.rglob("*.py")}
    graph = {}
    for module, path in files.items():
        used = set()
        for base, name in imported(path, root, package):
            for found in ((*base, name), (*base, name, "__init__"), base, (*base, "__init__")):
                if found in files and found != module:
                    used.add(found)
                    break
        graph[module] = used
    return graph


def circles(graph):
    """Groups of modules that import each other, by Tarjan's algorithm."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph[node]:
            if other not in number:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted("/".join(m) for m in group))

    for node in graph:
        if node not in number:
            visit(node)
    return found


def test_imports_run_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for used in rooms_used(path):
            if used == room or used in EVERYBODY or used in ("__version__", "__init__"):
                continue
            if room in EVERYBODY:
                ok = used == "_native" and room == "cpu"
            else:
                ok = (floor(used) > floor(room) or (room, used) in BESIDE) and (room, used) not in NEVER
            if not ok:
                wrong.append(f"{path.relative_to(ROOT)} imports {used}")
    assert not wrong


def test_no_circles():
    """Also inside rooms, and also where only annotations would need the other module."""
    assert not circles(module_graph(ROOT, "mipp"))


def test_no_circles_in_the_benchmarks():
    root = ROOT.parent / "benchmarks"
    if root.is_dir():
        assert not circles(module_graph(root, "benchmarks"))


def test_every_room_is_on_a_floor():
    found = {p.name.removesuffix(".py") for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found - {"__init__"} == set.union(*FLOORS) | EVERYBODY


def test_the_walk_sees_imports():
    """The tests above can fail."""
    assert "store" in set(rooms_used(ROOT / "server" / "base.py"))
    assert "features" in set(rooms_used(ROOT / "demo" / "run.py"))
    assert "_native" in set(rooms_used(ROOT / "ring.py"))
    graph = module_graph(ROOT, "mipp")
    assert ("server", "base") in graph["server", "server"] and ("rpc", "messages") in graph["client", "user"]
    assert circles(graph | {("errors",): {("server", "server")}})


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
    code = "import sys, mipp, mipp.cli; print([m for m in ('numba', 'PIL', 'rich.progress') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
