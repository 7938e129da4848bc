"""Masked, flooded answers under lattice keys: exact scores, and what a user who decrypts could see."""

from types import SimpleNamespace

import numpy as np
import pytest

import mipp
from mipp._native import _core
from mipp.errors import MissingKeyError, NotFoundError, VerificationError
from mipp.lattice import EncryptedVector, EvaluationKey, SecretKey, encrypt, prepare
from mipp.lattice.products import unpack_answer
from mipp.params import RING_DTYPES, Params
from mipp.schemes import lattice as scheme
from mipp.schemes.lattice import LatticeScheme, parameters_of

SIGNED = {16: np.int16, 32: np.int32, 64: np.int64}
HEADER, PAIR, USER = bytes(range(32)), bytes(range(32, 64)), bytes(16)
OWN = {1: b"1" * 32, 2: b"2" * 32}
DIM = 5
SETS = ["n4096", "n8192"]


def encoding_of(name, k=32):
    encoding = mipp.Encoding("cosine", DIM, bits=(6 if k == 16 else 8) if name == "n4096" else 12, ring_bits=k,
                             query_bits=8 if name == "n4096" else 12)  # fmt: skip
    assert parameters_of(encoding).name == name
    return encoding


class Parties:
    """Rows split into c and -p, queries, both servers and the user, as a deployment has them."""

    def __init__(self, name, rows, queries, k=32, header=HEADER, own=OWN, split=True):
        self.encoding, dtype = encoding_of(name, k), RING_DTYPES[k]
        self.config = SimpleNamespace(params=Params(2, 1, k, "lattice"), encoding=self.encoding)
        self.parameters, self.header = parameters_of(self.encoding), header
        self.queries, self.rows = np.atleast_2d(queries), len(rows)
        x = rows.astype(dtype)
        p = np.random.default_rng(5).integers(0, 1 << 63, rows.shape, dtype=np.uint64).astype(dtype) * split
        self.words = {1: x + p, 2: dtype.type(0) - p}
        secrets = LatticeScheme().user_secrets(self.config, 0)
        self.user = LatticeScheme().for_user(self.config, None, secrets, 1)
        self.evaluation = self.user.evaluation_key()
        self.hidden = self.user.hide(self.queries.astype(SIGNED[k]))
        self.servers = {i: self.server(i, own[i]) for i in (1, 2)}

    def server(self, index, own):
        pair = {3 - index: PAIR}
        return LatticeScheme().for_server(
            self.config, index, {b"a set": pair}.__getitem__, 1, lambda user: self.evaluation, own
        )

    def answer(self, index, server=None):
        stored = SimpleNamespace(words=lambda dim, start, stop: self.words[index][start:stop])
        plan = SimpleNamespace(spans=lambda rows: [(slice(0, len(rows)), rows.start, rows.stop, None)])
        header = SimpleNamespace(user=USER, keys=b"a set", queries=len(self.queries), ranking="user")
        share = self.hidden.shares[index]
        server = self.servers[index] if server is None else server
        server.check_query(header, share, np.empty(0))
        server.check_size(header, self.rows)
        return server.answer(header, self.header, plan, stored, share, range(self.rows))

    def answers(self):
        return [self.answer(1), self.answer(2)]

    def open(self, answers):
        (found,) = self.user.open(answers, self.rows, self.hidden.opening)
        return found.view(SIGNED[found.dtype.itemsize * 8])

    def components(self, answer, query=0):
        """Numbers mod 2^(w+11) of one query's answer: (polys, 2, N)."""
        return unpack_answer(self.parameters, answer[query], self.rows, None)

    def phase(self, answer, query=0):
        """What the user decrypts of one answer: numbers mod 2^(w+11) for each row."""
        p, parts = self.parameters, self.components(answer, query)
        out = np.empty((len(parts), p.degree), np.uint64)
        ring = _core.LatticeRing(p.degree, list(p.primes))
        key = np.ascontiguousarray(self.hidden.opening[query].residues)
        c0, c1 = (np.ascontiguousarray(parts[:, i]) for i in range(2))
        _core.lattice_phase(ring, c0, c1, key, p.switched_bits, out)
        return out.reshape(-1)[: self.rows]

    def plain(self, answer, query=0):
        """One answer's plaintext: scores of a server's words, with its mask."""
        return ((self.phase(answer, query) + np.uint64(1 << 10)) >> np.uint64(11)) & np.uint64(
            (1 << self.parameters.plain_bits) - 1
        )

    def noise(self, answer):
        return ((self.phase(answer) + np.uint64(1 << 10)) & np.uint64((1 << 11) - 1)).astype(np.int64) - (1 << 10)


