"""Records and private fetches over three real servers."""

import numpy as np
import pytest

from mipp.deployment.backups import back_up_server, restore_server
from mipp.errors import AccessDeniedError, ParameterError
from tests.conftest import DIM, vectors
from tests.network import Network


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    import mipp

    network = Network(tmp_path_factory.mktemp("net") / "d", mipp.Encoding("cosine", DIM), preview_size=1024)
    network.start().ready()
    try:
        with network.connect() as client:
            yield client
    finally:
        network.stop()


def test_records_over_a_network(world):
    anna, ulla = world.create_owner("anna"), world.create_user("ulla")
    content = [np.random.default_rng(i).bytes(20_000 * i) for i in range(12)]
    ids = anna.add_vectors(vectors(12), [(f"{i}.png", c, {"caption": f"c{i}"}) for i, c in enumerate(content)])
    anna.grant(ulla.id)
    result = ulla.search(vectors(12)[5], k=3)
    expected = [f"c{h.row}" for h in result.hits]
    assert [p.caption for p in ulla.preview(result)] == expected and expected[0] == "c5"
    assert [f.content for f in ulla.fetch(result, private=True)] == [content[h.row] for h in result.hits]
    anna.annotate({ids[5]: {"caption": "new"}})
    anna.delete([ids[6]])
    assert [p.caption for p in ulla.preview([ids[5], ids[6], ids[7]])] == ["new", "", "c7"]
    assert [r.metadata for r in anna.records(ids[4:6])] == [{"caption": "c4"}, {"caption": "new"}]
    anna.compact(merge_below=100)
    (batch,) = anna.batches()
    assert {p.caption for p in ulla.preview([(batch.id, row) for row in range(11)])} == {
        "new", *(f"c{i}" for i in range(12) if i not in (5, 6))
    }  # fmt: skip
    anna.revoke(ulla.id)
    with pytest.raises(AccessDeniedError):
        ulla.preview([(batch.id, 0)])


def test_too_much_metadata_is_refused_before_anything_is_sent(world):
    berta = world.create_owner("berta")
    with pytest.raises(ParameterError, match="largest field is 'long'"):
        berta.add_vectors(vectors(2), metadata=[None, {"a": 1, "long": "x" * 2000}])
    assert berta.batches() == []


@pytest.mark.slow
def test_records_after_a_restore(tmp_path, encoding):
    """A backup has the packs of records; what was written and counted after it is taken over from the others."""
    network = Network(tmp_path / "d", encoding, preview_size=512)
    network.start().ready()
    try:
        with network.connect() as client:
            anna, ulla = client.create_owner("anna"), client.create_user("ulla")
            ids = anna.add_vectors(vectors(20), metadata=[{"n": i} for i in range(20)])
            anna.grant(ulla.id, max_k=10, quota=10)
            assert not back_up_server(network.home(1), tmp_path / "backup")[1]
            anna.annotate({ids[3]: {"n": "new"}})
            later = anna.add_vectors(vectors(4, 2), metadata=[{"later": i} for i in range(4)])
            wanted = [ids[0], ids[3], later[2]]
            expected = [{"n": 0}, {"n": "new"}, {"later": 2}]
            assert [p.metadata for p in ulla.preview(wanted)] == expected
            network.stop(1)
            network.home(1).rename(tmp_path / "old")
            restore_server(tmp_path / "backup", network.home(1))
            network.start(1).ready()
            assert network.processes[1].repairer.repair() == (3, []), "a share file and two packs of records"
            assert [p.metadata for p in ulla.preview(wanted)] == expected
            counts = {s: [f[2] for f in network.processes[s].server.store.fetched()] for s in (1, 2)}
            assert counts == {1: [20], 2: [20]}
    finally:
        network.stop()
