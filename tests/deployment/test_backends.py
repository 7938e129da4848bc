"""Servers whose products run on workers: the same answers, the operator sees what they do, nothing is left of them."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mipp
from mipp.deployment.backends import BackendChoice
from mipp.deployment.serving import ServerProcess
from mipp.encoding.clusters import Clusters
from mipp.errors import DeploymentError, ParameterError
from mipp.params import Params
from mipp.rpc import messages as m
from tests.network import Network

ROWS = np.random.default_rng(3).normal(size=(40_000, 12)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "gpu"}, "cpu, dask"),
        ({"workers": 2}, "add --backend dask"),
        ({"scheduler": "tls://a:1"}, "add --backend dask"),
        ({"name": "dask"}, "either workers"),
        ({"name": "dask", "workers": 1, "scheduler": "tls://a:1"}, "either workers"),
        ({"name": "dask", "workers": -1}, "1 to 1024"),
    ],
)
def test_choices_that_make_no_sense(options, text):
    with pytest.raises(ParameterError, match=text):
        BackendChoice(**options)


def test_a_scheduler_needs_a_certificate(tmp_path):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    choice, params = BackendChoice("dask", scheduler="tls://127.0.0.1:1"), Params(3, 1, 32)
    with pytest.raises(DeploymentError, match=r"ca\.pem is missing"):
        choice.make(tmp_path, params, 1)
    (tmp_path / "cluster").mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / "cluster" / name).write_text("")
        (tmp_path / "cluster" / name).chmod(0o644)
    with pytest.raises(DeploymentError, match="others can read"):
        choice.make(tmp_path, params, 1)
    (tmp_path / "cluster" / "key.pem").chmod(0o600)
    with pytest.raises(ParameterError, match="over TLS"):
        BackendChoice("dask", scheduler="tcp://127.0.0.1:1").make(tmp_path, params, 1)


def told(result):
    return [(h.batch, h.row, h.score) for h in result.hits]


@pytest.mark.slow  # starts worker processes
@pytest.mark.parametrize("seconds", [0.0, 2.0, 12.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_stopped_says_so_in_one_line(tmp_path, number, seconds):
    """Ctrl-C reaches the whole group of processes, while workers start or later."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    network = Network(tmp_path, mipp.Encoding("cosine", 12))
    command = [sys.executable, "-m", "mipp", "server", "run", str(network.home(1)), "--backend", "dask"]
    process = subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "starting 2 workers\n"
        time.sleep(seconds)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out.splitlines()[-1] == "stopping" and len(out.splitlines()) <= 2
    assert all(line.startswith("{") for line in err.splitlines()), err


@pytest.mark.slow
def test_a_cloud_and_the_key_centre_on_workers(tmp_path):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    network = Network(tmp_path, mipp.Encoding("cosine", 12)).start().ready()
    try:
        with network.connect() as client:
            owner, user = client.create_owner("anna"), client.create_user("ulla")
            owner.add_vectors(ROWS[:30_000])
            owner.add_vectors(ROWS[30_000:30_010])
            owner.delete([(owner.batches()[0].id, row) for row in range(0, 100, 3)])
            owner.compact(merge_below=0)
            owner.grant(user.id, rankings=("user", "server", "threshold"))
            asked = [(q, ranking) for q in ROWS[:3] for ranking in ("user", "server")]
            before = [told(user.search(q, 20, ranking=ranking)) for q, ranking in asked]
        network.stop(1, 3)
        for server in (1, 3):
            network.processes[server] = ServerProcess(network.home(server), BackendChoice("dask", workers=1))
        for server in (1, 3):
            network.processes[server].start()
        network.ready(20)
        with network.connect() as client:
            owner, user = client.owner("anna"), client.user("ulla")
            assert [told(user.search(q, 20, ranking=ranking)) for q, ranking in asked] == before
            pools = [network.processes[s].server.backend.pool for s in (1, 3)]
            assert all(sum(c.tasks for c in pool.counts.values()) for pool in pools)
            page = network.processes[1].server.metrics.page().decode()
            assert 'mipp_worker_rows{worker="tls://127.0.0.1' in page and network.processes[1].reasons() == []
            # a worker that dies is started again, and costs one search some time
            for worker in pools[0].client.cluster.workers.values():
                os.kill(worker.pid, signal.SIGKILL)
            assert told(user.search(ROWS[0], 20)) == before[1]
            owner.forget()
        children = [w.pid for pool in pools for w in pool.client.cluster.workers.values()]
        network.stop()
        until = time.monotonic() + 10
        while any(os.path.exists(f"/proc/{pid}") for pid in children):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        network.stop()


@pytest.mark.slow  # starts worker processes
def test_searches_of_chosen_clusters_on_workers(tmp_path):
    """All three servers: large batches in files, one of them compacted; small ones; deleted rows."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    encoding = mipp.Encoding("cosine", 12)
    clusters = Clusters.fit(encoding, ROWS[:2000], 16, 4, least=3)
    network = Network(tmp_path, encoding, clusters=clusters).start().ready()
    try:
        with network.connect() as client:
            owner, user = client.create_owner("anna"), client.create_user("ulla")
            ids = [i for some in (ROWS[:30_000], ROWS[9000:39_000] + 1) for i in owner.add_vectors(some)]
            owner.add_vectors(ROWS[39_000:39_900])  # with clusters, too
            owner.add_vectors(ROWS[39_900:39_910])
            owner.delete([i for i in ids if i[0] == ids[0][0]][::7])
            owner.ask_present(m.Compact(owner.id), (1, 2))
            owner.delete([i for i in ids if i[0] == ids[-1][0]][::50])
            owner.grant(user.id, rankings=("server", "probe"))
            before = [told(user.search(q, 20, probe=True)) for q in ROWS[:4]]
            together = [told(result) for result in user.search_batch(ROWS[:4], 20, probe=True)]
            assert together == before
        network.stop()
        for server in (1, 2, 3):
            network.processes[server] = ServerProcess(network.home(server), BackendChoice("dask", workers=1))
        for process in network.processes.values():
            process.start()
        network.ready(30)
        with network.connect() as client:
            user = client.user("ulla")
            assert [told(user.search(q, 20, probe=True)) for q in ROWS[:4]] == before
            assert [told(result) for result in user.search_batch(ROWS[:4], 20, probe=True)] == before
            for server in (1, 2, 3):
                counts = network.processes[server].server.backend.pool.counts.values()
                assert sum(c.tasks for c in counts) >= 5 and sum(c.rows for c in counts) > 5 * 58_000
    finally:
        network.stop()
