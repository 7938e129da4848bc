"""Garbage in every field of every message, to every server: each answer is a typed refusal or a reply, never a crash.

A server that meets an unexpected error answers "internal error of the server" and writes a traceback to its log, which
strangers must not be able to fill.
"""

import contextlib
import dataclasses
import logging
import typing

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mipp
from mipp.crypto import box, schedule, signing
from mipp.errors import MessageError, MippError, OutOfRangeError, VerificationError
from mipp.paillier import generate_keypair
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.associated_data import query_share_commitment
from mipp.rpc.chain import NO_SHARE, Content, facts_hash, next_view
from mipp.rpc.wire import decode, encode, frames_hash, pack_frames, unpack_frames
from mipp.server import ranking
from mipp.sharing import query_shares
from tests.adversary.forge import ask_certificate, uncertified
from tests.conftest import World, vectors

SERVERS = (1, 2, 3)
BOX = box.box_private(b"b" * 32).public_key().public_bytes_raw()
INTS = (-1, 0, 1, 2, 1 << 31, 1 << 48, (1 << 62), (1 << 63) - 1, -(1 << 63), 1 << 63, (1 << 64) - 1)
BYTES = (b"", b"x", b"x" * 15, b"x" * 16, b"x" * 17, b"\0" * 32, b"\xff" * 32, b"x" * 64, b"x" * 5000)
TEXTS = ("", "user", "server", "threshold", "\0", "x" * 10000, "\u202e", "../..", "a" * 64, "'; DROP TABLE owners")
EDGES = np.array([0, -1, 1, (1 << 63) - 1, -(1 << 63)], "<i8")


def arrays(field):
    """Empty, misshapen, huge and extreme arrays of the field's types."""
    ndim = field.metadata["ndim"]
    for name in field.metadata["dtypes"]:
        dtype = np.dtype(name)
        extreme = EDGES if dtype == EDGES.dtype else np.full(5, np.iinfo(dtype).max, dtype)
        if ndim == 1:
            yield from (np.empty(0, dtype), extreme, extreme[1:2], extreme[3:4], np.zeros(3000, dtype), extreme[4:])
        else:
            yield from (np.zeros(shape, dtype) for shape in ((0, 0), (0, 16), (1, 0), (1, 16), (5, 16), (3000, 1)))
            yield from (np.zeros((0, 1 << 40), dtype), np.full((1, 12), np.iinfo(dtype).max, dtype))


def garbage(cls, field):
    hint = typing.get_type_hints(cls)[field.name]
    if hint is np.ndarray:
        return arrays(field)
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        if item is np.ndarray:
            return ([], [np.empty(0, np.uint8)], [np.full(9, 255, np.uint8)] * 3)
        one = {int: INTS, bytes: BYTES, str: TEXTS}[item]
        return ([], list(one), [one[0]] * 5000, *([x] for x in one), *([x] * 2 for x in one[:3]))
    return {int: INTS, bytes: BYTES, str: TEXTS, bool: (False, True)}[hint]


