"""A user's proof that its query is in range: who is accepted, who is refused, what is opened, what it costs."""

import dataclasses

import numpy as np
import pytest

from mipp.encoding import Encoding
from mipp.errors import AuthenticationError, OutOfRangeError, ScoreRangeError, ShapeError
from mipp.mpc import ideal, query_proof
from mipp.mpc.comparison import combine_matches, threshold
from mipp.mpc.cost import threshold_cost, top_k_cost
from mipp.mpc.query_proof import Summand, commitment, proof_bytes, verified
from mipp.mpc.session import Party, Public
from mipp.mpc.topk import combine_top_k, top_k
from tests.mpc.parties import HEADER, SNAPSHOT, recorded, run, share
from tests.mpc.ranged import ENCODINGS, FINITE, Ranged, ranged
from tests.mpc.test_cost import counted, exactly
from tests.mpc.test_security import looks_uniform

RNG = np.random.default_rng(21)


@pytest.fixture(params=[*ENCODINGS, *FINITE])
def of(request):
    return ranged(request.param)


def queries_of(of, count=5, seed=3):
    if of.encoding.query_bits == 2:
        return np.eye(3, dtype=np.int16)[np.arange(count) % 3]
    return of.encoding.encode_queries(of.features(count, np.random.default_rng(seed)))


def accepted(of, proof, columns, thetas=None):
    try:
        run(of.check_task(proof, columns, thetas))
    except OutOfRangeError:
        return False
    return True


def test_honest_queries_are_accepted(of):
    queries = queries_of(of)
    columns, proof = of.columns(queries), of.prove(queries)
    shares = [of.relations(i, proof, columns) for i in (1, 2, 3)]
    assert shares[0].shape == (5, of.queries.relations(threshold=False))
    assert not (shares[0] + shares[1] + shares[2]).any()
    assert accepted(of, proof, columns)
    ideal.check_queries(columns, of.queries, of.params)


