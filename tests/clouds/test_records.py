"""Records while one of three clouds is away, over a network, and after a server was restored."""

import pytest

from tests.clouds.test_away import agree, forget_silence
from tests.conftest import vectors
from tests.network import Network

pytestmark = pytest.mark.slow


@pytest.fixture
def network(tmp_path, encoding):
    made = Network(tmp_path, encoding, clouds=3, preview_size=512)
    yield made.start().ready()
    made.stop()


@pytest.fixture
def world(network):
    with network.connect() as client:
        client.anna, client.ulla = client.create_owner("anna"), client.create_user("ulla")
        client.ids = client.anna.add_vectors(vectors(30), metadata=[{"n": i} for i in range(30)])
        client.anna.grant(client.ulla.id)
        yield client


def seen(world, ids):
    """Metadata of previews, the same at each pair of clouds."""
    found = [[p.metadata for p in world.ulla.preview(ids)] for _ in range(3)]
    assert found[0] == found[1] == found[2]
    return found[0]


def test_changes_without_a_cloud(world, network):
    ids = [world.ids[0], world.ids[7], world.ids[29]]
    assert seen(world, ids) == [{"n": 0}, {"n": 7}, {"n": 29}]
    for cloud in (2, 4, 1):
        network.stop(cloud)
        new = world.anna.add_vectors(vectors(4, cloud), metadata=[{"new": cloud}] * 4)
        world.anna.annotate({ids[1]: {"without": cloud}})
        world.anna.delete([new[3]])
        expected = [{"n": 0}, {"without": cloud}, {"n": 29}, {"new": cloud}]
        assert seen(world, [*ids, new[0]]) == expected
        forget_silence(world)
        network.start(cloud).ready()
        agree(network)
        assert seen(world, [*ids, new[0]]) == expected, "its files are not there yet, so it is passed over"
        assert network.processes[cloud].repairer.repair() == (3, []), "a share file and two packs of records"
        assert not network.processes[cloud].server.store.records.lost(read=True)
        forget_silence(world)
        assert seen(world, [*ids, new[0]]) == expected
    network.stop(2)
    world.anna.compact(merge_below=1000)
    forget_silence(world)
    network.start(2).ready()
    agree(network)
    network.processes[2].repairer.repair()
    (batch,) = world.anna.batches()
    told = seen(world, [(batch.id, row) for row in range(batch.rows)])
    assert {str(one) for one in told} == {
        *(str({"n": i}) for i in range(30) if i != 7), str({"without": 1}), *(str({"new": c}) for c in (1, 2, 4))
    }  # fmt: skip