class Sender:
    """Sends signed and unsigned messages to single servers, and keeps what they answer."""

    def __init__(self, world):
        self.world = world
        config = world.deployment.config
        self.anna, self.user = world.owners[0], world.user
        index = self.user.index()
        batch = self.anna.batches()[0].id
        self.columns = query_shares(config.encoding.encode_queries(vectors(1, 7)), config.params)
        none = np.empty(0, np.uint32)
        self.salt = schedule.random_bytes(32)
        self.header = m.QueryHeader(
            config.id, self.user.id, schedule.random_bytes(16), "user", 3, 1, [1, 2, 3], config.encoding.hash,
            index.snapshot, [o.grant for o in index.owners], [o.position for o in index.owners],
            [len(o.batches) for o in index.owners],
            [query_share_commitment(self.salt, self.columns[s], none) for s in SERVERS], index.batches,
        )  # fmt: skip
        ids, rows = np.frombuffer(batch, np.uint8)[None], np.array([3], "<i8")
        self.by_owner = [
            m.Grant(self.anna.id, self.user.id, 0, 2, 0, ["server"], 0, True, 0, 0, False),
            m.ListGrants(self.anna.id),
            m.UploadOp(
                b"n" * 16, 2, config.encoding.encoded_dim, config.encoding.hash, [],
                np.zeros((2, 12), np.uint32), np.empty(0, np.uint8), np.zeros(3, "<i8"), np.zeros((2, 16), np.uint8),
                np.zeros(2, "<i8"),
            ),
            m.DeleteOp(b"o" * 16, ids, rows),
            m.Compact(self.anna.id),
            m.CommitOp(b"q" * 16, "upload", 3, bytes(32), bytes(32), [1, 2, 3], [bytes(32)] * 3, [bytes(32)] * 3),
            m.Certify(self.anna.id, b"q" * 16, [self.vote(b"q" * 16)]),
            m.AbortOp(b"r" * 16),
            m.OutcomeRequest(b"q" * 16),
            m.HeadRequest(self.anna.id),
            m.ListBatches(self.anna.id),
            m.LostRequest(self.anna.id, True),
            m.FetchShares(batch, BOX),
            m.FetchOwnImages(batch, rows),
            m.AuditRows(b"s" * 32, 1, BOX, np.frombuffer(batch, np.uint8)[None]),
        ]  # fmt: skip
        self.by_user = [
            m.SnapshotRequest([self.anna.id], b"", False),
            m.FetchImages(np.frombuffer(self.anna.id, np.uint8)[None], ids, rows),
            m.CollectRanking(bytes(32)),
        ]
        self.unsigned = [
            pm.StatusRequest(b""), pm.SettleRequest(), pm.PassedOn(b""), pm.PeerRequest(),
            pm.PeerRestored(1, 5, b"s" * 64), pm.VerifyRequest(), m.Ok(), m.Failure("ParameterError", ""),
            pm.KeysRequest(self.user.id), m.Snapshot(b"", False, []), m.Answer(np.zeros((1, 1), np.uint32)),
            pm.VerifyReport(0, []),
            m.AbortOp(b"r" * 16), m.Certify(self.anna.id, b"q" * 16, []),
        ]  # fmt: skip
        self.answers = 0

    def vote(self, op):
        return pack_frames(encode(m.VoteMessage(self.anna.id, op, 1, 0, 1, bytes(32), bytes(64))))

    def query(self, server, **changes):
        header = dataclasses.replace(self.header, **changes)
        frames = [np.frombuffer(f, np.uint8) for f in encode(header)]
        return m.Query(frames, self.salt, self.columns[server], np.empty(0, np.uint32))

    def send(self, client, msg, servers=SERVERS):
        try:
            frames = [client.sign(msg, server) for server in servers]
        except MessageError:  # a number that msgpack cannot hold
            return
        for server, each in zip(servers, frames, strict=True):
            self.raw(each, server)

    def raw(self, frames, server, way="handle"):
        reply = decode(getattr(self.world.deployment.servers[server], way)(frames))
        self.answers += 1
        if isinstance(reply, m.Failure):
            assert reply.name != "MippError", reply.text
            assert issubclass(getattr(mipp.errors, reply.name), mipp.errors.MippError)


@pytest.fixture
def sender(world, monkeypatch, caplog):
    monkeypatch.setattr(ranking, "TIMEOUT", 0.05)
    with caplog.at_level(logging.WARNING):
        made = Sender(world)
        yield made
    assert not [r for r in caplog.records if r.exc_info], "a traceback went to the log"
    assert made.answers > 10
    made.anna.grant(made.user.id, rankings=["server", "user"])
    world.check()
    assert world.deployment.status()["images"] == 60


def variants(msg):
    for field in dataclasses.fields(msg):
        values = list(garbage(type(msg), field))
        now = getattr(msg, field.name)
        if isinstance(now, np.ndarray) and now.size:  # of the right shape, too
            limits = np.iinfo(now.dtype)
            values += [
                np.full_like(now, n) for n in (limits.min, limits.max, max(limits.min, -1), min(limits.max, 1 << 48))
            ]
        for value in values:
            yield dataclasses.replace(msg, **{field.name: value})


