"""A server that was restored from a backup lacks rows that nobody can rebuild: what its pages and commands say."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from mipp.cli import running
from mipp.deployment.backups import back_up_server, restore_server
from mipp.deployment.checks import check_server
from tests.conftest import vectors
from tests.network import Network

pytestmark = pytest.mark.slow


def told(command, folder):
    """What a command of an operator says, as JSON."""
    done = CliRunner().invoke(command, [str(folder), "--json"])
    return json.loads(done.output)


def check(folder):
    return [problem for problem in check_server(folder)[0] if "batches with live rows" in problem]


@pytest.mark.parametrize(("scheme", "clouds"), [("lattice", [1]), ("shares", [1, 2])])
def test_a_cloud_that_lacks_rows_says_so(tmp_path, encoding, scheme, clouds):
    network = Network(tmp_path / "n", encoding, scheme=scheme).start().ready()
    try:
        with network.connect() as client:
            anna, ulla = client.create_owner("anna"), client.create_user("ulla")
            anna.grant(ulla, rankings=("user",))
            file = tmp_path / "x.npy"
            np.save(file, vectors(20))
            backups = {cloud: tmp_path / f"backup{cloud}" for cloud in clouds}
            for cloud, backup in backups.items():
                back_up_server(network.home(cloud), backup)
            anna.add_stream(file)
            (batch,) = anna.batches()
            assert not any(s["lost_batches"] for s in client.server_states().values())
            for cloud, backup in backups.items():
                network.stop(cloud)
                home = network.home(cloud)
                home.rename(network.folder / f"old{cloud}")
                restore_server(backup, home)
                network.start(cloud).ready(30)

            states = client.server_states()
            for cloud in clouds:
                home = network.home(cloud)
                assert states[cloud]["ready"] and states[cloud]["lost_batches"] == 1
                assert told(running.status_command, home)["owners"][0]["lost"] == 1
                (problem,) = check(home)
                assert problem.startswith("the files of 1 batches") and "(mipp owner add NAME FILE...)" in problem
                assert b"mipp_lost_batches 1.0" in client.channel.get(cloud, "/metrics")[1]
            assert not states[network.config.params.key_centres[-1]]["lost_batches"]
            assert all("mipp owner delete NAME FILE" in line for line in client.repair()["problems"])

            assert [b.id for b in anna.lost_batches()] == [batch.id]
            assert anna.compact() == 0  # there is nothing to merge it with
            assert anna.add_stream(file).lost == 20
            assert anna.delete_files([file]) == (20, 0)
            again = anna.add_stream(file)
            assert (len(again.added), again.skipped, again.lost) == (20, 0, 0)
            found = ulla.search(vectors(1, 9)[0], k=20, ranking="user")
            assert len(found.hits) == 20 and not found.left_out
            assert anna.compact() == 1 and client.verify()["problems"] == []
            for cloud in clouds:
                assert told(running.status_command, network.home(cloud))["owners"][0]["lost"] == 0
                network.stop(cloud)
                assert check(network.home(cloud)) == []
    finally:
        network.stop()
