"""PRF kernels: every tier against plain Python and against `cryptography`; every error."""

import copy
import gc
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mipp import cpu
from mipp._native import _core
from mipp.errors import DTypeError, ParameterError, ShapeError
from tests.reference import prf as oracle
from tests.reference import ring as ring_oracle

DTYPES = [np.uint16, np.uint32, np.uint64]
KEY = bytes(range(32))
THREADS = [1, 2, 3]


@pytest.fixture
def rng():
    return np.random.default_rng(21)


@pytest.fixture(params=DTYPES, ids=lambda d: d.__name__)
def dtype(request):
    return request.param


def words(rng, shape, dtype):
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def make_infos(rng, count, length=57):
    return rng.integers(0, 256, (count, length), dtype=np.uint8)


def i64(*values):
    return np.array(values, np.int64)


# --- the oracle itself ---------------------------------------------------------------------------------------------


def test_oracle_is_aes256():
    """FIPS 197, appendix C.3, and NIST SP 800-38A, F.1.5 (ECB-AES256.Encrypt, first two blocks)."""
    got = oracle.aes256_block(KEY, bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert got.hex() == "8ea2b7ca516745bfeafc49904b496089"
    assert oracle.aes256_schedule(KEY)[-16:].hex() == "24fc79ccbf0979e9371ac23c6d68de36"
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    for plain, cipher in (
        ("6bc1bee22e409f96e93d7e117393172a", "f3eed1bdb5d2a03c064b5a7e3db181f8"),
        ("ae2d8a571e03ac9c9eb76fac45af8e51", "591ccb10d410ed26dc5ba74a31362870"),
    ):
        assert oracle.aes256_block(key, bytes.fromhex(plain)).hex() == cipher


def test_oracle_is_hkdf(rng):
    """RFC 5869, A.3 (no salt, no info; first 32 bytes), and `cryptography` with infos."""
    assert oracle.hkdf(b"\x0b" * 22, b"").hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    for length in (1, 50, 80):
        info = rng.bytes(length)
        assert oracle.hkdf(KEY, info) == HKDF(hashes.SHA256(), 32, None, info).derive(KEY)


# --- keys ----------------------------------------------------------------------------------------------------------


def test_forced_tier_runs(tier):
    assert cpu.active()["prf"] == tier


def test_hkdf_every_length(tier, rng):
    for length in range(257):
        infos = make_infos(rng, 3, length)
        got = _core.hkdf_expand_batch(KEY, infos)
        assert [bytes(row) for row in got] == [oracle.hkdf(KEY, bytes(i)) for i in infos], length


def test_hkdf_every_count(tier, rng):
    infos = make_infos(rng, 100)
    expected = np.array([list(oracle.hkdf(KEY, bytes(i))) for i in infos], np.uint8)
    for count in [*range(70), 100]:
        assert np.array_equal(_core.hkdf_expand_batch(KEY, infos[:count]), expected[:count])
    many = np.tile(infos, (30, 1))
    for threads in THREADS:
        assert np.array_equal(_core.hkdf_expand_batch(KEY, many, threads), np.tile(expected, (30, 1)))


def test_hkdf_other_keys(tier, rng):
    infos = make_infos(rng, 2)
    for _ in range(20):
        key = rng.bytes(32)
        assert bytes(_core.hkdf_expand_batch(key, infos)[1]) == oracle.hkdf(key, bytes(infos[1]))


def test_keystream_is_aes_of_block_numbers(tier, rng):
    """Block by block against FIPS 197 in plain Python: key expansion, rounds, counter order, byte order."""
    infos = make_infos(rng, 3)
    schedules = _core.KeySchedules(KEY, infos, 1)
    for segment in range(3):
        key = oracle.hkdf(KEY, bytes(infos[segment]))
        for block in (0, 1, 255, 256, 0x01020304, 2**32 - 1):
            out = np.empty(2, np.uint64)
            _core.keystream_words(schedules, segment, block, out)
            assert out.astype("<u8").tobytes() == oracle.aes256_block(key, block.to_bytes(16, "big"))


def test_every_schedule(tier, rng):
    """Counts around the lanes of key expansion; a wrong round key anywhere changes the block."""
    infos = make_infos(rng, 70)
    for count in (1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 70):
        schedules = _core.KeySchedules(KEY, infos[:count], 1)
        assert len(schedules) == count
        for segment in range(count):
            out = np.empty(4, np.uint32)
            _core.keystream_words(schedules, segment, 0, out)
            assert np.array_equal(out, oracle.keystream(oracle.hkdf(KEY, bytes(infos[segment])), np.uint32, 4))


def test_threads_and_tiers_make_the_same_schedules(rng):
    infos = make_infos(rng, 1500)
    outs = []
    for name in cpu.levels()[:3]:
        for threads in THREADS:
            with cpu.force(name):
                schedules = _core.KeySchedules(KEY, infos, threads)
            out = np.empty((1500, 2), np.uint64)
            for segment, row in enumerate(out):
                _core.keystream_words(schedules, segment, 7, row)
            outs.append(out)
    assert all(np.array_equal(out, outs[0]) for out in outs)


def test_schedules_stay_secret(rng):
    schedules = _core.KeySchedules(KEY, make_infos(rng, 5), 1)
    assert repr(schedules) == "KeySchedules(5 schedules, secret)" and str(schedules) == repr(schedules)
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copier(schedules)
    with pytest.raises((TypeError, BufferError)):
        memoryview(schedules)
    assert not hasattr(schedules, "__dict__")


def test_no_schedules(tier, dtype):
    empty = _core.KeySchedules(KEY, np.empty((0, 9), np.uint8))
    assert len(empty) == 0
    _core.keystream_matmul(empty, i64(), i64(), i64(), np.zeros((2, 16), dtype), np.zeros((2, 0), dtype))
    with pytest.raises(ParameterError):
        _core.keystream_words(empty, 0, 0, np.zeros(4, dtype))
    with pytest.raises(ParameterError):
        _core.keystream_matmul(empty, i64(0), i64(0), i64(1), np.zeros((1, 16), dtype), np.zeros((1, 1), dtype))
    del empty
    gc.collect()


# --- keystream -----------------------------------------------------------------------------------------------------


def test_keystream_every_length(tier, dtype, rng):
    infos = make_infos(rng, 2)
    schedules = _core.KeySchedules(KEY, infos, 1)
    key = oracle.hkdf(KEY, bytes(infos[1]))
    for first in (0, 3, 254, 2**32 - 1050):
        whole = oracle.keystream(key, dtype, 2100, first)
        for count in [*range(140), 1023, 1024, 1025, 2048, 2100]:
            guarded = np.full(count + 8, 7, dtype)
            _core.keystream_words(schedules, 1, first, guarded[4 : 4 + count])
            assert np.array_equal(guarded[4 : 4 + count], whole[:count]), (first, count)
            assert (guarded[:4] == 7).all() and (guarded[4 + count :] == 7).all()


def test_keystream_against_another_implementation(tier, rng):
    """All blocks of a long stream, against `cryptography` directly."""
    infos = make_infos(rng, 1)
    out = np.empty(200_000, np.uint32)
    _core.keystream_words(_core.KeySchedules(KEY, infos), 0, 0, out)
    key = HKDF(hashes.SHA256(), 32, None, bytes(infos[0])).derive(KEY)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(800_000))
    assert out.astype("<u4").tobytes() == stream


