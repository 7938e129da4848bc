"""Three clouds: every two of them and the key centre answer; who is away is passed over, who lies is found out."""

import itertools
import json

import numpy as np
import pytest

import mipp
from mipp.client import away, server_sets
from mipp.client.server_sets import ServerSets
from mipp.errors import (
    AccessDeniedError,
    DeploymentError,
    MessageError,
    OutOfRangeError,
    ParameterError,
    UnreachableError,
    VerificationError,
)
from mipp.mpc import ideal
from mipp.params import Params
from mipp.rpc import messages as m
from mipp.rpc.wire import decode
from mipp.schemes.shares import _Server as SharesServer
from mipp.server.base import Request
from tests.conftest import ALL_RANKINGS, DIM, vectors

ROWS = 60
SETS = ((1, 2, 3), (1, 3, 4), (2, 3, 4))


@pytest.fixture
def world(tmp_path, encoding):
    with mipp.Deployment.create(tmp_path / "d", encoding, clouds=3, threads=1) as deployment:
        deployment.anna, deployment.ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        deployment.x = vectors(ROWS)
        deployment.ids = deployment.anna.add_vectors(deployment.x, [(f"{i}.png", bytes([i])) for i in range(ROWS)])
        deployment.anna.grant(deployment.ulla, rankings=ALL_RANKINGS)
        yield deployment


def plain(deployment, queries):
    """Exact scores (B, N) in the clear."""
    e = deployment.config.encoding
    return e.encode_queries(queries).astype(np.int64) @ e.encode_rows(deployment.x).astype(np.int64).T


def stop(deployment, *servers):
    """Servers of which nobody hears any more; what brings them back."""
    handlers = deployment.channel._handlers
    real = dict(handlers)

    def silent(frames):
        raise UnreachableError("nothing answers")

    handlers.update(dict.fromkeys(servers, silent))
    return lambda: handlers.update(real)


def turns(deployment, attempt):
    """What a user's next searches give, each set of servers having its turn."""
    return [attempt(deployment.ulla) for _ in SETS]


def test_every_set_gives_the_exact_result(world):
    queries = vectors(4, 7)
    scores = plain(world, queries)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    answered = set()
    for ranking in ("user", "server"):
        for found in turns(world, lambda ulla, ranking=ranking: ulla.nearest(queries, 5, ranking=ranking)):
            assert np.array_equal(found.rows, best) and found.verified == (ranking == "user")
            assert not found.suspects and not found.left_out
            answered.add((ranking, found.index.servers))
    assert answered == set(itertools.product(("user", "server"), SETS))
    for index, got in turns(world, lambda ulla: ulla.scores(queries)):
        assert np.array_equal(got, scores) and index.servers in SETS
    value = float(world.config.encoding.values(np.sort(scores[:1])[:, -3:-2], queries[:1])[0, 0])
    for hits in turns(world, lambda ulla: ulla.range_search(queries[0], value)):
        assert sorted(hit.row for hit in hits) == sorted(best[0, :3])


def test_any_of_two_servers_learn_what_one_would(world):
    """The query shares of any t = 1 server are uniform under every set; those of a set add up to the query."""
    params, enc = world.config.params, world.config.encoding
    encoded = enc.encode_queries(vectors(2, 3))
    for servers in SETS:
        querier = world.ulla._queriers[servers]
        again = [querier.scheme.hide(encoded).shares for _ in range(2)]
        assert sorted(again[0]) == list(servers)
        assert all((again[0][s] != again[1][s]).mean() > 0.99 for s in servers)
        place = {server: i for i, server in enumerate(params.parties(servers), 1)}
        ideal.check_queries({place[s]: again[0][s] for s in servers}, world.config.query_rule, params, servers=servers)


