"""Masked, packed answers under Paillier: exact scores, and what a user who decrypts could see."""

import numpy as np
import pytest

from mipp.encoding import Encoding
from mipp.errors import MessageError, ParameterError, ShapeError
from mipp.paillier import PublicKey, RandomnessPool, generate_keypair
from mipp.paillier.limbs import from_limbs
from mipp.params import RING_DTYPES
from mipp.schemes import paillier as scheme
from mipp.schemes.paillier import SlotLayout, answer, check_query, encrypt_query, scores

SIGNED = {16: np.int16, 32: np.int32, 64: np.int64}
HEADER, PAIR = bytes(range(32)), bytes(range(32, 64))


@pytest.fixture(scope="module")
def key():
    """Short: these tests are about masks and slots, not about the key."""
    return generate_keypair(512, insecure=True)


class Parties:
    """Rows split into c and -p (here ``p``), one query, and both servers' answers."""

    def __init__(self, key, k, rows, query, bound_bits, header=HEADER):
        self.key, self.layout = key, SlotLayout(k, bound_bits, key.public.bits)
        rng = np.random.default_rng(5)
        dtype = RING_DTYPES[k]
        self.x = rows.astype(dtype)
        self.p = rng.integers(0, 1 << k, rows.shape, dtype=np.uint64, endpoint=False).astype(dtype)
        self.c = self.x - self.p
        self.query, self.header = query, header
        self.pool = RandomnessPool(key.public, full_range=True)
        self.column = encrypt_query(query, key.public)

    def answers(self):
        return [
            answer(rows, self.column, self.layout, self.key.public, self.pool, PAIR, self.header, negate=negate)
            for rows, negate in ((self.c, False), (self.p, True))
        ]

    def plain(self, ciphertexts):
        """What the user decrypts."""
        elements = ciphertexts.reshape(-1, self.key.public.element_limbs)
        return [int(v) for v in from_limbs(self.key.raw_decrypt(elements))]

    def slots(self, answers):
        """All bits of each slot of the combined answers, as Python integers, in row order."""
        first, second = (a.reshape(-1, self.key.public.element_limbs) for a in answers)
        mask = (1 << self.layout.width) - 1
        combined = self.plain(self.key.public.modulus.mul(first, second))
        found = [v >> s * self.layout.width & mask for v in combined for s in range(self.layout.slots)]
        return found[: len(self.x)]


@pytest.mark.parametrize("k", [16, 32, 64])
@pytest.mark.parametrize("rows", [1, 3, 4, 29])
def test_scores_are_exact(key, k, rows):
    rng = np.random.default_rng(k + rows)
    x = rng.integers(-128, 128, (rows, 5))
    q = rng.integers(-127, 128, (2, 5)).astype(SIGNED[k])
    parties = Parties(key, k, x, q, 10)
    found = scores(parties.answers(), rows, parties.layout, key)
    expected = (q.astype(np.int64) @ x.T).astype(SIGNED[k])
    assert np.array_equal(found.view(SIGNED[k]), expected)


@pytest.mark.parametrize("k", [16, 32, 64])
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_at_the_edge_of_the_bound(key, k, sign):
    """Largest rows and a query whose absolute values add to 2^B exactly: no slot runs into its neighbour."""
    bound_bits = 6
    q = np.full((1, 4), sign * 16, SIGNED[k])
    x = np.full((9, 4), -1).astype(RING_DTYPES[k])  # all ones: c and p are what matters
    parties = Parties(key, k, x, q, bound_bits)
    parties.p[:] = 0
    parties.c = x
    found = scores(parties.answers(), 9, parties.layout, key)
    assert (found.view(SIGNED[k]) == -sign * 64).all()
    parties.p, parties.c = x, np.zeros_like(x)
    found = scores(parties.answers(), 9, parties.layout, key)
    assert (found.view(SIGNED[k]) == -sign * 64).all()


