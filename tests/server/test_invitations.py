"""Admission by invitation: who may register, once, with which limits; registrations of earlier versions still count."""

import dataclasses
import sqlite3
import time

import msgpack
import pytest

import mipp
from mipp.client.owner import ImageOwner
from mipp.client.user import User
from mipp.crypto import schedule, signing
from mipp.crypto.keyfile import read_public
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    BusyError,
    LimitError,
    MessageError,
    ParameterError,
)
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.channel import request
from mipp.rpc.invitations import Invitation, invite
from mipp.rpc.limits import Card
from mipp.rpc.wire import Frames, encode, pack_frames
from mipp.server.rates import RequestRates
from mipp.server.settling import settle
from tests.conftest import DIM, embedded_only, vectors

SEED = b"k" * 32
KEY = signing.private_key(SEED)


@pytest.fixture
def invited(tmp_path):
    """An embedded deployment whose registrar is :data:`KEY`."""
    folder = tmp_path / "d"
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM), threads=1) as made:
        config = dataclasses.replace(made.config, registrar=signing.sign_public(SEED))
    (folder / "deployment.json").write_text(config.to_json())
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.config == config
        yield deployment


def invitation(deployment, kind="owner", name="anna", lasts=3600, key=KEY, **limits):
    return invite(Invitation(deployment.config.id, kind, name, int(time.time() + lasts), **limits), key)


class Party:
    """An owner or user that registers past every check of a client, with one server at a time."""

    def __init__(self, deployment, kind, name, given=b""):
        args = deployment.config, deployment.channel
        if kind == "owner":
            keys = schedule.random_bytes(32), schedule.random_bytes(32), schedule.random_bytes(16)
            self.client = ImageOwner(name, *args, *keys, invitation=given)
        else:
            self.client = User(name, *args, schedule.random_bytes(32), schedule.random_bytes(32), invitation=given)
        sent = []
        self.client.register_with_all = sent.append
        self.client.register()
        self.message = sent[0]
        self.signed: Frames = self.client.sign(self.message)

    def register(self, deployment, *servers):
        for server in servers:
            deployment.channel.gather({server: self.signed})

    def pass_on(self, deployment, *servers):
        for server in servers:
            request(deployment.operators, server, pm.PassedOn(pack_frames(self.signed)))


def registered(deployment):
    return [(len(server.store.registrations()), server.store.catalog.one("SELECT count(*) FROM invitations")[0])
            for server in deployment.servers.values()]  # fmt: skip


# --- clients --------------------------------------------------------------------------------------------------------


def test_owners_and_users_come_by_invitation(invited):
    anna = invited.create_owner("anna", invitation=invitation(invited))
    text = invitation(invited, "user", "ulla").to_text()
    ulla = invited.create_user("ulla", "word", invitation=text)
    ids = anna.add_vectors(vectors(3))
    anna.grant(ulla)
    assert ulla.search(vectors(3)[1], k=1).hits[0].row == ids[1][1]
    assert read_public(invited.folder / "users" / "ulla.key", "user")["invitation"] == text
    assert invited.owner("anna").id == anna.id and invited.user("ulla", "word").id == ulla.id
    assert registered(invited) == [(2, 2)] * 3


def test_clients_refuse_before_anything_is_written(invited):
    stranger = signing.private_key(b"s" * 32)
    for kind, made, error in (
        ("owner", None, AccessDeniedError),
        ("owner", "mipp-invitation-x", ParameterError),
        ("owner", invitation(invited, name="berta"), AccessDeniedError),
        ("owner", invitation(invited, "user"), AccessDeniedError),
        ("owner", invitation(invited, lasts=-1), AccessDeniedError),
        ("owner", invitation(invited, key=stranger), AuthenticationError),
        ("user", invitation(invited), AccessDeniedError),
    ):
        create = invited.create_owner if kind == "owner" else invited.create_user
        with pytest.raises(error):
            create("anna", invitation=made)
    assert not invited.owners() and not invited.users() and registered(invited) == [(0, 0)] * 3


@embedded_only
def test_an_embedded_deployment_takes_none(deployment):
    made = invitation(deployment)
    with pytest.raises(AccessDeniedError, match="takes no invitations"):
        deployment.create_owner("anna", invitation=made)
    for kind in ("owner", "user"):
        party = Party(deployment, kind, "anna", made.to_bytes())
        with pytest.raises(AccessDeniedError, match="takes no invitations"):
            party.register(deployment, 1)
    assert not deployment.owners() and registered(deployment) == [(0, 0)] * 3
    deployment.create_owner("anna")


