"""A child process that is killed, by SIGKILL, at a chosen line of the code under test."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def run_in_child(
    start: Callable[[], Any], work: Callable[[Any], Any], watched: Callable[[str], bool], kill_at: int
) -> tuple[int, bool]:
    """Run ``work(start())`` in a child that kills itself at the kill_at-th traced line; (lines counted, acknowledged).

    Lines of ``work`` count, in the source files that are ``watched``. 0 as ``kill_at`` kills never.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            begun = start()
            count = 0

            def trace(frame, event, arg):
                nonlocal count
                if not watched(frame.f_code.co_filename):
                    return None
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return trace

            sys.settrace(trace)
            work(begun)
            sys.settrace(None)
            os.write(write, b"%d" % count)
            os._exit(0)
        except BaseException as error:
            os.write(write, f"E{error!r}".encode())
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert not said.startswith("E"), said
    assert said or os.WIFSIGNALED(status)
    return int(said or 0), bool(said)
