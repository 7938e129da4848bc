"""Docstrings of the public interface: examples run, and none of what a reader needs is missing (numpydoc)."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

#: packages whose docstrings are complete; further ones are added here
PACKAGES = [
    "mipp.ring", "mipp.sharing", "mipp.params", "mipp.cpu", "mipp.errors", "mipp.encoding", "mipp.paillier",
    "mipp.crypto.box", "mipp.crypto.keyfile", "mipp.crypto.schedule", "mipp.crypto.signing",
]  # fmt: skip
#: names that need no examples: their packages are used through others
WITHOUT_EXAMPLES = ("mipp.crypto.",)


def modules():
    """All modules of PACKAGES, those inside packages and those that define their public names; of mipp the latter."""
    found = set()
    for name in PACKAGES:
        package = importlib.import_module(name)
        path = () if name == "mipp" else getattr(package, "__path__", ())
        found |= {name} | {module.name for module in pkgutil.walk_packages(path, f"{name}.")}
        exported = (getattr(getattr(package, public), "__module__", "") for public in package.__all__)
        found |= {module for module in exported if module.startswith("mipp")}
    return sorted(found)


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed


def sections(doc):
    """Sections of a numpydoc text: heading to lines."""
    lines, found, heading = inspect.cleandoc(doc).splitlines(), {}, ""
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[i + 1]) and len(lines[i + 1]) == len(line):
            heading = line
            found[heading] = []
        elif heading and not re.fullmatch(r"-{3,}", line):
            found[heading].append(line)
    return found


def entries(lines):
    """Entries of a section of parameters: name to type; the type is empty where none is named."""
    found = {}
    for line in lines:
        if line and not line.startswith(" "):
            names, _, kind = line.partition(" : ")
            found |= {name.strip().lstrip("*"): kind for name in names.split(",")}
    return found


def arguments(function):
    parameters = inspect.signature(function).parameters.values()
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
    is_class = inspect.isclass(thing)
    described = entries(found.get("Parameters", []))
    # "fraction_bits, max_abs : as for encrypt" has no type of its own but refers to one that has
    text = " ".join(found.get("Parameters", []))
    for argument in arguments(thing):
        if argument not in described:
            missing.append(f"{name}: parameter {argument}")
        elif not described[argument] and "As for" not in text:
            missing.append(f"{name}: type of {argument}")
    if not is_class:
        returned = inspect.signature(thing).return_annotation
        if returned not in (None, "None", inspect.Signature.empty) and not {"Returns", "Yields"} & set(found):
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
        yield name, vars(owner)[name]


def missing_of(package):
    module, missing = importlib.import_module(package), []
    example = not package.startswith(WITHOUT_EXAMPLES)
    for name in module.__all__:
        thing = getattr(module, name)
        label = f"{package}.{name}"
        if inspect.isclass(thing):
            if issubclass(thing, Exception):
                missing += [] if (thing.__doc__ or "").strip() else [f"{label}: docstring"]
                continue
            missing += gaps(label, thing, example=example)
            for inner, member in members(thing):
                if isinstance(member, (staticmethod, classmethod)):
                    member = member.__func__
                if inspect.isfunction(member):
                    missing += gaps(f"{label}.{inner}", member, example=False)
                elif hasattr(member, "__get__") and not inspect.ismemberdescriptor(member):
                    missing += [] if (member.__doc__ or "").strip() else [f"{label}.{inner}: docstring"]
        elif inspect.isroutine(thing):
            missing += gaps(label, thing, example=example)
    return missing


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_missing(package):
    missing = missing_of(package)
    assert not missing, "\n".join(missing)


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
    monkeypatch.setattr(
        importlib, "import_module", lambda name: type("M", (), {"__all__": ["Sample"], "Sample": Sample})
    )
    monkeypatch.setattr(Sample, "__module__", "mipp.sample")
    assert missing_of("sample") == [
        "sample.Sample: parameter size", "sample.Sample: Examples", "sample.Sample.double: docstring",
        "sample.Sample.half: docstring",
    ]  # fmt: skip

    def f(a: int, b) -> int:
        """Add.

        Parameters
        ----------
        a
            First.
        """

    assert gaps("f", f, example=True) == ["f: type of a", "f: parameter b", "f: Returns", "f: Examples"]
