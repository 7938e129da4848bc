"""Query shares of clusters that only the user knows: the ideal twin, hostile users, cost, distribution."""

import tracemalloc

import numpy as np
import pytest

from mipp import ring
from mipp.encoding import Encoding
from mipp.errors import DTypeError, OutOfRangeError, ParameterError, ShapeError
from mipp.mpc import ideal, session
from mipp.mpc.cost import Cost, add
from mipp.mpc.probes import Layout, choice_relations, choose, probe_cost, probe_memory, probe_shares
from mipp.mpc.query_proof import check_relations, held_by, prove, query_words, share_bits
from mipp.mpc.replicated import Pair
from mipp.mpc.session import Public
from mipp.mpc.topk import combine_top_k, top_k
from mipp.params import Params
from tests.mpc.parties import HEADER, SNAPSHOT, in_session, recorded, run
from tests.mpc.ranged import ENCODINGS, Ranged, ranged
from tests.mpc.test_cost import exactly
from tests.mpc.test_security import looks_uniform

RNG = np.random.default_rng(31)
LAYOUT = Layout(groups=3, size=4, slots=5)
RINGS = ("cosine", "cosine, 16 bits", "cosine, 64 bits", "l2", "l2, weights", "l2, steps", "hamming", "l1")


class World:
    """Rows of a layout, stored as an owner's, and queries with a choice of clusters."""

    def __init__(self, of, layout=LAYOUT, queries=2):
        self.of, self.layout = of, layout
        encoding = of.encoding
        self.rows = encoding.encode_rows(of.features(layout.rows, RNG))
        self.queries = encoding.encode_queries(of.features(queries, RNG))
        self.chosen = RNG.integers(0, layout.size, (queries, layout.groups))
        self.proof = prove(of.queries, self.queries)
        self.choice = choose(self.chosen, layout, of.queries.proof_bits)
        self.words = of.share(self.rows)

    @property
    def public(self):
        rule = self.of.queries
        return Public(HEADER, SNAPSHOT, self.layout.scores, rule.ring_bits, rule.low, rule.high)

    def made(self, party, width):
        """A party's query shares; what the user claims is checked on the way."""
        held = held_by(party.index)
        mine = {n: self.proof[n] for n in held}
        query, zero = query_words(self.of.queries, party.index, mine, len(self.queries), 1)
        shape, dtype = (len(self.queries), self.layout.clusters), query.lo.dtype
        choice = Pair(*(self.choice[n].expanded(shape, dtype, 1) for n in held))
        check_relations(party, np.concatenate([zero, choice_relations(party.index, choice, LAYOUT.groups)], axis=1))
        return probe_shares(party, query, choice, self.layout.groups, self.of.params, width)

    def shares(self, width, **options):
        return [made for made, _ in run(in_session(lambda p: self.made(p, width)), **options)]

    def scores(self, made, party):
        """Score shares (B, groups * slots): products with the rows of each group."""
        lay = self.layout
        stored = np.ascontiguousarray(self.words[party]).reshape(lay.groups, lay.slots, -1)
        each = [ring.matmul(stored[g], np.ascontiguousarray(made[:, g])) for g in range(lay.groups)]
        return np.concatenate(each, axis=1)

    def ideal(self):
        lay = self.layout
        rows = self.of.padded(self.rows).reshape(lay.groups, lay.slots, lay.size, -1)
        return ideal.probed_scores(rows, self.of.padded(self.queries), self.chosen)


@pytest.mark.parametrize("name", RINGS)
def test_scores_of_the_chosen_clusters(name):
    world = World(ranged(name))
    width = world.public.score_bits
    made = world.shares(width)
    total = sum(world.scores(m, i) for i, m in enumerate(made, 1)).astype(np.uint64)
    assert np.array_equal(
        total & np.uint64((1 << width) - 1), world.ideal().view(np.uint64) & np.uint64((1 << width) - 1)
    )


@pytest.mark.parametrize("name", ["cosine", "l2, steps, 64 bits"])
def test_the_nearest_of_the_chosen_clusters(name):
    world = World(ranged(name))
    made = world.shares(world.public.score_bits)
    parts = run(lambda p: top_k(p, world.scores(made[p.index - 1], p.index), 4, world.public))
    rows, scores = combine_top_k(parts, world.public)
    want = world.ideal()
    order = np.stack([np.lexsort((np.arange(len(s)), -s))[:4] for s in want])
    assert np.array_equal(rows, order) and np.array_equal(scores, np.take_along_axis(want, order, 1))