# --- the fused product ---------------------------------------------------------------------------------------------


def run_matmul(infos, runs, columns, threads=1, gap=0):
    """(native, oracle) answers for runs of (segment, first row, rows); `gap`: words between rows of out."""
    schedules = _core.KeySchedules(KEY, infos, 1)
    index, first, count = (np.array(v, np.int64) for v in zip(*runs, strict=True)) if runs else (i64(), i64(), i64())
    total = int(count.sum())
    whole = np.full((len(columns), total + gap), 5, columns.dtype)
    _core.keystream_matmul(schedules, index, first, count, columns, whole[:, :total], threads)
    assert (whole[:, total:] == 5).all()
    rows = [
        oracle.keystream_rows(oracle.hkdf(KEY, bytes(infos[s])), columns.dtype, columns.shape[1], f, n)
        for s, f, n in runs
    ]
    stacked = np.concatenate([*rows, np.empty((0, columns.shape[1]), columns.dtype)])
    return whole[:, :total], ring_oracle.matmul_wide(stacked, columns)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 20, 31, 32, 33, 36, 75, 128])
def test_every_width(tier, dtype, rng, blocks):
    width = blocks * 16 // np.dtype(dtype).itemsize
    infos = make_infos(rng, 1)
    for b in (1, 2, 3, 5, 9):
        got, expected = run_matmul(infos, [(0, 0, 37)], words(rng, (b, width), dtype))
        assert np.array_equal(got, expected), b


