"""Every name of python-paillier, public or with an underscore: here and of the same kind, or different by intent."""

import inspect

import pytest

import mipp.compat.phe as ours

original = pytest.importorskip("phe")

ABOUT = "text about the package phe; __title__ and __version__ are here, which programs look at"
IMPORTED = "a module or function of the standard library that phe's module imports"
DIFFERENT = {
    "phe": {
        "command_line": "the tool pheutil is not here", "phe": "name of a submodule's import",
        **dict.fromkeys(("__about__", "__author__", "__copyright__", "__email__", "__license__"), ABOUT),
        **dict.fromkeys(("__summary__", "__uri__"), ABOUT),
    },
    "phe.paillier": {"random": IMPORTED},
    "phe.encoding": {"fractions": IMPORTED},
    "phe.util": {
        **dict.fromkeys(("hexlify", "os", "random", "unhexlify"), IMPORTED),
        "_USE_MOD_FROM_GMP_SIZE": "gmpy2 is always used", "_USE_MULMOD_FROM_GMP_SIZE": "gmpy2 is always used",
        "HAVE_CRYPTO": "PyCrypto is never used",
    },
}  # fmt: skip
# of modules themselves
FILES = {"__all__", "__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__",
         "__path__", "__spec__"}  # fmt: skip
CLASSES = ("EncodedNumber", "EncryptedNumber", "PaillierPrivateKey", "PaillierPrivateKeyring", "PaillierPublicKey")
NUMBERS = (bool, int, float, str, tuple, list)


@pytest.mark.parametrize("name", list(DIFFERENT))
def test_modules(name):
    part = name.partition(".")[2]
    theirs, mine = (getattr(m, part) if part else m for m in (original, ours))
    different = DIFFERENT[name]
    for key in set(dir(theirs)) - FILES - set(different):
        a = getattr(theirs, key)
        assert hasattr(mine, key), key
        b = getattr(mine, key)
        if isinstance(a, NUMBERS):
            assert type(a) is type(b) and a == b, key
        elif inspect.isfunction(a):
            assert list(inspect.signature(a).parameters) == list(inspect.signature(b).parameters), key
        else:
            assert inspect.isclass(a) == inspect.isclass(b) and callable(a) == callable(b), key
    for key in different:
        assert hasattr(theirs, key), f"{key} needs no reason any more"


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    theirs, mine = getattr(original, name), getattr(ours, name)
    for key, a in inspect.getmembers(theirs):
        if key in (
            "__doc__",
            "__module__",
            "__dict__",
            "__weakref__",
            "__class__",
            "__abstractmethods__",
            "__slotnames__",
        ):
            continue
        assert hasattr(mine, key), key
        b = getattr(mine, key)
        if isinstance(a, NUMBERS):
            assert a == b, key
        elif inspect.isfunction(a) and not key.startswith("__"):
            assert list(inspect.signature(a).parameters) == list(inspect.signature(b).parameters), key
            for x, y in zip(*(inspect.signature(f).parameters.values() for f in (a, b)), strict=True):
                assert x.default == y.default, (key, x)
        assert callable(a) == callable(b), key


def test_attributes_of_objects():
    """Also the names that Python mangles: programs that store ciphertexts read them."""
    public, private = ours.generate_paillier_keypair(n_length=256)
    found = []
    for module, key in ((original, original.PaillierPublicKey(public.n)), (ours, public)):
        secret = module.PaillierPrivateKey(key, private.p, private.q)
        number = key.encrypt(module.EncodedNumber.encode(key, 2.5), r_value=7)
        things = (key, secret, number, module.EncodedNumber.encode(key, -2.5), module.PaillierPrivateKeyring([secret]))
        found.append([vars(thing) for thing in things])
    for a, b in zip(*found, strict=True):
        for name, value in a.items():
            assert type(b[name]).__name__ == type(value).__name__, name
            if isinstance(value, int):
                assert b[name] == value, name
