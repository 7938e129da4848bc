"""Inputs for fuzzers: valid ones, changed as an attacker would, and bounds on what reading them takes."""

import contextlib
import copy
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

NIGHTLY = 100
#: of hypothesis: nothing is kept between runs
PHASES = (Phase.generate, Phase.shrink)
#: CI reads some ten thousand inputs, a night a hundred times as many
modes = pytest.mark.parametrize(
    "times",
    [pytest.param(1, marks=pytest.mark.slow, id="ci"), pytest.param(NIGHTLY, marks=pytest.mark.nightly, id="night")],
)
#: bytes at a place in a file or message: lengths and counts that are extreme, control characters, beginnings of values
TOKENS = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80", b"\xff\xff\xff\x7f",
    b"\0" * 7 + b"\x80", b"\x1b[2J", b"\r\n", b"\r\n\r\n", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x90" * 300, b"\x91" * 300, b"[" * 300, b"A" * 300, b"9" * 5000,
)  # fmt: skip
#: values where others belong, in JSON; text stands for a number that Python does not write
RAW = {"@many@": "9" * 5000, "@inf@": "1e999", "@deep@": "[" * 960 + "]" * 960, "@deeper@": "[" * 9000 + "]" * 9000}
VALUES = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, 2**64, 10**300, 1.5, -0.0, "", "x", "\0", "\x1b[2J", "\u202e", "\ud800",
    "a" * 3000, "é", "é", [], {}, [[]], [1, 2], {"": 0}, *RAW,
)  # fmt: skip


def fuzz(strategy, check, count):
    """Run ``check`` on so many inputs: the same ones in each run of CI, others each night."""

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=count < 10_000, phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def run(data):
        check(data)

    run()


@st.composite
def changed(draw, seeds, tokens=TOKENS):
    """One of these byte strings after some changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        how, at = draw(st.integers(0, 7)), draw(st.integers(0, len(data)))
        end = min(at + draw(st.sampled_from((1, 2, 4, 8, 40, 1000))), len(data))
        if how == 0 and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == 1:
            del data[at:]
        elif how == 2:
            del data[at:end]
        elif how == 3:
            data[at:at] = data[at:end]
        elif how == 4:
            data[at:at] = draw(st.sampled_from(tokens))
        elif how == 5:
            token = draw(st.sampled_from(tokens))
            data[at : at + len(token)] = token
        elif how == 6:
            data[at:at] = draw(st.binary(max_size=12))
        else:
            data += data[at:end]
    return bytes(data)


@st.composite
def changed_json(draw, objects):
    """The text of one of these objects after some changes of its values and keys, and perhaps of its bytes."""
    data = json.loads(json.dumps(draw(st.sampled_from(objects))))
    for _ in range(draw(st.integers(1, 3))):
        room = data
        while True:
            keys = list(room) if isinstance(room, dict) else range(len(room))
            key = draw(st.sampled_from(list(keys))) if keys else None
            if key is not None and isinstance(room[key], (dict, list)) and draw(st.booleans()):
                room = room[key]
            else:
                break
        value = copy.deepcopy(draw(st.sampled_from(VALUES)))
        if isinstance(room, list):
            room[:] = [*room, value] if key is None or draw(st.booleans()) else [*room[:key], value, *room[key + 1 :]]
        elif key is not None and draw(st.booleans()):
            room[key] = value
        elif key is not None and draw(st.booleans()):
            del room[key]
        else:
            room[draw(st.sampled_from(("x", "", "0", "1", "\0", "\ud800", "é")))] = value
    text = json.dumps(data)
    for mark, raw in RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return draw(changed([text.encode()])) if draw(st.integers(0, 3)) == 0 else text.encode()


class Reading:
    """Calls a reader of hostile data: what it raises is of the types that it promises, with a text fit for a terminal.

    Memory is looked at for one call of ``every``: that slows it down.

    Parameters
    ----------
    errors : types that it may raise
    most : bytes of memory, and a factor for the bytes that it reads
    """

    def __init__(self, *errors, most=1 << 20, factor=32, every=20):
        self.errors, self.most, self.factor, self.every = errors, most, factor, every
        self.calls = self.refused = 0

    def __call__(self, read, *args):
        self.calls += 1
        look = self.calls % self.every == 0
        if look:
            tracemalloc.start()
        try:
            return read(*args)
        except self.errors as error:
            self.refused += 1
            text = str(error)
            assert text.isprintable() and len(text) < 1000, text
            return None
        finally:
            if look:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                size = sum(map(_size, args))
                assert peak < self.most + self.factor * size, (peak, size)


def _size(value):
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, (bytes, str, memoryview)) else 0


@contextlib.contextmanager
def no_unexpected(caplog):
    """Nothing at the level of errors in the logs: that is what servers write when something unexpected happens."""
    caplog.clear()
    yield
    wrong = [r.getMessage() for r in caplog.records if r.levelno >= 40]
    assert not wrong, wrong[:3]