def test_a_query_out_of_range_is_refused_by_every_set(world):
    for servers in SETS:
        querier, index = world.ulla._queriers[servers], world.ulla.index()
        encoded = world.config.encoding.encode_queries(vectors(1))
        hide = querier.scheme.hide
        querier.scheme.hide = lambda rows, hide=hide, **o: hide(rows * 9, **o)
        with pytest.raises(OutOfRangeError):
            querier.ranked(index, encoded, 2, "server")
        querier.scheme.hide = hide


def test_rows_out_of_range_are_refused_by_every_set(world, monkeypatch):
    """Also those of which only one cloud's share is wrong: each two clouds and the key centre test them."""
    from mipp.client import encrypting

    real = encrypting.share_rows
    for cloud in world.config.params.clouds:

        def wrong(rows, *given, cloud=cloud, **options):
            shared = real(rows, *given, **options)
            shared.shares[cloud][3, 1] += np.uint32(1 << 20)
            return shared

        monkeypatch.setattr(encrypting, "share_rows", wrong)
        with pytest.raises(OutOfRangeError, match="3"):
            world.anna.add_vectors(vectors(8))
    monkeypatch.setattr(encrypting, "share_rows", real)
    assert len(world.anna.add_vectors(vectors(8))) == 8


def test_a_commit_needs_the_tests_of_all_sets(world, monkeypatch):
    """An owner cannot have its rows tested by two clouds, and written to three."""
    changes = world.anna._changes
    real = type(changes)._tested

    def fewer(self, op, among):
        return real(self, op, [1, 2, 3])

    monkeypatch.setattr(type(changes), "_tested", fewer)
    with pytest.raises(OutOfRangeError, match="not checked"):
        world.anna.add_vectors(vectors(8))


def test_a_cloud_that_is_away_is_passed_over(world, caplog):
    queries = vectors(2, 7)
    best = np.argsort(-plain(world, queries), axis=1, kind="stable")[:, :3]
    for cloud in world.config.params.clouds:
        back = stop(world, cloud)
        for ranking in ("user", "server"):
            for found in turns(world, lambda ulla, ranking=ranking: ulla.nearest(queries, 3, ranking=ranking)):
                assert np.array_equal(found.rows, best)
                assert cloud not in found.index.servers and not found.suspects
        assert len(world.ulla.range_search(queries[0], -1.0)) == ROWS
        assert [i.content for i in world.ulla.fetch(world.ids[:2])] == [b"\0", b"\1"]
        assert len(world.ulla.search(queries[0], 3, owners="anna").hits) == 3
        assert world.ulla.away.now() == {cloud}
        world.ulla.away._until.clear()
        back()
    assert "server 4 is silent and is left out for 60 s" in caplog.text


def test_it_is_asked_again_after_a_while(world, monkeypatch):
    back = stop(world, 2)
    assert all(2 not in found.index.servers for found in turns(world, lambda u: u.nearest(vectors(1), 1)))
    back()
    assert all(2 not in found.index.servers for found in turns(world, lambda u: u.nearest(vectors(1), 1)))
    monkeypatch.setattr(world.ulla.away, "_clock", lambda: float("inf"))
    assert {found.index.servers for found in turns(world, lambda u: u.nearest(vectors(1), 1))} == set(SETS)


def test_without_the_key_centre_or_with_one_cloud_nothing_is_found(world):
    back = stop(world, 3)
    with pytest.raises(UnreachableError):
        world.ulla.nearest(vectors(1), 1)
    back()
    back = stop(world, 1, 2)
    with pytest.raises(UnreachableError):
        world.ulla.nearest(vectors(1), 1, ranking="user")
    back()
    world.ulla.away._until.clear()
    assert world.ulla.nearest(vectors(1), 1, ranking="user").verified


# --- liars --------------------------------------------------------------------------------------------------------


def lie(deployment, server, when=lambda header: True):
    """Have a server add one to a score share of each query."""
    scheme = deployment.servers[server].scheme
    real = type(scheme).answer.__get__(scheme)

    def answer(header, *rest):
        words = real(header, *rest)
        if when(header):
            words[0, 5] += words.dtype.type(1)
        return words

    scheme.answer = answer
    return lambda: delattr(scheme, "answer")


