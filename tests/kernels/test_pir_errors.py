"""Every error of private retrieval: arguments, keys of strangers, databases. Nothing is answered or written."""

import struct

import numpy as np
import pytest
from hypothesis import strategies as st

from mipp import errors, pir
from mipp._native import _core
from mipp.errors import DTypeError, MessageError, ParameterError, ShapeError
from tests.adversary.fuzz import changed, fuzz
from tests.reference import pir as slow

ROWS = 1000
KEYS = pir.generate_keys(77, ROWS)


def test_rows_out_of_range():
    for row, rows in ((-1, 10), (10, 10), (2**64, 10), (0, 0), (0, -1), (0, 2**32 + 1), (2**32, 2**32)):
        with pytest.raises(ParameterError):
            pir.generate_keys(row, rows)
    for row, rows in ((1.0, 10), ("1", 10), (True, 10), (None, 10), (1, 10.0), (1, None)):
        with pytest.raises(DTypeError):
            pir.generate_keys(row, rows)
    assert len(pir.generate_keys(np.int64(3), np.uint32(10))) == 2
    with pytest.raises(ShapeError):
        _core.pir_generate(1, 10, bytes(31))
    with pytest.raises(DTypeError):
        _core.pir_generate(1, 10, bytearray(32))


def calls(key):
    """All that take a key."""
    database = pir.Database(np.zeros((ROWS, 8), np.uint8))
    yield lambda: pir.check_key(key, ROWS)
    yield lambda: pir.expand(key, rows=ROWS)
    yield lambda: database.answer(key)
    yield lambda: database.answer([KEYS[0], key])


def refused(key, error):
    for call in calls(key):
        with pytest.raises(error):
            call()


@pytest.mark.parametrize("key", [None, 1, "key", bytearray(KEYS[0]), memoryview(KEYS[0]), np.zeros(100, np.uint8)])
def test_keys_of_another_type(key):
    for call in list(calls(key))[:2]:
        with pytest.raises(DTypeError):
            call()
    with pytest.raises(DTypeError):
        pir.Database(np.zeros((ROWS, 8), np.uint8)).answer([key])


def test_keys_of_another_domain():
    for rows in (ROWS - 1, ROWS + 1, 1024, 2**20):
        refused(pir.generate_keys(5, rows)[0], ParameterError)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"m"), (3, b"\0"), (4, b"\0"), (4, b"\2"), (5, b"\2"), (5, b"\xff"), (6, b"\1"), (7, b"\x80"), (8, bytes(8)),
     (8, struct.pack("<Q", 2**32 + 1)), (8, b"\xff" * 8), (8, struct.pack("<Q", 2**20)), (8, struct.pack("<Q", 100))],
)  # fmt: skip
def test_malformed_headers(at, value):
    for key in KEYS:
        refused(key[:at] + value + key[at + len(value) :], MessageError)


def test_unused_bits():
    """The lowest bit of the seed and of each correction, and the bits behind the last control bit."""
    depth = slow.depth_of(ROWS)
    controls_at = 32 + 16 * depth
    places = [(at, 1) for at in range(16, controls_at, 16)] + [(controls_at, 1 << b) for b in range(2 * depth, 8)]
    assert depth == 3 and len(places) == 6
    for at, bit in places:
        key = bytearray(KEYS[0])
        key[at] ^= bit
        refused(bytes(key), MessageError)


def test_other_lengths():
    for key in KEYS:
        for length in range(len(key)):
            with pytest.raises(MessageError):
                pir.check_key(key[:length], ROWS)
        for more in (b"\0", b"\0" * 16, key):
            refused(key + more, MessageError)
        refused(key[:-16], MessageError)


def test_a_few_bytes_take_no_memory():
    """A short key that claims the largest domain is refused by its length."""
    with pytest.raises(MessageError):
        pir.expand(KEYS[0][:8] + struct.pack("<Q", 2**32) + KEYS[0][16:])


