"""Settings of a server, in its ``server.toml``: what its operator may choose, with defaults for everything."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DeploymentError
from ..mpc.outgoing import PeerLimits
from ..rpc.addresses import check_url
from ..rpc.http_server import Connections
from ..rpc.limits import Card
from ..server.admission import RankingLimits
from ..server.uploads import UploadLimits
from .tables import TABLES, number

__all__ = ["LOG_LEVELS", "SETTINGS_NAME", "ServerSettings"]

SETTINGS_NAME = "server.toml"
LOG_LEVELS = ("debug", "info", "warning", "error")
_MAX_BYTES = 64 << 10
_SETTINGS = ("listen", "threads", "log_level", "drain_seconds", "repair")

_TEMPLATE = """\
# Settings of a mipp server. Every line shows the default at the time of mipp server init; remove its # to change it,
# then start the server again.

# Address and port that the server listens on; the port is that of its URL unless a proxy or firewall maps it.
#listen = "{listen}"

# Native threads of all requests together; 0: one for each core.
#threads = 0

# Least level of lines in the log: {levels}.
#log_level = "info"

# Seconds that requests under way may take when the server is told to stop.
#drain_seconds = 60

# Whether a cloud has the other servers rebuild files that it lost, by itself; mipp server repair does it at any time.
#repair = true
"""


@dataclass(frozen=True)
class ServerSettings:
    """What an operator may choose for its server.

    Parameters
    ----------
    listen : str
        ``ADDRESS:PORT`` to listen on; an IPv6 address is in brackets.
    threads : int or None
        Native threads of all requests together; None for one for each core.
    log_level : str
        One of :data:`LOG_LEVELS`.
    drain_seconds : int
        Time that requests under way may take when the server stops.
    repair : bool
        Whether a cloud has lost files rebuilt by itself.
    card : Card
        Limits of each party, where its invitation sets none.
    connections : Connections
        Limits of the connections of clients.
    uploads : UploadLimits
        Limits of announced requests.
    rankings : RankingLimits
        Limits of rankings and of tests of rows.
    peers : PeerLimits
        Limits of the other servers.
    """

    listen: str
    threads: int | None = None
    log_level: str = "info"
    drain_seconds: int = 60
    repair: bool = True
    card: Card = field(default_factory=Card)
    connections: Connections = field(default_factory=Connections)
    uploads: UploadLimits = field(default_factory=UploadLimits)
    rankings: RankingLimits = field(default_factory=RankingLimits)
    peers: PeerLimits = field(default_factory=PeerLimits)

    @property
    def host(self) -> str:
        """Address to listen on, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @classmethod
    def default_listen(cls, url: str) -> str:
        """All addresses of the machine, at the port of the server's URL."""
        _, host, port = check_url(url)
        return f"[::]:{port}" if ":" in host else f"0.0.0.0:{port}"

    @classmethod
    def template(cls, url: str) -> str:
        """Text of a new ``server.toml``: every setting, commented, with its default."""
        first = _TEMPLATE.format(listen=cls.default_listen(url), levels=", ".join(LOG_LEVELS))
        return first + "".join(table.template() for table in TABLES)

    @classmethod
    def from_toml(cls, text: str, url: str) -> ServerSettings:
        """Read settings.

        Parameters
        ----------
        text : str
            TOML.
        url : str
            The server's, whose port is the default.

        Raises
        ------
        DeploymentError
            No TOML, an unknown setting, or a value out of range; the text names the setting.
        """
        if len(text) > _MAX_BYTES:
            raise DeploymentError(f"{SETTINGS_NAME} has more than {_MAX_BYTES} bytes")
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
            raise DeploymentError(f"{SETTINGS_NAME} is no TOML: {str(error)[:200]!r}") from None
        limits = {table.field: table.read(data.pop(table.name, {}), SETTINGS_NAME) for table in TABLES}
        for name in data:
            if name not in _SETTINGS:
                raise DeploymentError(
                    f"{SETTINGS_NAME} has an unknown setting {name[:80]!r}; there are {', '.join(_SETTINGS)} and the "
                    f"tables {', '.join(f'[{table.name}]' for table in TABLES)}"
                )
        listen = data.get("listen", cls.default_listen(url))
        if not _is_listen(listen):
            raise DeploymentError(f'{SETTINGS_NAME}: listen is "ADDRESS:PORT", such as "{cls.default_listen(url)}"')
        level = data.get("log_level", "info")
        if level not in LOG_LEVELS:
            raise DeploymentError(f"{SETTINGS_NAME}: log_level is one of {', '.join(LOG_LEVELS)}")
        threads = number(data.get("threads", 0), "threads", 0, 4096, SETTINGS_NAME) or None
        drain = number(data.get("drain_seconds", 60), "drain_seconds", 0, 86400, SETTINGS_NAME)
        repair = data.get("repair", True)
        if not isinstance(repair, bool):
            raise DeploymentError(f"{SETTINGS_NAME}: repair is true or false")
        return cls(listen, threads, level, drain, repair, **limits)

    @classmethod
    def load(cls, folder: Path, url: str) -> ServerSettings:
        """Read a server's folder's settings; all defaults if the file is missing. DeploymentError."""
        path = folder / SETTINGS_NAME
        try:
            with open(path, "rb") as file:
                text = file.read(_MAX_BYTES + 1).decode()
        except FileNotFoundError:
            text = ""
        except UnicodeDecodeError:
            raise DeploymentError(f"{SETTINGS_NAME} is not UTF-8 text") from None
        except OSError as error:
            raise DeploymentError(f"cannot read {path}: {error.strerror}") from None
        return cls.from_toml(text, url)


def _is_listen(value: Any) -> bool:
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,100}", value):
        return False
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        return False
    try:
        if host.startswith("[") and host.endswith("]"):
            ipaddress.IPv6Address(host[1:-1])
        else:
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
