"""Owners that a user did not ask for: chosen by name, and blocked for good."""

import json
import stat

import numpy as np
import pytest

from mipp.errors import AccessDeniedError, IntegrityError, NotFoundError, ParameterError, StoreError
from tests.conftest import ALL_RANKINGS, again, vectors

QUERY = vectors(1, 7)[0]


def found(world, **options):
    user = options.pop("user", world.user)
    return {h.owner_name for h in user.search(QUERY, 20, **options).hits}


@pytest.fixture
def spammer(world):
    """An owner whose rows are the nearest to everything, and who grants without being asked."""
    owner = world.deployment.create_owner("spam")
    owner.add_vectors(np.repeat(QUERY[None], 20, axis=0))
    owner.grant(world.user.id, rankings=ALL_RANKINGS)
    world.user._known.clear()
    return owner


def test_owners_by_name_id_hex_or_object(world):
    anna, berta = world.owners
    for one in ("anna", anna.id, anna.id.hex(), anna.id.hex().upper(), bytearray(anna.id), anna):
        assert found(world, owners=one) == found(world, owners=[one]) == {"anna"}
    for two in (
        ["anna", "berta"],
        [anna, berta.id],
        (anna.id.hex(), "berta"),
        {"anna", berta.id},
        iter(["anna", berta]),
    ):
        assert world.user.index(two).total == 60
    assert found(world, owners=None) == found(world) == {"anna", "berta"}
    assert {h.owner_name for h in world.user.range_search(QUERY, -0.9, owners="anna")} == {"anna"}
    assert world.user.scores(QUERY[None], owners=anna)[0].total == 30
    assert world.user.nearest(QUERY[None], 3, owners="berta").index.total == 30
    assert world.user.cost(3, owners="berta")["images"] == 30
    assert {h.owner_name for r in world.user.search_batch(vectors(2), 3, owners="anna") for h in r.hits} == {"anna"}


def test_owners_that_there_are_not(world):
    with pytest.raises(NotFoundError, match="unknown owner 'anne', or one that"):
        found(world, owners=["anna", "anne"])
    for bad in (b"short", 7, [7], [b""], [None], object()):
        with pytest.raises(ParameterError):
            found(world, owners=bad)
    with pytest.raises(AccessDeniedError):
        found(world, owners=b"x" * 16)
    # an old store may hold two owners of one name
    for server in world.deployment.servers.values():
        server.store.catalog.all("UPDATE owners SET name='anna'")
        server.store.views.clear()
    user = world.deployment.user("ulla")
    with pytest.raises(NotFoundError, match="several owners") as told:
        found(world, owners="anna", user=user)
    assert all(o.id.hex() in str(told.value) for o in world.owners)
    assert user.search(QUERY, 30, owners=world.owners[0]).hits


def test_an_owner_that_granted_later_is_found_by_name(world):
    world.user.search(QUERY, 1, owners="anna")
    late = world.deployment.create_owner("late")
    late.add_vectors(vectors(20, 4))
    late.grant(world.user.id)
    assert found(world, owners="late") == {"late"}


def test_a_blocked_owner_is_never_searched(world, spammer):
    """Its rows would fill every result; once blocked, nothing is asked about them and no grant changes that."""
    assert found(world) == {"spam"}
    world.user.block("spam")
    assert world.user.blocked == {spammer.id}
    for ranking in ("server", "user"):
        assert "spam" not in found(world, ranking=ranking)
    seen = []
    real = world.user.channel.gather
    world.user.channel.gather = lambda requests, **how: seen.append(requests) or real(requests, **how)
    spammer.grant(world.user.id)
    spammer.add_vectors(QUERY[None])
    assert found(world) == {"anna", "berta"}
    assert {h.owner_name for h in world.user.range_search(QUERY, -0.9)} == {"anna", "berta"}
    assert world.user.scores(QUERY[None])[0].total == 60
    grant = world.deployment.servers[1].store.grants(owner=spammer.id)[0][0]
    assert seen and not any(grant in bytes(frame) for r in seen for frames in r.values() for frame in frames)
    for name in ("spam", spammer.id, spammer):
        with pytest.raises(ParameterError, match="blocked owners are not searched: spam"):
            found(world, owners=["anna", name])
    world.user.unblock(spammer)
    assert world.user.blocked == frozenset() and found(world) == {"spam"}
    with pytest.raises(NotFoundError, match="not blocked"):
        world.user.unblock("anna")


