"""What a cheating user, a stranger or a tampering network could try; each is refused before a bit is computed."""

import dataclasses

import numpy as np
import pytest

from mipp.crypto import box, schedule
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    MippError,
    NonceReuseError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
)
from mipp.rpc import messages as m
from mipp.rpc.associated_data import query_share_commitment
from mipp.rpc.chain import Content
from mipp.rpc.wire import decode, encode
from mipp.sharing import query_shares, share_rows
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]
NO_THETA = np.empty(0, np.uint32)
BOX = box.box_private(b"b" * 32).public_key().public_bytes_raw()


class Forge:
    """Builds queries as a user would, with changes, and sends them to one server."""

    def __init__(self, world):
        self.world, self.user = world, world.user
        self.index = world.user.index()
        self.columns = query_shares(self.user.config.encoding.encode_queries(QUERY), self.user.config.params)
        self.salts = {s: schedule.random_bytes(32) for s in (1, 2, 3)}

    def header(self, **changes):
        config, index = self.user.config, self.index
        header = m.QueryHeader(
            config.id,
            self.user.id,
            schedule.random_bytes(16),
            "user",
            5,
            1,
            [1, 2, 3],
            config.encoding.hash,
            index.snapshot,
            [o.grant for o in index.owners],
            [o.position for o in index.owners],
            [len(o.batches) for o in index.owners],
            [query_share_commitment(self.salts[s], self.columns[s], NO_THETA) for s in (1, 2, 3)],
            index.batches,
        )
        return dataclasses.replace(header, **changes)

    def send(self, header, server=1, column=None, salt=None):
        frames = [np.frombuffer(f, np.uint8) for f in encode(header)]
        query = m.Query(
            frames, salt or self.salts[server], self.columns[server] if column is None else column, NO_THETA
        )
        return self.user.ask({server: query})[server].score_shares


@pytest.fixture
def forge(world):
    return Forge(world)


def test_honest_queries_pass_and_add_up(world, forge):
    header = forge.header()
    answers = [forge.send(header, s) for s in (1, 2, 3)]
    scores = sum(answers).astype(np.uint32).view(np.int32)[0]
    assert np.sort(scores)[::-1][:5].tolist() == [s for _, s in world.expected(QUERY, 5)]


def test_a_retry_gives_the_same_bytes_and_a_changed_header_fresh_masks(forge):
    header = forge.header()
    first, again = forge.send(header), forge.send(header)
    assert np.array_equal(first, again)
    other = forge.send(dataclasses.replace(header, nonce=schedule.random_bytes(16)))
    assert (first != other).mean() > 0.9


def test_the_same_header_with_another_column(forge):
    header = forge.header()
    forge.send(header)
    column = forge.columns[1].copy()
    column[0, 0] += 1
    with pytest.raises(AuthenticationError, match="commits"):
        forge.send(header, column=column)
    with pytest.raises(AuthenticationError, match="commits"):
        forge.send(header, salt=b"x" * 32)
    with pytest.raises(AuthenticationError, match="commits"):
        forge.send(header, 2, column=forge.columns[1], salt=forge.salts[1])


def test_mixing_answers_of_two_headers_gives_noise(world, forge):
    """One server's answer under another header: the masks do not cancel."""
    one, two = forge.header(), forge.header()
    mixed = forge.send(one, 1) + forge.send(one, 2) + forge.send(two, 3)
    true = forge.send(one, 1) + forge.send(one, 2) + forge.send(one, 3)
    assert (mixed != true).mean() > 0.9


@pytest.mark.parametrize("servers", [[1, 2], [1, 2, 2], [2, 1, 3], [1, 3], [1, 1, 3], [], [3], [0, 1, 3], [1, 2, 4]])
def test_a_set_of_servers_without_the_key_centre_or_misshapen(forge, servers):
    for server in (1, 2, 3):
        with pytest.raises(ParameterError):
            forge.send(forge.header(servers=servers, commitments=[b""] * len(servers)), server)


def test_rows_that_were_not_granted(world):
    """A header that names another owner's batches beside the granted ones is refused as a whole, by every server."""
    whole = world.user.index()
    world.owners[1].revoke(world.user.id)
    forge = Forge(world)
    assert len(forge.index.batches) == 2
    header = forge.header(batches=whole.batches, counts=[len(whole.batches)])
    for server in (1, 2, 3):
        with pytest.raises(AccessDeniedError, match="covered by none"):
            forge.send(header, server)
    header = forge.header(
        batches=whole.batches, grants=[o.grant for o in whole.owners], positions=[2, 2], counts=[2, 2]
    )
    for server in (1, 2, 3):
        with pytest.raises(AccessDeniedError, match="not in force"):
            forge.send(header, server)