def test_a_cloud_that_lies_is_found_out(world, caplog):
    queries = vectors(2, 7)
    best = np.argsort(-plain(world, queries), axis=1, kind="stable")[:, :3]
    for cloud in world.config.params.clouds:
        honest = lie(world, cloud)
        world.ulla.sets._wrong.clear()
        world.ulla.sets._turn = 0
        suspects = []
        for found in turns(world, lambda ulla: ulla.nearest(queries, 3, ranking="user")):
            assert np.array_equal(found.rows, best) and found.verified and cloud not in found.index.servers
            suspects.append(found.suspects)
        # one set or two contained it before they were known to fail
        assert all(cloud in some for some in suspects if some) and any(suspects)
        assert {s for s in suspects if s} <= {(cloud, 3), *(s for s in SETS if cloud in s), (3, cloud)}
        honest()
    assert "Suspects: " in caplog.text and "got wrong answers; suspects: 3, 4" in caplog.text
    result = world.ulla.search(queries[0], 3, ranking="user")
    assert result.verified and not result.suspects


def test_suspects_are_in_every_set_that_failed(world):
    """With both of its sets failing, a cloud and the key centre are left; the other clouds are acquitted by nobody."""
    honest = lie(world, 1)
    world.ulla.sets._turn = 0
    found = world.ulla.nearest(vectors(1), 2, ranking="user")
    assert (found.suspects, found.index.servers) == ((1, 3), (2, 3, 4))
    honest()


def test_a_key_centre_that_lies_fails_every_set(world):
    honest = lie(world, 3)
    for ask in (lambda: world.ulla.nearest(vectors(1), 2, ranking="user"), lambda: world.ulla.scores(vectors(1))):
        with pytest.raises(VerificationError, match="3") as caught:
            ask()
        assert caught.value.suspects == (3,)
    honest()


def test_a_key_centre_can_frame_a_cloud(world):
    """It lies in the two sets of a cloud alone: it is always among the suspects itself."""
    honest = lie(world, 3, lambda header: 4 in header.servers)
    world.ulla.sets._turn = 1
    found = world.ulla.nearest(vectors(1), 2, ranking="user")
    assert (found.suspects, found.index.servers) == ((3, 4), (1, 2, 3))
    honest()


def test_nothing_is_retried_unless_it_was_verified(world):
    honest = lie(world, 1)
    world.ulla.sets._turn = 0
    asked = []
    world.servers[1].queries._check, check = lambda a: (asked.append(a), check(a)), world.servers[1].queries._check
    found = world.ulla.nearest(vectors(1), 2, ranking="user", verify=False)
    assert len(asked) == 1 and not found.verified and not found.suspects and found.index.servers == (1, 2, 3)
    honest()


def test_a_malformed_answer_counts_as_a_wrong_one(world):
    real = world.servers[2].queries._score_shares
    world.servers[2].queries._score_shares = lambda asked: m.Answer(real(asked).score_shares[:, :-1], 0)
    world.ulla.sets._turn = 0
    found = world.ulla.nearest(vectors(1), 2, ranking="user")
    assert found.suspects == (1, 2, 3) and found.index.servers == (1, 3, 4)
    world.ulla.sets._turn = 0
    world.ulla.sets._wrong.clear()
    with pytest.raises(MessageError):
        world.ulla.nearest(vectors(1), 2, ranking="user", verify=False)


def test_a_damaged_batch_is_searched_at_the_others(world):
    world.anna.add_vectors(vectors(5, 9))
    for path in (world.folder / "servers" / "4" / "shares").glob("*/*"):
        path.write_bytes(path.read_bytes()[:-8])
    folder = world.folder
    world.close()
    with mipp.Deployment.open(folder) as deployment:
        ulla = deployment.user("ulla")
        for _ in range(6):
            found = ulla.nearest(vectors(1), 1, ranking="user")
            assert found.index.total == ROWS + 5 and not found.left_out and found.index.servers == (1, 2, 3)


