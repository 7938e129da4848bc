"""What one request of the lattice scheme may take of a server: limits before any work, memory as it was told."""

import dataclasses
import hashlib
import mmap
import tracemalloc

import numpy as np
import pytest

import mipp
from mipp.errors import AccessDeniedError, LimitError, ParameterError
from mipp.lattice import EncryptedVector, EvaluationKey
from mipp.rpc import messages as m
from mipp.rpc.associated_data import query_share_commitment
from mipp.rpc.bodies import Announcement
from mipp.rpc.limits import MAX_HEADER_BYTES, MAX_QUERY_BYTES
from mipp.rpc.wire import decode, encode, frame_hashes, kind_of
from mipp.schemes import lattice
from tests.conftest import DIM, vectors
from tests.schemes.test_lattice import BOTH, ENCODINGS, Query


def filled(folder, encoding, rows=30):
    deployment = mipp.Deployment.create(folder, encoding, scheme="lattice", threads=1)
    owner = deployment.create_owner("anna")
    ids = owner.add_vectors(vectors(rows, dim=encoding.dim))
    user = deployment.create_user("ulla")
    owner.grant(user)
    return deployment, owner, user, ids


class Made:
    """A deployment as tests of :class:`Query` want it."""

    def __init__(self, folder, which):
        self.deployment, self.owner, self.user, _ = filled(folder, ENCODINGS[which])
        self.parameters = self.user.scheme._parameters


@pytest.fixture(params=BOTH, ids=lambda p: p[0])
def world(request, tmp_path):
    made = Made(tmp_path / "d", request.param)
    with made.deployment:
        yield made


def repeated(world, queries, user=None):
    """A query by hand of so many queries, all the same."""
    one = Query(world)
    asked = Query(world, column=np.repeat(one.column, queries, axis=0))
    asked.header = dataclasses.replace(asked.header, queries=queries)
    if user is not None:
        asked.user, asked.header = user, dataclasses.replace(asked.header, user=user.id)
    return asked


def test_who_is_granted_nothing_has_nothing_unpacked(world, monkeypatch):
    world.user.search(vectors(1)[0], 1)
    eve = world.deployment.create_user("eve")
    asked = repeated(world, 3, eve)
    monkeypatch.setattr(EncryptedVector, "from_words", lambda *a, **o: pytest.fail("unpacked"))
    monkeypatch.setattr("mipp.server.queries.query_share_commitment", lambda *a: pytest.fail("hashed"))
    for server in (1, 2):
        with pytest.raises(AccessDeniedError, match="no owner grants"):
            asked.ask(server)


def test_too_many_bytes_are_refused_before_any_is_unpacked(world, monkeypatch):
    world.user.search(vectors(1)[0], 1)
    monkeypatch.setattr(lattice, "MAX_QUERY_BYTES", 2 * 8 * EncryptedVector.words(world.parameters, DIM))
    right = repeated(world, 2).ask(1)
    assert len(right) == 2 and world.user.scheme.portion(30, "user", 1) == 2
    asked = repeated(world, 3)
    monkeypatch.setattr(EncryptedVector, "from_words", lambda *a, **o: pytest.fail("unpacked"))
    for server in (1, 2):
        with pytest.raises(LimitError, match="at most 2 queries"):
            asked.ask(server)


@pytest.mark.parametrize("which", BOTH, ids=lambda p: p[0])
def test_expanded_ciphertexts_of_a_header_are_limited(tmp_path, monkeypatch, which):
    """Where servers expand queries, a small query costs them a key switch for each coordinate."""
    world = Made(tmp_path / "d", which)
    with world.deployment:
        queries = vectors(5, 3)
        before = [[h.score for h in found.hits] for found in world.user.search_batch(queries, 3)]
        monkeypatch.setattr(lattice, "MAX_EXPANDED", 2 * DIM + 1)
        expands = world.parameters.special is not None
        assert (world.user.scheme.portion(30, "user", 1) == 2) is expands
        world.deployment.channel.bytes_sent.clear()
        assert [[h.score for h in found.hits] for found in world.user.search_batch(queries, 3)] == before
        asked = repeated(world, 3)
        monkeypatch.setattr(lattice, "prepare", lambda *a, **o: pytest.fail("expanded"))
        if expands:
            with pytest.raises(LimitError, match="fewer queries"):
                asked.ask(1)


