"""Where a server is reached: its name, URL and certificate, all checked before anything dials or prints them."""

from __future__ import annotations

import functools
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass

from ..crypto.certificates import certificate_pin
from ..errors import DeploymentError, ParameterError
from .names import check_name

__all__ = ["Address", "check_server_name", "check_url", "require_distinct"]

_MAX_URL = 300
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


def check_server_name(name: str) -> str:
    """The name of a server, NFC-normalised: as for parties, and at most 64 bytes, as its certificate names it.

    Raises
    ------
    ParameterError
        Any other name.
    """
    name = check_name(name)
    if len(name.encode()) > 64:
        raise ParameterError("a server's name has at most 64 bytes of UTF-8")
    return name


def check_url(url: str) -> tuple[str, str, int]:
    """The URL in its one form (lower case, no slash at the end), its host and its port.

    A URL is ``https://HOST:PORT``: a host name in ASCII, an IPv4 address or an IPv6 address in brackets, and a port. No
    path, user, query or fragment.

    Raises
    ------
    ParameterError
        Any other text.
    """
    wrong = ParameterError(f"a server's URL is https://HOST:PORT, such as https://north.example:7443, not {url!r:.80}")
    if not isinstance(url, str) or len(url) > _MAX_URL or not re.fullmatch(r"[!-~]+", url):
        raise wrong
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise wrong from None
    if parts.scheme != "https" or not host:
        raise wrong
    shown, port = _host(host), parts.netloc.rpartition(":")[2]
    if shown is None or not _PORT.fullmatch(port) or int(port) > 65535:
        raise wrong
    made = f"https://{shown}:{port}"
    if url.lower() != made:  # an IPv6 address is written in its shortest form
        raise wrong
    return made, shown.strip("[]"), int(port)


def _host(host: str) -> str | None:
    """A host as a URL shows it, or None for what is none."""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            return None
        return None if address.scope_id is not None else f"[{address.compressed}]"
    labels = host.lower().split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    if labels[-1].isdigit():  # nothing but an IPv4 address ends so
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None
    return host.lower()


@dataclass(frozen=True)
class Address:
    """Where a server of a deployment is reached, and how it is known there.

    Parameters
    ----------
    name : str
        Name of the server, unique in the deployment.
    url : str
        ``https://HOST:PORT``.
    certificate : bytes
        Its whole TLS certificate, DER.

    Raises
    ------
    DeploymentError
        A value that is not as described.
    """

    name: str
    url: str
    certificate: bytes

    def __post_init__(self) -> None:
        try:
            if check_server_name(self.name) != self.name or check_url(self.url)[0] != self.url:
                raise ParameterError("a server's name is NFC-normalised, and its URL is in lower case")
            certificate_pin(self.certificate)
        except ParameterError as error:
            raise DeploymentError(str(error)) from None

    def __repr__(self) -> str:
        return f"Address({self.name!r}, {self.url!r})"

    @property
    def host(self) -> str:
        """Host name or IP address, without brackets."""
        return check_url(self.url)[1]

    @property
    def port(self) -> int:
        return check_url(self.url)[2]

    @functools.cached_property
    def pin(self) -> bytes:
        """SHA-256 of the certificate's public key (SubjectPublicKeyInfo), 32 bytes."""
        return certificate_pin(self.certificate)


def require_distinct(addresses: Iterable[Address], keys: Iterable[bytes]) -> None:
    """Check that servers differ from each other.

    Parameters
    ----------
    addresses : iterable of Address
        All servers' addresses.
    keys : iterable of bytes
        All servers' public keys.

    Raises
    ------
    DeploymentError
        Two servers have the same name (upper and lower case taken as one), URL, TLS key or other key.
    """
    found, all_keys = list(addresses), list(keys)
    for what, values in (
        ("name", [a.name.casefold() for a in found]),
        ("URL", [a.url for a in found]),
        ("TLS key", [a.pin for a in found]),
        ("key", all_keys),
    ):
        if len(set(values)) != len(values):
            raise DeploymentError(f"two servers have the same {what}; each has its own")
