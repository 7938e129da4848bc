"""Docstrings of the public interface: every example runs, and a reader finds all that it needs (numpydoc)."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import types

import numpy as np
import pytest

#: packages with complete docstrings, and the module that a package's extra installs; further ones are added here
PACKAGES = {
    "mipp": None,
    "mipp.cpu": None,
    "mipp.client.albums": None,
    "mipp.client.records": None,
    "mipp.crypto.box": None,
    "mipp.crypto.keyfile": None,
    "mipp.crypto.records": None,
    "mipp.crypto.schedule": None,
    "mipp.crypto.signing": None,
    "mipp.encoding": None,
    "mipp.errors": None,
    "mipp.evaluation": None,
    "mipp.features": None,
    "mipp.io": None,
    "mipp.lattice": None,
    "mipp.paillier": None,
    "mipp.params": None,
    "mipp.pir": None,
    "mipp.ring": None,
    "mipp.sharing": None,
    "mipp.compat.ann_benchmarks": None,
    "mipp.compat.big_ann_benchmarks": None,
    "mipp.compat.faiss": None,
    "mipp.compat.langchain": "langchain_core",
    "mipp.compat.phe": None,
    "mipp.compat.sklearn": "sklearn",
}
#: modules whose examples need something that an extra installs
NEEDS = {"mipp.io.benchmark": "h5py", "mipp.compat.ann_benchmarks.measure": "h5py"}
#: names that need no examples: their packages are used through others
WITHOUT_EXAMPLES = ("mipp.crypto.",)
#: modules that other rooms use and users do not: readers of single formats behind load_image and load_vectors
INTERNAL = {
    "mipp.io.arrow", "mipp.io.durable", "mipp.io.memory", "mipp.io.sheet", "mipp.io.dicom", "mipp.io.hdf5",
    "mipp.io.layouts", "mipp.io.png",
    "mipp.io.recognise",
}  # fmt: skip


def package(name):
    if PACKAGES[name]:
        pytest.importorskip(PACKAGES[name])
    return importlib.import_module(name)


def modules(found):
    """A package, the modules inside it, and those that define its public names; of mipp itself not the modules inside.

    Not compiled kernels, and not ``__main__``, which runs.
    """
    names = {found.__name__}
    path = () if found.__name__ == "mipp" else getattr(found, "__path__", ())
    names |= {info.name for info in pkgutil.walk_packages(path, f"{found.__name__}.") if "_kernels" not in info.name}
    for value in (getattr(found, name) for name in getattr(found, "__all__", ())):
        for kind in inspect.getmro(value) if inspect.isclass(value) else [value]:
            home = getattr(kind, "__module__", None) or ""
            names |= {home} if home.startswith("mipp") else set()
    return [importlib.import_module(name) for name in sorted(names) if not name.endswith("__main__")]


def examples(module):
    """Doctests of a module, also of classes that say that they are of the module that exports them."""
    finder, found = doctest.DocTestFinder(exclude_empty=True), []
    found += finder.find(module)
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__.startswith(module.__package__ or module.__name__):
            found += finder.find(value, f"{module.__name__}.{value.__name__}", module=False, globs=vars(module))
    return [test for test in found if test.examples]


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
        for module in modules(package(name)):
            if module.__name__ in NEEDS and not importlib.util.find_spec(NEEDS[module.__name__]):
                continue
            for test in examples(module):
                if (test.filename, test.lineno) not in done:
                    done.add((test.filename, test.lineno))
                    runner.run(test, out=wrong.append)
    assert not wrong, "".join(wrong)
    assert runner.tries or name.startswith(WITHOUT_EXAMPLES) or name == "mipp.errors"


def sections(doc):
    """Sections of a numpydoc text: heading to lines."""
    lines, found, heading = doc.splitlines(), {}, ""
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[i + 1]) and len(lines[i + 1]) == len(line):
            heading = line
            found[heading] = []
        elif heading and not re.fullmatch(r"-{3,}", line):
            found[heading].append(line)
    return found


def entries(lines):
    """Entries of a section of parameters: name to type; the type is empty where none is named.

    ``*args`` and ``**options`` need no type.
    """
    found = {}
    for line in lines:
        if line and not line.startswith(" "):
            names, _, kind = line.partition(" : ")
            for name in names.split(","):
                bare = name.strip().lstrip("*")
                found[bare] = kind or ("any" if name.strip() != bare else "")
    return found


def arguments(thing):
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):  # of a built-in base
        return []
    return [p.name for p in parameters if p.name not in ("self", "cls") and not p.name.startswith("_")]


def gaps(name, thing, *, example):
    """What the docstring of a function, method or class lacks."""
    doc = inspect.getdoc(thing) or ""
    if not doc.strip():
        return [f"{name}: docstring"]
    missing = []
    if not re.match(r".*[.:]$", doc.splitlines()[0]):
        missing.append(f"{name}: one-line summary")
    found = sections(doc)
    described = entries(found.get("Parameters", []))
    # "fraction_bits, max_abs : as for encrypt" has no type of its own but refers to one that has
    text = " ".join(found.get("Parameters", []))
    for argument in arguments(thing):
        if argument not in described:
            missing.append(f"{name}: parameter {argument}")
        elif not described[argument] and "As for" not in text:
            missing.append(f"{name}: type of {argument}")
    if not inspect.isclass(thing):
        returned = inspect.signature(thing).return_annotation
        if returned not in (None, "None", "NoReturn") and not {"Returns", "Yields"} & set(found):
            missing.append(f"{name}: Returns")
    if example and ">>> " not in "\n".join(found.get("Examples", [])):
        missing.append(f"{name}: Examples")
    return missing


def members(kind):
    """Public methods and properties of a class that mipp defines, inherited ones too."""
    for name in dir(kind):
        owner = next((c for c in kind.__mro__ if name in vars(c)), None)
        if name.startswith("_") or owner is None or not owner.__module__.startswith("mipp"):
            continue
        member = vars(owner)[name]
        yield name, member.__func__ if isinstance(member, (staticmethod, classmethod)) else member


def exported(module):
    """(name, object) of the classes and functions that a module exports, also through modules that it exports."""
    for key in getattr(module, "__all__", ()):
        value = getattr(module, key)
        if isinstance(value, types.ModuleType) and module.__name__ != "mipp":
            yield from exported(value)
        elif inspect.isclass(value) or inspect.isroutine(value):
            yield f"{module.__name__}.{key}", value


def public(found):
    """(name, object) of a package's public callables; of its modules' where the package itself exports nothing."""
    pairs = {}
    for module in [found] if getattr(found, "__all__", ()) else modules(found):
        for name, value in exported(module) if module.__name__ not in INTERNAL else ():
            pairs.setdefault(id(value), (name, value))
    return list(pairs.values())


def missing_of(pairs):
    missing = []
    for name, thing in pairs:
        if inspect.isclass(thing) and issubclass(thing, Exception):
            missing += [] if (thing.__doc__ or "").strip() else [f"{name}: docstring"]
            continue
        missing += gaps(name, thing, example=not name.startswith(WITHOUT_EXAMPLES))
        for inner, member in members(thing) if inspect.isclass(thing) else ():
            if inspect.isroutine(member) and callable(member):  # not a cached property
                missing += gaps(f"{name}.{inner}", member, example=False)
            elif hasattr(member, "__get__") and not inspect.ismemberdescriptor(member):
                missing += [] if (member.__doc__ or "").strip() else [f"{name}.{inner}: docstring"]
    return missing


@pytest.mark.parametrize("name", PACKAGES)
def test_nothing_is_missing(name):
    pairs = public(package(name))
    assert pairs
    missing = missing_of(pairs)
    assert not missing, f"{len(missing)} things are missing:\n" + "\n".join(missing)


class Sample:
    """An undocumented interface."""

    def __init__(self, size):
        self.size = size

    def double(self, by: int) -> int:
        return self.size * by

    @property
    def half(self):
        return self.size / 2


def test_the_count_sees_what_is_missing(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(Sample, "__module__", "mipp.sample")

    def f(a: int, b) -> int:
        """Add

        Parameters
        ----------
        a
            First.
        """

    assert missing_of([("Sample", Sample), ("f", f)]) == [
        "Sample: parameter size", "Sample: Examples", "Sample.double: docstring", "Sample.half: docstring",
        "f: one-line summary", "f: type of a", "f: parameter b", "f: Returns", "f: Examples",
    ]  # fmt: skip