def test_a_crash_between_key_file_and_registration(invited, monkeypatch):
    for kind, party in (("owner", ImageOwner), ("user", User)):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(party, "register", lambda self: (_ for _ in ()).throw(RuntimeError))
            getattr(invited, f"create_{kind}")("anna", invitation=invitation(invited, kind))
        getattr(invited, kind)("anna")
    assert registered(invited) == [(2, 2)] * 3


# --- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["owner", "user"])
def test_servers_refuse(invited, kind):
    other = "user" if kind == "owner" else "owner"
    stranger = signing.private_key(b"s" * 32)
    good = invitation(invited, kind)
    elsewhere = invite(dataclasses.replace(good, deployment=b"e" * 16), KEY)
    for given, error, said in (
        (b"", AccessDeniedError, "by invitation only"),
        (b"x", MessageError, "malformed"),
        (bytes(200), MessageError, "version 0"),
        (good.to_bytes()[:-64] + bytes(64), AuthenticationError, "registrar"),
        (invitation(invited, kind, key=stranger).to_bytes(), AuthenticationError, "registrar"),
        (invitation(invited, other).to_bytes(), AccessDeniedError, f"for {other} anna"),
        (invitation(invited, kind, "berta").to_bytes(), AccessDeniedError, f"for {kind} berta"),
        (invitation(invited, kind, lasts=-1).to_bytes(), AccessDeniedError, "ended at"),
        (elsewhere.to_bytes(), AccessDeniedError, "another deployment"),
    ):
        party = Party(invited, kind, "anna", given)
        for server in (1, 2, 3):
            with pytest.raises(error, match=said):
                party.register(invited, server)
    assert registered(invited) == [(0, 0)] * 3
    Party(invited, kind, "anna", good.to_bytes()).register(invited, 1, 2, 3)


@pytest.mark.parametrize("kind", ["owner", "user"])
def test_an_invitation_is_used_once(invited, kind):
    made = invitation(invited, kind).to_bytes()
    first = Party(invited, kind, "anna", made)
    first.register(invited, 1, 2, 3)
    first.register(invited, 1, 2, 3)  # a repeat by the same party
    if kind == "owner":
        first.client.ask_all = type(first.client).ask_all.__get__(first.client)
        first.client.forget()  # frees the name, not the invitation
    second = Party(invited, kind, "anna" if kind == "owner" else "ANNA", made)
    said = "used by another party" if kind == "owner" else "not for user"
    for act in (second.register, second.pass_on):
        with pytest.raises(AccessDeniedError, match=said):
            act(invited, 1)
    third = Party(invited, kind, "anna", made)
    with pytest.raises((AccessDeniedError, ParameterError), match=r"used by another party|is taken"):
        third.register(invited, 1)


def test_a_refused_registration_uses_nothing(invited):
    made = invitation(invited).to_bytes()
    party = Party(invited, "owner", "anna", made)
    party.message = dataclasses.replace(party.message, sealed=[b"x" * 80] * 3)
    party.signed = party.client.sign(party.message)
    with pytest.raises(mipp.errors.MippError):
        party.register(invited, 1)
    assert registered(invited) == [(0, 0)] * 3
    Party(invited, "owner", "anna", made).register(invited, 1)


def test_two_keys_for_one_invitation_end_nowhere_whole(invited):
    """Server 1 knows one key, server 2 the other: neither gets to all servers, whatever is passed on."""
    made = invitation(invited).to_bytes()
    one, two = (Party(invited, "owner", "anna", made) for _ in range(2))
    one.register(invited, 1)
    two.register(invited, 2)
    one.register(invited, 3)
    settle(invited.operators)
    for party, server in ((one, 2), (two, 1), (two, 3)):
        for act in (party.register, party.pass_on):
            with pytest.raises((AccessDeniedError, ParameterError)):
                act(invited, server)
    assert [n for n, _ in registered(invited)] == [1, 1, 1]


def test_relayed_registrations_do_not_end(invited):
    """A server that was away gets what the others accepted in time; from a party itself it would be too late."""
    party = Party(invited, "owner", "anna", invitation(invited, lasts=60).to_bytes())
    party.register(invited, 1)
    for server in invited.servers.values():
        server.clock = lambda: time.time() + 120
    with pytest.raises(AccessDeniedError, match="ended at"):
        party.register(invited, 2)
    party.register(invited, 1)  # known there: fine
    settle(invited.operators)
    assert registered(invited) == [(1, 1)] * 3


def test_a_relaying_server_cannot_invite(invited):
    stranger = signing.private_key(b"s" * 32)
    for given in (b"", invitation(invited, key=stranger).to_bytes(), invitation(invited, name="berta").to_bytes()):
        with pytest.raises((AccessDeniedError, AuthenticationError)):
            Party(invited, "owner", "anna", given).pass_on(invited, 1)


