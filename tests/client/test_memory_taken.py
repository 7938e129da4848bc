"""Memory of searches that the user ranks: what is stated is taken, and it does not grow with the rows."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp.demo.servers import LocalServers
from mipp.mpc.cost import threshold_memory, top_k_memory
from mipp.mpc.facts import public_facts
from mipp.schemes.shares import ranked_words
from tests.client.taken import Taken
from tests.conftest import ALL_RANKINGS, vectors

#: stated memory is within this factor of what is taken, and so many bytes of small objects, or that were taken before
FACTOR, SMALL = 1.3, 3 << 20


# the larger ones take half a minute
@pytest.fixture(scope="module", params=[(50_000, 200_000), pytest.param((200_000, 800_000), marks=pytest.mark.slow)])
def taken(request, tmp_path_factory):
    if "RssAnon" not in Path("/proc/self/status").read_text():
        pytest.skip("only Linux tells a process's own memory")
    folder = tmp_path_factory.mktemp("taken")
    command = [sys.executable, "-m", "tests.client.taken", folder, *map(str, request.param)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    return [json.loads(line) for line in out.splitlines()]


def test_stated_memory_is_what_a_process_takes(taken):
    assert len(taken) == 8
    for one in taken:
        stated = one["stated"]
        if one["kept"]:
            # at all three servers; of one query the words that came with the columns stay, which are the user's, too
            least, most = stated["user"], stated["user"] + 3 * stated["server"]
            assert least / FACTOR - SMALL < one["whole"] < FACTOR * most + SMALL, one
            assert one["request"] < FACTOR * stated["server"] + SMALL, one
        else:
            assert stated["user"] / FACTOR - SMALL < one["whole"] < FACTOR * stated["user"] + SMALL, one
            assert stated["server"] / FACTOR - SMALL < one["request"] < FACTOR * stated["server"] + SMALL, one


def test_memory_does_not_grow_with_rows_where_columns_travel(taken):
    """A block of 300 queries has fewer rows: four times as many take no more."""
    few, many = (one for one in taken if one["queries"] == 300 and not one["kept"])
    assert many["rows"] == 4 * few["rows"]
    assert many["whole"] < 1.1 * few["whole"] + SMALL, (few, many)
    assert many["request"] < 1.1 * few["request"] + SMALL, (few, many)
    assert many["whole"] < 3 * 4 * 300 * many["rows"] / 3, "less than all score shares"
    assert few["stated"]["user"] == many["stated"]["user"] and few["stated"]["server"] == many["stated"]["server"]
    assert many["stated"]["read"] == 4 * few["stated"]["read"]


def test_memory_with_folded_columns_grows_by_these_alone(taken):
    few, many = (one for one in taken if one["queries"] == 300 and one["kept"])
    more = many["kept"] - few["kept"]
    assert many["stated"]["server"] - few["stated"]["server"] == more
    # a block of one server may still be there when the next one comes
    assert many["whole"] - few["whole"] < 1.5 * 3 * more + few["stated"]["server"] + SMALL, (few, many)


@pytest.mark.slow  # three server processes
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's own memory")
def test_no_process_of_a_network_holds_all_score_shares(tmp_path):
    """300 queries over 50,000 and 200,000 rows: 240 MB of score shares at each server."""
    rng, peaks = np.random.default_rng(1), []
    with LocalServers(tmp_path / "d", mipp.Encoding("cosine", 16)) as servers, servers.connect() as client:
        owner = client.create_owner("o", invitation=servers.invitation("owner", "o"))
        user = client.create_user("u", invitation=servers.invitation("user", "u"))
        owner.grant(user, rankings=ALL_RANKINGS)
        queries = rng.standard_normal((300, 16), np.float32)
        for rows in (50_000, 150_000):
            owner.add_vectors(rng.standard_normal((rows, 16), np.float32))
            user.nearest(queries, 10, ranking="user")
            with ExitStack() as stack:
                watched = [stack.enter_context(Taken(p.pid)) for p in servers.processes.values()]
                watched.append(stack.enter_context(Taken()))
                user.nearest(queries, 10, ranking="user")
            peaks.append([own.most for own in watched])
            stated = user.cost(10, ranking="user", queries=300)["memory"]
            assert watched[-1].bytes < 2 * stated["user"] + SMALL, "with what a connection receives"
    few, many = np.array(peaks)
    assert (many < few + (24 << 20)).all(), peaks
    assert 24 << 20 < 4 * 300 * 150_000 / 5


def test_bytes_that_clouds_read(world, monkeypatch):
    monkeypatch.setattr("mipp.schemes.shares.HEADER_QUERIES", 4)
    row = 4 * world.user.config.params.padded(world.user.config.encoding.encoded_dim)
    for queries, passes in ((1, 1), (4, 1), (5, 2), (9, 3)):
        cost = world.user.cost(2, ranking="user", queries=queries)
        assert cost["memory"]["read"] == passes * cost["images"] * row, "once for each header, not for each query"


def test_what_is_stated_for_rankings_by_servers(world, monkeypatch):
    one, many = (world.user.cost(2, ranking="server", queries=q)["memory"] for q in (1, 50))
    rows = world.user.cost()["images"]
    row = 4 * world.user.config.params.padded(world.user.config.encoding.encoded_dim)
    public = public_facts(world.user.config, b"\0" * 32, b"\0" * 32, rows)
    assert one["server"] == top_k_memory(public, 1, 2) + row and one["read"] == rows * row
    assert (
        many["server"] == top_k_memory(public, 50, 2) + 50 * row
        and many["read"] == one["read"]
        and many["user"] == 50 * one["user"]
    )
    monkeypatch.setattr("mipp.schemes.shares._SERVER_BYTES", 10 * 4 * ranked_words(rows, 2))
    cut = world.user.cost(2, ranking="server", queries=50)["memory"]
    assert cut["server"] == top_k_memory(public, 10, 2) + 10 * row and cut["read"] == 5 * one["read"], (
        "ten queries at a time"
    )
    assert world.user.cost(ranking="threshold")["memory"]["server"] == threshold_memory(public, 1) + row


def test_a_hundred_million_rows_take_what_a_block_takes(tmp_path):
    """By the formula alone: nobody stores so many rows here."""
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 128)) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(vectors(3, 1, 128))
        owner.grant(user, rankings=ALL_RANKINGS)
        scheme, checks = user.scheme, user.scheme.checks
        for queries in (1, 64, 256, 5000):
            told = [scheme.cost(n, 1, 10, "user", queries, 0, checks=checks)["memory"] for n in (10**7, 10**8)]
            assert told[0]["server"] == told[1]["server"] and told[0]["user"] == told[1]["user"]
            assert told[1]["read"] == 10**8 * 512 * (2 if queries == 5000 else 1)
            assert told[1]["server"] < 40 << 20 and told[1]["user"] < (120 << 20) + 160 * queries
