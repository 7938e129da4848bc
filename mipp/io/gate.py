"""A total that threads share: each waits until what it needs fits beside what others hold."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

__all__ = ["Gate"]


class Gate:
    """Bounds what all threads hold together.

    Parameters
    ----------
    most : int
        Most that is held at a time, such as pixels.

    Examples
    --------
    >>> from mipp.io.gate import Gate
    >>> gate = Gate(100)
    >>> with gate.holding(60), gate.holding(40):
    ...     gate.held
    100
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Hold an amount; waits for its turn, in the order of arrival, and for room.

        Parameters
        ----------
        amount : int
            More than ``most`` counts as ``most``: it is held alone.

        Returns
        -------
        context manager
            Of nothing; the amount is given back when the statement ends.
        """
        amount, turn = min(amount, self.most), object()
        with self._changed:
            self._waiting.append(turn)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is turn and self.held + amount <= self.most)
                self.held += amount
            finally:  # also when it is interrupted
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.held -= amount
                self._changed.notify_all()