@embedded_only
def test_registrations_of_earlier_versions(deployment, monkeypatch):
    """They had no last field: servers that have them pass them on, and those that miss them accept them."""

    def earlier(msg):
        frames = encode(msg)
        if isinstance(msg, (m.RegisterOwner, m.RegisterUser)):
            kind, fields = msgpack.unpackb(frames[0][5:])
            frames[0] = frames[0][:5] + msgpack.packb([kind, fields[:-1]])
        return frames

    parties = []
    with monkeypatch.context() as patch:
        patch.setattr("mipp.client.client.encode", earlier)
        for kind, name in (("owner", "anna"), ("user", "ulla")):
            parties.append(Party(deployment, kind, name))
            parties[-1].register(deployment, 1)
    settle(deployment.operators)
    assert registered(deployment) == [(2, 0)] * 3
    stored = [server.store.registrations() for server in deployment.servers.values()]
    assert stored[0] == stored[1] == stored[2] == [pack_frames(party.signed) for party in parties]


def test_catalogs_of_earlier_versions_get_the_table(tmp_path):
    folder = tmp_path / "d"
    mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM), threads=1).close()
    for path in folder.glob("servers/*/catalog-2.sqlite"):
        with sqlite3.connect(path) as db:
            db.execute("DROP TABLE invitations")
        db.close()
    with mipp.Deployment.open(folder, threads=1) as deployment:
        deployment.create_owner("anna")
        assert registered(deployment) == [(1, 0)] * 3


# --- limits ---------------------------------------------------------------------------------------------------------


def test_limits_of_an_invitation(invited):
    anna = invited.create_owner("anna", invitation=invitation(invited, max_rows=4))
    berta = invited.create_owner("berta", invitation=invitation(invited, name="berta", max_bytes=1000))
    cora = invited.create_owner("cora", invitation=invitation(invited, name="cora"))
    anna.add_vectors(vectors(3))
    with pytest.raises(LimitError, match="4 rows; 3 are there and 2 would come"):
        anna.add_vectors(vectors(2))
    with pytest.raises(LimitError, match="1000 bytes"):
        berta.add_vectors(vectors(3), [("a.png", bytes(2000))] * 3)
    for server in invited.servers.values():  # what an invitation leaves open is the server's own
        server.card = Card(rows=2, bytes=10**6, concurrent=7)
    with pytest.raises(LimitError, match="2 rows"):
        cora.add_vectors(vectors(3))
    server = invited.servers[1]
    assert server.card_of(anna.id) == Card(4, 10**6, 7) and server.card_of(berta.id) == Card(2, 1000, 7)
    assert server.card_of(b"?" * 16) == server.card_of(cora.id) == server.card


def test_requests_a_minute(invited, monkeypatch):
    monkeypatch.setattr("mipp.client.retry.BUSY_PATIENCE", 0.0)
    anna = invited.create_owner("anna", invitation=invitation(invited, requests=10))
    berta = invited.create_owner("berta", invitation=invitation(invited, name="berta"))
    head = m.HeadRequest(anna.id)
    with pytest.raises(BusyError, match=r"10 requests a minute; try again in \d s"):
        for _ in range(11):
            anna.ask({1: head})
    for _ in range(20):
        berta.ask({1: m.HeadRequest(berta.id)})
    Party(invited, "user", "ulla", invitation(invited, "user", "ulla").to_bytes()).register(invited, 1)
    settle(invited.operators)  # what servers pass on is not counted
    invited.servers[1]._rates._clock = lambda: time.monotonic() + 7
    anna.ask({1: head})


def test_rates():
    now = [0.0]
    rates = RequestRates(lambda: now[0])
    assert [rates.take(b"a", 3) for _ in range(4)] == [0, 0, 0, 20]
    assert rates.take(b"b", 1) == 0 and rates.take(b"b", 1) == 60
    now[0] = 19.0
    assert rates.take(b"a", 3) == 1
    now[0] = 20.0
    assert rates.take(b"a", 3) == 0 and rates.take(b"a", 3) == 20
    now[0] = 10_000.0
    assert [rates.take(b"a", 3) for _ in range(4)] == [0, 0, 0, 20]
    assert [rates.take(b"c", 1 << 61) for _ in range(3)] == [0] * 3


def test_rates_drop_full_buckets(monkeypatch):
    now = [0.0]
    rates = RequestRates(lambda: now[0])
    for i in range(4096):
        rates.take(i.to_bytes(2, "big"), 60)
    now[0] = 30.0
    rates.take(b"new", 60)
    assert len(rates._buckets) == 1