@pytest.mark.parametrize("blocks", [1000, 1024, 1025, 2500])
def test_rows_longer_than_a_buffer(tier, dtype, rng, blocks):
    width = blocks * 16 // np.dtype(dtype).itemsize
    for b in (1, 6):
        got, expected = run_matmul(make_infos(rng, 1), [(0, 3, 5)], words(rng, (b, width), dtype))
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 9])
def test_runs_with_gaps(tier, dtype, rng, columns):
    """Many runs, some empty, out of order, overlapping, over several segments, threads that cut through them."""
    infos = make_infos(rng, 6)
    runs = [(0, 0, 1), (0, 2, 9), (5, 0, 0), (5, 1000, 700), (2, 7, 3), (2, 7, 3), (1, 0, 0), (3, 64, 65), (0, 0, 130)]
    runs += [(int(s), int(f), int(n)) for s, f, n in rng.integers(0, 6, (60, 3))]
    query = words(rng, (columns, 32), dtype)
    for threads in THREADS:
        got, expected = run_matmul(infos, runs, query, threads, gap=3)
        assert np.array_equal(got, expected), threads


def test_long_runs(tier, rng):
    """Past 256 and 65536 blocks, from odd first rows: every byte of the block number that can change, changes."""
    infos = make_infos(rng, 1)
    for width, first, rows in ((128, 0, 3000), (128, 77, 1500), (48, 5, 6000), (64, 4095, 2000), (20, 13109, 9000)):
        got, expected = run_matmul(infos, [(0, first, rows)], words(rng, (1, width), np.uint32), 2)
        assert np.array_equal(got, expected), width


def test_last_rows_of_the_counter(tier, dtype, rng):
    width = 128
    last = 2**32 // (width * np.dtype(dtype).itemsize // 16)
    got, expected = run_matmul(make_infos(rng, 1), [(0, last - 300, 300)], words(rng, (1, width), dtype))
    assert np.array_equal(got, expected)


def test_no_rows_or_columns(tier, dtype, rng):
    for runs in ([], [(0, 0, 0)], [(0, 9, 0), (0, 9, 0)]):
        got, expected = run_matmul(make_infos(rng, 1), runs, words(rng, (2, 16), dtype))
        assert got.shape == expected.shape == (2, 0)
    got, _ = run_matmul(make_infos(rng, 1), [(0, 0, 4)], words(rng, (0, 16), dtype))
    assert got.shape == (0, 4)


def test_extreme_columns(tier, dtype, rng):
    """Signed products inside a tier must wrap right for every pair of extremes."""
    top = np.iinfo(dtype).max
    for value in (0, 1, top, top // 2, top // 2 + 1):
        got, expected = run_matmul(make_infos(rng, 1), [(0, 0, 50)], np.full((5, 32), value, dtype))
        assert np.array_equal(got, expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_runs(tier, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    blocks, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 10))
    runs = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000), st.integers(0, 120)), max_size=6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    width = blocks * 16 // np.dtype(dtype).itemsize
    got, expected = run_matmul(
        make_infos(rng, 4), runs, words(rng, (columns, width), dtype), data.draw(st.integers(1, 3))
    )
    assert np.array_equal(got, expected)


