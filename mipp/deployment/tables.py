"""Limits in ``server.toml``: each table's settings with their ranges, and how they are written and read.

A table stands for one dataclass of limits. Its defaults are those of the dataclass, which embedded deployments use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import DeploymentError
from ..mpc.outgoing import PeerLimits
from ..rpc.http_server import Connections
from ..rpc.limits import Card
from ..server.admission import RankingLimits
from ..server.rendezvous_network import REPORTED
from ..server.uploads import UploadLimits

__all__ = ["TABLES", "Setting", "Table", "number"]

_MANY = 1 << 62
_DAY = 86400
_MIB = 1 << 20


@dataclass(frozen=True)
class Setting:
    """A whole number in a table.

    Parameters
    ----------
    name : in the file
    low, high : its range
    says : a sentence for the operator
    field : of the dataclass; default the name
    unlimited : whether 0 stands for None, no limit
    """

    name: str
    low: int
    high: int
    says: str
    field: str = ""
    unlimited: bool = False


@dataclass(frozen=True)
class Table:
    """A table of ``server.toml``.

    Parameters
    ----------
    name : in the file
    limits : the dataclass
    field : of :class:`~mipp.deployment.settings.ServerSettings`
    says : a sentence for the operator
    settings : of the table, in the order of the file
    """

    name: str
    limits: type
    field: str
    says: str
    settings: tuple[Setting, ...]

    def template(self) -> str:
        """The table with each setting commented, at its default."""
        lines = ["", f"# {self.says}", f"[{self.name}]"]
        defaults = self.limits()
        for setting in self.settings:
            default = getattr(defaults, setting.field or setting.name)
            value = 0 if default is None else int(default)
            size = f" Default: {_in_units(value)}." if value and value % _MIB == 0 else ""
            lines += [f"# {setting.says}{size}", f"#{setting.name} = {value}"]
        return "\n".join([*lines, ""])

    def read(self, data: Any, file: str) -> Any:
        """The limits in a table of a file; DeploymentError names the setting."""
        if not isinstance(data, dict):
            raise DeploymentError(f"{file}: [{self.name}] is a table")
        known = {setting.name for setting in self.settings}
        for name in data:
            if name not in known:
                raise DeploymentError(
                    f"{file} has an unknown setting {f'{self.name}.{name}'[:80]!r}; [{self.name}] has "
                    + ", ".join(sorted(known))
                )
        given: dict[str, int | None] = {}
        for setting in self.settings:
            if setting.name in data:
                value = number(data[setting.name], f"{self.name}.{setting.name}", setting.low, setting.high, file)
                given[setting.field or setting.name] = None if setting.unlimited and value == 0 else value
        return self.limits(**given)


def number(value: Any, name: str, low: int, high: int, file: str) -> int:
    """A whole number in a range; DeploymentError names the setting."""
    if type(value) is not int or not low <= value <= high:
        raise DeploymentError(f"{file}: {name} is a whole number from {low} to {high}")
    return value


def _in_units(size: int) -> str:
    """Bytes in MiB, or in GiB where that is a whole number."""
    return f"{size >> 30} GiB" if size % (1 << 30) == 0 else f"{size >> 20} MiB"


#: all tables, in the order of the file
TABLES = (
    Table(
        "party", Card, "card", "Limits of each owner or user. An invitation may set the first three otherwise.",
        (
            Setting("rows", 0, _MANY, "Rows that an owner stores. 0: no limit.", unlimited=True),
            Setting("bytes", 0, _MANY, "Bytes that an owner stores, shares and images. 0: no limit.", unlimited=True),
            Setting(
                "requests_per_minute", 0, _MANY, "Requests a minute, with bursts of as many. 0: no limit.", "requests",
                unlimited=True,
            ),
            Setting("concurrent", 1, 1 << 20, "Requests at the same time."),
            Setting("reply_bytes", _MIB, _MANY, "Bytes of replies that were not read yet. A single one may have more."),
        ),
    ),
    Table(
        "connections", Connections, "connections",
        "Connections of clients. Above a limit, the one that was idle longest is closed for a new one.",
        (
            Setting("in_all", 1, 1 << 16, "Connections at the same time. Each may hold a request of 1 MiB in memory."),
            Setting("per_address", 1, 1 << 16, "Connections of one IPv4 address, or of one /64 of IPv6."),
            Setting("handshake_seconds", 1, 600, "Time for the TLS handshake."),
            Setting("idle_seconds", 45, _DAY, "Time between two requests. Clients reuse connections for 30 seconds."),
            Setting("head_seconds", 1, 600, "Time from the first byte of a request's head to its last."),
            Setting("body_seconds", 1, _DAY, "Time for the body of a request, and one second more for each 32 KiB."),
            Setting("pause_seconds", 1, _DAY, "Longest pause in the body of a request."),
            Setting("reply_seconds", 1, _DAY, "Time to send a reply, and one second more for each 512 KiB."),
        ),
    ),
    Table(
        "uploads", UploadLimits, "uploads",
        "Requests of more than 1 MiB. They are announced before their data, and the data wait on the disk.",
        (
            Setting("request_bytes", _MIB, 1 << 48, "Bytes of one request."),
            Setting("party_bytes", _MIB, _MANY, "Bytes of all requests of one party. A single one may have more."),
            Setting("bytes_in_all", _MIB, _MANY, "Bytes of all requests that have arrived."),
            Setting("per_party", 1, 1 << 16, "Requests of one party."),
            Setting("in_all", 1, 1 << 16, "Requests of all parties."),
            Setting("free_bytes", 0, _MANY, "Bytes of the disk that stay free."),
            Setting("idle_seconds", 60, 30 * _DAY, "Time without data after which a request is dropped."),
        ),
    ),
    Table(
        "rankings", RankingLimits, "rankings",
        "Searches that the servers rank. The same numbers hold for tests of owners' rows.",
        (
            Setting("per_user", 1, REPORTED, "Rankings of one user that wait, run, or were not collected."),
            Setting("in_all", 1, REPORTED, "Rankings of all users that wait, run, or were not collected."),
            Setting("bytes_per_user", _MIB, _MANY, "Bytes of the queries and results of one user."),
            Setting("bytes_in_all", _MIB, _MANY, "Bytes of the queries and results of all users."),
            Setting("at_once", 1, 64, "Rankings that run at the same time. The key centre's number counts."),
            Setting("tests_at_once", 1, 64, "Tests of rows that run at the same time. The key centre's number counts."),
            Setting("keep_seconds", 5, _DAY, "Time that a result is kept for its user."),
        ),
    ),
    Table(
        "peers", PeerLimits, "peers", "The other two servers.",
        (
            Setting("session_bytes", 64 * _MIB, 1 << 40, "Most bytes of one ranking's messages that wait in memory."),
            Setting("calls", 16, 1 << 16, "Calls of one server that wait or are answered."),
            Setting("calls_at_once", 2, 1 << 10, "Calls of one server that are answered at the same time."),
        ),
    ),
)  # fmt: skip
