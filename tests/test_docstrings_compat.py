"""Docstrings of features, io, evaluation and the drop-ins: every example runs, every public callable is documented.

A public callable is a name in ``__all__`` of a package below (of its modules, where the package itself exports
nothing), or a public method or property of such a class.
"""

import doctest
import importlib.util
import inspect
import pkgutil
import re
import types

import numpy as np
import pytest

#: package to the module that its extra installs
PACKAGES = {
    "mipp.features": None,
    "mipp.io": None,
    "mipp.evaluation": None,
    "mipp.compat.phe": None,
    "mipp.compat.faiss": None,
    "mipp.compat.sklearn": "sklearn",
    "mipp.compat.ann_benchmarks": None,
}
#: readers of single formats behind load_image and load_vectors, and what other rooms are built on
PRIVATE = (
    "mipp.io.durable",
    "mipp.io.memory",
    "mipp.io.sheet",
    "mipp.io.dicom",
    "mipp.io.hdf5",
    "mipp.io.png",
    "mipp.io.recognise",
)
#: what examples of a module need
NEEDS = {"mipp.io.benchmark": "h5py", "mipp.compat.ann_benchmarks.measure": "h5py"}
_SECTION = re.compile(r"^(\w+)\n-+$", re.M)


def package(name):
    if PACKAGES[name]:
        pytest.importorskip(PACKAGES[name])
    return importlib.import_module(name)


def modules(name):
    """A package and its public modules; kernels are private, and ``__main__`` runs."""
    found = package(name)
    yield found
    for info in pkgutil.iter_modules(found.__path__, f"{name}."):
        if not info.name.rpartition(".")[2].startswith("_"):
            yield importlib.import_module(info.name)


def examples(module):
    """Doctests of a module, each once, also of classes that say that they are of the module that exports them."""
    finder, seen = doctest.DocTestFinder(exclude_empty=True), {}
    for found in finder.find(module):
        seen.setdefault((found.filename, found.lineno), found)
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__.startswith(module.__package__):
            for found in finder.find(value, f"{module.__name__}.{value.__name__}", module=False, globs=vars(module)):
                seen.setdefault((found.filename, found.lineno), found)
    return [found for found in seen.values() if found.examples]


@pytest.fixture
def own_registry(monkeypatch):
    """Descriptors that examples register are gone afterwards."""
    from mipp.features import registry

    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    yield
    registry.get.cache_clear()


@pytest.mark.parametrize("name", PACKAGES)
def test_examples_run(name, own_registry):
    wrong, done = [], set()
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    with np.printoptions(legacy=False):
        for module in modules(name):
            if module.__name__ in NEEDS and not importlib.util.find_spec(NEEDS[module.__name__]):
                continue
            for found in examples(module):
                at = found.filename, found.lineno
                if at not in done:
                    done.add(at)
                    runner.run(found, out=wrong.append)
    assert not wrong, "".join(wrong)
    assert runner.tries > 0


def exported(module):
    """(name, object) of the classes and functions that a module exports, also through modules that it exports."""
    for key in getattr(module, "__all__", ()):
        value = getattr(module, key)
        if isinstance(value, types.ModuleType):
            yield from exported(value)
        elif isinstance(value, type) or (callable(value) and not isinstance(value, types.GenericAlias)):
            yield f"{module.__name__}.{key}", value


def sections(text):
    parts = _SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters(value):
    try:
        found = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # of a built-in base
        return []
    open_ones = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [p.name for p in found if p.kind not in open_ones and p.name not in ("self", "cls")]


def lacks(name, value, *, example):
    """What the docstring of a function, class, method or property lacks."""
    text = inspect.getdoc(value)
    if not text:
        return [f"{name}: docstring"]
    found, out = sections(text), []
    names = [] if isinstance(value, property) else parameters(value)
    if names:
        head = re.findall(r"^(\S.*?) :", found.get("Parameters", ""), re.M)
        said = {part.strip().lstrip("*") for line in head for part in line.split(",")}
        out += [f"{name}: parameter {p}" for p in names if p not in said]
    if inspect.isroutine(inspect.unwrap(value)):
        gives = inspect.signature(value).return_annotation
        if gives not in (None, "None", "NoReturn") and not {"Returns", "Yields"} & set(found):
            out.append(f"{name}: Returns")
    if example and ">>>" not in found.get("Examples", ""):
        out.append(f"{name}: Examples")
    return out


def members(cls):
    """(name, object) of public methods and properties that classes of mipp define."""
    for key in dir(cls):
        home = next((base for base in cls.__mro__ if key in vars(base)), object)
        if key.startswith("_") or not home.__module__.startswith("mipp"):
            continue
        value = inspect.getattr_static(cls, key)
        value = getattr(cls, key) if isinstance(value, (staticmethod, classmethod)) else value
        if hasattr(value, "func") and not callable(value):  # a cached property
            value = property(value.func)
        if isinstance(value, property) or inspect.isroutine(value):
            yield key, value


def missing(pairs):
    out = []
    for name, value in pairs:
        out += lacks(name, value, example=True)
        if isinstance(value, type):
            for key, member in members(value):
                out += lacks(f"{name}.{key}", member, example=False)
    return out


@pytest.mark.parametrize("name", PACKAGES)
def test_nothing_is_undocumented(name):
    found = package(name)
    pairs = {}
    for module in [found] if hasattr(found, "__all__") else list(modules(name)):
        for at, value in exported(module) if module.__name__ not in PRIVATE else ():
            pairs.setdefault(id(value), (at, value))
    assert pairs
    lacking = sorted(set(missing(pairs.values())))
    assert not lacking, f"{len(lacking)} things are missing:\n" + "\n".join(lacking)


def test_what_is_missing_is_seen():
    class Bare:
        """One line."""

        __module__ = "mipp.here"

        def __init__(self, size: int) -> None: ...

        def act(self, x: int) -> int: ...

        @property
        def size(self) -> int: ...

    def half(a: int, b: int) -> int:
        """Add.

        Parameters
        ----------
        a : int
            One.
        """

    for function in (Bare.act, Bare.size.fget):
        function.__module__ = "mipp.here"
    assert missing([("Bare", Bare), ("half", half)]) == [
        "Bare: parameter size", "Bare: Examples", "Bare.act: docstring", "Bare.size: docstring",
        "half: parameter b", "half: Returns", "half: Examples",
    ]  # fmt: skip