# --- zero shares ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negate", [False, True])
def test_zero_share(tier, dtype, rng, negate):
    lengths = i64(1, 0, 7, 8, 9, 64, 333, 2, 2050, 0)
    infos = make_infos(rng, 3 * len(lengths), 65)
    before = words(rng, (3, int(lengths.sum())), dtype)
    expected = oracle.zero_share_add(before, KEY, infos, lengths, negate)
    for threads in THREADS:
        whole = np.full((3, before.shape[1] + 5), 9, dtype)
        out = whole[:, :-5]
        out[:] = before
        _core.zero_share_add(out, KEY, infos, lengths, negate, threads)
        assert np.array_equal(out, expected)
        assert (whole[:, -5:] == 9).all()


def test_zero_share_of_long_segments(tier, rng):
    """Longer than a hand-out: threads share a segment."""
    lengths = i64(200_001, 3, 70_000)
    infos = make_infos(rng, 6)
    for threads in THREADS:
        out = np.zeros((2, 270_004), np.uint16)
        _core.zero_share_add(out, KEY, infos, lengths, False, threads)
        at = 0
        for s, n in enumerate(lengths):
            for b in range(2):
                expected = oracle.keystream(oracle.hkdf(KEY, bytes(infos[3 * b + s])), np.uint16, int(n))
                assert np.array_equal(out[b, at : at + n], expected)
            at += n


def test_zero_shares_cancel_and_mask(tier, dtype, rng):
    infos = make_infos(rng, 200)
    lengths = np.full(200, 10, np.int64)
    out = np.zeros((1, 2000), dtype)
    _core.zero_share_add(out, KEY, infos, lengths, False)
    assert len(np.unique(out[0].reshape(200, 10), axis=0)) == 200
    bits = np.unpackbits(out.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)
    _core.zero_share_add(out, KEY, infos, lengths, True, 2)
    assert not out.any()


def test_zero_share_of_nothing(tier, dtype):
    _core.zero_share_add(np.zeros((0, 4), dtype), KEY, np.zeros((0, 8), np.uint8), i64(4), False)
    _core.zero_share_add(np.zeros((2, 0), dtype), KEY, np.zeros((0, 8), np.uint8), i64(), False)
    _core.zero_share_add(np.zeros((2, 0), dtype), KEY, np.zeros((2, 8), np.uint8), i64(0), True)


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "key", "infos", "threads"),
    [
        (DTypeError, bytearray(32), np.zeros((1, 4), np.uint8), 1),
        (DTypeError, "x" * 32, np.zeros((1, 4), np.uint8), 1),
        (ParameterError, bytes(31), np.zeros((1, 4), np.uint8), 1),
        (ParameterError, bytes(33), np.zeros((1, 4), np.uint8), 1),
        (DTypeError, KEY, b"abcd", 1),
        (DTypeError, KEY, np.zeros((1, 4), np.int8), 1),
        (DTypeError, KEY, np.zeros((1, 4), np.uint16), 1),
        (ShapeError, KEY, np.zeros(4, np.uint8), 1),
        (ShapeError, KEY, np.zeros((2, 8), np.uint8)[:, ::2], 1),
        (ShapeError, KEY, np.zeros((1, 257), np.uint8), 1),
        (ParameterError, KEY, np.zeros((1, 4), np.uint8), -1),
        (ParameterError, KEY, np.zeros((1, 4), np.uint8), 1025),
        (DTypeError, KEY, np.zeros((1, 4), np.uint8), 1.0),
        (DTypeError, KEY, np.zeros((1, 4), np.uint8), True),
    ],
)
def test_key_errors(error, key, infos, threads):
    with pytest.raises(error):
        _core.KeySchedules(key, infos, threads)
    with pytest.raises(error):
        _core.hkdf_expand_batch(key, infos, threads)


