"""Servers restored from backups of their folders: they notice, take over what they lack, and all agree again."""

import contextlib

import pytest

from mipp.errors import AccessDeniedError, MippError
from tests.conftest import ALL_RANKINGS, vectors
from tests.deployment.hosted import AGREE, QUERY, Plain, found, some

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(net):
    with net.connect() as made:
        yield made


class Parties:
    """A new owner with rows, and a user, in a deployment that has others."""

    number = 0

    def __init__(self, net, client):
        Parties.number += 1
        self.net, self.client, self.plain = net, client, Plain(net.config.encoding)
        self.owner = client.create_owner(f"anna{Parties.number}")
        self.user = client.create_user(f"ulla{Parties.number}")
        self.owner.grant(self.user.id, rankings=ALL_RANKINGS, quota=1000)
        self.add(6)

    def add(self, count):
        x = vectors(count, 500 + len(self.plain.rows) + 100 * Parties.number)
        self.plain.rows |= dict(zip(self.owner.add_vectors(x), x, strict=True))

    def check(self, left_out=()):
        """A search gives the plaintext's scores, without rows of batches that it names as left out."""
        index = self.user.index()
        if not index.total:
            assert left_out
            return
        result = self.user.search(QUERY, index.total, ranking="user")
        named = {one.batch for one in result.left_out}
        assert named <= set(left_out)
        rows = {i: row for i, row in self.plain.rows.items() if i[0] not in named}
        assert [h.score for h in result.hits] == self.plain.scores(QUERY, rows)


@pytest.fixture
def parties(net, client):
    return Parties(net, client)


def save(net, *servers, name="backup"):
    net.stop(*servers)
    for server in servers:
        net.save(server, name)
    net.start(*servers)
    net.agreed()


def bring_back(net, *servers, name="backup"):
    net.kill(*servers)
    for server in servers:
        net.restore(server, name)
    net.start(*servers)
    return net.agreed(AGREE)


def noticed(net, server):
    return "was restored from a backup" in net.log(server)


def upload(p):
    p.add(3)
    return [list(p.plain.rows)[-1][0]]


def delete(p):
    victim = next(iter(p.plain.rows))
    p.owner.delete([victim])
    del p.plain.rows[victim]


def merge(p):
    p.add(2)
    p.owner.compact()
    ids = [(b.id, int(n)) for b in p.owner.batches() for n in p.owner.rows_of(b.id)[0]]
    p.plain.rows = dict(zip(ids, p.plain.rows.values(), strict=True))
    return [i[0] for i in ids]


def grant(p):
    p.owner.grant(p.user.id, rankings=ALL_RANKINGS, quota=500)


def query(p):
    found(p.user)


@pytest.mark.parametrize("what", [upload, delete, merge, grant, query], ids=lambda f: f.__name__)
@pytest.mark.parametrize("server", some([1, 2, 3], 1))
def test_one_server_is_restored(net, parties, server, what):
    save(net, server)
    net.kill(server)  # its log shows below what it says after the restore alone
    net.start(server)
    net.agreed()
    late = what(parties) or []
    bring_back(net, server)
    assert noticed(net, server)
    parties.check(late)
    with_rows = parties.owner.batches()
    parties.add(2)
    assert len(parties.owner.batches()) == len(with_rows) + 1
    parties.check(late)


@pytest.mark.parametrize("server", some([1, 2, 3], 3))
def test_a_backup_of_the_same_run_is_noticed(net, parties, server):
    """Nothing but counted queries is lost, and no start lies between: the peers were told the count."""
    save(net, server)
    before = [net.tell(s, "call", counts) for s in (1, 2, 3)]
    for _ in range(5):
        found(parties.user)
    net.stop(server)  # its last word: how far it had come
    net.restore(server)
    net.start(server)
    net.agreed()
    assert noticed(net, server)
    after = [net.tell(s, "call", counts) for s in (1, 2, 3)]
    assert after[0] == after[1] == after[2] != before[0]


def counts(process):
    return sorted(process.server.store.used())


@pytest.mark.parametrize("server", some([1, 2, 3], 1))
def test_a_revocation_and_a_forget_are_not_undone(net, client, parties, server):
    gone = Parties(net, client)
    save(net, server)
    parties.owner.revoke(parties.user.id)
    gone.owner.forget()
    bring_back(net, server)
    for user in (parties.user, gone.user):
        with pytest.raises(AccessDeniedError):
            found(user)
    states = [net.state(s)["owners"][gone.owner.id] for s in (1, 2, 3)]
    assert all(forgotten for _, forgotten, *_ in states)


@pytest.mark.parametrize("server", some([1, 2, 3], 2))
def test_a_vote_that_nobody_saw_does_not_count_after_a_restore(net, parties, server):
    """The owner has the votes of all, and one server forgets its own before any other server saw it."""
    save(net, server)
    held = {}

    class Gone(Exception):
        pass

    real = parties.owner.ask_all

    def ask_all(msg, *args, **options):
        if type(msg).__name__ == "Certify":
            held["votes"] = msg
            raise Gone
        return real(msg, *args, **options)

    parties.owner.ask_all = ask_all
    with pytest.raises(Gone):
        parties.owner.add_vectors(vectors(2, 77))
    parties.owner.ask_all = real
    net.kill(server)
    net.restore(server)
    net.start(server)
    net.agreed()
    for s in (1, 2, 3):
        with contextlib.suppress(MippError):
            parties.owner.ask({s: held["votes"]})
    net.agreed()
    parties.check()


@pytest.mark.parametrize("two", some([(1, 2), (1, 3), (2, 3)], (1, 3)))
def test_two_servers_are_restored(net, parties, two):
    save(net, *two)
    late = [*upload(parties), *upload(parties)]
    delete(parties)
    bring_back(net, *two)
    assert all(noticed(net, s) for s in two)
    parties.check(late)


def test_all_are_restored_to_different_moments(net, parties):
    save(net, 1, name="first")
    upload(parties)
    save(net, 2, name="second")
    late = upload(parties)
    save(net, 3, name="third")
    late += upload(parties)
    net.kill(1, 2, 3)
    for server, name in ((1, "first"), (2, "second"), (3, "third")):
        net.restore(server, name)
    net.start(1, 2, 3)
    net.agreed()
    # nobody can know that the newest backup is one; the last upload is lost with all that had it
    assert noticed(net, 1) and noticed(net, 2)
    parties.plain.rows = dict(list(parties.plain.rows.items())[:-3])
    parties.check([i[0] for i in parties.plain.rows])


def test_what_all_accepted_is_committed_after_a_start_of_all(net, parties):
    """Their own votes are of an earlier incarnation then: each promises again."""

    class Gone(Exception):
        pass

    real = parties.owner.ask_all

    def ask_all(msg, *args, **options):
        if type(msg).__name__ == "Certify":
            net.kill(1, 2, 3)
            raise Gone
        return real(msg, *args, **options)

    parties.owner.ask_all = ask_all
    x = vectors(2, 78)
    with pytest.raises(Gone):
        parties.owner.add_vectors(x)
    parties.owner.ask_all = real
    net.start(1, 2, 3)
    net.agreed()
    assert len(found(parties.user)) == len(parties.plain.rows) + 2