def test_thresholds(of):
    queries, (low, high) = queries_of(of), of.encoding.score_range
    columns = of.columns(queries)
    thetas = [low, high, (low + high) // 2, low + 1, high - 1]
    assert accepted(of, of.prove(queries, thetas), columns, of.theta_shares(thetas, RNG))
    ideal.check_queries(columns, of.queries, of.params, thetas)
    for wrong in (of.queries.low - 1, of.queries.low + (1 << of.queries.theta_bits)):
        with pytest.raises(ScoreRangeError):
            of.prove(queries[:1], [wrong])
        others = [*thetas[:4], wrong]
        assert not accepted(of, of.prove(queries, thetas), columns, of.theta_shares(others, RNG))
        with pytest.raises(OutOfRangeError):
            ideal.check_queries(columns, of.queries, of.params, others)


def crafted(of, queries):
    """Queries beyond the bounds, each of another kind."""
    k, dtype = of.encoding.ring_bits, queries.dtype
    rule = of.queries
    top = rule.factors[0] * (rule.unit * ((1 << rule.bits) - 1) - rule.shift + 1)
    for value in (1 << (k - 2), -of.half, of.half - 1, top):
        bad = queries.copy()
        bad[2, 0] = value
        yield bad
    if of.queries.weights is not None:
        most = of.queries.factors * ((1 << of.queries.bits - 1) - 1)
        full = np.concatenate([most, [of.queries.last] * (of.queries.last is not None)]).astype(dtype)
        if of.queries.failing(of.padded(full[None])).any():
            bad = queries.copy()
            bad[4] = full
            yield bad
    if of.queries.last is not None:
        bad = queries.copy()
        bad[0, -1] += 1
        yield bad
    if (of.queries.factors != 1).any():
        bad = queries.copy()
        bad[1, 0] += 1  # no multiple of its factor
        yield bad


def test_queries_beyond_the_bounds_are_refused(of):
    """Whatever of its bits the user chooses to show; one bad query of a batch is enough."""
    queries = queries_of(of)
    count = 0
    for bad in crafted(of, queries):
        assert of.queries.failing(of.padded(bad)).any()
        columns = of.columns(bad)
        with pytest.raises(ScoreRangeError):
            of.prove(bad)
        assert not accepted(of, of.prove_anything(bad), columns)
        assert not accepted(of, of.prove(queries), columns)  # a proof of other queries
        with pytest.raises(OutOfRangeError):
            ideal.check_queries(columns, of.queries, of.params)
        count += 1
    assert count >= 4


def test_padding_words_are_zero(of):
    if of.width == of.encoding.encoded_dim:
        pytest.skip("no padding")
    queries = queries_of(of)
    columns = of.columns(queries)
    for i in (1, 2, 3):  # all servers alike, so that the degree stays right
        columns[i] = columns[i].copy()
    other = of.columns(
        np.zeros_like(of.padded(queries)).astype(queries.dtype) + np.eye(1, of.width, of.width - 1, dtype=queries.dtype)
    )
    for i in (1, 2, 3):
        columns[i] += other[i]
    assert not accepted(of, of.prove(queries), columns)


def test_columns_of_a_higher_degree_are_refused(of):
    """+1 at one server and -1 at another leave every sum right.

    With the key centre at infinity, +1 at it and -1 at cloud 1, whose point is 1, share another query: the proof is not
    of that one.
    """
    queries = queries_of(of)
    proof = of.prove(queries)
    for one, other in ((1, 2), (2, 3), (3, 1)):
        for value in (1, of.half):
            columns = {i: c.copy() for i, c in of.columns(queries).items()}
            columns[one][3, 1] += columns[one].dtype.type(value)
            columns[other][3, 1] -= columns[other].dtype.type(value)
            assert not accepted(of, proof, columns)
            if of.params.sharing == "infinity" and (one, other) == (3, 1):
                continue
            with pytest.raises(OutOfRangeError):
                ideal.check_queries(columns, of.queries, of.params)


@pytest.mark.parametrize("sharing", ["infinity", "finite"])
def test_any_other_share_of_the_key_centre_is_refused(sharing):
    """The clouds' query shares fix it."""
    of = Ranged(ENCODINGS["cosine"], sharing)
    queries = queries_of(of)
    proof, columns = of.prove(queries), of.columns(queries)
    for value in (1, of.half):
        other = columns[3].copy()
        other[0, 5] ^= other.dtype.type(value)
        assert not accepted(of, proof, columns | {3: other})
    again = of.columns(queries)  # of the same queries, with other randomness
    assert accepted(of, proof, again) and not accepted(of, proof, columns | {3: again[3]})


def changed(proof, number, at, by, dtype):
    """A proof with one word of its sum changed; summands 1 and 2 are keystream, so 3 takes it."""
    words = proof[3].words.copy()
    words[at] += dtype.type(by)
    return proof | {3: Summand(proof[3].seed, words)}


def test_every_word_of_the_proof_matters(of):
    queries = queries_of(of, 1)
    columns, proof = of.columns(queries), of.prove(queries)
    dtype = proof[3].words.dtype
    for at in range(proof[3].words.shape[1]):
        for by in (1, 1 << (of.queries.proof_bits - 1)):
            assert not accepted(of, changed(proof, 3, (0, at), by, dtype), columns)


def test_two_lies_that_cancel_in_the_sum():
    """A bit of 2 and the next one less by one: the word is right, the bits are not."""
    of = Ranged(ENCODINGS["cosine"])
    queries = queries_of(of, 1)
    columns, proof = of.columns(queries), of.prove(queries)
    words = proof[3].words.copy()
    words[0, 0] += 2
    words[0, 1] -= 1
    assert not accepted(of, proof | {3: Summand(proof[3].seed, words)}, columns)


def test_commitments_and_shapes(of):
    queries = queries_of(of)
    proof = of.prove(queries)
    commitments = [commitment(i, proof[i]) for i in (1, 2, 3)]
    mine = {i: proof[i] for i in (2, 3)}
    verified(of.queries, 1, mine, commitments, 5, threshold=False)
    words, dtype = proof[3].words, proof[3].words.dtype
    for bad, error in (
        ({2: Summand(bytes(32), proof[2].words)}, AuthenticationError),
        ({3: Summand(bytes(32), words)}, AuthenticationError),
        ({3: Summand(proof[3].seed, words + dtype.type(1))}, AuthenticationError),
        ({3: Summand(proof[3].seed, words[:, 1:])}, ShapeError),
        ({3: Summand(proof[3].seed, words[:3])}, ShapeError),
        ({3: Summand(proof[3].seed, words.astype("u2" if dtype.itemsize > 2 else "u4"))}, ShapeError),
        ({2: Summand(proof[2].seed, words)}, ShapeError),
        ({2: Summand(proof[2].seed[:31], proof[2].words)}, ShapeError),
    ):
        with pytest.raises(error):
            verified(of.queries, 1, mine | bad, commitments, 5, threshold=False)
    with pytest.raises(ShapeError):
        verified(of.queries, 1, mine, commitments[:2], 5, threshold=False)
    with pytest.raises(ShapeError):
        verified(of.queries, 1, mine, commitments, 5, threshold=True)
    with pytest.raises(AuthenticationError):  # another's place
        verified(of.queries, 1, mine, commitments[::-1], 5, threshold=False)
    assert proof_bytes(of.queries, 5) == words.nbytes
    assert "secret" not in repr(proof[3]) and str(words[0, 0]) not in repr(proof[3])


# --- what is opened -------------------------------------------------------------------------------------------------


def test_all_sums_of_honest_queries_are_zero_and_no_comparison_follows_a_lie():
    of = Ranged(ENCODINGS["cosine"])
    queries = queries_of(of, 2)
    columns, proof = of.columns(queries), of.prove(queries)
    scores = RNG.integers(-200, 200, (2, 300))
    low, high = of.encoding.score_range
    public = Public(HEADER, SNAPSHOT, 300, 32, low, high)
    shares = share(scores, np.uint32, RNG)
    for lie in (False, True):
        given = changed(proof, 3, (0, 0), 1, np.dtype("u4")) if lie else proof
        frames = []

        def task(party, given=given):
            zero = of.relations(party.index, given, columns)
            return top_k(party, shares[party.index], 5, public, zero=zero)

        if lie:
            with pytest.raises(OutOfRangeError):
                recorded(task, frames)
            assert {h.kind for h, _ in frames} <= {"hello", "check", "shuffle", "abort"}
            assert len({h.step for h, _ in frames if h.kind == "shuffle"}) == 1
        else:
            rows, _ = combine_top_k(recorded(task, frames), public)
            assert rows[0].tolist() == np.lexsort((np.arange(300), -scores[0]))[:5].tolist()
            total = sum(
                np.frombuffer(p, "<u4") for h, p in frames if h.kind == "check" and h.receiver == h.sender % 3 + 1
            )
            assert not total.any()


def test_messages_of_the_check_are_uniform_whatever_the_query():
    of = Ranged(ENCODINGS["cosine"])
    for queries in (queries_of(of, 1), np.zeros_like(queries_of(of, 1))):
        columns, proof = of.columns(queries), of.prove(queries)
        seen = b""
        for _ in range(40):
            frames = []
            recorded(of.check_task(proof, columns), frames)
            seen += b"".join({p for h, p in frames if h.kind == "check"})
        assert looks_uniform(seen)


def test_what_one_server_gets_is_uniform_whatever_the_query():
    """Two summands, and the explicit words: each pair that one server has."""
    of = Ranged(ENCODINGS["ip"])
    for queries in (np.zeros((60, 40), np.int32), np.tile(queries_of(of, 1), (60, 1))):
        proof = of.prove(queries)
        shape, dtype = proof[3].words.shape, proof[3].words.dtype
        streams = {i: proof[i].expanded(shape, dtype, 1) for i in (1, 2, 3)}
        for i in (1, 2, 3):
            assert looks_uniform(streams[i].tobytes())
        for i, j in ((1, 2), (2, 3), (3, 1)):
            assert looks_uniform((streams[i] + streams[j]).tobytes())


# --- planted faults -------------------------------------------------------------------------------------------------


def test_a_check_that_is_skipped_or_a_bound_off_by_one_is_seen():
    of = Ranged(Encoding("ip", 4, bits=4, query_bits=4, row_norm2=100, query_norm2=30))
    over = np.array([[5, 2, 1, 1]], np.int32)  # 31
    columns = of.columns(over)
    assert not accepted(of, of.prove_anything(over), columns)
    of.queries = dataclasses.replace(of.queries, limit=31)
    assert accepted(of, of.prove(over), columns)


def test_coins_that_are_known_before_the_commitment_are_no_test(monkeypatch):
    of = Ranged(ENCODINGS["cosine"])
    queries = queries_of(of, 1)
    columns, proof = of.columns(queries), of.prove(queries)
    lie = changed(proof, 3, (0, 5), 1 << 31, np.dtype("u4"))
    assert not accepted(of, lie, columns)
    # subsets that leave out what the lie touches
    touched = np.flatnonzero(sum(of.relations(i, lie, columns) for i in (1, 2, 3))[0])
    count = of.queries.relations(threshold=False)
    bits = np.random.default_rng(1).integers(0, 2, (query_proof.PROJECTIONS, -(-count // 8) * 8)).astype(np.uint8)
    bits[:, touched] = 0
    monkeypatch.setattr(Party, "coins", lambda self, purpose, n: np.packbits(bits, axis=1).reshape(-1))
    assert accepted(of, lie, columns)


@pytest.mark.parametrize("sums", [1, 2])
def test_soundness_counted_in_a_tiny_world(monkeypatch, sums):
    monkeypatch.setattr(query_proof, "PROJECTIONS", sums)
    of = Ranged(ENCODINGS["cosine"])
    queries = queries_of(of, 1)
    columns, proof = of.columns(queries), of.prove(queries)
    lie = changed(proof, 3, (0, of.queries.words(threshold=False) - 1), 1 << 31, np.dtype("u4"))
    passed = sum(accepted(of, lie, columns) for _ in range(300))
    # the lie makes two relations false, one of them by 2^31: at most a half pass each sum
    assert passed < 300 / 2**sums + 6 * np.sqrt(300 / 2**sums)


# --- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_costs_with_the_check(batch):
    of = Ranged(ENCODINGS["cosine, 16 bits"])
    queries = queries_of(of, batch)
    low, high = of.encoding.score_range
    columns, rows = of.columns(queries), 1000
    public = Public(HEADER, SNAPSHOT, rows, 16, low, high)
    scores = RNG.integers(-100, 100, (batch, rows))
    shares, thetas = share(scores, np.uint16, RNG), [7] * batch
    theta = of.theta_shares(thetas, RNG)
    proof, with_theta = of.prove(queries), of.prove(queries, thetas)
    parts = []

    def match(party):
        zero = of.relations(party.index, with_theta, columns, theta)
        parts.append(threshold(party, shares[party.index], public, theta_shares=theta[party.index], zero=zero))

    exactly(threshold_cost(public, batch, (low, high), rule=of.queries), counted(match))
    assert np.array_equal(combine_matches(parts), scores >= 7)

    def best(party):
        return top_k(party, shares[party.index], 4, public, zero=of.relations(party.index, proof, columns))

    counters = counted(best)
    with_check = top_k_cost(public, batch, 4, rule=of.queries)
    without = top_k_cost(public, batch, 4)
    assert with_check.typical.rounds == without.typical.rounds
    assert with_check.bound.payload[1] == without.bound.payload[1] + 80 * of.queries.proof_bits // 8
    for i, c in counters.items():
        assert c.rounds <= with_check.bound.rounds and c.payload_bytes <= with_check.bound.payload[i]
        assert c.payload["check"] == 80 * of.queries.proof_bits // 8


def test_the_best_row_alone_is_checked_as_well():
    of = Ranged(ENCODINGS["cosine"])
    queries = queries_of(of, 1)
    columns, proof = of.columns(queries), of.prove(queries)
    public = Public(HEADER, SNAPSHOT, 200, 32, of.queries.low, of.queries.high)
    shares = share(np.arange(200)[None], np.uint32, RNG)
    for given, right in ((proof, True), (changed(proof, 3, (0, 3), 1, np.dtype("u4")), False)):

        def task(party, given=given):
            zero = of.relations(party.index, given, columns)
            return top_k(party, shares[party.index], 1, public, zero=zero)

        if right:
            assert combine_top_k(run(task), public)[0].tolist() == [[199]]
        else:
            with pytest.raises(OutOfRangeError):
                run(task)
