"""Servers are upgraded one after the other: each says which versions of the protocol between servers it speaks."""

import time

import pytest

from mipp.mpc import chunks
from tests.deployment.test_rotation import Work, connected

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("mine", "theirs", "common"), [
    ((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 2), (2, 3), 2), ((2, 3), (1, 1), 0),
    ((1, 1), (2, 2), 0), ((1, 1), (0, 0), 0), ((1, 1), (2, 1), 0),
])  # fmt: skip
def test_the_newest_that_both_know(monkeypatch, mine, theirs, common):
    monkeypatch.setattr(chunks, "VERSIONS", mine)
    assert chunks.common_version(*theirs) == common


def test_one_after_the_other(network, monkeypatch):
    """Servers that speak the next version, too, take the place of others while an owner and a user go on."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        for server in network.names:
            network.stop(server)
            monkeypatch.setattr(chunks, "VERSIONS", (1, 2))  # what it says when it is made
            network.start(server)
            monkeypatch.setattr(chunks, "VERSIONS", (1, 1))  # what those that are there compare with
            network.ready(20)
            connected(network)
            work.again()


def test_a_server_of_another_time_is_refused_by_name(network, monkeypatch, caplog):
    """One that speaks no version that the others know keeps nobody from working with those that do."""
    network.start().ready()
    with network.connect():
        work = Work(network)
        work.again()
        network.stop(1)
        monkeypatch.setattr(chunks, "VERSIONS", (3, 4))
        network.start(1)
        monkeypatch.setattr(chunks, "VERSIONS", (1, 1))
        until = time.monotonic() + 20
        while "speaks versions 3 to 4" not in caplog.text or "this one 1 to 1" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert not network.processes[1].server.voting
        network.stop(1)
        network.start(1).ready(20)
        connected(network)
        work.again()