def read_only(a):
    a.flags.writeable = False
    return a


@pytest.mark.parametrize(
    ("error", "segment", "block", "out"),
    [
        (ParameterError, 2, 0, np.zeros(4, np.uint32)),
        (ParameterError, -1, 0, np.zeros(4, np.uint32)),
        (DTypeError, 0.0, 0, np.zeros(4, np.uint32)),
        (ParameterError, 0, -1, np.zeros(4, np.uint32)),
        (ParameterError, 0, 2**32, np.zeros(4, np.uint32)),
        (ParameterError, 0, 2**32 - 1, np.zeros(5, np.uint32)),
        (ParameterError, 0, 2**80, np.zeros(4, np.uint32)),
        (DTypeError, 0, 0, np.zeros(4, np.int32)),
        (DTypeError, 0, 0, np.zeros(4, np.uint8)),
        (DTypeError, 0, 0, np.zeros(4, ">u4")),
        (DTypeError, 0, 0, [0, 0]),
        (ShapeError, 0, 0, np.zeros((2, 2), np.uint32)),
        (ShapeError, 0, 0, np.zeros(8, np.uint32)[::2]),
        (ShapeError, 0, 0, read_only(np.zeros(4, np.uint32))),
    ],
)
def test_keystream_errors(error, segment, block, out):
    schedules = _core.KeySchedules(KEY, np.zeros((2, 4), np.uint8), 1)
    with pytest.raises(error):
        _core.keystream_words(schedules, segment, block, out)


def test_matmul_errors():
    schedules = _core.KeySchedules(KEY, np.zeros((2, 4), np.uint8), 1)
    good = {
        "index": i64(0, 1), "first_row": i64(0, 5), "row_count": i64(3, 4),
        "columns": np.zeros((2, 8), np.uint32), "out": np.zeros((2, 7), np.uint32), "threads": 1,
    }  # fmt: skip
    _core.keystream_matmul(schedules, **good)
    rows = 2**31  # of two blocks each
    both = np.zeros((4, 8), np.uint32)
    for error, change in (
        (ParameterError, {"index": i64(0, 2)}),
        (ParameterError, {"index": i64(0, -1)}),
        (ShapeError, {"index": i64(0)}),
        (ShapeError, {"index": i64(0, 0, 0, 1)[::2]}),
        (ShapeError, {"index": np.zeros((1, 2), np.int64)}),
        (DTypeError, {"index": np.zeros(2, np.int32)}),
        (DTypeError, {"index": [0, 1]}),
        (ParameterError, {"first_row": i64(0, -5)}),
        (ParameterError, {"first_row": i64(0, rows - 3)}),
        (ParameterError, {"row_count": i64(-1, 8)}),
        (ParameterError, {"row_count": i64(rows + 1, 1)}),
        (DTypeError, {"row_count": np.array([3.0, 4.0])}),
        (ShapeError, {"row_count": i64(3, 3)}),
        (ShapeError, {"columns": np.zeros((2, 6), np.uint32)}),
        (ShapeError, {"columns": np.zeros((2, 0), np.uint32)}),
        (ShapeError, {"columns": np.zeros(8, np.uint32)}),
        (ShapeError, {"columns": np.zeros((3, 8), np.uint32)}),
        (ShapeError, {"columns": np.zeros((8, 2), np.uint32).T}),
        (DTypeError, {"columns": np.zeros((2, 8), np.float32)}),
        (DTypeError, {"columns": np.zeros((2, 8), np.uint16)}),
        (DTypeError, {"out": np.zeros((2, 7), np.int32)}),
        (ShapeError, {"out": np.zeros((2, 8), np.uint32)}),
        (ShapeError, {"out": np.zeros((7, 2), np.uint32).T}),
        (ShapeError, {"out": np.zeros((2, 7), np.uint32)[::-1]}),
        (ShapeError, {"out": read_only(np.zeros((2, 7), np.uint32))}),
        (ParameterError, {"columns": both[:2], "out": both[1:3, :7]}),
        (ParameterError, {"threads": 2000}),
        (DTypeError, {"threads": "2"}),
    ):
        with pytest.raises(error):
            _core.keystream_matmul(schedules, **{**good, **change})
    with pytest.raises(TypeError):
        _core.keystream_matmul(None, **good)


