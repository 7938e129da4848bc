"""What callers give: forms with a plain meaning work, all others get one clear sentence before anything is written."""

import dataclasses
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import mipp
from mipp.client import choosing, given
from mipp.client.given import expiry_seconds
from mipp.errors import (
    DTypeError,
    MippError,
    NotFoundError,
    ParameterError,
    ScoreRangeError,
    ShapeError,
    UnknownNameError,
)
from tests.conftest import ALL_RANKINGS, DIM, vectors

QUERY = vectors(1, 7)[0]
NOW = 1_900_000_000.25


def test_a_user_is_named_by_its_object_id_or_name(world):
    owner, user = world.owners[0], world.user
    for form in (user, user.id, bytearray(user.id), user.id.hex(), user.id.hex().upper(), "ulla", np.str_("ulla")):
        owner.grant(form)
        assert owner.grants()[0].user == user.id and not owner.grants()[0].revoked
        owner.revoke(form)
        assert owner.grants()[0].revoked
    for form in ("nobody", "", b"short", 7, None, [user.id]):
        with pytest.raises(ParameterError, match="user"):
            owner.grant(form)
    with pytest.raises(NotFoundError):
        owner.grant("nobody")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 0), (0, 0), (0.0, 0), ("0", 0), (np.int64(0), 0), (NOW + 100, 1_900_000_101),
        (np.float64(NOW + 9), 1_900_000_010),
        (np.int64(2_000_000_000), 2_000_000_000), ("2000000000", 2_000_000_000), (timedelta(hours=1), 1_900_003_601),
        (np.timedelta64(1, "h"), 1_900_003_601), ("90m", 1_900_005_401), ("12h", 1_900_043_201), ("30d", 1_902_592_001),
        ("2w", 1_901_209_601), (datetime(2033, 5, 18, 3, 33, 20, tzinfo=UTC), 2_000_000_000),
        ("2033-05-18T03:33:20Z", 2_000_000_000), ("2033-05-18T04:33:20+01:00", 2_000_000_000),
        ("2033-05-18 03:33:20", 2_000_000_000), (date(2033, 5, 18), 1_999_987_200),
        ("2033-05-18", 1_999_987_200), (np.datetime64("2033-05-18"), 1_999_987_200),
    ],
    ids=str,
)  # fmt: skip
def test_expiries(value, seconds):
    assert expiry_seconds(value, now=NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        1, -1, NOW - 1, "1", "2001-01-01", timedelta(0), timedelta(-1), "0d", date(1970, 1, 1),
        datetime(1970, 1, 1, tzinfo=UTC),
        np.datetime64("1970-01-01"), datetime(2090, 1, 1), float("nan"), float("inf"), True, "", "never", "soon",
        "30 days", b"30d",
        [1], np.datetime64("NaT"), np.timedelta64("NaT"), "9" * 400,
    ],
    ids=repr,
)  # fmt: skip
def test_expiries_that_are_past_or_no_times(world, value):
    with pytest.raises(ParameterError):
        expiry_seconds(value, now=NOW)
    version = world.owners[0].grants()[0].version
    if value != NOW - 1:
        with pytest.raises(ParameterError):
            world.owners[0].grant(world.user, expiry=value)
    assert world.owners[0].grants()[0].version == version


def test_grants_until_a_time_of_a_clock(world):
    owner = world.owners[0]
    for expiry in (
        time.time() + 100,
        np.int64(time.time() + 100),
        timedelta(seconds=100),
        datetime.now(UTC) + timedelta(seconds=100),
    ):
        owner.grant(world.user, expiry=expiry, quota=None, max_k=None, min_rows=np.int64(3))
        assert 90 < owner.grants()[0].expiry - time.time() < 110 and owner.grants()[0].quota == 0