def chi_square(values, bins):
    counts = np.bincount(values, minlength=bins)
    expected = len(values) / bins
    return float(((counts - expected) ** 2).sum() / expected)


def high_parts(key, k, x, q, bound_bits):
    """High parts of the slots, and how often the sums wrapped, over several answers."""
    high, wraps = [], []
    for n in range(8):
        parties = Parties(key, k, x, q, bound_bits, bytes([n]) * 32)
        high += [v >> k for v in parties.slots(parties.answers())]
        total = parties.c.astype(object) @ q[0].astype(object) + parties.p.astype(object) @ q[0].astype(object)
        wraps += [int(t) >> k for t in total]
    return high, np.array(wraps)


@pytest.mark.parametrize("k", [16, 32])
def test_high_parts_tell_nothing_of_the_data(key, k, monkeypatch):
    bound_bits = 9
    q = np.array([[100, -90, 80, -70, 60, 50]], SIGNED[k])
    least, spread = 2 << bound_bits, 1 << bound_bits + scheme.STATISTICAL_BITS
    random = np.random.default_rng(1).integers(0, 1 << k, (200, 6))
    for x in (np.zeros((200, 6)), random):  # wraps are constant, or spread
        high, wraps = high_parts(key, k, x, q, bound_bits)
        assert np.ptp(wraps) > 200 if x is random else np.median(wraps) == q.sum()
        assert all(least - (2 << bound_bits) <= h < least + 2 * spread + (2 << bound_bits) for h in high)
        low = np.array([h % 16 for h in high])
        assert chi_square(low, 16) < 45  # 15 degrees of freedom: once in 10^4
        if x is random:
            assert abs(np.corrcoef(np.array([float(h) for h in high]), wraps)[0, 1]) < 0.12
        # the sum of two uniform numbers: half of all lie within the middle 29 percent of the range
        middle = [abs((h - least) / spread - 1) < 0.293 for h in high]
        assert abs(np.mean(middle) - 0.5) < 0.06

    monkeypatch.setattr(scheme, "random_bytes", bytes)  # planted: R is not random
    high, wraps = high_parts(key, k, random, q, bound_bits)
    assert np.corrcoef(np.array([float(h) for h in high]), wraps)[0, 1] > 0.99


