"""Large requests go to the servers of one process side by side; small ones in turn."""

import threading

import numpy as np
import pytest

from mipp.errors import BusyError, StoreError
from mipp.rpc import messages as m
from mipp.rpc.channel import LocalChannel
from mipp.rpc.failures import error_to_wire
from mipp.rpc.wire import encode


def request_of(size):
    """A request without meaning whose content has so many bytes."""
    return encode(m.Signed(bytes(16), bytes(16), 1, 0, bytes(16), bytes(64), [np.zeros(size, np.uint8)]))


def refusing(error):
    return lambda frames: encode(m.Failure(*error_to_wire(error)))


@pytest.fixture(autouse=True)
def any_content(monkeypatch):
    monkeypatch.setattr("mipp.rpc.channel.kind_of_request", lambda frames: "Test")


def test_large_requests_meet():
    meeting = threading.Barrier(2, timeout=20)

    def handler(frames):
        meeting.wait()
        return encode(m.Ok())

    channel = LocalChannel({1: handler, 2: handler})
    replies = channel.gather({1: request_of(1 << 20), 2: request_of(1)})
    assert sorted(replies) == [1, 2] and all(type(r) is m.Ok for r in replies.values())


def test_small_requests_go_in_turn():
    order = []

    def handler(number):
        return lambda frames: (order.append((number, threading.current_thread())), encode(m.Ok()))[1]

    LocalChannel({n: handler(n) for n in (3, 1, 2)}).gather({n: request_of(10) for n in (2, 3, 1)})
    assert order == [(n, threading.current_thread()) for n in (2, 3, 1)]


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_the_first_refusal_is_raised(size):
    channel = LocalChannel(
        {1: refusing(StoreError("disk")), 2: refusing(BusyError("later")), 3: lambda f: encode(m.Ok())}
    )
    for order, error, server in (((3, 1, 2), StoreError, 1), ((2, 3, 1), BusyError, 2)):
        with pytest.raises(error) as raised:
            channel.gather({n: request_of(size) for n in order})
        assert raised.value.server == server