def test_a_third_cloud_changes_nothing():
    """Queries may go to any two of three clouds: their matrices differ, and the shares add up all the same."""
    params, width = Params(4, 1, 32), 20
    words = RNG.integers(0, 1 << 32, (3, 1, 8), dtype=np.uint32)
    bits = {n: s.expanded((1, 4), np.dtype(np.uint32), 1) for n, s in choose([[1, 0]], Layout(2, 2, 1), 32).items()}

    def task(party):
        held = held_by(party.index)
        query, choice = Pair(*(words[n - 1] for n in held)), Pair(*(bits[n] for n in held))
        return probe_shares(party, query, choice, 2, params, width, servers=(1, 3, 4))

    made = [m for m, _ in run(in_session(task))]
    whole = words.sum(axis=0, dtype=np.uint32)[0]
    clear = np.zeros((2, 2, 8), np.uint32)
    clear[0, 1] = clear[1, 0] = whole
    # the two clouds' query shares add up to the query itself
    assert np.array_equal((made[0] + made[1] - clear.reshape(1, 2, 16)) & np.uint32((1 << width) - 1), made[0] * 0)


class Hostile(World):
    """A user's own program: its choice is what ``bits`` says, words of the proof."""

    def __init__(self, bits):
        super().__init__(ranged("cosine"))
        self.choice = share_bits(np.broadcast_to(bits, (2, LAYOUT.clusters)), np.dtype(np.uint32))


def one_hot(**changes):
    bits = np.zeros((LAYOUT.groups, LAYOUT.size), np.int64)
    bits[:, 1] = 1
    for place, value in changes.items():
        bits[int(place[1]), int(place[2])] = value
    return bits.reshape(-1)