def test_owners_messages(sender):
    for msg in sender.by_owner:
        for changed in variants(msg):
            sender.send(sender.anna, changed)
            if isinstance(changed, (m.UploadOp, m.DeleteOp)) and len(changed.op) == 16:
                sender.send(sender.anna, m.AbortOp(changed.op))  # some are fine; they must not pile up


def commit_by_hand(owner, msg, contents, shares):
    """Commit an upload whatever the servers said to it; whether all of them accepted."""
    try:
        content = Content(msg.rows, msg.dim, tuple(msg.replaces))
        facts = facts_hash("merge" if msg.replaces else "upload", content, SERVERS, contents, shares)
        heads = owner.ask_all(m.HeadRequest(owner.id))
        head = heads[1]
        view = next_view(owner.id, head.position + 1, head.view, msg.op, facts)
        kind = "merge" if msg.replaces else "upload"
        commit = m.CommitOp(msg.op, kind, head.position + 1, head.view, view, list(SERVERS), contents, shares)
        # one server after the other: one that took a commit which another refuses would wait for it, and take no other
        votes = [pack_frames(encode(owner.ask_all(commit, [server])[server])) for server in SERVERS]
        return {o.state for o in owner.ask_all(m.Certify(owner.id, msg.op, votes)).values()} == {"committed"}
    except (MippError, OverflowError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("certified", [True, False])
def test_uploads_that_are_committed(sender, certified):
    """What servers accept of a hostile owner's uploads disturbs nobody else and crashes nothing afterwards."""
    world, anna = sender.world, sender.anna
    berta = world.deployment.create_owner("hostile")
    berta.grant(world.user.id)
    with contextlib.nullcontext() if certified else uncertified(world.deployment):
        held = committed_variants(sender, berta, certified)
    if certified:
        assert not held  # words without sense are no rows in range
    else:
        assert len(held) > 10
    for batch in held:
        sender.send(berta, m.FetchShares(batch, BOX))
        of, name = (np.frombuffer(i, np.uint8)[None] for i in (berta.id, batch))
        sender.send(world.user, m.FetchImages(of, name, np.array([1], "<i8")))
    world.user.search(vectors(1)[0], 5, owners=anna)
    found = world.user.search(vectors(1)[0], 5)  # goes on without what is not certified
    assert {o.batch for o in found.left_out} == set(held) and {o.owner for o in found.left_out} <= {berta.id}
    images = world.user.fetch([(batch, row) for batch in held for row in (0, 1)] + [(anna.batches()[0].id, 3)])
    assert all(image.error is not None for image in images[:-1]) and images[-1].error is None
    if held:
        with pytest.raises((OutOfRangeError, VerificationError)):  # a merge is an upload, of rows that came back alike
            berta.compact()
    berta.forget()


def committed_variants(sender, berta, certified):
    """Ids of the batches that a hostile owner got committed."""
    good = next(msg for msg in sender.by_owner if isinstance(msg, m.UploadOp))
    done = []
    for changed in variants(good):
        if changed.op == good.op:
            changed = dataclasses.replace(changed, op=schedule.random_bytes(16))
        contents, shares = [], []
        for server in SERVERS:
            none = {} if server != 3 else {"share": np.empty((0, 0), np.uint32), "images": np.empty(0, np.uint8)}
            msg = dataclasses.replace(changed, **none)
            sender.send(berta, msg, [server])
            try:
                _, hashes, whole = berta.signed(msg, server)
            except MessageError:
                break
            contents.append(whole)
            shares.append(hashes[1] if msg.share.size else NO_SHARE)
        else:
            if certified:
                with contextlib.suppress(MippError):  # it may have no rows to test
                    ask_certificate(berta, changed.op)
            if commit_by_hand(berta, changed, contents, shares):
                done.append(changed.op)
    return [batch for batch in done if any(batch == b.id for b in berta.batches())]


def test_users_messages(sender):
    for msg in sender.by_user:
        for changed in variants(msg):
            sender.send(sender.user, changed)


def test_queries(sender):
    for server in SERVERS:
        for field in dataclasses.fields(m.QueryHeader):
            for value in garbage(m.QueryHeader, field):
                try:
                    msg = sender.query(server, **{field.name: value})
                except MessageError:
                    continue
                sender.send(sender.user, msg, [server])
        for changed in variants(sender.query(server)):
            sender.send(sender.user, changed, [server])
        # with a commitment that fits, so that what is behind that check is met
        field = next(f for f in dataclasses.fields(m.Query) if f.name == "query_share")
        for column in arrays(field):
            kinds = ("user", 3, 1), ("server", 3, 1), ("threshold", 0, 1), ("user", 3, len(column))
            for theta in (np.empty(0, np.uint32), np.zeros(1, np.uint32), np.zeros(1, np.uint64)):
                for kind, k, queries in kinds:
                    salted = [query_share_commitment(sender.salt, column, theta)] * 3
                    msg = sender.query(server, ranking=kind, k=k, queries=queries, commitments=salted)
                    sender.send(sender.user, dataclasses.replace(msg, query_share=column, theta=theta), [server])


def test_registrations(sender):
    """Signed by the key inside, so that each gets past the signature."""
    config, channel = sender.world.deployment.config, sender.world.deployment.channel
    stranger = mipp.User("stranger", config, channel, schedule.random_bytes(32), schedule.random_bytes(32))
    public = signing.sign_public(stranger._seed)
    for msg, second in (
        (m.RegisterUser("stranger", public, stranger._public[1], b""), "box_key"),
        (m.RegisterOwner("stranger", public, b"r" * 16, [b"s" * 80] * 3), "registration"),
    ):
        for changed in variants(msg):
            stranger.id = signing.party_id(changed.sign_key, getattr(changed, second))
            sender.send(stranger, changed)


def test_unsigned_messages(sender):
    for msg in sender.unsigned:
        for changed in [msg, *variants(msg)]:
            try:
                frames = encode(changed)
            except MessageError:
                continue
            for server in SERVERS:
                sender.raw(frames, server)
                sender.raw(frames, server, "operate")  # other servers may be damaged, or hostile


def test_envelopes(sender):
    signed = decode(sender.user.sign(sender.by_user[0]), m.Signed)
    nested = encode(signed)
    inner = [np.frombuffer(f, np.uint8) for f in nested]
    for changed in [*variants(signed), dataclasses.replace(signed, frames=inner)]:
        for server in SERVERS:
            sender.raw(encode(changed), server)
    sender.send(sender.user, signed)
    for wrong in (sender.by_owner[0], m.Ok(), pm.StatusRequest(b"")):
        sender.send(sender.user, wrong)
    for wrong in (*sender.by_user, sender.query(1)):
        sender.send(sender.anna, wrong)


def headed(body):
    return b"MIPP\x01" + body


def bombs():
    pack = msgpack.packb

    def ext(*value):
        return msgpack.ExtType(1, pack(list(value)))

    yield from ([], [b""], [b"MIPP"], [b"MIPP\x02" + pack(["Ok", []])], [headed(b"")], [headed(b"\xc1")])
    yield [headed(b"\x91" * 100000)]  # depth
    yield [headed(b"\x81" * 100000)]
    yield [headed(b"\xdd\xff\xff\xff\xff")]  # an array of 2^32 items
    yield [headed(b"\xc6\xff\xff\xff\xff")]  # bytes of 4 GiB
    yield [headed(b"\xc9\xff\xff\xff\xff\x01")]  # an extension of 4 GiB
    yield [headed(pack([["Ok"], []]))]
    yield [headed(pack([{"a": 1}, []]))]
    yield [headed(pack(["Ok", {}]))]
    yield [headed(pack(["Ok", []]) + b"\0")]
    yield [headed(pack(["ListGrants", [1]]))]
    yield [headed(pack(["StatusRequest", [msgpack.ExtType(2, b"")]]))]
    yield [headed(pack(["StatusRequest", [msgpack.Timestamp(1, 2)]]))]  # a timestamp
    yield [headed(pack(["Snapshot", [b"", False, [b"x" * 16] * ((1 << 20) + 1)]]))]
    for value in (ext("|u1", [0], 0), ext("|u1", [0], -1), ext("|u1", [0], 1 << 40), ext("|u1", [1], 1)):
        yield [headed(pack(["FetchImages", [value, value, value]])), b"\0"]
    for shape in ([1 << 47, 1 << 47], [0, 1 << 48], [-1], [True], [1.0], ["1"], [], [1, 1, 1, 1], None):
        yield [headed(pack(["Answer", [ext("<u4", shape, 1)]])), b""]
    for raw in (b"", b"\xc1", b"\x91" * 5000, pack([1, 2]), pack({"a": 1}), pack([None, None, None])):
        yield [headed(pack(["Answer", [msgpack.ExtType(1, raw)]])), b""]
    one = ext("|u1", [1, 16], 1)  # the same frame twice, and one that nothing names
    yield [headed(pack(["FetchImages", [one, one, one]])), b"\0" * 16]
    yield [headed(pack(["Ok", []])), b"\0"]
    for number in (1 << 63, (1 << 64) - 1):
        yield [headed(pack(["VerifyReport", [number, []]]))]


@pytest.mark.parametrize("frames", list(bombs()), ids=lambda f: bytes(f[0])[5:25].hex() if f else "none")
def test_bombs(frames):
    with pytest.raises(MessageError):
        decode(frames)


def test_packed_frames_of_strangers():
    for raw in (b"", b"\xc1", b"\x91" * 100000, msgpack.packb([1]), msgpack.packb({}), b"\xdd\xff\xff\xff\xff"):
        with pytest.raises(MessageError):
            unpack_frames(raw)


def test_every_integer_of_a_message_is_a_signed_word():
    for number in (-(1 << 63), (1 << 63) - 1):
        assert decode(encode(pm.VerifyReport(number, []))).files == number
    for number in (1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63) - 1, 1 << 4000):
        with pytest.raises(MessageError):
            decode(encode(pm.VerifyReport(number, [])))
    with pytest.raises(MessageError):
        encode(m.Failure("\ud800", ""))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=3), st.booleans())
