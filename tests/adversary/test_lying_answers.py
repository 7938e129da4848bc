"""A server that answers wrongly, in one way each, behind the real interface: the user notices, and uses nothing."""

import contextlib
import dataclasses
import os

import numpy as np
import pytest

import mipp
from mipp.client import query as client_query
from mipp.errors import (
    AccessDeniedError,
    BusyError,
    IntegrityError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    ProtocolError,
    ShapeError,
    StaleSnapshotError,
    VerificationError,
)
from mipp.rpc import messages as m
from mipp.rpc.wire import decode, encode, pack_frames, unpack_frames
from mipp.server import kept_columns
from tests.adversary.forge import uncertified
from tests.conftest import ALL_RANKINGS, DIM, vectors

ROWS, QUERIES = 1100, 3


@pytest.fixture(params=["whole", "folded"])
def way(request, monkeypatch):
    """How check columns come back."""
    monkeypatch.setattr(client_query.Querier, "folds", lambda self, index: request.param == "folded")
    return request.param


class World:
    def __init__(self, deployment, data):
        self.deployment, self.data = deployment, data
        self.anna, self.ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        self.ids = self.anna.add_vectors(data[:1000]) + self.anna.add_vectors(data[1000:])
        self.anna.grant(self.ulla, rankings=ALL_RANKINGS)

    def right(self, **options):
        found = self.ulla.nearest(self.data[:QUERIES], 2, ranking="user", **options)
        assert found.rows[:, 0].tolist() == list(range(QUERIES))
        return found

    def lies(self, server, change):
        """Have a server give other score shares, from the next query on; ``change(words, header, rows, before)``."""
        scheme, before = self.deployment.servers[server].scheme, []
        real = type(scheme).answer.__get__(scheme)

        def answer(header, header_hash, plan, stored, query_share, rows, checked):
            words = real(header, header_hash, plan, stored, query_share, rows, checked)
            before.append(words.copy())
            return change(words, header, rows, before)

        scheme.answer = answer

    def honest(self, server):
        del self.deployment.servers[server].scheme.answer


@pytest.fixture
def world(deployment):
    return World(deployment, vectors(ROWS))


def one_score(words, header, rows, before):
    words[1, 7] += words.dtype.type(1)
    return words


def a_constant(words, header, rows, before):
    words[: header.queries] += words.dtype.type(100)
    return words


def a_constant_everywhere(words, header, rows, before):
    words += words.dtype.type(100)
    return words


def high_bits(words, header, rows, before):
    words[0, ::3] ^= words.dtype.type(1 << 14)
    return words


def a_half_of_the_ring(words, header, rows, before):
    """And of the numbers that words are cut to where they travel: what is above these does not arrive."""
    words[0, :1] += words.dtype.type(1 << (8 * words.dtype.itemsize - 1) | 1 << 15)
    return words


def other_rows(words, header, rows, before):
    """Rows of another batch."""
    return np.ascontiguousarray(words[:, ::-1])


def other_queries(words, header, rows, before):
    words[[0, 1]] = words[[1, 0]]
    return words


def an_earlier_answer(words, header, rows, before):
    return before[0] if before[0].shape == words.shape and len(before) > 1 else words


def no_zero_share(words, header, rows, before):
    words[:] = 0
    return words


def a_check_column(words, header, rows, before):
    words[header.queries, 3] += words.dtype.type(1)
    return words


LIES = [
    one_score, a_constant, a_constant_everywhere, high_bits, a_half_of_the_ring, other_rows, other_queries,
    an_earlier_answer, no_zero_share, a_check_column,
]  # fmt: skip


@pytest.mark.parametrize("server", [1, 2, 3])
def test_each_lie_is_noticed(world, way, server):
    assert world.right().verified
    for lie in LIES:
        world.lies(server, lie)
        if lie is an_earlier_answer:  # the first answer is right, and given again to the next query
            world.right()
        with pytest.raises(VerificationError, match="contradict each other"):
            world.ulla.nearest(world.data[:QUERIES], 2, ranking="user")
        with pytest.raises(VerificationError):
            world.ulla.scores(world.data[:QUERIES])
        world.honest(server)
    assert world.right().verified  # nothing is left of it