def test_the_limit_of_expanded_ciphertexts(tmp_path):
    encoding = mipp.Encoding("cosine", 1000, bits=12, query_bits=12)
    parameters = lattice.parameters_of(encoding)
    assert lattice._most_queries(parameters, encoding.encoded_dim) == 4096 // encoding.encoded_dim


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deleted", [False, True], ids=["all rows", "deleted rows"])
@pytest.mark.parametrize("case", ["one block", "blocks", "wide"])
def test_answers_take_the_memory_that_was_told(tmp_path, monkeypatch, case, deleted):
    """Rows are read in blocks and pieces at both servers, whether some are deleted or not."""
    dim, rows, encoding = 64, 30_000, None
    if case == "blocks":
        rows, encoding = 40_000, mipp.Encoding("cosine", dim, ring_bits=64)
        monkeypatch.setattr(lattice, "_BLOCK_BYTES", 1 << 23)  # more than a query takes while it is prepared
        monkeypatch.setattr(lattice, "_PIECE_BYTES", 1 << 17)
    if case == "wide":
        dim, rows, encoding = 200, 2000, mipp.Encoding("cosine", 200, bits=12, query_bits=12)
    deployment, owner, user, ids = filled(tmp_path / "d", encoding or mipp.Encoding("cosine", dim), rows)
    with deployment:
        if deleted:
            owner.delete(ids[1:rows:7])
        user.search(vectors(1, dim=dim)[0], 1)
        world = type("World", (), {"user": user, "deployment": deployment})
        encoded = user.config.encoding.encode_queries(vectors(1, dim=dim))
        for number in (1, 2):
            scheme, told = deployment.servers[number].scheme, []
            size, answer = scheme.check_size, scheme.answer

            def checked(header, rows, size=size, told=told):
                told.append(size(header, rows))
                return told[-1]

            def answered(*given, answer=answer, told=told):
                tracemalloc.start()
                try:
                    words = answer(*given)
                    told.append(tracemalloc.get_traced_memory()[1])
                finally:
                    tracemalloc.stop()
                return words

            monkeypatch.setattr(scheme, "check_size", checked)
            monkeypatch.setattr(scheme, "answer", answered)
            column = user.scheme.hide(encoded).shares[number]
            asked = by_hand(world, column)
            asked.ask(number)
            size, peak = told
            assert 0.7 * size < peak < size + (1 << 18), (case, number)


def by_hand(world, column):
    """A query of these words, of any dimension."""
    asked = Query.__new__(Query)
    user, index = world.user, world.user.index()
    asked.user, asked.world, asked.column, asked.theta, asked.salt = user, world, column, np.empty(0, "<u4"), bytes(32)
    commitment = query_share_commitment(asked.salt, column, asked.theta)
    asked.header = m.QueryHeader(
        user.config.id, user.id, bytes(16), "user", 1, 1, [1, 2], user.config.encoding.hash, index.snapshot,
        [o.grant for o in index.owners], [o.position for o in index.owners], [len(o.batches) for o in index.owners],
        [commitment, commitment], index.batches,
    )  # fmt: skip
    return asked


def test_commitments_copy_no_query_share():
    salt, share, theta = bytes(range(32)), np.arange(1 << 19, dtype="<u8").reshape(2, -1), np.arange(2, dtype="<u4")
    tracemalloc.start()
    found = query_share_commitment(salt, share, theta)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 16
    assert found == hashlib.sha256(salt + share.tobytes() + theta.tobytes()).digest()
    assert found.hex() == "c5123151c9241d409d8fdf1868f30a915871f4f0882026297f19ee41010f8726"
    turned = share[:, ::-1]
    assert query_share_commitment(salt, turned, theta[:0]) == hashlib.sha256(salt + turned.tobytes()).digest()