def test_a_subset_of_batches_is_answered_and_repeats_are_not(world, forge):
    subset = forge.index.batches[[0, 3]]
    header = forge.header(batches=subset, counts=[1, 1])
    answers = [forge.send(header, s) for s in (1, 2, 3)]
    scores = sum(answers).astype(np.uint32).view(np.int32)[0]
    ids = [i for i in forge.index.ids() if np.frombuffer(i[0], np.uint8).tolist() in subset.tolist()]
    wanted = dict(world.expected(QUERY, 60))
    assert scores.tolist() == [wanted[i] for i in ids]
    for order, counts in (([0, 0], [2, 0]), ([1, 0], [2, 0]), ([0, 1, 1], [3, 0]), ([2, 3, 3], [0, 3])):
        with pytest.raises(ParameterError):
            forge.send(forge.header(batches=forge.index.batches[order], counts=counts))
    for order, counts in (([3, 0], [1, 1]), ([0, 3], [0, 2]), ([0, 3], [2, 0])):
        with pytest.raises(AccessDeniedError):
            forge.send(forge.header(batches=forge.index.batches[order], counts=counts))
    for counts in ([1], [1, 1, 0], [2, 1], [-1, 3], [1 << 62, 1 << 62]):
        with pytest.raises((ParameterError, ShapeError)):
            forge.send(forge.header(batches=subset, counts=counts))


def test_misuse_of_the_header(world, forge):
    cases = [
        ({"deployment": b"x" * 16}, AuthenticationError),
        ({"user": b"x" * 16}, AuthenticationError),
        ({"nonce": b""}, AuthenticationError),
        ({"encoding": b"x" * 32}, ParameterError),
        ({"ranking": "none"}, ParameterError),
        ({"k": 0}, AccessDeniedError),
        ({"queries": 0}, ShapeError),
        ({"queries": 2}, ShapeError),
        ({"grants": [], "positions": [], "counts": []}, ParameterError),
        ({"positions": []}, ParameterError),
        ({"positions": [3, 2]}, StaleSnapshotError),
        ({"positions": [-1, 2]}, StaleSnapshotError),
        ({"positions": [1, 2]}, StaleSnapshotError),
        ({"snapshot": b"x" * 32}, StaleSnapshotError),
        ({"grants": [b"x" * 16, b"y" * 16]}, AccessDeniedError),
        ({"grants": [o.grant for o in forge.index.owners][::-1]}, ParameterError),
        ({"grants": [forge.index.owners[0].grant] * 2}, ParameterError),
        ({"commitments": []}, ParameterError),
    ]
    for changes, error in cases:
        with pytest.raises(error):
            forge.send(forge.header(**changes))
    with pytest.raises(ShapeError):
        forge.send(forge.header(), column=np.zeros((1, 4), np.uint32))
    with pytest.raises(ShapeError):
        forge.send(forge.header(), column=forge.columns[1].astype(np.uint64))


def test_unsigned_and_wrongly_signed_requests(world):
    anna, berta = world.owners
    channel = world.deployment.channel
    msg = m.ForgetOwner(anna.id, anna.keys.registration)
    with pytest.raises(AuthenticationError, match="signed"):
        channel.gather({1: encode(msg)})
    signed = decode(anna.sign(msg), m.Signed)
    changes = [
        {"signature": b"x" * 64},
        {"signature": b""},
        {"signer": berta.id},
        {"deployment": b"x" * 16},
        {"frames": [np.frombuffer(f, np.uint8) for f in encode(m.ForgetOwner(berta.id, berta.keys.registration))]},
    ]
    for change in changes:
        for server in (1, 2, 3):
            with pytest.raises(AuthenticationError):
                channel.gather({server: encode(dataclasses.replace(signed, **change))})
    with pytest.raises(MippError):
        channel.gather({1: encode(dataclasses.replace(signed, signer=b"unknown unknown "))})
    # a user's key does not sign an owner's requests, nor the other way round
    for client, request in ((world.user, msg), (anna, m.SnapshotRequest([], b"", False))):
        with pytest.raises(MippError):
            client.ask_all(request, [1])
    world.check()