def test_rows_that_changed_are_noticed(world, way):
    """A cloud that uses other rows than were uploaded, throughout: its file is of another day."""
    server = world.deployment.servers[1]
    real = server.backend.load

    def load(segments, total):
        rows = real(segments, total)
        product = rows.product

        def changed(query_share, start, stop, out):
            product(query_share, start, stop, out)
            out[:, 5 - start if start <= 5 < stop else 0] = out[:, 9 - start if start <= 9 < stop else 1]

        rows.product = changed
        return rows

    server.backend.load = load
    world.anna.add_vectors(vectors(8, 5))  # so that rows are loaded again
    with pytest.raises(VerificationError):
        world.right()


def test_lies_in_folded_columns(world, monkeypatch):
    monkeypatch.setattr(client_query.Querier, "folds", lambda self, index: True)
    for server in (1, 2, 3):
        handlers = world.deployment.servers[server]._handlers
        real = handlers[m.FoldColumns]
        for change in (
            lambda w: w + w.dtype.type(1), lambda w: w ^ w.dtype.type(1 << 7), lambda w: w * w.dtype.type(3),
        ):  # fmt: skip
            handlers[m.FoldColumns] = lambda r, change=change, real=real: m.FoldedColumns(change(real(r).words))
            with pytest.raises(VerificationError):
                world.right()
        handlers[m.FoldColumns] = lambda r, real=real: m.FoldedColumns(real(r).words[:-1])
        with pytest.raises(MessageError, match="folded check columns"):
            world.right()
        handlers[m.FoldColumns] = real
    assert world.right().verified


@pytest.mark.parametrize("error", [StaleSnapshotError, AccessDeniedError, NotFoundError, IntegrityError])
def test_refusals_after_the_weights_are_known(world, monkeypatch, error):
    """A server that knows the weights cannot have others drawn until they suit it."""
    monkeypatch.setattr(client_query.Querier, "folds", lambda self, index: True)
    asked = []

    def refuse(request):
        asked.append(request)
        raise error("no")

    world.deployment.servers[2]._handlers[m.FoldColumns] = refuse
    with pytest.raises(ProtocolError, match="did not fold"):
        world.right()
    assert len(asked) == 1


def far_out(words, header, rows, before):
    """The nearest row of each query leaves the range."""
    for query in range(header.queries):
        words[query, query : query + 1] += words.dtype.type(1 << (8 * words.dtype.itemsize - 1))
    return words


def test_a_server_that_calls_rows_untested(world, way):
    """It cannot have rows dropped unnoticed: where they count as untested, the answers do not count as verified."""
    server = world.deployment.servers[1]
    real, (first, second) = server._handlers[m.SnapshotRequest], world.anna.batches()

    def lie(batch):
        def snapshot(request):
            reply = real(request)
            owners = [decode(unpack_frames(packed), m.OwnerSnapshot) for packed in reply.owners]
            told = [dataclasses.replace(o, unranked=[batch], unranked_reasons=["not tested"]) for o in owners]
            return m.Snapshot(os.urandom(32), False, [pack_frames(encode(o)) for o in told])

        server._handlers[m.SnapshotRequest] = snapshot
        world.ulla = world.deployment.user("ulla")

    world.lies(1, far_out)
    lie(second.id)  # the rows that it wants dropped are of another batch
    with pytest.raises(VerificationError):
        world.ulla.nearest(world.data[:QUERIES], 2, ranking="user")
    lie(first.id)
    told = set()
    for _ in range(40):  # half of the ring is missed by a column more often than not
        with contextlib.suppress(VerificationError):
            found = world.ulla.nearest(world.data[:1], 2, ranking="user")
            told.add((found.verified, "not tested" in found.unverified))
    assert told == {(False, True)}
    world.honest(1)
    assert world.ulla.nearest(world.data[:QUERIES], 2, ranking="user").verified


def test_answers_without_check_columns(world, monkeypatch):
    """A server that leaves its check columns out, or sends some unasked, gets nothing through."""
    for folds in (False, True):
        monkeypatch.setattr(client_query.Querier, "folds", lambda self, index, folds=folds: folds)
        queries = world.deployment.servers[2].queries
        real = queries._score_shares

        def other(asked, real=real, folds=folds):
            answer = real(asked)
            columns = np.zeros((4, answer.score_shares.shape[1]), np.uint32) if folds else answer.checks[:1]
            return m.Answer(answer.score_shares, answer.width, columns)

        queries._score_shares = other
        with pytest.raises(MessageError, match="check columns"):
            world.right()
        del queries._score_shares