def test_any_bytes(frames, magic):
    if magic and frames:
        frames[0] = headed(frames[0])
    with contextlib.suppress(MessageError):
        decode(frames)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_flipped_bits(data):
    """Of an honest message: it decodes to something of the right types or is refused."""
    frames = encode(m.FetchImages(np.zeros((2, 16), np.uint8), np.zeros((2, 16), np.uint8), np.array([1, 2], "<i8")))
    head = bytearray(frames[0])
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(MessageError):
        assert frames_hash(encode(decode([bytes(head), *frames[1:]])))


@pytest.mark.parametrize("bits", [8, 12])
def test_the_lattice_scheme(tmp_path, caplog, bits):
    """Its servers read ciphertexts and evaluation keys from strangers; with 12 bits scores need the latter."""
    encoding = mipp.Encoding("cosine", 12, bits=bits, query_bits=bits)
    with mipp.Deployment.create(tmp_path / "h", encoding, scheme="lattice") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.add_vectors(vectors(4))
        owner.grant(user.id)
        world = World.__new__(World)
        world.deployment, world.user = deployment, user
        sender = Sender.__new__(Sender)
        sender.world, sender.answers = world, 0
        key = np.frombuffer(user.scheme.evaluation_key(), np.uint8)
        field = next(f for f in dataclasses.fields(m.KeepEvaluationKey) if f.name == "key")
        for bad in [*arrays(field), key[1:], key[:-1], key[::-1], ~key, np.zeros_like(key), np.append(key, key[:1])]:
            sender.send(user, m.KeepEvaluationKey(np.ascontiguousarray(bad)), (1, 2))
        for asker in (*BYTES, user.id):
            sender.send(user, m.EvaluationKeyRequest(asker), (1, 2))
        assert user.search(vectors(1)[0], 2).hits
        index = user.index()
        column = user.scheme.hide(encoding.encode_queries(vectors(1))).shares[1]
        none, salt = np.empty(0, np.uint32), schedule.random_bytes(32)
        field = next(f for f in dataclasses.fields(m.Query) if f.name == "query_share")
        odd = [column[:, 1:], column[:0], np.concatenate([column, column]), np.zeros_like(column), ~column]
        odd += [column ^ np.uint64(1 << 63), np.roll(column, 1), column[:, ::-1].copy()]
        for changed in [*arrays(field), *odd]:
            for queries in {1, len(changed)}:
                header = m.QueryHeader(
                    deployment.config.id, user.id, schedule.random_bytes(16), "user", 3, queries, [1, 2],
                    encoding.hash, index.snapshot, [o.grant for o in index.owners],
                    [o.position for o in index.owners], [len(o.batches) for o in index.owners],
                    [query_share_commitment(salt, changed, none)] * 2, index.batches,
                )  # fmt: skip
                msg = m.Query([np.frombuffer(f, np.uint8) for f in encode(header)], salt, changed, none)
                sender.send(user, msg, (1, 2))
        for register in (*BYTES, key.tobytes()[:300]):
            sender.send(user, m.RegisterUser("ulla", *user._public, register), (1, 2))
        assert user.search(vectors(1)[0], 2).hits
    assert not [r for r in caplog.records if r.exc_info]


