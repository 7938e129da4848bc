"""What a user was granted: limits, counts, states, and what a server that lies can tell."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from mipp.client import received
from mipp.errors import AccessDeniedError, MessageError
from mipp.rpc import messages as m
from mipp.rpc.wire import decode, encode
from mipp.server.snapshots import user_grants
from tests.conftest import answer

LISTS = ("grants", "sign_keys", "registrations", "names", "expired", "left", "rows")


def test_limits_counts_and_states(world):
    anna, berta = world.owners
    user = world.user
    anna.grant(user, quota=10, max_k=5, min_rows=3, scores=False, expiry="30d")
    berta.revoke(user)
    user.search(np.ones(12), 2, owners=anna)
    first, second = user.grants()
    assert (first.owner, first.owner_name, first.state, first.rows, first.rankings) == (
        anna.id, "anna", "in force", 30, ("server",)
    )  # fmt: skip
    assert (first.max_k, first.quota, first.left, first.min_rows, first.scores) == (5, 10, 9, 3, False)
    assert first.expiry > 0 and first.version == 2 and first.searchable and not first.problem
    assert (second.state, second.rows, second.rankings, second.left) == ("revoked", None, (), None)
    assert not second.searchable and second.version == 2
    anna.delete([f"{b.hex()}:{r}" for b, r in user.index(anna).ids()[:4]])
    assert user.grants()[0].rows == 26
    user.block(anna)
    assert user.grants()[0].blocked and not user.grants()[0].searchable and user.grants()[0].rows == 26


def test_asking_counts_against_no_quota_and_needs_no_grant(world):
    anna, berta = world.owners
    anna.grant(world.user, quota=2)
    for _ in range(4):
        assert world.user.grants()[0].left == 2
    for owner in (anna, berta):
        owner.revoke(world.user)
    with pytest.raises(AccessDeniedError):
        world.user.index()
    assert [g.state for g in world.user.grants()] == ["revoked", "revoked"]
    assert world.deployment.create_user("nobody").grants() == []
    berta.forget()
    assert [g.owner_name for g in world.user.grants()] == ["anna"]


def test_an_expired_grant(world, monkeypatch):
    world.owners[0].grant(world.user, expiry="12h")
    server = world.deployment.servers[1]
    clock = server.clock
    # one server's clock is ahead: it refuses, so its word counts
    monkeypatch.setattr(server, "clock", lambda: clock() + 86400)
    request = SimpleNamespace(signer=world.user.id, content=m.UserGrants(world.user.id))
    told = [user_grants(s, request) for _, s in sorted(world.deployment.servers.items())]
    mine = [one.names.index("anna") for one in told]
    assert [one.expired[n] for one, n in zip(told, mine, strict=True)] == [True, False, False]
    assert [one.rows[n] for one, n in zip(told, mine, strict=True)] == [0, 30, 30], "nothing more about its rows"
    for number, one in enumerate(told, 1):
        answer(world.deployment, number, lambda frames, one=one: encode(one))
    grant = world.user.grants()[0]
    assert grant.state == "expired" and grant.rows is None and not grant.searchable
    assert grant.problem == "server 1 says that it has expired, and other servers do not"


def lying(deployment, server, **changes):
    """Have a server change fields of its list of grants."""
    honest = deployment.servers[server].handle

    def handle(frames):
        reply = decode(honest(frames))
        if isinstance(reply, m.UserGrantList):
            reply = dataclasses.replace(reply, **{name: to(getattr(reply, name)) for name, to in changes.items()})
        return encode(reply)

    answer(deployment, server, handle)


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_do_not_fit_together_are_refused(world, name):
    lying(world.deployment, 2, **{name: lambda one: one[:-1]})
    with pytest.raises(MessageError, match="fit together"):
        world.user.grants()


def test_a_server_invents_and_changes_no_grant(world):
    world.owners[0].grant(world.user, quota=77)
    quota = (77).to_bytes(1, "big")

    def more(grants):
        return [grant.replace(quota, (78).to_bytes(1, "big")) for grant in grants]

    lying(world.deployment, 2, grants=more)
    found = {g.owner_name: g for g in world.user.grants()}
    assert found["anna"].quota == 77
    honest = world.deployment.servers[2].handle
    answer(world.deployment, 2, honest)
    # another key with an id of its own
    lying(world.deployment, 2, sign_keys=lambda keys: [bytes(32)] * len(keys))
    assert all("not all servers" in g.problem and not g.searchable for g in world.user.grants())
    answer(world.deployment, 2, honest)
    # names that are none
    for server in world.deployment.servers:
        lying(world.deployment, server, names=lambda names: ["a\x1b[31m"] * len(names))
    assert all(g.owner_name == g.owner.hex() for g in world.user.grants())


def test_a_server_that_hides_a_grant_or_tells_another_count(world):
    world.owners[0].grant(world.user, quota=50)
    nothing = {name: lambda one: [] for name in LISTS}
    lying(world.deployment, 3, **nothing)
    assert all("not all servers" in g.problem for g in world.user.grants())
    for server in world.deployment.servers:
        lying(world.deployment, server, **nothing)
    assert world.user.grants() == []


def test_the_least_count_is_told(world):
    world.owners[0].grant(world.user, quota=50)
    lying(world.deployment, 3, left=lambda left: [min(n, 4) for n in left])
    assert world.user.grants()[0].left == 4


@pytest.mark.parametrize("server", [1, 2, 3])
def test_a_server_that_swaps_names_is_noticed(world, server):
    """Whose name stands at a grant is what the user searches and blocks by."""
    assert [g.problem for g in world.user.grants()] == ["", ""]
    lying(world.deployment, server, names=lambda names: names[::-1])
    found = world.user.grants()
    assert [g.owner_name for g in found] == sorted(o.id.hex() for o in world.owners)
    assert all(g.problem == "the servers know it by different names" and not g.searchable for g in found)


@pytest.mark.parametrize("server", [1, 2, 3])
def test_a_server_that_says_expired_is_noticed(world, server):
    lying(world.deployment, server, expired=lambda all_: [True] * len(all_))
    for grant in world.user.grants():
        assert grant.state == "expired" and f"server {server} says that it has expired" in grant.problem


def test_counts_beyond_what_the_owner_signed_are_cut(world):
    world.owners[0].grant(world.user, quota=50)
    for server in world.deployment.servers:
        lying(world.deployment, server, left=lambda left: [1 << 40] * len(left))
    assert [(g.quota, g.left) for g in world.user.grants()] == [(50, 50), (0, None)]


def test_signatures_are_checked_once_an_owner(world, monkeypatch):
    """A list that names an owner often, or thousands of owners that no other server has, costs no signature each."""
    checked, check = [], received.own_grant
    monkeypatch.setattr(received, "own_grant", lambda *a: checked.append(1) or check(*a))
    honest = world.deployment.servers[2].handle
    lying(world.deployment, 2, **{name: lambda one: one * 3000 for name in LISTS})
    with pytest.raises(MessageError, match="server 2 sent two grants of one owner"):
        world.user.grants()
    assert not checked
    answer(world.deployment, 2, honest)

    def invented(grants):
        # the owner's id stands in the grant as it is
        return [g.replace(o.id, n.to_bytes(16, "big")) for n in range(40) for g in grants for o in world.owners
                if o.id in g]  # fmt: skip

    monkeypatch.setattr(received, "_ALONE", 30)
    others = {name: lambda one: one * 40 for name in LISTS if name != "grants"}
    lying(world.deployment, 2, grants=lambda g: invented(g[:1]), **{n: lambda one: one[:1] * 40 for n in others})
    with pytest.raises(MessageError, match="differ in more than 30 owners"):
        world.user.grants()
    assert not checked


def test_suspended_grants_are_counted(world):
    for server in world.deployment.servers:
        lying(world.deployment, server, suspended=lambda count, server=server: server)
    assert len(world.user.grants()) == 2 and world.user.suspended_grants == 1, "the least that a server tells"


def test_an_owner_sees_how_much_of_a_quota_is_used(world):
    """By the least that any server still allows; a server that lies cannot make it negative or more than all."""
    owner = world.owners[0]
    owner.grant(world.user.id, quota=5)
    before = {g.user: g.used for g in owner.grants()}[world.user.id]
    world.user.search(np.ones(12), 2, owners=owner)
    assert (before, {g.user: g.used for g in owner.grants()}[world.user.id]) == (0, 1)
    real = owner.ask_present

    def lying(msg, *args, **options):
        replies = real(msg, *args, **options)
        if isinstance(msg, m.GrantUse):
            replies[1].left[:] = [-(1 << 60)] * len(replies[1].left)
        return replies

    owner.ask_present = lying
    assert {g.user: g.used for g in owner.grants()}[world.user.id] == 5
    owner.ask_present = real
    owner.revoke(world.user.id)
    assert {g.user: g.used for g in owner.grants()}[world.user.id] is None
