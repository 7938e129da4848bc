"""A cloud joins a deployment that runs: the next version of its description, signed by servers of the version before.

Of n servers with threshold t, n - t must sign: t of them cannot bring in a server of their choice, and t that are away
cannot keep one out. A server signs one description of a version, ever. Nothing else of the description changes: who
has the version before checks the signatures with the identities in it, and needs no other fingerprint.

The new cloud gets no row by that. It gets the shares of an owner who sealed a part of its image keys to it, which is
the owner's consent (:meth:`mipp.client.owner.ImageOwner.register`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..crypto import signing
from ..errors import AuthenticationError, DeploymentError, ParameterError
from ..params import FINITE, INFINITY
from .addresses import require_distinct
from .cards import ROLES, ServerCard
from .description import DeploymentConfig, ServerKeys

__all__ = ["check_next", "check_signed", "proposed", "same_but_signatures", "signed_by"]

_LABEL = b"mipp v1 membership"


def proposed(config: DeploymentConfig, card: ServerCard) -> DeploymentConfig:
    """The next version of a description, with one more cloud and no signature.

    Parameters
    ----------
    config : DeploymentConfig
        The version that the servers run with.
    card : ServerCard
        Of the new cloud.

    Returns
    -------
    DeploymentConfig
        With the cloud as the server of the next number.

    Raises
    ------
    DeploymentError
        A deployment that cannot have one more cloud, a card of another role, or a name, URL or key that is there.
    """
    p = config.params
    if not config.addresses:
        raise DeploymentError("an embedded deployment has no servers of its own that could sign; make a new one")
    if p.sharing == FINITE:
        raise DeploymentError("this deployment was made when the clouds' number was fixed; make a new one")
    try:
        params = dataclasses.replace(p, n=p.n + 1)
        if params.sharing != INFINITY:
            raise ParameterError("another form of sharing")
    except ParameterError:
        count = f"{len(p.clouds)} cloud{'s' * (len(p.clouds) > 1)}"
        raise DeploymentError(f"a deployment of {count} in the scheme {p.scheme} takes no further one") from None
    if card.role != ROLES[0]:
        raise DeploymentError(f"this is the card of a {card.role}; only a cloud can join")
    (number,) = set(params.clouds) - set(p.clouds)
    servers = {**config.servers, number: ServerKeys(card.box, card.pair, card.sign)}
    addresses = {**config.addresses, number: card.address}
    require_distinct(addresses.values(), [key for s in servers.values() for key in (s.box, s.pair, s.sign)])
    return dataclasses.replace(
        config, params=params, servers=servers, addresses=addresses, version=config.version + 1, signatures={}
    )


def _statement(config: DeploymentConfig) -> bytes:
    return _LABEL + config.id + hashlib.sha256(config.unsigned).digest()


def signed_by(config: DeploymentConfig, server: int, key: Ed25519PrivateKey) -> DeploymentConfig:
    """A description with one server's signature more.

    Parameters
    ----------
    config : DeploymentConfig
        The next version.
    server : int
        Number of the server.
    key : Ed25519PrivateKey
        Its identity. Secret.

    Returns
    -------
    DeploymentConfig
        The same, with the signature.
    """
    signature = signing.sign_raw(key, _statement(config))
    return dataclasses.replace(config, signatures={**config.signatures, server: signature})


def same_but_signatures(one: DeploymentConfig, other: DeploymentConfig) -> bool:
    """Whether two descriptions differ in signatures at most."""
    return one.unsigned == other.unsigned


def check_next(config: DeploymentConfig, later: DeploymentConfig, *, signatures: int | None = None) -> int:
    """Check that a description is the next version of another one.

    Parameters
    ----------
    config : DeploymentConfig
        The version that is known.
    later : DeploymentConfig
        From anybody.
    signatures : int, optional
        How many servers of ``config`` must have signed; default all but t.

    Returns
    -------
    int
        Number of the cloud that joins.

    Raises
    ------
    DeploymentError
        Something else than one more cloud differs, too few signatures, or one that is not valid.
    """
    new = later.servers.keys() - config.servers.keys()
    address = later.addresses.get(max(new, default=0))
    if len(new) != 1 or address is None or later.version != config.version + 1:
        raise DeploymentError("this description is not the next version of the one that is known here")
    (number,) = new
    expected = dataclasses.replace(
        config, params=later.params, version=later.version, servers={**config.servers, number: later.servers[number]},
        addresses={**config.addresses, number: address},
    )  # fmt: skip
    p, q = config.params, later.params
    grown = q == dataclasses.replace(p, n=p.n + 1) and q.sharing == p.sharing and number in q.clouds
    if not grown or not same_but_signatures(expected, later):
        raise DeploymentError("more than one cloud differs between this description and the one that is known here")
    _check_signatures(later, config.servers, p.n - p.t if signatures is None else signatures)
    return number


def check_signed(config: DeploymentConfig) -> None:
    """Check that enough of the servers before the one that joined last have signed a description that is not the first.

    For those who have no earlier version: they compare the fingerprint, too.

    Parameters
    ----------
    config : DeploymentConfig
        From anybody.

    Raises
    ------
    DeploymentError
        Too few signatures, or one that is not valid.
    """
    if config.joined is not None:
        before = {i: keys for i, keys in config.servers.items() if i != config.joined}
        _check_signatures(config, before, len(before) - config.params.t)


def _check_signatures(config: DeploymentConfig, servers: Mapping[int, ServerKeys], needed: int) -> None:
    for server, signature in config.signatures.items():
        if server not in servers:
            raise DeploymentError(f"server {server} signed this description, but is no server of the version before")
        try:
            signing.verify_raw(servers[server].sign, signature, _statement(config), "description")
        except AuthenticationError:
            raise DeploymentError(
                f"the signature of server {server} is not valid: the description was changed after it was signed"
            ) from None
    if len(config.signatures) < needed:
        raise DeploymentError(
            f"{len(config.signatures)} of the servers before have signed this description, {needed} must: "
            "mipp server sign"
        )