def top_bytes(parties, which):
    n = int(parties.key.public.n)
    return np.array([v * 256 // n for v in parties.plain(parties.answers()[which])])


@pytest.mark.parametrize("which", [0, 1])
def test_each_answer_alone_is_uniform(key, which, monkeypatch):
    rng = np.random.default_rng(2)
    x, q = rng.integers(-128, 128, (3000, 3)), np.array([[3, -2, 1]], np.int32)
    parties = Parties(key, 32, x, q, 4)
    values = top_bytes(parties, which)
    assert len(values) == parties.layout.ciphertexts(3000) >= 500
    assert chi_square(values // 16, 16) < 45
    # the low slot's bits too, which the top says nothing about
    low = np.array([v % 16 for v in parties.plain(parties.answers()[which])])
    assert chi_square(low, 16) < 45

    monkeypatch.setattr(scheme, "_masks", lambda s, query, key, count, *rest: np.zeros((count, key.limbs), np.uint64))
    assert chi_square(top_bytes(parties, which) // 16, 16) > 45  # planted: no U


def test_masks_depend_on_the_header_and_randomness_is_fresh(key):
    q = np.array([[1, 2]], np.int32)
    x = np.ones((5, 2), int)
    one, same = Parties(key, 32, x, q, 4), Parties(key, 32, x, q, 4)
    other = Parties(key, 32, x, q, 4, bytes(32))
    for parties in (same, other):
        parties.column = one.column
    a, b, c = one.answers(), same.answers(), other.answers()
    assert not np.array_equal(a[0], b[0])  # a retry: fresh R and r
    # of one header, answers of different tries still fit together; of two headers they do not
    assert np.array_equal(scores([a[0], b[1]], 5, one.layout, key), [[3] * 5])
    assert not np.array_equal(scores([a[0], c[1]], 5, one.layout, key), [[3] * 5])


def test_each_query_of_a_batch_has_masks_of_its_own(key):
    parties = Parties(key, 32, np.ones((2, 2), int), np.array([[1, 2], [1, 2]], np.int32), 4)
    first, _ = parties.answers()
    count = parties.layout.ciphertexts(2)
    plain = parties.plain(first)
    n = int(key.public.n)
    # equal rows and queries: the plaintexts differ by more than fresh R can make
    assert min((plain[0] - plain[count]) % n, (plain[count] - plain[0]) % n) >> parties.layout.width * 2


def test_layout():
    layout = SlotLayout(32, 13, 2048)
    assert (layout.width, layout.slots, layout.ciphertexts(10_000)) == (87, 23, 435)
    assert [layout.ciphertexts(n) for n in (0, 1, 23, 24)] == [0, 1, 1, 2]
    with pytest.raises(ParameterError, match="does not fit"):
        SlotLayout(64, 31, 128)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2", "l1", "hamming"])
def test_bound_holds_for_every_query(metric):
    rng = np.random.default_rng(3)
    options = {"levels": 5} if metric == "l1" else {}
    encoding = Encoding(metric, 7, **options)
    if metric in ("l1", "hamming"):
        queries = rng.integers(0, 5 if metric == "l1" else 2, (500, 7))
    else:
        queries = rng.normal(size=(500, 7)) * 10.0 ** rng.integers(-2, 3, (500, 1))
        queries = np.concatenate([queries, np.full((1, 7), 1e6)])
    norms = np.abs(encoding.encode_queries(queries).astype(np.int64)).sum(axis=1)
    assert norms.max() <= encoding.query_norm1
    if metric in ("ip", "l2", "hamming"):
        assert norms.max() == encoding.query_norm1  # and no larger than need be


def test_bad_queries_are_refused(key):
    public = key.public
    column = encrypt_query(np.array([[1, 2], [3, -4]], np.int32), public)
    check_query(column, 2, 2, public)
    limit = np.frombuffer(int(public.n_squared).to_bytes(8 * public.element_limbs, "little"), "<u8")
    for number in (int(public.n_squared), int(public.n_squared) + 1, (1 << 64 * public.element_limbs) - 1):
        bad = column.copy()
        bad[1, -public.element_limbs :] = np.frombuffer(number.to_bytes(8 * public.element_limbs, "little"), "<u8")
        with pytest.raises(ParameterError, match="below"):
            check_query(bad, 2, 2, public)
    fine = column.copy()
    fine[0, : public.element_limbs] = limit
    fine[0, 0] -= 1
    check_query(fine, 2, 2, public)
    for wrong in (column[:1], column[:, 1:], column.astype(np.int64)):
        with pytest.raises(ShapeError):
            check_query(wrong, 2, 2, public)


def test_bad_answers_are_refused(key):
    parties = Parties(key, 32, np.ones((5, 2), int), np.array([[1, 2]], np.int32), 4)
    first, second = parties.answers()
    for bad in (first[:, 1:], first.astype(np.int64), np.concatenate([first, first])):
        with pytest.raises(MessageError):
            scores([bad, second], 5, parties.layout, key)
        with pytest.raises(MessageError):
            scores([first, bad], 5, parties.layout, key)
    with pytest.raises(MessageError, match="no ciphertexts"):
        scores([np.full_like(first, 2**64 - 1), second], 5, parties.layout, key)


def test_another_users_key_reads_nothing(key):
    other = generate_keypair(512, insecure=True)
    parties = Parties(key, 32, np.ones((5, 2), int), np.array([[1, 2]], np.int32), 4)
    assert isinstance(other.public, PublicKey)
    try:
        found = scores(parties.answers(), 5, parties.layout, other)
    except MessageError:
        return  # above the other modulus
    assert not np.array_equal(found, [[3] * 5])
