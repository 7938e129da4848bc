"""HTTP servers that run until the end of a test."""

import threading
import time

import pytest

from tests.rpc.running import SOON, Running


@pytest.fixture
def start(tmp_path):
    made = []

    def begin(**limits):
        made.append(Running(tmp_path, **limits))
        return made[-1]

    before = set(threading.enumerate())
    yield begin
    for running in made:
        running.server.go_on.set()
        running.channel.close()
        running.http.stop()
    until = time.monotonic() + SOON
    while set(threading.enumerate()) - before:
        assert time.monotonic() < until, threading.enumerate()
        time.sleep(0.01)


@pytest.fixture
def it(start):
    return start()
