"""Private retrieval: every tier against the slow twin, known answers, all rows of tiny domains, distributions."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from mipp import pir
from mipp._native import _core
from mipp.errors import ShapeError
from tests.kernels.test_galois import THREADS
from tests.reference import pir as slow

#: instructions are some ten times slower then, so fewer sizes are tried
SANITIZED = os.environ.get("MIPP_SANITIZE") == "1"
VECTORS = Path(__file__).parents[1] / "vectors" / "pir.json"
#: one leaf and less, levels with and without a last node, whole chunks of 1024 leaves and a rest
DOMAINS = [1, 2, 64, 65, 127, 128, 129, 256, 257, 300, 1000, 8192, 8193, 131072 + 77, 3 * 131072 + 5]
#: rows, bytes of a record, selections, first row: lines and rests, groups of 16 rows and rests, several passes
SCANS = [
    (0, 64, 2, 0), (1, 8, 1, 0), (1, 64, 1, 63), (15, 16, 3, 1), (16, 64, 12, 0), (17, 72, 13, 5), (31, 128, 4, 33),
    (32, 136, 5, 64), (33, 192, 2, 127), (40, 320, 7, 15), (48, 584, 10, 17), (50, 1024, 1, 3), (64, 248, 25, 0),
    (65, 640, 6, 49), (100, 512, 9, 60), (20, 776, 11, 2), (70, 1096, 8, 8),
]  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(47)


def selection(key, rows, threads=1):
    out = np.full(2 * -(-rows // 128), 2**64 - 1, np.uint64)
    _core.pir_expand(key, out, threads)
    return out


def unit(row, rows):
    return slow.words_of([int(i == row) for i in range(rows)])


@pytest.mark.parametrize("rows", DOMAINS)
def test_keys_and_selections(tier, rows, rng):
    for row in sorted({0, rows // 3, rows - 1}):
        random = rng.bytes(32)
        keys = _core.pir_generate(row, rows, random)
        assert keys == slow.generate(row, rows, random)
        if rows > 10_000 and row:
            continue  # the twin takes its time
        for key in keys:
            expected = slow.words_of(slow.expand(key))
            for threads in THREADS:
                assert selection(key, rows, threads).tolist() == expected


@pytest.mark.parametrize("rows", [128 * 1024 * 5 + 1, 2**21 - 1, 2**22])
def test_large_domains(tier, rows, rng):
    """The selections differ in the wanted row alone, whatever the threads."""
    for row in (0, int(rng.integers(rows)), rows - 1):
        a, b = pir.generate_keys(row, rows)
        for threads in THREADS:
            both = pir.expand(a, threads=threads) ^ pir.expand(b, rows=rows, threads=threads)
            assert np.flatnonzero(both).tolist() == [row // 64] and int(both[row // 64]) == 1 << row % 64


@pytest.mark.slow
def test_all_rows_of_tiny_domains(tier):
    """Every row of every domain of 1 to 300 rows: the keys' selections differ in it alone, and are the twin's."""
    random = hashlib.sha256(b"tiny").digest()
    for rows in (1, 2, 127, 128, 129, 256, 258) if SANITIZED else range(1, 301):
        for row in range(rows):
            a, b = _core.pir_generate(row, rows, random)
            assert (selection(a, rows) ^ selection(b, rows)).tolist() == unit(row, rows)
            if rows % 43 == 0:
                assert (a, b) == slow.generate(row, rows, random)
                assert selection(b, rows).tolist() == slow.words_of(slow.expand(b))


def test_known_answers(tier):
    vectors = json.loads(VECTORS.read_text())
    assert len(vectors["cases"]) > 20
    for case in vectors["cases"]:
        keys = _core.pir_generate(case["row"], case["rows"], bytes.fromhex(case["random"]))
        assert [k.hex() for k in keys] == case["keys"]
        for key, digest in zip(keys, case["selections_sha256"], strict=True):
            assert hashlib.sha256(selection(key, case["rows"]).tobytes()).hexdigest() == digest


def test_fixed_keys_are_hashes(tier):
    """The three keys of the kernels are those that anybody derives: a leaf and both children of a seed."""
    text = (Path(__file__).parents[2] / "csrc/pir/fixed_keys.h").read_text().replace("\n", " ")
    for name in (b"left", b"right", b"leaf"):
        key = hashlib.sha256(b"mipp.pir 1 " + name).digest()[:16]
        assert ", ".join(f"0x{b:02x}" for b in key) in " ".join(text.split()).replace("{ ", "{")
    seed = bytes([6]) + bytes(range(15))
    one = slow.packed(100, 0, seed, [], [], bytes(16))
    assert selection(one, 128).tobytes() == slow.hashed(b"leaf", seed)[:12] + bytes(
        [slow.hashed(b"leaf", seed)[12] & 15, 0, 0, 0]
    )
    two = slow.packed(256, 0, seed, [bytes(16)], [(0, 0)], bytes(16))
    children = [slow.parts(slow.hashed(side, seed))[0] for side in (b"left", b"right")]
    assert selection(two, 256).tobytes() == b"".join(slow.hashed(b"leaf", child) for child in children)


@pytest.mark.parametrize("rows", [1, 100, 128, 129, 2**17, 2**20, 2**24, 2**32 - 1, 2**32])
def test_sizes_of_keys(rows):
    a, b = pir.generate_keys(rows - 1, rows)
    depth = max(0, (-(-rows // 128) - 1).bit_length())
    assert len(a) == len(b) == 48 + 16 * depth + -(-2 * depth // 8) <= 500
    assert pir.check_key(a, rows) == 0 and pir.check_key(b, rows) == 1


def test_keys_are_fresh():
    assert len({key for _ in range(50) for key in pir.generate_keys(3, 1000)}) == 100


# --- scans ---------------------------------------------------------------------------------------------------------


def records_of(rng, rows, size, offset):
    """Records at any alignment."""
    raw = rng.integers(0, 256, rows * size + offset, np.uint8)
    return raw[offset:].reshape(rows, size)


@pytest.mark.parametrize("shape", SCANS)
def test_scans(tier, shape, rng):
    rows, size, count, first = shape
    selections = rng.integers(0, 2**64, (count, -(-(first + rows) // 64) or 1), np.uint64)
    for offset in (0, 1, 8, 61):
        records = records_of(rng, rows, size, offset)
        expected = slow.scanned(records, selections, first) if rows else [[0] * size] * count
        for threads in THREADS:
            assert pir.scan(records, selections, first_row=first, threads=threads).tolist() == expected
    out = rng.integers(0, 256, (count, size), np.uint8)
    before = out.copy()
    assert pir.scan(records, selections, first_row=first, out=out) is out
    assert (out ^ before).tolist() == expected


@pytest.mark.parametrize("size", [64, 8192, 1 << 19])
def test_long_scans(tier, size, rng):
    """Many grains, which threads share; one row a group; against numpy."""
    rows = max(40, (2 << 20 if SANITIZED else 6 << 20) // size)
    records = records_of(rng, rows, size, 0)
    for count in (1, 10, 30):
        selections = rng.integers(0, 2**64, (count, rows // 64 + 2), np.uint64)
        bits = np.unpackbits(selections.view(np.uint8), axis=1, bitorder="little")[:, 60 : 60 + rows].astype(bool)
        expected = [np.bitwise_xor.reduce(records[some], axis=0) for some in bits]
        for threads in THREADS:
            assert np.array_equal(pir.scan(records, selections, first_row=60, threads=threads), expected)


def test_all_and_no_rows(tier):
    records = np.full((33, 72), 255, np.uint8)
    for word, expected in ((0, 0), (2**64 - 1, 255)):
        assert set(pir.scan(records, np.full(1, word, np.uint64)).tolist()) == {expected}


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 5000, 70_000])
def test_gathered_bits(rows, rng):
    selections = rng.integers(0, 2**64, (3, 2000), np.uint64)
    ordinals = np.sort(rng.choice(64 * 2000, rows, replace=False))
    for threads in THREADS:
        found = pir.gather(selections, ordinals, threads=threads)
        assert found.shape == (3, -(-rows // 64)) and found.tolist() == slow.gathered(selections, ordinals.tolist())
    assert pir.gather(selections[1], ordinals).tolist() == found[1].tolist()


def test_compacted_records(rng):
    """Rows that a file has lost are left out of the selections as well."""
    whole = rng.integers(0, 256, (1000, 64), np.uint8)
    kept = np.flatnonzero(rng.random(1000) < 0.7)
    row = int(kept[123])
    answers = [pir.scan(whole[kept], pir.gather(pir.expand(key), kept)) for key in pir.generate_keys(row, len(whole))]
    assert np.array_equal(pir.combine(*answers), whole[row])


# --- databases -----------------------------------------------------------------------------------------------------


def test_every_record_of_a_database(rng):
    records = rng.integers(0, 256, (300, 24), np.uint8)
    one, parts = pir.Database(records, threads=1), pir.Database([records[:1], records[1:200], records[200:]])
    assert (one.rows, one.record_bytes) == (parts.rows, parts.record_bytes) == (300, 24)
    for row, record in enumerate(records):
        a, b = one.query(row)
        assert one.combine(one.answer(a), parts.answer(b)) == record.tobytes()
    pairs = [one.query(row) for row in (*range(0, 300, 2), 7, 7)]
    answers = [database.answer([p[i] for p in pairs]) for i, database in enumerate((one, parts))]
    assert np.array_equal(pir.combine(*answers), records[[*range(0, 300, 2), 7, 7]])
    assert one.answer([]).shape == (0, 24)


def test_mapped_records(rng):
    """Files are read in pieces, ahead of their use; segments that are small, and some that are not mapped."""
    record, rows = 4096, 20_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        rng.integers(0, 2**64, rows * record // 8, np.uint64).tofile(path)
        mapped = np.memmap(path, np.uint8, "r", shape=(rows, record))
        view = np.asarray(mapped)[5:]
        database = pir.Database([mapped, np.array(mapped[:7]), view])
        for row in (0, 9000, rows - 1, rows + 3, rows + 7, 2 * rows + 1):
            a, b = database.query(row)
            expected = mapped[row] if row < rows else mapped[row - rows] if row < rows + 7 else view[row - rows - 7]
            assert database.combine(database.answer(a), database.answer(b)) == expected.tobytes()
        selections = rng.integers(0, 2**64, (3, rows // 64 + 1), np.uint64)
        assert np.array_equal(pir.scan(mapped, selections), pir.scan(np.array(mapped), selections))
        with pytest.raises(ShapeError):
            pir.scan(mapped, selections, first_row=64)
        del database, view, mapped


# --- distributions -------------------------------------------------------------------------------------------------

KEYS, ROWS, WANTED = 4096, 700, 437
DEPTH = slow.depth_of(ROWS)


def chi_square(values, bins):
    """How far the statistic is from its mean, in standard deviations, for values that should be uniform."""
    counts = np.bincount(values, minlength=bins)
    expected = len(values) / bins
    return float((((counts - expected) ** 2).sum() / expected - (bins - 1)) / np.sqrt(2 * (bins - 1)))


def unlike_random(keys):
    """Places of one server's keys, and of their selections, whose distribution is not uniform; 6 deviations."""
    raw = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)
    found = []
    controls_at = 32 + 16 * DEPTH
    for at in [*range(16, controls_at), *range(raw.shape[1] - 16, raw.shape[1])]:
        block_start = at % 16 == 0 and at < controls_at  # its lowest bit is always 0
        values, bins = (raw[:, at] >> 1, 128) if block_start else (raw[:, at], 256)
        if chi_square(values, bins) > 6:
            found.append(f"byte {at}")
    for i in range(2 * DEPTH):
        if chi_square(raw[:, controls_at + i // 8] >> i % 8 & 1, 2) > 20:
            found.append(f"control {i}")
    words = np.array([selection(key, ROWS) for key in keys])
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")[:, :ROWS]
    deviations = (bits.sum(0) - len(keys) / 2) / np.sqrt(len(keys) / 4)
    found += [f"row {r}" for r in np.flatnonzero(np.abs(deviations) > 6)]
    if chi_square(words[:, : ROWS // 64].copy().view(np.uint8).ravel(), 256) > 6:
        found.append("bytes of selections")
    return found


def many_keys(row, party):
    rng = np.random.default_rng((row, party))
    return [_core.pir_generate(row, ROWS, rng.bytes(32))[party] for _ in range(KEYS)]


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("row", [0, WANTED, ROWS - 1])
def test_one_key_is_random(row, party):
    """By the same statistic whatever the row: nothing in a key or its selection tells it."""
    assert unlike_random(many_keys(row, party)) == []


@pytest.mark.parametrize("party", [0, 1])
def test_keys_of_two_rows_are_alike(party):
    """Each byte of a key has the same distribution for both rows: a two-sample chi-square."""
    a, b = (np.frombuffer(b"".join(many_keys(row, party)), np.uint8).reshape(KEYS, -1) for row in (3, WANTED))
    for at in range(a.shape[1]):
        one, other = (np.bincount(x[:, at], minlength=256) for x in (a, b))
        both = one + other
        used = both > 0
        statistic = ((one - other)[used] ** 2 / both[used]).sum()
        free = max(1, int(used.sum()) - 1)
        assert statistic < free + 7 * np.sqrt(2 * free), at


def planted(fault):
    """Keys of a generator with a fault, and what the statistic must name."""
    rng, keys, named = np.random.default_rng(5), [], set()
    for _ in range(KEYS):
        rows, party, seed, corrections, controls, leaf = slow.unpacked(
            _core.pir_generate(WANTED, ROWS, rng.bytes(32))[1]
        )
        if fault == "no correction of a level":
            corrections[1], named = bytes(16), {f"byte {at}" for at in range(48, 64)}
        elif fault == "a seed that repeats":
            seed, named = bytes(15) + seed[15:], {f"byte {at}" for at in range(16, 31)}
        elif fault == "controls that follow the row":
            controls[0], named = (0, 1), {"control 0", "control 1"}
        else:  # the leaf's correction is the point itself
            leaf, named = (1 << WANTED % 128).to_bytes(16, "little"), {f"byte {-16 + at}" for at in range(16)}
        keys.append(slow.packed(rows, party, seed, corrections, controls, leaf))
    return keys, {name if "-" not in name else f"byte {len(keys[0]) + int(name[5:])}" for name in named}


@pytest.mark.parametrize(
    "fault", ["no correction of a level", "a seed that repeats", "controls that follow the row", "an unmasked point"]
)
def test_planted_faults_are_caught(fault):
    keys, named = planted(fault)
    assert named <= set(unlike_random(keys))


def test_a_selection_that_shows_its_row_is_caught(monkeypatch):
    """An expansion that always has the wanted row, and one that has nothing else."""
    keys = many_keys(WANTED, 0)
    point = np.array(unit(WANTED, ROWS), np.uint64)
    real = selection
    monkeypatch.setitem(globals(), "selection", lambda key, rows: real(key, rows) | point)
    assert unlike_random(keys) == [f"row {WANTED}"]
    monkeypatch.setitem(globals(), "selection", lambda key, rows: point)
    assert {f"row {r}" for r in range(ROWS)} | {"bytes of selections"} <= set(unlike_random(keys))


def test_one_long_selection_is_random(rng):
    """Bytes of one selection of 2^22 rows, and whether neighbours agree."""
    for key in _core.pir_generate(12345, 2**22, rng.bytes(32)):
        words = selection(key, 2**22)
        assert chi_square(words.view(np.uint8), 256) < 6
        bits = np.unpackbits(words.view(np.uint8))
        for lag in (1, 64, 128, 129):
            agree = int((bits[lag:] == bits[:-lag]).sum())
            assert abs(agree - len(bits) / 2) < 6 * np.sqrt(len(bits) / 4) + lag


def test_vectors_are_the_twins():
    """The file of known answers is what the twin writes; MIPP_VECTORS_PIR=FILE writes it anew."""
    cases = []
    for i, rows in enumerate((1, 2, 100, 128, 129, 200, 255, 256, 257, 1000, 4096, 5000, 10_000)):
        for row in sorted({0, rows * 2 // 3, rows - 1}):
            random = hashlib.sha256(b"vector %d %d" % (i, row)).digest()
            keys = slow.generate(row, rows, random)
            words = [np.array(slow.words_of(slow.expand(key)), np.uint64) for key in keys]
            assert (words[0] ^ words[1]).tolist() == unit(row, rows)
            digests = [hashlib.sha256(w.astype("<u8").tobytes()).hexdigest() for w in words]
            case = {"rows": rows, "row": row, "random": random.hex(), "keys": [k.hex() for k in keys]}
            cases.append(case | {"selections_sha256": digests})
    if "MIPP_VECTORS_PIR" in os.environ:
        lines = ",\n".join(json.dumps(case) for case in cases)
        Path(os.environ["MIPP_VECTORS_PIR"]).write_text(f'{{"format": "mipp.pir 1", "cases": [\n{lines}\n]}}\n')
    assert json.loads(VECTORS.read_text())["cases"] == cases
