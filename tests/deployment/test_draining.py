"""A server that is told to stop ends what it began: users get results that were under way."""

import threading
import time

import pytest

from mipp.errors import MippError
from tests.conftest import vectors
from tests.network import searched

QUERY = vectors(1, 7)[0]


@pytest.mark.parametrize("server", [1, 3])
def test_a_ranking_under_way_ends_before_its_server_does(tmp_path, server, monkeypatch):
    with searched(tmp_path) as client:
        user, process = client.user("ulla"), client.network.processes[server]
        expected, began, found = user.search(QUERY, 3), threading.Event(), []
        real = process.server.scheme.fill

        def slow(*values):
            began.set()
            time.sleep(1.0)  # longer than a request thread waits: the user collects the result later
            real(*values)

        monkeypatch.setattr(process.server.scheme, "fill", slow)
        searching = threading.Thread(target=lambda: found.append(user.search(QUERY, 3)))
        searching.start()
        assert began.wait(10)
        stopping = threading.Thread(target=process.stop, args=(20.0,))
        before = time.monotonic()
        stopping.start()
        while not process.site.draining:
            time.sleep(0.01)
        with pytest.raises(MippError):  # nothing new
            client.user("ulla").search(QUERY, 2)
        searching.join(20)
        stopping.join(20)
        assert [h.id for h in found[0].hits] == [h.id for h in expected.hits]
        assert time.monotonic() - before < 15
        client.network.processes.pop(server)


def test_a_server_without_work_stops_at_once(tmp_path):
    with searched(tmp_path) as client:
        client.user("ulla").search(QUERY, 3)
        before = time.monotonic()
        assert client.network.processes.pop(1).stop(30.0)
        assert time.monotonic() - before < 8
