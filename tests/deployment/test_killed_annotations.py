"""Servers that are killed in the middle of an annotation or a merge of annotated rows: all agree again, all or nothing.

Clouds that have different records would fail half of all users' private fetches.
"""

import numpy as np
import pytest

import mipp
from mipp.errors import MippError
from tests.conftest import DIM, vectors
from tests.deployment.hosted import Hosted, some

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    net = Hosted(tmp_path_factory.mktemp("killed") / "net", mipp.Encoding("cosine", DIM), preview_size=512).start()
    try:
        net.agreed()
        with net.connect() as client:
            client.net, client.anna, client.ulla = net, client.create_owner("anna"), client.create_user("ulla")
            client.anna.grant(client.ulla.id)
            client.number = 0
            yield client
    finally:
        net.stop()


def fresh(stage):
    """Two batches of numbered rows, some annotated; ids and the truth."""
    for batch in stage.anna.batches():
        stage.anna.delete([(batch.id, row) for row in range(batch.rows)])
    stage.anna.compact()
    told = [{"n": n} for n in range(6)]
    ids = [
        *stage.anna.add_vectors(vectors(4), metadata=told[:4]),
        *stage.anna.add_vectors(vectors(2), metadata=told[4:]),
    ]
    stage.anna.annotate({ids[1]: {"n": "early"}})
    told[1] = {"n": "early"}
    return ids, told


def change(stage, what, ids):
    if what == "annotate":
        stage.anna.annotate({ids[0]: {"n": "new"}, ids[5]: {"n": "new"}})
    else:
        stage.anna.compact(merge_below=100)


def live(stage):
    return [(b.id, row) for b in stage.anna.batches() for row in range(b.rows) if b.live]


@pytest.mark.parametrize("what", ["annotate", "merge"])
@pytest.mark.parametrize("server", some((1, 2, 3), 1, 3))
def test_killed_meanwhile(stage, what, server):
    net = stage.net
    ids, told = fresh(stage)
    net.tell(server, "arm", 0)
    change(stage, what, ids)
    steps = net.tell(server, "count")
    errors = 0
    for kill_at in np.unique(np.linspace(1, steps, 4).astype(int)):
        ids, told = fresh(stage)
        after = [{"n": "new"}, *told[1:5], {"n": "new"}] if what == "annotate" else told
        net.tell(server, "arm", int(kill_at))
        try:
            change(stage, what, ids)
            failed = False
        except MippError:
            failed, errors = True, errors + 1
        net.kill(server)
        net.start(server)
        net.agreed()
        for _ in range(4):  # different records at the clouds fail half of all fetches
            seen = [p.metadata for p in stage.ulla.preview(live(stage))]
            assert seen in ((told, after) if failed else (after,)), (what, server, kill_at)
        assert [r.metadata for r in stage.anna.records(live(stage))] == seen
        assert not net.problems()
    assert errors, "no kill was met"