# --- announced requests -------------------------------------------------------------------------------------------


def announcement(user, content, sizes=None, server=1):
    """What announces a signed request, or one of other sizes under its name, of which no data are there."""
    frames, signed = encode(content), decode(user.sign(content, server), m.Signed)
    told = [memoryview(f).nbytes for f in frames]
    if sizes is not None:
        told = sizes(told)
        none = [mmap.mmap(-1, size, mmap.MAP_PRIVATE, mmap.PROT_READ) if size else b"" for size in told]
        signed = dataclasses.replace(signed, frames=[np.frombuffer(some, np.uint8) for some in none])
    return Announcement(bytes(encode(signed)[0]), kind_of(frames), told, frame_hashes(frames))


def test_sizes_of_announced_queries_and_keys_are_limited(world):
    user, server = world.user, world.deployment.servers[1]
    size = server.scheme.evaluation_key_bytes
    key = m.KeepEvaluationKey(np.zeros(size, np.uint8))
    asked = Query(world)
    query = m.Query([np.frombuffer(f, np.uint8) for f in encode(asked.header)], bytes(32), asked.column, asked.theta)
    assert server.announced(announcement(user, query)) == user.id
    refused = [
        (key, lambda told: [1 << 20, *told[1:]], LimitError),
        (key, lambda told: [told[0], size + 1], ParameterError),
        (query, lambda told: [9 << 20, *told[1:]], LimitError),
        (query, lambda told: [*told[:1], MAX_QUERY_BYTES + MAX_HEADER_BYTES, *told[2:]], LimitError),
        (query, lambda told: [told[0], 1 << 33, *told[2:]], LimitError),
    ]
    for content, sizes, error in refused:
        with pytest.raises(error, match=r"at most|evaluation keys"):
            server.announced(announcement(user, content, sizes))
    if size:
        assert server.announced(announcement(user, key)) == user.id


def test_who_is_granted_nothing_announces_no_query_and_no_key(world):
    eve, server = world.deployment.create_user("eve"), world.deployment.servers[1]
    asked = repeated(world, 2, eve)
    query = m.Query([np.frombuffer(f, np.uint8) for f in encode(asked.header)], bytes(32), asked.column, asked.theta)
    key = m.KeepEvaluationKey(np.zeros(server.scheme.evaluation_key_bytes, np.uint8))
    for content in (query, key):
        with pytest.raises(AccessDeniedError, match="no owner grants"):
            server.announced(announcement(eve, content))


@pytest.mark.parametrize("scheme", ["shares", "lattice", "paillier"])
def test_the_largest_query_of_each_scheme_may_be_announced(tmp_path, scheme):
    """No query that a client sends is refused for its size."""
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), scheme=scheme, threads=1) as deployment:
        user = deployment.create_user("ulla", **({"key_bits": 2048} if scheme == "paillier" else {}))
        rankings = ["user", "server"] if scheme == "shares" else ["user"]
        for ranking in rankings:
            most = user.scheme.portion(100, ranking, 10)
            if ranking == "user" and user.scheme.by_rows:
                most = max(part.stop - part.start for part in user.scheme.header_blocks(1 << 20))
            hidden = user.scheme.hide(deployment.config.encoding.encode_queries(vectors(1))).shares[1]
            assert most * hidden.nbytes <= deployment.servers[1].scheme.query_bytes


def test_evaluation_keys_have_the_size_that_users_say(world):
    size = world.user.scheme.evaluation_key_bytes
    assert size == len(world.user.scheme.evaluation_key()) == world.deployment.servers[1].scheme.evaluation_key_bytes
    assert size in (0, EvaluationKey.size(world.parameters, DIM))