def test_not_asked_for(world):
    world.lies(1, a_constant)
    found = world.ulla.nearest(world.data[:1], 2, ranking="user", verify=False)
    assert not found.verified and "not asked for" in found.unverified
    result = world.ulla.search(world.data[0], 2, ranking="server")
    assert not result.verified and "threat model" in result.unverified


def test_batches_whose_rows_were_not_tested(world, way):
    """Rows out of range are dropped there, and all else is verified."""
    with uncertified(world.deployment):
        world.anna.add_vectors(vectors(8, 5))
    assert not world.ulla.index().certified
    assert world.right().verified
    world.lies(1, one_score)
    with pytest.raises(VerificationError):
        world.right()


@pytest.mark.parametrize(("scheme", "options", "why"), [
    ("paillier", {"key_bits": 2048}, "paillier"),
    ("lattice", {}, "lattice"),
    ("shares", {}, "ring leaves too little room"),
])  # fmt: skip
def test_what_cannot_be_verified(tmp_path, scheme, options, why):
    encoding = mipp.Encoding("cosine", DIM) if scheme != "shares" else mipp.Encoding("cosine", 8, ring_bits=16, bits=7)
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme=scheme) as deployment:
        anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla", **options)
        anna.add_vectors(vectors(9, dim=encoding.dim))
        anna.grant(ulla, rankings=["user"])
        result = ulla.search(vectors(1, dim=encoding.dim)[0], 2, ranking="user")
        assert len(result.hits) == 2 and not result.verified and why in result.unverified


# --- hostile users ------------------------------------------------------------------------------------------------


def asked(world, checks, *, folded=True, **options):
    """A query with check columns, as a user of its own program sends it."""
    user = world.ulla
    check = user._querier.check_columns(user.config.encoding.encode_queries(world.data[:1])) if checks else None
    hidden = user._querier.hide(user.index(), user.config.encoding.encode_queries(world.data[:1]), 1, "user",
                                check=check, folded=folded, **options)  # fmt: skip
    return hidden, check


def fold(world, hidden, seed=bytes(32), server=1, user=None):
    return (user or world.ulla).ask({server: m.FoldColumns(hidden.hash, seed)})[server]


def test_columns_are_folded_once_by_their_user(world):
    hidden, _ = asked(world, True)
    with pytest.raises(NotFoundError):
        fold(world, hidden)
    world.ulla._querier.send(hidden, range(512))
    uwe = world.deployment.create_user("uwe")
    with pytest.raises(NotFoundError):
        fold(world, hidden, user=uwe)
    with pytest.raises(ShapeError, match="all rows"):
        fold(world, hidden)
    world.ulla._querier.send(hidden, range(ROWS))
    with pytest.raises(MessageError):
        fold(world, hidden, b"short")
    with pytest.raises(NotFoundError):  # that was its only time
        fold(world, hidden)
    world.ulla._querier.send(hidden, range(512))
    world.ulla._querier.send(hidden, range(512, ROWS))
    assert fold(world, hidden).words.shape == (world.ulla.scheme.checks,)
    with pytest.raises(NotFoundError):
        fold(world, hidden)


def test_kept_columns_are_bounded(world, monkeypatch):
    checks = world.ulla.scheme.checks
    monkeypatch.setattr(kept_columns, "MAX_KEPT_BYTES", 3 * 4 * checks * ROWS)
    opened = [asked(world, True)[0] for _ in range(4)]
    for hidden in opened[:3]:
        world.ulla._querier.send(hidden, range(ROWS))
    with pytest.raises(BusyError, match="check columns"):
        world.ulla.ask({1: m.Query(opened[3].header, *opened[3].servers[1], 0, ROWS)})
    with monkeypatch.context() as patch:  # the client has them sent, then
        patch.setattr(client_query.Querier, "folds", lambda self, index: True)
        assert world.right().verified
    fold(world, opened[0])
    world.ulla.ask({1: m.Query(opened[3].header, *opened[3].servers[1], 0, ROWS)})
    monkeypatch.setattr(kept_columns, "_IDLE", -1.0)  # those that nobody goes on with give way
    hidden, _ = asked(world, True)
    world.ulla._querier.send(hidden, range(ROWS))
    assert fold(world, hidden).words.shape == (checks,)


