"""One of three clouds is stopped, or dies in the middle of something; its process is one of its own."""

import signal

import pytest

import mipp
from mipp.errors import MippError
from mipp.rpc import peer_messages as pm
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import QUERY, Hosted, Plain, found, running, some

pytestmark = pytest.mark.slow


class Three(Hosted):
    def __init__(self, folder, encoding, **options):
        super().__init__(folder, encoding, clouds=3, **options)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    made = Three(tmp_path_factory.mktemp("three") / "net", mipp.Encoding("cosine", DIM), settings="")
    with running(made):
        yield made


@pytest.fixture(scope="module")
def world(net):
    with net.connect() as client:
        client.anna, client.ulla = client.create_owner("anna"), client.create_user("ulla")
        client.anna.grant(client.ulla.id, rankings=ALL_RANKINGS)
        client.plain, client.number = Plain(net.config.encoding), 0
        client.plain.rows = dict(zip(client.anna.add_vectors(vectors(8)), vectors(8), strict=True))
        yield client


def fresh_clients(world):
    for party in (world.anna, world.ulla):
        party.away._until.clear()


def exact(world):
    """Both rankings give what the plaintext gives, three times: at each set of servers in turn."""
    for _ in range(3):
        for ranking in ("user", "server"):
            assert found(world.ulla, ranking) == world.plain.scores(QUERY)


def upload(world):
    world.number += 1
    x = vectors(3, 100 + world.number)
    world.coming = world.plain.rows | {("new", i): row for i, row in enumerate(x)}
    world.plain.rows |= dict(zip(world.anna.add_vectors(x, [("i", b"...")] * 3), x, strict=True))


def delete(world):
    victim = next(iter(world.plain.rows))
    world.coming = {i: row for i, row in world.plain.rows.items() if i != victim}
    world.anna.delete([victim])
    world.plain.rows = world.coming


def grant(world):
    world.coming = world.plain.rows
    world.number += 1
    world.anna.grant(world.ulla.id, rankings=ALL_RANKINGS, quota=10**6 + world.number)


def search(world):
    world.coming = world.plain.rows
    exact(world)


def rebuilt(net, world, server):
    """It has all files again, and every set gives the plaintext's scores."""
    report = net.ask(server, pm.RepairRequest())
    assert not report.problems
    fresh_clients(world)
    exact(world)


@pytest.mark.parametrize("server", some([1, 2, 4], 2))
def test_a_cloud_that_is_stopped(net, world, server):
    """It takes connections, and says nothing."""
    fresh_clients(world)
    exact(world)
    net.signal(server, signal.SIGSTOP)
    try:
        exact(world)
        upload(world)
        delete(world)
        exact(world)
        assert world.ulla.away.now() == world.anna.away.now() == {server}
    finally:
        net.signal(server, signal.SIGCONT)
    net.agreed(40)
    rebuilt(net, world, server)


@pytest.mark.parametrize("server", some([1, 2, 4], 4))
@pytest.mark.parametrize("work", some([upload, delete, grant, search], upload))
def test_a_cloud_that_dies_in_the_middle(net, world, server, work):
    """Wherever it dies, searches go on, and what was acknowledged is there when it is back."""
    step = 1
    while True:
        fresh_clients(world)
        net.tell(server, "arm", step)
        acknowledged = True
        try:
            work(world)
        except MippError:
            acknowledged = False
        dead = net.died(server, 0.05)
        if not dead:
            net.tell(server, "arm", 0)
            break
        if acknowledged:
            exact(world)
        net.kill(server)
        net.start(server)
        net.agreed(40)
        if not acknowledged:  # whether it was made was open
            fresh_clients(world)
            now = found(world.ulla)
            assert now in (world.plain.scores(QUERY), world.plain.scores(QUERY, world.coming))
            if now != world.plain.scores(QUERY) or work is grant:
                world.plain.rows = ids(world)
        rebuilt(net, world, server)
        step += 7
    assert step > 1


def ids(world):
    """The rows as the servers have them now."""
    known = list(world.plain.rows.values()) + list(world.coming.values())
    encoding, rows = world.plain.encoding, {}
    quantised = {encoding.decode_rows(encoding.encode_rows(r[None]))[0].tobytes(): r for r in known}
    for batch in world.anna.batches():
        numbers, features = world.anna.rows_of(batch)
        rows |= {(batch.id, int(n)): quantised[f.tobytes()] for n, f in zip(numbers, features, strict=True)}
    return rows
