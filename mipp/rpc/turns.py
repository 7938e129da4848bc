"""Three parties in one process take turns at Python's interpreter lock; this makes the turns short."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

__all__ = ["short_turns"]

# A thread that wakes up waits up to one switch interval for the lock while another computes: 5 ms by default, and a
# protocol wakes threads twice a round.
_INTERVAL = 20e-6
_lock = threading.Lock()
_users = 0
_before = 0.0


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Shorten the interpreter's switch interval while parties run as threads; the last one out restores it."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = sys.getswitchinterval()
            sys.setswitchinterval(min(_INTERVAL, _before))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                sys.setswitchinterval(_before)