def random_rows(count, most=128):
    return np.random.default_rng(count).integers(-most, most, (count, DIM))


QUERY = np.array([40, -30, 20, 10, -6])  # even: without a mask, a plaintext's low bit would be 0


@pytest.mark.parametrize(("name", "k"), [(n, k) for n in SETS for k in (16, 32, 64) if (n, k) != ("n8192", 16)])
@pytest.mark.parametrize("rows", [1, 3, 4097])
def test_scores_are_exact(name, k, rows):
    x = random_rows(rows, 30 if k == 16 else 128)
    queries = np.stack([QUERY, -QUERY + 1])
    parties = Parties(name, x, queries, k)
    assert np.array_equal(parties.open(parties.answers()), queries @ x.T)


@pytest.mark.parametrize("name", SETS)
def test_rows_are_read_in_blocks(name, monkeypatch):
    """The same bytes, whatever the blocks."""
    parties = Parties(name, random_rows(20_000), np.stack([QUERY, -QUERY + 1]))
    whole = parties.answers()
    monkeypatch.setattr(scheme, "_BLOCK_BYTES", 1)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parties.answers(), strict=True))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("end", [0, 1])
def test_scores_at_both_ends_of_what_words_hold(name, end):
    """All words of the shares at their largest, and scores of w bits at their ends."""
    bits = parameters_of(encoding_of(name)).plain_bits
    score = [-(1 << bits - 1), (1 << bits - 1) - 1][end]
    x = np.zeros((3, DIM), np.int64)
    x[:, 0] = score
    parties = Parties(name, x, np.eye(DIM, dtype=int)[0])
    assert (parties.open(parties.answers()) == score).all()
    parties.words = {1: np.full((3, DIM), -1).astype(np.uint32), 2: (x + 1).astype(np.uint32)}
    assert (parties.open(parties.answers()) == score).all()


def chi_square(values, bins):
    counts = np.bincount(values.astype(np.int64), minlength=bins)
    expected = len(values) / bins
    return float(((counts - expected) ** 2).sum() / expected)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("which", [1, 2])
def test_each_answer_alone_is_uniform(name, which, monkeypatch):
    parties = Parties(name, random_rows(3000), QUERY)
    top = np.uint64(parties.parameters.plain_bits - 4)
    values = parties.plain(parties.answer(which))
    assert chi_square(values >> top, 16) < 45  # 15 degrees of freedom: once in 10^4
    assert chi_square(values & np.uint64(15), 16) < 45
    monkeypatch.setattr(scheme, "masks", lambda p, key, context, rows, **o: np.zeros(rows, np.uint32))
    assert chi_square(parties.plain(parties.answer(which)) & np.uint64(15), 16) > 1000  # planted: no U


def test_masks_depend_on_the_header_and_the_query():
    """Equal rows and queries: plaintexts differ by the masks alone, which both servers have, and no others."""
    parties = Parties("n4096", np.ones((2000, DIM), int), np.stack([QUERY, QUERY]))
    other = Parties("n4096", np.ones((2000, DIM), int), np.stack([QUERY, QUERY]), header=bytes(32))
    other.hidden = parties.hidden
    a, c = parties.answer(1), other.answer(1)
    one, two, three = parties.plain(a), parties.plain(a, 1), other.plain(c)
    for x, y in ((one, two), (one, three), (one, np.roll(one, 1))):
        assert (x == y).mean() < 0.01
        assert chi_square((x - y) & np.uint64(15), 16) < 45
    with pytest.raises(VerificationError):  # of two headers they do not fit, or their sum tells nothing
        mixed = parties.open([c, parties.answer(2)])
        if (mixed == QUERY.sum()).mean() < 0.01:
            raise VerificationError("no score is right")