def test_registration_binds_keys_to_the_id(world):
    anna = world.owners[0]
    real = decode(world.user.sign(m.RegisterUser("eve", *world.user._public, b"")), m.Signed)
    with pytest.raises(AuthenticationError):
        world.deployment.channel.gather({1: encode(dataclasses.replace(real, signer=anna.id))})


def test_nonces_are_unique_for_ever(world):
    """A batch id comes back neither with other content, nor after its deletion; only byte-identical while it lives."""
    anna = world.owners[0]
    config = world.deployment.config
    rows = config.encoding.encode_rows(vectors(2))
    shared = share_rows(rows, anna.keys)

    def op(share, rows=2):
        return m.UploadOp(
            shared.nonce,
            rows,
            config.encoding.encoded_dim,
            config.encoding.hash,
            [],
            share,
            np.empty(0, np.uint8),
            np.zeros(rows + 1, "<i8"),
            np.empty((0, 16), np.uint8),
            np.empty(0, "<i8"),
        )

    none = np.empty((0, 0), np.uint32)
    msgs = {1: op(shared.shares[1]), 2: op(shared.shares[2]), 3: op(none)}
    anna.ask(msgs)
    anna.ask(msgs)
    with pytest.raises(NonceReuseError):
        anna.ask({1: op(shared.shares[1] + np.uint32(1))})
    with pytest.raises(NonceReuseError):
        anna.ask({3: op(none, rows=3)})
    content, head = Content(rows=2, dim=config.encoding.encoded_dim), anna._state()[0]
    for _ in range(2):  # a retry is told what became of it
        anna._changes.make("upload", shared.nonce, msgs, content, head)
        anna.ask(msgs)
    world.plain |= {(shared.nonce, r): vectors(2)[r] for r in range(2)}
    world.check(k=62)
    anna.delete([(shared.nonce, 0), (shared.nonce, 1)])
    anna.compact()
    assert shared.nonce not in [b.id for b in anna.batches()]
    with pytest.raises(NonceReuseError):
        anna.ask(msgs)
    with pytest.raises(NonceReuseError):
        anna.ask({3: msgs[3]})


def test_malformed_uploads_write_nothing(world):
    anna = world.owners[0]
    config = world.deployment.config
    good = m.UploadOp(
        b"n" * 16,
        2,
        config.encoding.encoded_dim,
        config.encoding.hash,
        [],
        np.zeros((2, 12), np.uint32),
        np.empty(0, np.uint8),
        np.zeros(3, "<i8"),
        np.empty((0, 16), np.uint8),
        np.empty(0, "<i8"),
    )
    changes = [
        {"op": b"short"},
        {"rows": 0},
        {"rows": 3},
        {"rows": 1 << 62},
        {"dim": 13},
        {"encoding": b"x" * 32},
        {"share": np.zeros((2, 13), np.uint32)},
        {"share": np.zeros((2, 12), np.uint64)},
        {"image_offsets": np.zeros(2, "<i8")},
        {"image_offsets": np.array([0, 5, 0], "<i8")},
        {"images": np.zeros(5, np.uint8)},
        {"origin_row": np.zeros(1, "<i8")},
        {"origin_row": np.zeros(2, "<i8")},
    ]
    for change in changes:
        with pytest.raises(MippError):
            anna.ask({1: dataclasses.replace(good, **change)})
    with pytest.raises(MippError):
        anna.ask({3: good})
    assert not [p for server in (1, 2, 3) for p in world.home(server).rglob((b"n" * 16).hex() + "*")]
    world.check()


def test_an_owner_cannot_touch_anothers_batches(world):
    anna, berta = world.owners
    batch = berta.batches()[0].id
    for msg in (
        m.DeleteOp(b"o" * 16, np.frombuffer(batch, np.uint8)[None], np.array([0], "<i8")),
        m.FetchShares(batch, BOX),
        m.FetchOwnImages(batch, np.array([0], "<i8")),
    ):
        with pytest.raises(MippError):
            anna.ask({1: msg})
    world.check()


def test_clouds_refuse_what_only_key_centres_know(world):
    with pytest.raises(MippError):
        world.owners[0].ask({3: m.FetchShares(world.owners[0].batches()[0].id, BOX)})
    with pytest.raises(MippError):
        world.owners[0].ask({3: m.FetchOwnImages(world.owners[0].batches()[0].id, np.array([0], "<i8"))})