def test_errors_tell_nothing_secret():
    for key in (KEYS[0][:-1], KEYS[1] + b"\0", b"MPIR" + bytes(20)):
        with pytest.raises(MessageError) as caught:
            pir.check_key(key, ROWS)
        assert str(caught.value).isascii() and not any(c.isdigit() and c not in "01" for c in str(caught.value))


def changed_byte(key, at, by):
    return key[:at] + bytes([key[at] ^ by]) + key[at + 1 :]


@pytest.mark.parametrize("rows", [1, 128, 129, ROWS, 70_000])
def test_fuzzed_keys(rows):
    """A changed key is refused, or expands to a selection of the domain's size, the twin's; headers never change."""
    keys = pir.generate_keys(rows - 1, rows)
    seen = {"refused": 0, "expanded": 0}

    def check(data):
        try:
            party = pir.check_key(data, rows)
        except (MessageError, ParameterError):
            seen["refused"] += 1
            return
        assert (
            data[:5] == keys[0][:5] and data[6:16] == keys[0][6:16] and len(data) == len(keys[0]) and party == data[5]
        )
        selection = pir.expand(data, rows=rows)
        assert len(selection) == 2 * -(-rows // 128)
        assert rows % 128 == 0 or int.from_bytes(selection[-2:].tobytes(), "little") >> rows % 128 == 0
        if seen["expanded"] < 20 and rows < 2000:
            assert selection.tolist() == slow.words_of(slow.expand(data))
        seen["expanded"] += 1

    spots = st.integers(16, len(keys[0]) - 1), st.integers(1, 255)
    bodies = st.builds(changed_byte, st.sampled_from(keys), *spots)
    fuzz(changed(list(keys)) | bodies | st.binary(max_size=100), check, 600)
    assert min(seen.values()) > 30, seen


def test_every_flipped_bit():
    """Each bit of a key: those of the header but the party's lowest are refused, all others change the selection."""
    key = KEYS[0]
    before = pir.expand(key).tolist()
    for i in range(8 * len(key)):
        data = bytearray(key)
        data[i // 8] ^= 1 << i % 8
        if i < 128 and i != 40:
            with pytest.raises((MessageError, ParameterError)):
                pir.check_key(bytes(data), ROWS)
            continue
        try:
            pir.check_key(bytes(data), ROWS)
        except MessageError:
            continue
        after = pir.expand(bytes(data), rows=ROWS)
        assert len(after) == len(before)


# --- arrays --------------------------------------------------------------------------------------------------------


def records(*shape):
    return np.zeros(shape or (10, 64), np.uint8)


def words(*shape):
    return np.zeros(shape or (2, 1), np.uint64)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (DTypeError, {"records": None}),
        (DTypeError, {"records": [[1]]}),
        (DTypeError, {"records": records().astype(np.int8)}),
        (DTypeError, {"records": records().view(np.uint64)}),
        (ShapeError, {"records": records(64)}),
        (ShapeError, {"records": records(2, 2, 64)}),
        (ShapeError, {"records": records(10, 63)}),
        (ShapeError, {"records": records(10, 0)}),
        (ShapeError, {"records": records(10, 128)[:, ::2]}),
        (ShapeError, {"records": records(20, 64)[::2]}),
        (DTypeError, {"selections": None}),
        (DTypeError, {"selections": [[1]]}),
        (DTypeError, {"selections": words().astype(np.int64)}),
        (DTypeError, {"selections": words().astype(np.uint32)}),
        (DTypeError, {"selections": words().astype(">u8")}),
        (ShapeError, {"selections": words(2, 1, 1)}),
        (ShapeError, {"selections": words(0, 1)}),
        (ShapeError, {"selections": words(1025, 1)}),
        (ShapeError, {"selections": words(2, 0)}),
        (ShapeError, {"selections": words(2, 2)[:, ::2]}),
        (ShapeError, {"first_row": 55}),
        (ShapeError, {"records": records(65, 64)}),
        (ParameterError, {"first_row": -1}),
        (ParameterError, {"first_row": 65}),
        (ParameterError, {"first_row": 2**70}),
        (DTypeError, {"first_row": 1.0}),
        (DTypeError, {"out": [1]}),
        (DTypeError, {"out": np.zeros((2, 64), np.int8)}),
        (ShapeError, {"out": records(2, 56)}),
        (ShapeError, {"out": records(1, 64)}),
        (ShapeError, {"out": records(64)}),
        (ShapeError, {"out": records(2, 128)[:, ::2]}),
        (ShapeError, {"out": read_only(records(2, 64))}),
        (ParameterError, {"threads": -1}),
        (ParameterError, {"threads": 1025}),
        (DTypeError, {"threads": True}),
    ],
)
def test_scans(error, arguments):
    good = {"records": records(), "selections": words(), "first_row": 0, "out": None, "threads": 1}
    given = good | arguments
    with pytest.raises(error):
        pir.scan(given.pop("records"), given.pop("selections"), **given)