def test_an_audit_names_the_cloud_that_differs(world):
    report = world.anna.audit()
    assert report.ok and [c.server for c in report.clouds] == [1, 2, 4]
    folder, batch = world.folder, world.ids[0][0]
    world.close()
    for path in (folder / "servers" / "4" / "shares").glob("*/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x80
        path.write_bytes(bytes(data))
    with mipp.Deployment.open(folder, check=False) as deployment:
        report = deployment.owner("anna").audit()
        assert not report.ok and [(c.server, c.differing) for c in report.clouds] == [(1, ()), (2, ()), (4, (batch,))]


def test_merges_without_tags_need_two_clouds_that_agree(world):
    import shutil

    world.anna.add_vectors(vectors(4, 5))
    shutil.rmtree(world.folder / "owners" / "anna.tags")
    back = stop(world, 1)
    assert world.anna.compact() == 1  # clouds 2 and 4 agree
    back()
    world.anna.away._until.clear()


def test_reports_are_counted(world):
    counted = []

    class Observer:
        def suspected(self, servers):
            counted.append(list(servers))

    world.servers[1].metrics = Observer()
    told = m.WrongAnswers([bytes([1, 2, 3]), bytes([1, 3, 4])])
    world.servers[1]._handlers[m.WrongAnswers](Request(world.ulla.id, told, b"", [], None))
    world.servers[1].metrics = None
    assert counted == [[1, 3]]
    for wrong in ([], [b"\1\2\4"], [b""], [bytes([1, 2, 3])] * 4):
        with pytest.raises(ParameterError):
            world.ulla.ask_all(m.WrongAnswers(wrong))


# --- quotas, ids, parameters ----------------------------------------------------------------------------------------


def test_quotas_hold_whatever_set_is_asked(world):
    uwe = world.create_user("uwe")
    world.anna.grant(uwe, rankings=["server"], quota=4)
    for left in (3, 2, 1, 0):
        uwe.nearest(vectors(1), 1)
        assert uwe.index().owners[0].left == left
    for _ in range(4):
        with pytest.raises(AccessDeniedError):
            uwe.nearest(vectors(1), 1)


def test_headers_of_other_servers_are_refused(world):
    """A header's servers are a set that can answer, and the one that is asked belongs to it."""
    querier, index = world.ulla._queriers[1, 2, 3], world.ulla.index()
    hidden = querier.hide(index, world.config.encoding.encode_queries(vectors(1)), 1, "user")
    salt, share, theta = hidden.servers[1]
    for server in (4, 3):
        with pytest.raises(Exception, match=r"servers|commits"):
            world.ulla.ask({server: m.Query(hidden.header, salt, share, theta, 0, 0, b"", b"", share[:0], 0)})
    header = decode([f.data for f in hidden.header], m.QueryHeader)
    assert header.servers == [1, 2, 3]


@pytest.mark.parametrize(
    ("scheme", "clouds"), [("shares", 1), ("shares", 4), ("paillier", 2), ("paillier", 3), ("lattice", 2)]
)
def test_numbers_of_clouds_that_a_scheme_does_not_have(tmp_path, encoding, scheme, clouds):
    with pytest.raises(ParameterError, match=r"clouds?, not"):
        mipp.Deployment.create(tmp_path / "d", encoding, scheme=scheme, clouds=clouds)
    assert not (tmp_path / "d").exists() or not any((tmp_path / "d").iterdir())


@pytest.mark.parametrize("clouds", [0, 4])
def test_numbers_of_clouds_that_no_scheme_has(tmp_path, encoding, clouds):
    with pytest.raises(ParameterError, match=f"1, 2 or 3 clouds, not {clouds}"):
        mipp.Deployment.create(tmp_path / "d", encoding, clouds=clouds)


def test_server_sets():
    assert Params(n=4, t=1).server_sets == SETS and Params().server_sets == ((1, 2, 3),)
    assert [Params(n=4, t=1).parties(s) for s in SETS] == [(1, 2, 3), (1, 4, 3), (2, 4, 3)]
    assert Params(n=4, t=1).spare_clouds == 1 and Params().spare_clouds == 0
    assert Params(2, 1, 32, "paillier").spare_clouds == 0 == Params(5, 2).spare_clouds
    with pytest.raises(ParameterError):
        Params(n=4, t=1).parties([1, 2, 4])


def test_the_order_of_sets():
    now = [0.0]
    known = away.Away(Params(n=4, t=1), lambda: now[0])
    sets = ServerSets(Params(n=4, t=1), known, clock=lambda: now[0])
    sets._turn = 0
    assert [sets.order()[0] for _ in range(4)] == [*SETS, SETS[0]]
    error = UnreachableError("no")
    error.server = 1
    assert known.note(error) and not known.note(UnreachableError("another server said so"))
    assert {sets.order()[0] for _ in range(3)} == {(2, 3, 4)}
    now[0] = 61.0
    assert {sets.order()[0] for _ in range(3)} == set(SETS)
    error.server = 3
    assert not known.note(error) and not known.now()
    only = ServerSets(Params(n=4, t=1), known, (1, 3, 4))
    assert only.sets == ((1, 3, 4),) and not only.several


def test_command_line(tmp_path, mipp_command):
    assert mipp_command("init", "--vectors", DIM, "--clouds", 3)[0] == 0
    np.save(tmp_path / "x.npy", vectors(6))
    np.save(tmp_path / "q.npy", vectors(1))
    for command in (
        ("owner", "create", "anna"), ("user", "create", "ulla"),
        ("owner", "add", "anna", "--vectors", tmp_path / "x.npy"),
        ("owner", "grant", "anna", "ulla", "--ranking", "user"),
    ):  # fmt: skip
        assert mipp_command(*command)[0] == 0, command
    for _ in range(3):
        code, out, _ = mipp_command(
            "search", "ulla", "--vector", tmp_path / "q.npy", "--ranking", "user", "-k", 1, "--json"
        )
        told = json.loads(out)
        assert code == 0 and told["verified"] and "suspects" not in told and told["hits"][0]["id"].endswith(":0")


def test_suspects_on_the_command_line(tmp_path, mipp_command, monkeypatch):
    test_command_line(tmp_path, mipp_command)
    monkeypatch.setattr(SharesServer, "answer", lying(SharesServer.answer, 4))
    monkeypatch.setattr(server_sets, "random_bytes", lambda count: bytes([1]))
    code, out, err = mipp_command(
        "search", "ulla", "--vector", tmp_path / "q.npy", "--ranking", "user", "-k", 1, "--json"
    )
    assert code == 0 and json.loads(out)["suspects"] == [3, 4]
    assert "server 3 or 4 answered wrongly" in err


def lying(real, server):
    def answer(self, *given):
        words = real(self, *given)
        words[0, 2] += words.dtype.type(self._index == Params(n=4, t=1).point_number(server))
        return words

    return answer


def test_a_description_of_four_cards(tmp_path, encoding):
    from mipp.deployment.ceremony import assemble
    from tests.conftest import server_card, three_cards

    cards = [*three_cards(), server_card(name="west")]
    config = assemble(cards, encoding)
    assert config.params == Params(n=4, t=1) and [a.name for a in config.addresses.values()] == [
        "north", "south", "mid", "west",
    ]  # fmt: skip
    assert type(config).from_json(config.to_json()) == config and json.loads(config.to_json())
    for wrong in ([*cards, server_card(name="east")], cards[:2] + cards[3:], [*cards, server_card("key-centre", "c")]):
        with pytest.raises(DeploymentError, match="2 or 3 clouds and 1 key centre"):
            assemble(wrong, encoding)