def test_columns_of_one_user_give_way_to_others(world, monkeypatch):
    size = 4 * world.ulla.scheme.checks * ROWS
    for server in world.deployment.servers.values():
        server.queries._columns = kept_columns.KeptColumns(3 * size)
    uwe = world.deployment.create_user("uwe")
    world.anna.grant(uwe, rankings=ALL_RANKINGS)
    opened = [asked(world, True)[0] for _ in range(3)]
    for hidden in opened:
        world.ulla._querier.send(hidden, range(ROWS))
    monkeypatch.setattr(client_query.Querier, "folds", lambda self, index: True)
    assert uwe.nearest(world.data[:QUERIES], 2, ranking="user").verified
    with pytest.raises(NotFoundError):
        fold(world, opened[0])
    assert fold(world, opened[2]).words.size


def test_a_header_is_counted_again_after_its_columns_were_folded(world):
    """Else a user would have as many sums as it likes of further queries."""
    world.anna.grant(world.ulla, rankings=["user"], quota=5)
    hidden, _ = asked(world, True)
    for _ in range(2):
        world.ulla._querier.send(hidden, range(ROWS))
        world.ulla._querier.send(hidden, range(ROWS))  # known, and not counted
        assert all(fold(world, hidden, server=server).words.size for server in (1, 2, 3))
    with pytest.raises(AccessDeniedError, match="used up"):
        world.ulla._querier.send(hidden, range(ROWS))


def test_columns_over_few_rows_count_one_by_one(deployment):
    """A sum over few rows tells as much as a query does."""
    anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
    anna.add_vectors(vectors(2))
    anna.grant(ulla, rankings=["user"], quota=100)
    assert ulla.search(vectors(2)[0], 1, ranking="user").verified
    assert 100 - ulla.index().owners[0].left == 1 + ulla.scheme.checks


def test_columns_of_grants_that_ended(world):
    hidden, _ = asked(world, True)
    world.ulla._querier.send(hidden, range(ROWS))
    world.anna.grant(world.ulla, rankings=["server"])
    with pytest.raises(AccessDeniedError):
        fold(world, hidden)
    world.anna.grant(world.ulla, rankings=["user"])
    hidden, _ = asked(world, True)
    world.ulla._querier.send(hidden, range(ROWS))
    world.anna.forget()
    for server in world.deployment.servers.values():
        assert not server.queries._columns._kept and not server.queries._columns._held


def test_columns_are_given_up_after_a_while(world):
    now = [0.0]
    kept = world.deployment.servers[1].queries._columns
    kept._clock = lambda: now[0]
    hidden, _ = asked(world, True)
    world.ulla._querier.send(hidden, range(ROWS))
    assert kept._kept
    now[0] = 121.0
    world.ulla.nearest(world.data[:1], 1, ranking="user", verify=False)
    assert not kept._kept


def test_check_columns_count(world):
    """A quota counts what check columns can tell: a query for folded ones, each of them where they are sent."""
    checks = world.ulla.scheme.checks
    for folded, count in ((True, 2), (False, 1 + checks)):
        world.anna.grant(world.ulla, rankings=["user"], quota=2 * count + 1)
        for _ in range(2):
            hidden, _ = asked(world, True, folded=folded)
            world.ulla._querier.send(hidden, range(ROWS))
        hidden, _ = asked(world, True, folded=folded)
        with pytest.raises(MippError, match="used up"):
            world.ulla._querier.send(hidden, range(ROWS))
    world.anna.grant(world.ulla, rankings=["user"], quota=4)
    assert world.right().verified  # three queries, and their folded columns
    assert world.ulla.index().owners[0].left == 0


@pytest.mark.parametrize("checks", [-1, 17, 1 << 40])
def test_numbers_of_check_columns(world, checks):
    user = world.ulla
    hidden, _ = asked(world, False, folded=False)
    header = dataclasses.replace(decode([f.data for f in hidden.header], m.QueryHeader), checks=checks)
    frames = [np.frombuffer(frame, np.uint8) for frame in encode(header)]
    with pytest.raises((ParameterError, ShapeError)):
        user.ask({1: m.Query(frames, *hidden.servers[1], 0, ROWS)})


def test_check_columns_of_other_rankings(world):
    user = world.ulla
    encoded = user.config.encoding.encode_queries(world.data[:1])
    check = user._querier.check_columns(encoded)
    hidden = user._querier.hide(user.index(), encoded, 1, "server", check=check)
    with pytest.raises(MippError):
        user._querier.send(hidden, together=True)
    hidden = user._querier.hide(user.index(), encoded, 1, "user", folded=True)
    with pytest.raises(ParameterError, match="check columns"):
        user.ask({1: m.Query(hidden.header, *hidden.servers[1], 0, ROWS)})
