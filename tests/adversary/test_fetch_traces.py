"""The claim: what a server gets and does for a private fetch has the same distribution whatever is fetched.

Everything that clouds and the key centre received for previews and images of two searches with different winners is
recorded: kinds, sizes and order of messages, what was read, what was counted. These must be equal. Bytes that differ
between two fetches of one row (keys, commitments, nonces) must differ alike for two rows.
"""

import numpy as np
import pytest

from mipp import Deployment, Encoding, pir
from mipp.client import retrieval
from mipp.rpc import messages as m
from mipp.rpc.channel import kind_of_request
from mipp.rpc.wire import decode, frames_size

FETCHES = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with Deployment.create(tmp_path_factory.mktemp("traces") / "d", Encoding("cosine", 4), preview_size=512) as made:
        anna, berta = made.create_owner("anna"), made.create_owner("berta")
        user = made.create_user("ulla")
        vectors = np.repeat(np.eye(4), 100, axis=0) + np.random.default_rng(1).normal(scale=0.05, size=(400, 4))
        for owner, part in ((anna, slice(0, 250)), (berta, slice(250, 400))):
            count = part.stop - part.start
            images = [(f"{i}.png", b"x" * 900) for i in range(count)]
            ids = owner.add_vectors(vectors[part], images)
            owner.annotate({ids[7]: {"n": 7}})
            owner.delete([ids[11]])
            owner.grant(user)
        yield made, user


def trace(world, monkeypatch, query, private=True):
    """What each server got and did for a preview and a private fetch of what a search found, and the keys' bytes."""
    deployment, user = world
    result = user.search(query, k=5)
    told, keys = {server: [] for server in deployment.servers}, {1: b"", 2: b""}
    real, reads = deployment.channel._request, pir.scan

    def request(server, frames):
        kind = kind_of_request(frames)
        if kind == "FetchRecords":
            content = decode([f.data for f in decode(frames, m.Signed).frames], m.FetchRecords)
            keys[server] += b"".join(key[16:] for key in content.keys) + content.salt
        reply = real(server, frames)
        told[server].append((kind, frames_size(frames), frames_size(retrieval.encode(reply))))
        return reply

    def scan(records, selections, **options):
        told["read"].append(
            (records.__array_interface__["data"][0], records.nbytes, selections.shape, selections.nbytes)
        )
        return reads(records, selections, **options)

    told["read"] = []
    monkeypatch.setattr(deployment.channel, "_request", request)
    monkeypatch.setattr(pir, "scan", scan)
    user.preview(result)
    if private:
        user.fetch(result, private=True)
    monkeypatch.undo()
    return told, keys, [h.id for h in result.hits]


def test_servers_get_and_do_the_same(world, monkeypatch):
    trace(world, monkeypatch, np.array([1.0, 0, 0, 0]))  # albums and places are asked for once
    one = [trace(world, monkeypatch, np.array([1.0, 0.1, 0, 0])) for _ in range(3)]
    two = [trace(world, monkeypatch, np.array([0, 0, 0.1, 1.0])) for _ in range(3)]
    assert not set(one[0][2]) & set(two[0][2])
    assert all(found[0] == one[0][0] for found in (*one, *two))
    assert any(kind == "FetchRecords" for kind, _, _ in one[0][0][1]) and one[0][0]["read"]
    assert all(kind != "FetchRecords" for kind, _, _ in one[0][0][3])


def statistic(first, second):
    """Two-sample chi-square of bytes; 255 degrees of freedom if both have one distribution."""
    a, b = (np.bincount(np.frombuffer(part, np.uint8), minlength=256).astype(float) for part in (first, second))
    n, k = a.sum(), b.sum()
    return float((((a * np.sqrt(k / n) - b * np.sqrt(n / k)) ** 2) / np.maximum(a + b, 1)).sum())


LIMIT = 255 + 8 * np.sqrt(2 * 255)