def test_hits_and_ids_one_or_several(world):
    hits = [
        h for h in world.user.search(QUERY, 60, ranking="user").hits if h.row < 15 and h.owner == world.owners[0].id
    ]
    hit = hits[0]
    for form in (hit, hit.id, (hit.batch, hit.row), (hit.batch, np.int64(hit.row)), [hit], [hit.id]):
        assert [f.row for f in world.user.fetch(form)] == [hit.row]
    for form in (5, None, b"x", ["zz"], [("a", 1)], [(hit.batch, 1.5)], [(hit.batch, "1")], f"{hit.batch.hex()}:1:2"):
        with pytest.raises(ParameterError, match="image id"):
            world.user.fetch(form)
    owner, text = world.owners[0], hit.batch.hex()
    before = owner.rows_of(hit.batch)[0].tolist()
    fractions = np.float32(1.7), Decimal("2.9"), Fraction(3, 2), np.float64(1), 1.0
    for row in (*fractions, True, np.bool_(True), "1", -1, 1 << 48):
        for form in ((hit.batch, row), [(hit.batch, row)], dataclasses.replace(hit, row=row)):
            for call in (owner.delete, world.user.fetch, owner.features_of):
                with pytest.raises(ParameterError, match="image id"):
                    call(form)
    for form in ("{}:1_0", "{}: 3", " {}:3", "{}:3 ", "{}:+3", "{}:\u0663", "{}:", "{}:9999999999999999"):
        for digits in (text, f"{text[:4]} {text[4:]}", f"{text[:15]} {text[16:]}"):
            with pytest.raises(ParameterError, match="image id"):
                owner.delete(form.format(digits))
    with pytest.raises(ParameterError, match="image id"):
        owner.delete(f"{text[:15]} {text[16:]}:3")
    assert owner.rows_of(hit.batch)[0].tolist() == before
    for batch in (hit.batch, hit.batch.hex(), owner.batches()[0]):
        assert len(owner.rows_of(batch)[0]) == 15
    owner.delete(hit)
    owner.delete(hits[1:3])
    assert world.user.index().total == 57


def test_without_k_a_search_gives_ten_or_all_there_are(world):
    assert len(world.user.search(QUERY).hits) == 10
    batches = world.owners[0].batches()
    world.owners[0].delete([(batches[0].id, r) for r in range(15)] + [(batches[1].id, r) for r in range(12)])
    for ranking in ("server", "user"):
        assert len(world.user.search(QUERY, owners="anna", ranking=ranking).hits) == 3
        assert world.user.nearest(QUERY[None], owners="anna", ranking=ranking).rows.shape == (1, 3)
    assert world.user.cost(owners="anna")["images"] == 3
    with pytest.raises(ParameterError, match="3 images"):
        world.user.search(QUERY, 4, owners="anna")