def test_overlaps():
    whole = records(12, 64)
    for out in (whole[:2], whole[9:11]):
        with pytest.raises(ParameterError):
            pir.scan(whole[:10], words(), out=out)
    bits = words(2, 8)
    with pytest.raises(ParameterError):
        pir.scan(records(), bits, out=bits.view(np.uint8))


def test_out_of_one_selection():
    with pytest.raises(ShapeError):
        pir.scan(records(), words(1), out=records(1, 64))


def test_gathers():
    good = np.arange(5)
    for ordinals, error in (
        (None, DTypeError), ([1, 2], DTypeError), (good.astype(np.int32), DTypeError),
        (good.astype(np.uint64), DTypeError), (good.astype(">i8"), DTypeError), (good[None], ShapeError),
        (np.arange(10)[::2], ShapeError),
        (np.array([1, 1]), ParameterError), (np.array([2, 1]), ParameterError), (np.array([-1, 1]), ParameterError),
        (np.array([0, 64]), ParameterError), (np.array([-(2**63)]), ParameterError),
        (np.array([2**63 - 1]), ParameterError),
    ):  # fmt: skip
        with pytest.raises(error):
            pir.gather(words(), ordinals)
    with pytest.raises(ParameterError):
        pir.gather(words(), good, threads=1025)
    with pytest.raises(DTypeError):
        pir.gather([1], good)


def test_expansions():
    for out, error in (
        (None, DTypeError), (words(16).astype(np.int64), DTypeError), (words(16).astype(np.uint32), DTypeError),
        (words(15), ShapeError), (words(17), ShapeError), (words(1, 16), ShapeError), (words(32)[::2], ShapeError),
        (read_only(words(16)), ShapeError),
    ):  # fmt: skip
        with pytest.raises(error):
            _core.pir_expand(KEYS[0], out)
    with pytest.raises(ParameterError):
        pir.expand(KEYS[0], threads=-1)


@pytest.mark.parametrize(
    ("error", "given"),
    [
        (DTypeError, [[b"record"]]),
        (DTypeError, records().astype(np.int8)),
        (DTypeError, [records(), None]),
        (ShapeError, []),
        (ShapeError, records(0, 64)),
        (ShapeError, records(64)),
        (ShapeError, records(5, 12)),
        (ShapeError, records(5, 0)),
        (ShapeError, records(20, 64)[::2]),
        (ShapeError, [records(), records(10, 72)]),
        (ParameterError, [np.broadcast_to(np.uint8(0), (2**16, 8)).copy()] * (2**16 + 1)),
    ],
)
def test_databases(error, given):
    with pytest.raises(error):
        pir.Database(given)


def test_queries_of_databases():
    database = pir.Database(records())
    for row, error in ((10, ParameterError), (-1, ParameterError), (None, DTypeError)):
        with pytest.raises(error):
            database.query(row)


def test_answers_that_do_not_fit():
    for a, b, error in (
        (b"ab", b"abc", ShapeError), (b"ab", np.zeros(2, np.uint8), DTypeError), ("a", "b", DTypeError),
        (np.zeros(2), np.zeros(2), DTypeError), (records(1, 8), records(2, 8), ShapeError), (None, None, DTypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            pir.combine(a, b)
    assert issubclass(errors.MessageError, ValueError)