def test_zero_share_errors():
    good = {
        "out": np.zeros((2, 7), np.uint32), "key": KEY, "infos": np.zeros((4, 9), np.uint8), "lengths": i64(3, 4),
        "negate": False, "threads": 1,
    }  # fmt: skip
    _core.zero_share_add(**good)
    for error, change in (
        (DTypeError, {"out": np.zeros((2, 7), np.int32)}),
        (ShapeError, {"out": np.zeros(7, np.uint32)}),
        (ShapeError, {"out": np.zeros((2, 8), np.uint32)}),
        (ShapeError, {"out": np.zeros((2, 14), np.uint32)[:, ::2]}),
        (ShapeError, {"out": read_only(np.zeros((2, 7), np.uint32))}),
        (DTypeError, {"key": bytearray(32)}),
        (ParameterError, {"key": b""}),
        (ShapeError, {"infos": np.zeros((3, 9), np.uint8)}),
        (ShapeError, {"infos": np.zeros((4, 300), np.uint8)}),
        (DTypeError, {"infos": np.zeros((4, 9), np.int64)}),
        (ShapeError, {"lengths": i64(3, 5)}),
        (ShapeError, {"lengths": i64(7)}),
        (ParameterError, {"lengths": i64(-1, 8)}),
        (ParameterError, {"lengths": i64(2**62, 2**62)}),
        (DTypeError, {"lengths": np.array([3, 4], np.uint64)}),
        (DTypeError, {"negate": 1}),
        (DTypeError, {"negate": None}),
        (ParameterError, {"threads": -3}),
    ):
        with pytest.raises(error):
            _core.zero_share_add(**{**good, **change})


@pytest.mark.parametrize("negate", [False, True])
def test_zero_share_from_any_word_on(tier, dtype, rng, negate):
    """A part of an answer gets the mask of that part: any first word, any end, in the first or a later segment."""
    lengths = i64(37, 5, 150_000, 3)
    infos = make_infos(rng, 2 * len(lengths), 64)
    before = words(rng, (2, int(lengths.sum())), dtype)
    whole = before.copy()
    _core.zero_share_add(whole, KEY, infos, lengths, negate)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    of_segment = infos.reshape(2, len(lengths), -1)
    ranges = [(a, b) for a in range(10) for b in (a + 1, 37, 41)] + [
        (42 + a, b) for a in (0, 1, 7, 8, 65535, 65536, 65537, 149_999) for b in (42 + a + 1, 150_042, 150_044)
    ]
    for begin, end in ranges:
        s, t = np.searchsorted(starts, begin, side="right") - 1, np.searchsorted(starts, end)
        edges = np.clip(starts[s : t + 1], begin, end)
        part = np.ascontiguousarray(of_segment[:, s:t]).reshape(-1, infos.shape[1])
        for threads in THREADS:
            out = before[:, begin:end].copy()
            _core.zero_share_add(out, KEY, part, np.diff(edges), negate, threads, int(begin - starts[s]))
            assert np.array_equal(out, whole[:, begin:end])


def test_zero_share_first_errors():
    good = {"out": np.zeros((1, 7), np.uint32), "key": KEY, "infos": np.zeros((1, 9), np.uint8), "lengths": i64(7),
            "negate": False, "threads": 1, "first": 3}  # fmt: skip
    _core.zero_share_add(**good)
    for error, first in ((ParameterError, -1), (ParameterError, 2**34), (ParameterError, 2**34 - 6), (DTypeError, 1.0)):
        with pytest.raises(error):
            _core.zero_share_add(**{**good, "first": first})