@pytest.mark.parametrize(
    "grant", [{"rankings": ["user"]}, {"max_k": 1}, {"min_rows": 1 << 30}, {"quota": 1}], ids=lambda g: next(iter(g))
)
def test_a_grant_that_does_not_cover_a_search_stops_nobody_else(world, spammer, grant):
    """Owners grant unasked: what one does not allow of its own images is no refusal for others'."""
    spammer.grant(world.user.id, **grant)
    world.user._known.clear()
    for _ in range(3):
        result = world.user.search_batch(np.stack([QUERY, QUERY]), 5)[0]
        assert {h.owner_name for h in result.hits} <= {"anna", "berta"}
        assert [(o.owner_name, "grant" in o.reason) for o in result.left_out] == [("spam", True)]
    with pytest.raises(AccessDeniedError):
        world.user.search_batch(np.stack([QUERY, QUERY]), 5, owners=["anna", "spam"])
    with pytest.raises((AccessDeniedError, IntegrityError)):
        world.user.search_batch(np.stack([QUERY, QUERY]), 5, strict=True)


def test_blocking_everybody(world):
    world.user.block(["anna", "berta"])
    with pytest.raises(AccessDeniedError, match="every owner that grants"):
        world.user.search(QUERY, 1)
    world.user.unblock(["anna", "berta"])
    world.check()


def test_blocks_are_kept_in_the_users_folder(world, spammer):
    world.user.block([spammer, b"x" * 16])
    path = world.deployment.folder / "users/ulla.blocked"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with again(world.deployment) as opened:
        assert opened.user("ulla").blocked == {spammer.id, b"x" * 16}
        assert found(world, user=opened.user("ulla")) == {"anna", "berta"}
        assert opened.users() == ["ulla"]
    for corrupt in (
        "",
        "{",
        "[]",
        '{"format": "mipp blocked owners", "version": 1, "owners": ["xy"]}',
        "[" * 99999,
        "\xff",
    ):
        path.write_text(corrupt)
        with pytest.raises(StoreError, match="corrupt"):
            world.deployment.user("ulla")
    path.unlink()
    assert world.deployment.user("ulla").blocked == frozenset()


def test_commands(mipp_command, tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[4])
    assert mipp_command("init", "--vectors", 6)[0] == 0
    assert mipp_command("user", "create", "u")[0] == 0
    for name in ("anna", "berta"):
        assert mipp_command("owner", "create", name)[0] == 0
        assert mipp_command("owner", "add", name, "--vectors", tmp_path / "x.npy")[0] == 0
        assert mipp_command("owner", "grant", name, "u")[0] == 0
    search = ("search", "u", "--vector", tmp_path / "q.npy", "-k", 9, "--json")

    def owners(*options):
        code, out, err = mipp_command(*search, *options)
        assert code == 0, err
        return {h["owner"] for h in json.loads(out)["hits"]}

    assert owners() == {"anna", "berta"} == owners("--owner", "anna", "--owner", "berta")
    assert owners("--owner", "anna") == {"anna"}
    code, _, err = mipp_command(*search, "--owner", "clara")
    assert code == 1 and "known are: anna, berta" in err and len(err.splitlines()) == 1
    code, out, _ = mipp_command("user", "block", "u", "anna", "--json")
    blocked = json.loads(out)["blocked"]
    assert code == 0 and [b["owner"] for b in blocked] == ["anna"]
    assert owners() == {"berta"}
    code, _, err = mipp_command(*search, "--owner", "anna")
    assert code == 1 and "blocked" in err
    code, out, _ = mipp_command("user", "blocked", "u")
    assert code == 0 and out == f"blocked: anna {blocked[0]['id']}\n"
    assert mipp_command("user", "unblock", "u", blocked[0]["id"])[0] == 0
    assert mipp_command("user", "blocked", "u")[1] == "u blocks no owner\n"
    for wrong in (("block", "u", "clara"), ("unblock", "u", "anna"), ("block", "nobody", "anna"), ("block", "u")):
        assert mipp_command("user", *wrong)[0] in (1, 2)
    code, out, _ = mipp_command(*search, "--owner", "anna", "--explain-cost")
    assert json.loads(out)["images"] == 20