# --- randomness of answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_a_retry_has_the_same_bytes_and_another_server_key_has_others(name):
    parties = Parties(name, random_rows(50), QUERY)
    first = parties.answer(1)
    assert np.array_equal(first, parties.answer(1))
    assert np.array_equal(first, parties.answer(1, parties.server(1, OWN[1])))  # after a restart
    changed = parties.answer(1, parties.server(1, b"3" * 32))
    assert (first == changed).mean() < 0.01
    assert np.array_equal(parties.open([changed, parties.answer(2)]), [parties.queries[0] @ random_rows(50).T])


@pytest.mark.parametrize("name", SETS)
def test_randomness_is_named_by_header_query_and_key(name, monkeypatch):
    """Two answers that differ in anything have other randomness: else their difference would be one of rows alone."""
    seen = []

    def spy(*args, **options):
        seen.append((options["noise_key"], options["context"]))
        return matvec(*args, **options)

    matvec = scheme.matvec
    monkeypatch.setattr(scheme, "matvec", spy)
    x = random_rows(3)
    parties = Parties(name, x, np.stack([QUERY, QUERY]))
    parties.answers(), parties.answers()
    assert len(seen) == 8 and len(set(seen)) == 4  # a retry has the same
    assert PAIR not in {key for key, _ in seen}  # the other server knows it
    parties.header = bytes(32)
    parties.answers()
    assert len(set(seen)) == 8
    if name == "n8192":
        parties.evaluation = parties.user.evaluation_key()
        for server in parties.servers.values():
            server.drop_user(USER)
        assert np.array_equal(parties.open(parties.answers()), parties.queries @ x.T)
        assert len(set(seen)) == 12