CHEATS = {
    "none": one_hot(p01=0), "two": one_hot(p22=1), "twice as much": one_hot(p01=2),
    "minus one and two": one_hot(p01=2, p02=-1),
    "half of the ring": one_hot(p00=1 << 31), "two halves": one_hot(p00=1 << 31, p02=-(1 << 31)),
    "half an inverse": one_hot(p11=(1 << 31) + 1, p12=1 << 31),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_choice_that_is_none_is_refused(cheat):
    assert len(Hostile(one_hot()).shares(18)) == 3
    with pytest.raises(OutOfRangeError):
        Hostile(CHEATS[cheat]).shares(18)


def test_a_query_beyond_its_bounds_is_refused():
    world = World(ranged("cosine"))
    bad = world.queries.copy()
    bad[1] = 127  # of every word alone it would do
    world.proof = world.of.prove_anything(bad)
    with pytest.raises(OutOfRangeError):
        world.shares(18)


@pytest.mark.parametrize("name", RINGS)
def test_words_of_a_query_from_its_proof(name):
    of = ranged(name)
    queries = of.encoding.encode_queries(of.features(3, RNG))
    proof, fixed = prove(of.queries, queries), {}
    if of.queries.width > of.encoding.encoded_dim:
        fixed[of.queries.width - 1] = -9
    parts = [query_words(of.queries, i, {n: proof[n] for n in held_by(i)}, 3, 1, fixed) for i in (1, 2, 3)]
    want = of.padded(queries)
    for word, value in fixed.items():
        want[:, word] = value
    got = sum(words.lo for words, _ in parts).astype(of.params.dtype)
    assert np.array_equal(got, want.astype(of.params.dtype))
    assert all(np.array_equal(parts[i][0].hi, parts[(i + 1) % 3][0].lo) for i in range(3))
    assert not sum(zero for _, zero in parts).any()


@pytest.mark.parametrize("width", [17, 18, 32])
def test_cost_is_exact(width):
    world = World(ranged("cosine"))
    counters = {i: c for i, (_, c) in enumerate(run(in_session(lambda p: world.made(p, width))), 1)}
    empty = {i: c for i, (_, c) in enumerate(run(in_session(lambda p: None)), 1)}
    cost = Cost(
        empty[1].rounds, {i: c.payload_bytes for i, c in empty.items()}, {i: c.frames for i, c in empty.items()}
    )
    add(cost, probe_cost(LAYOUT, 2, world.of.width, width, proof_bits=world.of.queries.proof_bits))
    exactly(cost, counters)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_memory(bits):
    """Of three parties in one process, which need not all be at their peaks at once."""
    params, layout, dtype, queries = Params(ring_bits=bits), Layout(16, 4, 1), np.dtype(f"u{bits // 8}"), 2
    query = share_bits(RNG.integers(0, 2, (queries, 256)), dtype)
    choice = choose(RNG.integers(0, 4, (queries, 16)), layout, bits)
    words = {n: s.expanded((queries, 256), dtype, 1) for n, s in query.items()}
    chosen = {n: s.expanded((queries, 64), dtype, 1) for n, s in choice.items()}

    def made(party):
        a, b = held_by(party.index)
        return probe_shares(party, Pair(words[a], words[b]), Pair(chosen[a], chosen[b]), 16, params, min(bits, 40))

    tracemalloc.start()
    run(in_session(made))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the two clouds hold the most; threads and messages take some, too
    assert peak <= 2 * probe_memory(64, queries, 256, bits) + (1 << 19)


def test_no_label_twice(monkeypatch):
    derived = []
    expand = session._expand
    monkeypatch.setattr(session, "_expand", lambda key, label: derived.append((key, label)) or expand(key, label))
    world = World(ranged("cosine"))
    for _ in range(2):
        world.shares(18)
    assert {derived.count(pair) for pair in derived} == {2} and len({expand(*pair) for pair in derived}) > 10


def large(query=0):
    """Rows of many words, so that a message can be tested for its distribution; the worst sharing there is."""
    layout, words = Layout(4, 16, 1), 64
    value = np.full((1, words), query, np.uint32)
    none = np.zeros_like(value)
    bits = (np.arange(64) % 16 == 3).astype(np.uint32)[None]
    parts = {1: (value, bits), 2: (none, bits * 0), 3: (none, bits * 0)}

    def task(party):
        held = held_by(party.index)
        query_, choice = (Pair(*(parts[n][i] for n in held)) for i in (0, 1))
        return probe_shares(party, query_, choice, layout.groups, Params(3, 1, 32), 32)

    frames = []
    made = recorded(in_session(task), frames)
    return [m for m, _ in made], [payload for header, payload in frames if header.kind == "probe" and payload]


@pytest.mark.parametrize("query", [0, 5, 1 << 31])
def test_messages_and_query_shares_are_uniform(query):
    made, messages = large(query)
    assert len(messages) == 3
    assert all(looks_uniform(data) for data in [*messages, *(m.tobytes() for m in made)])
    between = [np.frombuffer(m, np.uint32) for m in messages]
    assert all(looks_uniform((a - b).tobytes()) for i, a in enumerate(between) for b in between[:i])


def test_a_planted_zero_mask_is_caught(monkeypatch):
    from mipp.mpc import probes

    monkeypatch.setattr(probes, "_stream", lambda party, missing, purpose, like: np.zeros_like(like))
    made, messages = large()
    assert not any(looks_uniform(data) for data in [*messages, *(m.tobytes() for m in made)])


@pytest.mark.parametrize(
    "error, arguments",
    [
        (DTypeError, (np.zeros((1, 3)), 32)), (ShapeError, (np.zeros((1, 4), int), 32)),
        (ShapeError, (np.zeros(3, int), 32)),
        (ShapeError, (np.zeros((0, 3), int), 32)), (ParameterError, (np.full((1, 3), 4), 32)),
        (ParameterError, (np.full((1, 3), -1), 32)), (ParameterError, (np.zeros((1, 3), int), 8)),
    ],
)  # fmt: skip
def test_no_choices(error, arguments):
    with pytest.raises(error):
        choose(arguments[0], LAYOUT, arguments[1])


@pytest.mark.parametrize(
    "numbers",
    [(0, 1, 1), (1, -1, 1), (1, 1, True), (1, 1, 2.0), (1 << 11, 1 << 11, 1), (1, 1 << 16, 1), (2, 2, 1 << 30)],
)
def test_no_layouts(numbers):
    with pytest.raises(ParameterError):
        Layout(*numbers)


def test_parameters_that_do_not_fit():
    world = World(ranged("cosine"))
    finite = Ranged(ENCODINGS["cosine"], "finite").params
    pair = Pair(np.zeros((1, 16), np.uint32), np.zeros((1, 16), np.uint32))
    for error, values in (
        (ParameterError, (pair, pair, 4, finite, 18)), (ParameterError, (pair, pair, 4, world.of.params, 33)),
        (ShapeError, (pair, pair, 3, world.of.params, 18)),
        (ShapeError, (Pair(pair.lo[:, :15], pair.hi[:, :15]), pair, 4, world.of.params, 18)),
    ):  # fmt: skip
        with pytest.raises(error):
            run(in_session(lambda p, v=values: probe_shares(p, *v)))


def test_padding_never_wins():
    """A last word, 1 in padding and 0 in rows, times a constant below every difference of scores."""
    of = Ranged(Encoding("ip", 7, row_norm2=98308, query_norm2=98308))
    world, apart = World(of), of.queries.high - of.queries.low + 1
    padding = RNG.random(LAYOUT.rows) < 0.6
    rows = of.padded(world.rows)
    rows[padding] = 0
    rows[padding, 7] = 1
    queries = of.padded(world.queries)
    queries[:, 7] = -apart
    scores = ideal.probed_scores(rows.reshape(3, 5, 4, -1), queries, world.chosen)
    places = np.arange(LAYOUT.rows).reshape(3, 5, 4)
    for q, chosen in enumerate(world.chosen):
        real = ~padding[places[np.arange(3), :, chosen].reshape(-1)]
        assert real.any() and scores[q][real].min() > scores[q][~real].max()
        assert -apart <= scores[q].min() and scores[q].max() < apart
