"""What one person has open on the page: a deployment, its owners and users, what was found. In memory alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..client.owner import ImageOwner
from ..client.user import User
from ..deployment import ConnectedDeployment, Deployment
from ..errors import MippError, NotFoundError, ParameterError
from ..io.display import shown
from .finding import Found
from .jobs import Jobs

__all__ = ["Desk", "Seat"]

#: searches that are remembered
MOST_FOUND = 50


@dataclass(eq=False)
class Seat:
    """An owner or a user that was opened, and the lock that its work takes in turn."""

    party: ImageOwner | User
    turn: threading.Lock = field(default_factory=threading.Lock)


class Desk:
    """All that a page works with.

    Parameters
    ----------
    deployment : Deployment or ConnectedDeployment
        Open, and closed by the caller.

    Attributes
    ----------
    jobs : Jobs
        Work under way.
    found : dict of int to Found
        Searches by number, oldest first. Secret.
    """

    def __init__(self, deployment: Deployment | ConnectedDeployment) -> None:
        self.deployment = deployment
        self.jobs = Jobs()
        self.found: dict[int, Found] = {}
        self._seats: dict[tuple[str, str], Seat] = {}
        self._lock = threading.Lock()
        self._count = 0

    def facts(self) -> dict[str, Any]:
        """Public facts on the deployment, who has a key file here, and who is open."""
        config = self.deployment.config
        parties = [
            {"kind": kind, "name": name, "open": (kind, name) in self._seats, "sealed": self._sealed(kind, name)}
            for kind, names in (("user", self.deployment.users()), ("owner", self.deployment.owners()))
            for name in names
        ]
        return {
            "deployment": config.id.hex(), "connected": isinstance(self.deployment, ConnectedDeployment),
            "descriptor": config.descriptor, "metric": config.encoding.metric, "scheme": config.params.scheme,
            "rankings": list(config.grantable), "record_bytes": config.record_bytes, "parties": parties,
            "notes": [shown(note, 500) for note in self.deployment.notes],
        }  # fmt: skip

    def _sealed(self, kind: str, name: str) -> bool:
        """Whether a key file needs a passphrase; a damaged one says so when it is opened."""
        try:
            return self.deployment.has_passphrase(kind, name)
        except (ValueError, OSError):
            return False

    def open(self, kind: str, name: str, passphrase: str | None) -> None:
        """Open an owner or user of this folder.

        Parameters
        ----------
        kind, name : str
            ``owner`` or ``user``, and its name.
        passphrase : str, optional
            Of its key file. Secret.

        Raises
        ------
        NotFoundError, KeyFileError
            No such party here; a wrong passphrase.
        """
        opened: dict[str, Callable[..., ImageOwner | User]] = {
            "user": self.deployment.user,
            "owner": self.deployment.owner,
        }
        if kind not in opened:
            raise ParameterError("a party is an owner or a user")
        seat = Seat(opened[kind](name, passphrase))
        with self._lock:
            self._seats.setdefault((kind, name), seat)

    def _seat(self, kind: str, name: str) -> Seat:
        seat = self._seats.get((kind, name))
        if seat is None:
            raise NotFoundError(f"{kind} {shown(name, 64)} is not open")
        return seat

    def user(self, name: str) -> tuple[User, threading.Lock]:
        """An open user, and its turn."""
        seat = self._seat("user", name)
        assert isinstance(seat.party, User)
        return seat.party, seat.turn

    def owner(self, name: str) -> tuple[ImageOwner, threading.Lock]:
        """An open owner, and its turn."""
        seat = self._seat("owner", name)
        assert isinstance(seat.party, ImageOwner)
        return seat.party, seat.turn

    def user_names(self) -> dict[str, str]:
        """Names of the users that have a key file here, by their ids in hex."""
        names = {}
        for name in self.deployment.users():
            with contextlib.suppress(MippError):
                names[self.deployment.user_id(name).hex()] = name
        return names

    def keep(self, found: Found) -> int:
        """Remember a search; the oldest is forgotten when there are too many. Its number."""
        with self._lock:
            self._count += 1
            self.found[self._count] = found
            while len(self.found) > MOST_FOUND:
                del self.found[min(self.found)]
            return self._count

    def kept(self) -> int:
        """Bytes of images that the searches keep."""
        return sum(found.kept for found in list(self.found.values()))

    def search(self, number: int) -> Found:
        """A remembered search; NotFoundError if it was forgotten."""
        found = self.found.get(number)
        if found is None:
            raise NotFoundError("this search is not remembered any more; search again")
        return found

    def forget(self, number: int | None = None) -> None:
        """Forget one search, or all."""
        with self._lock:
            for one in [number] if number is not None else list(self.found):
                self.found.pop(one, None)

    def close(self) -> None:
        """End all work and forget everything."""
        self.jobs.close(10.0)
        self.forget()
        with self._lock:
            self._seats.clear()