def combined(parties, which):
    """Second component of an answer as the query alone makes it: a combination of rows that the user knows."""
    p = parties.parameters
    vector = EncryptedVector.from_words(p, DIM, parties.hidden.shares[which][0])
    key = EvaluationKey.from_bytes(p, parties.evaluation) if p.special else None
    ring = _core.LatticeRing(p.degree, list(p.primes))
    words = parties.words[which]
    out = np.empty((-(-len(words) // p.degree), 2, p.limbs, p.degree), np.uint64)
    _core.lattice_matvec(ring, words, p.plain_bits, prepare(vector, key).polynomials, out)
    second = np.ascontiguousarray(out[:, 1])
    _core.lattice_inverse(ring, second)
    switched = np.empty((len(second), p.degree), np.uint64)
    _core.lattice_switch(ring, second, p.switched_bits, switched)
    return switched


def distance(parties, which):
    """Numbers mod 2^(w+11) by which an answer's second component differs from that combination."""
    bits = parties.parameters.switched_bits
    differ = parties.components(parties.answer(which))[:, 1] - combined(parties, which)
    return (differ & np.uint64((1 << bits) - 1)).reshape(-1)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("which", [1, 2])
def test_the_second_component_tells_nothing_of_rows(name, which, monkeypatch):
    parties = Parties(name, random_rows(200), QUERY)
    top = np.uint64(parties.parameters.switched_bits - 4)
    assert chi_square(distance(parties, which) >> top, 16) < 45
    zeros = lambda ring, schedules, first, out, threads=None: out.fill(0)  # noqa: E731
    monkeypatch.setattr(_core, "lattice_ternary", zeros)
    monkeypatch.setattr(_core, "lattice_gaussian", zeros)
    differ = distance(parties, which)
    near = np.minimum(differ, (np.uint64(1) << (top + np.uint64(4))) - differ)
    assert near.max() <= 1  # planted: no encryption of zero


@pytest.mark.parametrize("name", SETS)
def test_the_noise_of_an_answer_is_the_floods(name, monkeypatch):
    """Uniform, as wide as the flood, and the same for any rows: each server's own."""
    rng = np.random.default_rng(1)
    largest = (1 << 31) - 1
    wide = rng.choice([-largest, largest], (4000, DIM))
    spread = []
    for rows in (np.zeros((4000, DIM), int), wide):
        parties = Parties(name, rows, QUERY, split=False)
        p = parties.parameters
        half = 2.0 ** (p.flood_bits - 1 + p.switched_bits) / p.modulus
        noise = parties.noise(parties.answer(1))
        assert abs(noise.std() / (half / np.sqrt(3)) - 1) < 0.05
        assert np.abs(noise).max() <= p.largest_noise(1)
        inside = noise[np.abs(noise) < half * 0.9]
        assert chi_square(((inside / (half * 0.9) + 1) * 8).clip(0, 15), 16) < 45
        spread.append(noise.std())
        both = parties.noise(parties.answer(1)), parties.noise(parties.answer(2))
        assert abs(np.corrcoef(*both)[0, 1]) < 0.08
    assert abs(spread[0] / spread[1] - 1) < 0.05

    monkeypatch.setattr(_core, "lattice_flood", lambda ring, schedules, first, bits, out, threads=None: out.fill(0))
    assert parties.noise(parties.answer(1)).std() < half / 4  # planted: no flood


# --- keys and bad input -------------------------------------------------------------------------------------------


def test_another_users_key_reads_nothing():
    x = random_rows(300)
    parties = Parties("n4096", x, QUERY)
    answers = parties.answers()
    parties.hidden = type(parties.hidden)(parties.hidden.shares, (SecretKey.generate(parties.parameters),))
    with pytest.raises(VerificationError):
        parties.open(answers)


def test_a_server_without_the_key_says_so():
    parties = Parties("n8192", random_rows(3), QUERY)

    def missing(user):
        raise NotFoundError("unknown user")

    server = LatticeScheme().for_server(parties.config, 1, {b"a set": {2: PAIR}}.__getitem__, 1, missing, OWN[1])
    with pytest.raises(MissingKeyError):
        parties.answer(1, server)
    server.check_evaluation_key(parties.evaluation)
    for coordinates in (1, DIM - 1, DIM + 1):
        key = EvaluationKey.generate(parties.user._key, coordinates)
        with pytest.raises(mipp.errors.MippError):
            server.check_evaluation_key(key.to_bytes())


def test_queries_of_other_parameters_are_refused():
    parties = Parties("n8192", random_rows(3), QUERY)
    other = Parties("n4096", random_rows(3), QUERY)
    words = other.hidden.shares[1][:, : parties.hidden.shares[1].shape[1]]
    parties.hidden = type(parties.hidden)({1: np.ascontiguousarray(words)}, None)
    with pytest.raises(mipp.errors.MessageError):
        parties.answer(1)


def test_servers_keep_some_keys_only():
    parties = Parties("n8192", random_rows(3), QUERY)
    server = parties.servers[1]
    for user in range(12):
        server._key(bytes([user]) * 16)
    assert len(server._keys) == scheme._READY and bytes([11]) * 16 in server._keys
    server.drop_user(bytes([11]) * 16)
    assert bytes([11]) * 16 not in server._keys
    server.close()
    assert not server._keys


def test_long_term_keys_are_read_back():
    parties = Parties("n8192", random_rows(3), QUERY)
    secrets = {"lattice": parties.user._key.to_bytes()}
    again = LatticeScheme().for_user(parties.config, None, secrets, 1)
    vector = encrypt(again._key, QUERY)
    parties.hidden = type(parties.hidden)(dict.fromkeys((1, 2), vector.to_words()[None]), (parties.user._key,))
    assert np.array_equal(parties.open(parties.answers()), [QUERY @ random_rows(3).T])
