"""What servers and clients over a network leave in a process when they end: nothing."""

import gc
import os
import threading
import time

import pytest

from mipp.errors import DeploymentError, MippError, UnreachableError
from tests.conftest import ALL_RANKINGS, World, vectors
from tests.network import Network


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's list of open files")
def test_no_thread_and_no_socket_is_left(tmp_path, encoding):
    network = Network(tmp_path, encoding)
    gc.collect()
    threads, files = set(threading.enumerate()), open_files()
    for round_ in range(2):
        network.start().ready()
        with network.connect() as deployment:
            if not round_:
                World(deployment)
            user = deployment.user("ulla")
            for ranking in ALL_RANKINGS[:2]:
                assert len(user.search(vectors(1)[0], 5, ranking=ranking).hits) == 5
        network.stop()
        until = time.monotonic() + 5
        while set(threading.enumerate()) - threads or open_files() > files:
            assert time.monotonic() < until, (set(threading.enumerate()) - threads, open_files() - files)
            gc.collect()
            time.sleep(0.02)


def test_a_server_that_is_away_is_named_and_comes_back(tmp_path, encoding):
    """Requests fail at once with its name; when it is back the same objects go on."""
    network = Network(tmp_path, encoding).start().ready()
    try:
        with network.connect() as deployment:
            world = World(deployment)
            world.check()
            for server, name in ((1, "cloud1"), (3, "keycentre")):
                network.stop(server)
                began = time.monotonic()
                for act in (
                    lambda: world.user.search(vectors(1)[0], 5),
                    lambda: world.owners[0].add_vectors(vectors(1)),
                ):
                    with pytest.raises(UnreachableError, match=rf"server {server} \({name}\)"):
                        act()
                assert time.monotonic() - began < 5
                network.start(server).ready()
                world.check(ranking="server")
                world.plain |= dict(zip(world.owners[0].add_vectors(vectors(1)), vectors(1), strict=True))
            world.check(k=62)
    finally:
        network.stop()


def test_a_closed_deployment_says_so(tmp_path, encoding):
    network = Network(tmp_path, encoding).start().ready()
    try:
        with network.connect() as deployment:
            owner, user = deployment.create_owner("o"), deployment.create_user("u")
        for act in (user.index, lambda: owner.add_vectors(vectors(1)), owner.batches):
            with pytest.raises((DeploymentError, MippError), match="closed"):
                act()
    finally:
        network.stop()