def bytes_of(world, monkeypatch, query, server):
    return b"".join(trace(world, monkeypatch, query, private=False)[1][server] for _ in range(FETCHES // 3))


def test_the_bytes_of_keys_tell_no_row(world, monkeypatch):
    for server in (1, 2):
        one = bytes_of(world, monkeypatch, np.array([1.0, 0.1, 0, 0]), server)
        two = bytes_of(world, monkeypatch, np.array([0, 0, 0.1, 1.0]), server)
        assert len(one) == len(two) and statistic(one, two) < LIMIT


def test_a_client_that_shows_the_row_is_found_out(world, monkeypatch):
    real = pir.generate_keys

    def showing(row, rows):
        first, second = real(row, rows)
        return first[:16] + bytes([row % 256]) * 32 + first[48:], second

    monkeypatch.setattr(retrieval.pir, "generate_keys", showing)
    _, user = world
    seen = []
    for query in (np.array([1.0, 0.1, 0, 0]), np.array([0, 0, 0.1, 1.0])):
        result = user.search(query, k=5)
        rows = user.index().originals([(h.owner, h.batch, h.row) for h in result.hits])
        seen.append(b"".join(showing(row, 400)[0][16:] for row in rows for _ in range(FETCHES // 3)))
    assert statistic(*seen) > LIMIT


# --- clients that do show something are found out --------------------------------------------------------------------

ONE, TWO = np.array([1.0, 0.1, 0, 0]), np.array([0, 0, 0.1, 1.0])


def told_apart(world, monkeypatch, plant):
    """Whether servers get or do something else for one search than for the other, with a planted client."""
    found = []
    for query in (ONE, TWO):
        with pytest.MonkeyPatch.context() as patch:
            plant(patch, world[1])
            found.append(trace(world, monkeypatch, query, private=False)[0])
    return found[0] != found[1]


def only_its_owner(patch, user):
    """Fetches over the rows of the owners of what was found."""
    at, index = user._at_clouds, user._index

    def fetch(servers, places, *rest):
        owners = tuple(sorted({owner for owner, _, _ in places}))
        patch.setattr(user, "_index", lambda _, servers: index(owners, servers))
        return at(servers, places, *rest)

    patch.setattr(user, "_at_clouds", fetch)


def as_many_as_it_needs(patch, user):
    """Fetches one record more for rows of one half of the index."""
    real = user._at_clouds

    def fetch(servers, places, count, *rest):
        more = sum(owner == min(o.owner for o in user.index().owners) for owner, _, _ in places) > 0
        return real(servers, places, count + more, *rest)

    patch.setattr(user, "_at_clouds", fetch)


@pytest.mark.parametrize("plant", [only_its_owner, as_many_as_it_needs])
def test_a_planted_client_is_told_apart(world, monkeypatch, plant):
    trace(world, monkeypatch, ONE, private=False)  # albums and places are asked for once
    assert told_apart(world, monkeypatch, plant)
    assert not told_apart(world, monkeypatch, lambda patch, user: None)


def headers(world, query, monkeypatch):
    """All bytes of the headers of fetches, and of what is signed around them but signatures and times."""
    deployment, user = world
    result, seen = user.search(query, k=5), []
    real = deployment.channel._request

    def request(server, frames):
        if kind_of_request(frames) == "FetchRecords":
            content = decode([f.data for f in decode(frames, m.Signed).frames], m.FetchRecords)
            seen.append(b"".join(bytes(f.data) for f in content.header) + content.salt)
        return real(server, frames)

    monkeypatch.setattr(deployment.channel, "_request", request)
    for _ in range(FETCHES // 2):
        user.preview(result)
    monkeypatch.undo()
    assert len(seen) == FETCHES
    return b"".join(seen)


def test_the_bytes_of_headers_tell_no_row(world, monkeypatch):
    assert statistic(headers(world, ONE, monkeypatch), headers(world, TWO, monkeypatch)) < LIMIT
    found = []
    for query in (ONE, TWO):
        with pytest.MonkeyPatch.context() as patch:
            user, row = world[1], []
            real, random = user._retrieved, retrieval.schedule.random_bytes

            def retrieved(index, pair, wanted, *rest, real=real, row=row):
                row[:] = wanted[:1]
                return real(index, pair, wanted, *rest)

            class Showing:
                """The row in place of the nonce."""

                @staticmethod
                def random_bytes(count, row=row, random=random):
                    return row[0].to_bytes(2, "big") * 8 if count == 16 else random(count)

            patch.setattr(user, "_retrieved", retrieved)
            patch.setattr(retrieval, "schedule", Showing())
            found.append(headers(world, query, monkeypatch))
    assert statistic(*found) > LIMIT
