"""Grants that promise limits which they do not keep, or that a server could not hold: every server refuses them."""

import types

import numpy as np
import pytest

import mipp
from mipp.errors import AccessDeniedError, MessageError, ParameterError
from mipp.rpc import messages as m
from mipp.server.settling import settle
from tests.adversary.grants import raw_grant, store_old_grant
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]

CONTRADICTIONS = [
    {"rankings": ["user"], "max_k": 1},
    {"rankings": ["server", "user"], "scores": False},
    {"rankings": ["user"], "max_k": 1, "scores": False},
    {"rankings": ["threshold"], "max_k": 1},
    {"rankings": ["server", "threshold"], "scores": False},
    {"revoked": True},
    {"revoked": True, "rankings": [], "scores": False, "quota": 1},
]
OUT_OF_RANGE = [
    {"user": b"short"},
    {"user": b"x" * 17},
    {"version": 0},
    {"version": -1},
    {"version": 1 << 62},
    {"version": (1 << 63) - 1},
    {"expiry": -1},
    {"quota": -1},
    {"quota": 1 << 62},
    {"max_k": -(1 << 63)},
    {"max_k": (1 << 31) + 1},
    {"min_rows": (1 << 31) + 1},
    {"rankings": []},
    {"rankings": ["user", "user"]},
    {"rankings": ["all"]},
    {"rankings": ["x" * 100000]},
]
NOT_ON_THE_WIRE = [
    {name: n} for name in ("version", "expiry", "quota", "max_k", "min_rows") for n in (1 << 63, 1 << 64)
]


@pytest.mark.parametrize("changes", CONTRADICTIONS + OUT_OF_RANGE, ids=str)
def test_every_server_refuses(world, changes):
    anna = world.owners[0]
    for server in (1, 2, 3):
        with pytest.raises(ParameterError):
            anna.ask({server: raw_grant(world, anna, **changes)})
    assert anna.grants()[0].version == 1


@pytest.mark.parametrize("changes", NOT_ON_THE_WIRE, ids=str)
def test_numbers_that_do_not_travel(world, changes):
    with pytest.raises(MessageError):
        world.owners[0].ask_all(raw_grant(world, world.owners[0], **changes))


def test_no_scores_behind_a_grant_of_the_nearest_one(world):
    """``max_k=1, scores=False`` used to leave all exact scores open by ranking "user"."""
    anna, berta = world.owners
    berta.revoke(world.user.id)
    anna.grant(world.user.id, max_k=1, scores=False)
    with pytest.raises(AccessDeniedError, match="ranking 'user'"):
        world.user.scores(QUERY[None])
    hits = world.user.search(QUERY, 1).hits
    assert [(h.score, h.value) for h in hits] == [(None, None)]


def test_bisecting_thresholds_reads_no_score(world):
    """A user without scores used to find each exact score in some twenty range searches."""
    anna, berta = world.owners
    berta.revoke(world.user.id)
    anna.grant(world.user.id, scores=False)
    for value in np.linspace(-1, 1, 5):
        with pytest.raises(AccessDeniedError, match="ranking 'threshold'"):
            world.user.range_search(QUERY, float(value) * 0.9 + 0.01)


def test_old_grants_keep_what_they_say_but_allow_no_threshold(world):
    """Stores of earlier versions hold grants of both rankings, some with limits that would be refused today."""
    anna, berta = world.owners
    berta.revoke(world.user.id)
    store_old_grant(world, anna, rankings=["user", "server"], max_k=3)
    assert len(world.user.search(QUERY, 3, ranking="user").hits) == 3
    assert len(world.user.search(QUERY, 3).hits) == 3
    with pytest.raises(AccessDeniedError, match="k up to 3"):
        world.user.search(QUERY, 4)
    with pytest.raises(AccessDeniedError, match="ranking 'threshold'"):
        world.user.range_search(QUERY, 0.1)
    # recovery passes grants on; one that servers refuse today must not keep a deployment from opening
    world.deployment.servers[2].store.catalog.all("DELETE FROM grants")
    settle(world.deployment.operators)


def test_a_stored_grant_that_cannot_be_read_hurts_its_owner_alone(world):
    """Servers of earlier versions stored an expiry of any size that msgpack holds."""
    store_old_grant(world, world.owners[0], expiry=1 << 63)
    world.user._known.clear()
    assert {h.owner_name for h in world.user.search(QUERY, 30).hits} == {"berta"}


def test_a_revocation_is_final_for_its_version(world):
    anna = world.owners[0]
    anna.revoke(world.user.id)
    granted = anna.grants()[0]
    assert granted.revoked and granted.rankings == () and not granted.scores
    with pytest.raises(AccessDeniedError, match="too old"):
        anna.ask_all(raw_grant(world, anna, version=granted.version))


def test_servers_take_an_expiry_in_the_past(world):
    """Clocks differ, so only the client refuses it; the refusal to the user names both times."""
    anna, berta = world.owners
    berta.revoke(world.user.id)
    anna.ask_all(raw_grant(world, anna, expiry=1_000_000_000))
    for ask in (
        lambda: world.user.search(QUERY, 1),
        lambda: world.user.fetch([(anna.batches()[0].id, 0)]),
    ):
        with pytest.raises(AccessDeniedError, match=r"expired at 2001-09-09 01:46:40 UTC, this server's clock says 20"):
            ask()
    berta.grant(world.user.id)
    with pytest.raises(AccessDeniedError, match="expired at 2001-09-09"):
        world.user.index(anna)
    (image,) = world.user.fetch([(anna.batches()[0].id, 0)])
    assert isinstance(image.error, AccessDeniedError) and "expired at 2001-09-09" in str(image.error)


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_schemes_with_one_cloud_have_one_ranking(tmp_path, scheme):
    """Its user gets all scores whatever it is granted, so a grant that says otherwise is refused by both servers."""
    with mipp.Deployment.create(tmp_path / "h", mipp.Encoding("cosine", 12), scheme=scheme) as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla", key_bits=2048)
        world = types.SimpleNamespace(user=user)
        owner.grant(user.id)
        assert owner.grants()[0].rankings == ("user",)
        for changes in (
            {"rankings": ["server"]},
            {"rankings": ["user", "server"]},
            {"rankings": ["threshold"]},
            {"max_k": 3},
            {"scores": False},
        ):
            for server in (1, 2):
                with pytest.raises(ParameterError):
                    owner.ask({server: raw_grant(world, owner, **changes)})
            with pytest.raises(ParameterError):
                owner.grant(user.id, **changes)
        assert owner.grants()[0].version == 1


def test_a_message_of_the_wrong_owner(world):
    anna, berta = world.owners
    with pytest.raises(AccessDeniedError):
        berta.ask_all(raw_grant(world, anna))
    with pytest.raises(ParameterError):
        anna.ask_all(m.Grant(anna.id, b"", 0, 1, 0, ["server"], 0, True, 0, 0, False))
