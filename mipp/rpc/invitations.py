"""Invitations: a registrar's signed permission for one party to register, with that party's limits."""

from __future__ import annotations

import base64
import dataclasses
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..crypto import signing
from ..crypto.schedule import random_bytes
from ..errors import AccessDeniedError, AuthenticationError, MessageError, ParameterError
from .description import DeploymentConfig
from .grants import time_text
from .limits import MAX_EXPIRY
from .names import check_name

__all__ = ["KINDS", "Invitation", "check_invitation", "invite"]

#: kinds of parties, by their number in an invitation, from 1
KINDS = ("owner", "user")
_LABEL = b"mipp v1 invitation"
_PREFIX = "mipp-invitation-"
#: version, deployment, kind, id, expiry, rows, bytes, requests a minute, length of the name; then the name
_HEAD = struct.Struct(">B16sB16sQQQQB")
_VERSION, _SIGNATURE = 1, 64
_MAX_BYTES = _HEAD.size + 200 + _SIGNATURE
#: exclusive limit of rows, bytes and requests: SQLite holds signed 64-bit integers
_MAX_LIMIT = 1 << 62


@dataclass(frozen=True, repr=False)
class Invitation:
    """A registrar's signed permission for one party to register. It is used once; until then keep it as a password.

    Parameters
    ----------
    deployment : bytes
        Id of the deployment, 16 bytes.
    kind : str
        ``owner`` or ``user``.
    name : str
        Name that the party registers with.
    expiry : int
        Unix seconds from which on it is refused.
    max_rows, max_bytes : int, optional
        Rows and bytes that the owner may store; None leaves it to each server. Only for owners.
    requests : int, optional
        Requests a minute that each server answers; None leaves it to each server.
    id : bytes
        16 random bytes.
    signature : bytes
        Ed25519 signature of the registrar, 64 bytes; empty before it is signed.

    Raises
    ------
    ParameterError
        A value that is not as described.
    """

    deployment: bytes
    kind: str
    name: str
    expiry: int
    max_rows: int | None = None
    max_bytes: int | None = None
    requests: int | None = None
    id: bytes = dataclasses.field(default_factory=lambda: random_bytes(16))
    signature: bytes = b""

    def __post_init__(self) -> None:
        if len(self.deployment) != 16 or len(self.id) != 16 or len(self.signature) not in (0, _SIGNATURE):
            raise ParameterError("an invitation has two ids of 16 bytes and a signature of 64")
        if self.kind not in KINDS:
            raise ParameterError("an invitation is for an owner or a user")
        if check_name(self.name) != self.name:
            raise ParameterError("a name is NFC-normalised")
        if type(self.expiry) is not int or not 0 < self.expiry < MAX_EXPIRY:
            raise ParameterError("an invitation ends at some time, in Unix seconds")
        if self.kind == "user" and (self.max_rows, self.max_bytes) != (None, None):
            raise ParameterError("a user stores nothing: limits of rows and bytes are for owners")
        for limit in (self.max_rows, self.max_bytes, self.requests):
            if limit is not None and (type(limit) is not int or not 0 < limit < _MAX_LIMIT):
                raise ParameterError("limits of an invitation are whole numbers from 1 on")

    def __repr__(self) -> str:
        return f"Invitation({self.kind!r}, {self.name!r})"

    def _signed(self) -> bytes:
        """The bytes that the signature covers, without its label."""
        limits = (self.max_rows or 0, self.max_bytes or 0, self.requests or 0)
        kind = KINDS.index(self.kind) + 1
        name = self.name.encode()
        return _HEAD.pack(_VERSION, self.deployment, kind, self.id, self.expiry, *limits, len(name)) + name

    def to_bytes(self) -> bytes:
        return self._signed() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Invitation:
        """Inverse of :meth:`to_bytes`; MessageError for anything else. The signature is not checked."""
        wrong = MessageError("malformed invitation")
        if not _HEAD.size + _SIGNATURE < len(data) <= _MAX_BYTES:
            raise wrong
        version, deployment, kind, identity, expiry, *limits, length = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise MessageError(f"an invitation of version {version}; this program knows version {_VERSION}")
        if not 1 <= kind <= len(KINDS) or len(data) != _HEAD.size + length + _SIGNATURE:
            raise wrong
        rows, size, requests = (limit or None for limit in limits)
        try:
            name = data[_HEAD.size : -_SIGNATURE].decode()
            return cls(deployment, KINDS[kind - 1], name, expiry, rows, size, requests, identity, data[-_SIGNATURE:])
        except (UnicodeDecodeError, ParameterError):
            raise wrong from None

    def to_text(self) -> str:
        """The invitation as one line to copy and paste."""
        return _PREFIX + base64.urlsafe_b64encode(self.to_bytes()).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Invitation:
        """Inverse of :meth:`to_text`, without white space around it; ParameterError for anything else."""
        text = text[: 4 * _MAX_BYTES].strip()
        body = text.removeprefix(_PREFIX)
        try:
            if body == text or len(body) > 2 * _MAX_BYTES:
                raise ValueError
            found = cls.from_bytes(base64.b64decode(body + "=" * (-len(body) % 4), b"-_", validate=True))
            if found.to_text() != text:
                raise ValueError
        except (ValueError, MessageError):
            raise ParameterError(f"this is no invitation: one is a line that begins with {_PREFIX}") from None
        return found


def invite(invitation: Invitation, key: Ed25519PrivateKey) -> Invitation:
    """Sign an invitation with the registrar's key.

    Parameters
    ----------
    invitation : Invitation
        The invitation, signed or not.
    key : Ed25519PrivateKey
        The registrar's. Secret.

    Returns
    -------
    Invitation
        The same, signed.
    """
    return dataclasses.replace(invitation, signature=signing.sign_raw(key, _LABEL + invitation._signed()))


def check_invitation(
    config: DeploymentConfig, invitation: Invitation | None, kind: str, name: str, now: float | None
) -> None:
    """Check whether a party may register: the rules that clients and servers share.

    Parameters
    ----------
    config : DeploymentConfig
        Description of the deployment, which names the registrar.
    invitation : Invitation or None
        As the party gave it.
    kind, name : str
        ``owner`` or ``user``, and the name that it registers with.
    now : float or None
        Unix seconds; None if another server accepted the invitation before, so that its end does not matter.

    Raises
    ------
    AccessDeniedError
        There is none where one is needed, or one where none is; it is another party's, another deployment's, or ended.
    AuthenticationError
        It is not signed by this deployment's registrar.
    """
    if not config.registrar:
        if invitation is not None:
            raise AccessDeniedError("this deployment takes no invitations: register without one")
        return
    if invitation is None:
        raise AccessDeniedError(f"this deployment takes {kind}s by invitation only; ask its registrar for one")
    if invitation.deployment != config.id:
        raise AccessDeniedError("the invitation is for another deployment")
    try:
        signing.verify_raw(config.registrar, invitation.signature, _LABEL + invitation._signed(), "invitation")
    except AuthenticationError:
        raise AuthenticationError("the invitation is not signed by this deployment's registrar") from None
    if (invitation.kind, invitation.name) != (kind, name):
        raise AccessDeniedError(f"the invitation is for {invitation.kind} {invitation.name}, not for {kind} {name!r}")
    if now is not None and now >= invitation.expiry:
        raise AccessDeniedError(
            f"the invitation ended at {time_text(invitation.expiry)} (it is {time_text(int(now))} here); "
            "ask the registrar for a new one"
        )