def test_one_query_is_not_taken_from_several(world):
    with pytest.raises(ShapeError, match="search_batch"):
        world.user.search(vectors(2))
    for k in (3.0, "3", True):
        with pytest.raises(ParameterError, match="integer"):
            world.user.search(QUERY, k)


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "cosine"}, {"descriptor": b"cld"}, {"window": 5}, {"window": "ab"}, {"window": (2, 1)},
        {"rankings": "server"}, {"rankings": ()}, {"rankings": ("server", "server")}, {"rankings": ("nobody",)},
        {"rankings": 3},
        {"rankings": ("server",), "scheme": "paillier"}, {"threads": "2"}, {"threads": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_deployment_that_cannot_be_made_leaves_nothing(tmp_path, options):
    with pytest.raises(MippError):
        mipp.Deployment.create(tmp_path / "d", **{"encoding": mipp.Encoding("cosine", DIM), **options})
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("folder", [None, 7, ["d"]])
def test_what_is_no_folder(folder):
    with pytest.raises(DTypeError):
        mipp.Deployment.create(folder, mipp.Encoding("cosine", DIM))
    with pytest.raises(DTypeError):
        mipp.Deployment.open(folder)


# --- rankings that the encoding does not allow ------------------------------------------------------------------------

WIDE = mipp.Encoding("ip", DIM, ring_bits=16, row_norm2=127**2, query_norm2=257**2)


def test_an_encoding_that_servers_cannot_rank_is_said_when_the_index_is_made(tmp_path):
    for rankings in (("server",), ("user", "threshold")):
        with pytest.raises(ScoreRangeError, match="leave the ring"):
            mipp.Deployment.create(tmp_path / "d", WIDE, rankings=rankings)
    assert not (tmp_path / "d").exists()
    with pytest.warns(UserWarning, match="default search of this index is refused"):
        mipp.Deployment.create(tmp_path / "d", WIDE).close()
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        assert deployment.status()["rankings"] == ["user"] and "servers cannot rank" in deployment.notes[0]
    with mipp.Deployment.create(tmp_path / "e", mipp.Encoding("cosine", DIM)) as deployment:
        assert deployment.status()["rankings"] == list(ALL_RANKINGS) and not deployment.notes


def test_a_grant_that_would_allow_nothing_is_refused(tmp_path):
    with pytest.warns(UserWarning), mipp.Deployment.create(tmp_path / "d", WIDE) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        for rankings in (None, ["server"], ["threshold"], ["server", "threshold"]):
            with pytest.raises(ScoreRangeError, match="leave the ring"):
                owner.grant(user, rankings=rankings)
        assert not owner.grants()
        owner.grant(user, rankings=ALL_RANKINGS)


def test_an_index_made_for_users_is_ranked_by_users(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", WIDE, rankings=["user"]) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(np.eye(DIM))
        owner.grant(user)
        assert owner.grants()[0].rankings == ("user",)
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        user = deployment.user("u")
        assert user.search(np.eye(DIM)[3]).hits[0].row == 3
        with pytest.raises(ParameterError, match='"user"'):
            user.search(np.eye(DIM)[3], ranking="server")
        with pytest.raises(ParameterError, match="without thresholds"):
            user.range_search(np.eye(DIM)[3], 1.0)
        with pytest.raises(ParameterError, match="rankings of a grant"):
            deployment.owner("o").grant(user, rankings=["server"])


def test_numbers_of_numpy_make_the_same_encoding():
    numbers = {
        "bits": np.int64(6),
        "query_bits": np.uint8(9),
        "ring_bits": np.int32(32),
        "query_scale": np.float32(0.5),
    }
    made = mipp.Encoding("l2", np.int64(3), scale=np.float64(0.25), weights=np.array([1, 2, 3]), **numbers)
    plain = {name: value.item() for name, value in numbers.items()}
    same = mipp.Encoding("l2", 3, scale=0.25, weights=(1, 2, 3), **plain)
    assert made == same and made.hash == same.hash
    assert mipp.Params(np.int64(3), np.int8(1), np.int64(16)) == mipp.Params(3, 1, 16)
    for bad in (
        {"dim": "3"},
        {"dim": 3.0},
        {"scale": "x"},
        {"scale": ("1",)},
        {"query_scale": "1"},
        {"query_scale": None},
        {"offset": 3j},
    ):
        with pytest.raises(ParameterError):
            mipp.Encoding("l2", **{"dim": 3, **bad})


def test_numbers_without_end_get_a_sentence(deployment):
    owner, user = deployment.create_owner("o"), deployment.create_user("u")
    for limit in ({"expiry": 10**5000}, {"expiry": -(10**5000)}, {"quota": 10**5000}, {"max_k": 10**5000},
                  {"expiry": np.timedelta64(5, "Y")}):  # fmt: skip
        with pytest.raises(MippError):
            owner.grant(user.id, **limit)
    owner.add_vectors(vectors(3))
    owner.grant(user.id, rankings=("threshold",))
    for threshold in (10**400, -(10**400)):
        with pytest.raises(ParameterError):
            user.range_search(vectors(1)[0], threshold)
    with pytest.raises(ParameterError, match=r"1\.0000001"):
        user.range_search(vectors(1)[0], 1.0000001)


def test_spaces_make_no_id(world):
    """Text of 32 characters with spaces would be an id of fewer bytes."""
    text = "ab" * 14 + "  ab"
    assert len(text) == 32 and choosing.as_id(text) is None
    with pytest.raises(UnknownNameError):
        given.user_id(text, world.deployment.user)