def test_the_paillier_scheme(tmp_path, monkeypatch, caplog):
    """Its servers read ciphertexts and Paillier keys from strangers."""
    encoding = mipp.Encoding("cosine", 12)
    with mipp.Deployment.create(tmp_path / "h", encoding, scheme="paillier") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla", key_bits=2048)
        owner.add_vectors(vectors(4))
        owner.grant(user.id)
        world = World.__new__(World)
        world.deployment, world.user = deployment, user
        sender = Sender.__new__(Sender)
        sender.world, sender.answers = world, 0
        index = user.index()
        column = user.scheme.hide(encoding.encode_queries(vectors(1))).shares[1]
        none, salt = np.empty(0, np.uint32), schedule.random_bytes(32)
        field = next(f for f in dataclasses.fields(m.Query) if f.name == "query_share")
        odd = [column[:, 1:], column[:0], np.concatenate([column, column]), np.zeros_like(column), ~column]
        for changed in [*arrays(field), *odd]:
            for queries in {1, len(changed)}:
                header = m.QueryHeader(
                    deployment.config.id, user.id, schedule.random_bytes(16), "user", 3, queries, [1, 2],
                    encoding.hash, index.snapshot, [o.grant for o in index.owners],
                    [o.position for o in index.owners], [len(o.batches) for o in index.owners],
                    [query_share_commitment(salt, changed, none)] * 2, index.batches,
                )  # fmt: skip
                msg = m.Query([np.frombuffer(f, np.uint8) for f in encode(header)], salt, changed, none)
                sender.send(user, msg, (1, 2))
        real = user.scheme._key.public.to_bytes()
        for key in (*BYTES, real[:-1], real + b"\0", bytes(len(real)), b"\xff" * len(real), real[::-1]):
            sender.send(user, m.RegisterUser("ulla", *user._public, key), (1, 2))
            keys = {"paillier": generate_keypair(2048).to_bytes()}
            stranger = mipp.User("eve", deployment.config, deployment.channel, b"s" * 32, b"b" * 32, secrets=keys)
            sender.send(stranger, m.RegisterUser("eve", *stranger._public, key), (1, 2))
        assert user.search(vectors(1)[0], 2).hits
    assert not [r for r in caplog.records if r.exc_info]
