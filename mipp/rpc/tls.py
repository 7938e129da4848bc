"""TLS 1.3 between parties. A server is known by the certificate in the deployment's description, not by a name.

Clients compare the certificate that a server shows with the one that the description holds, before they send anything;
no certificate authority and no clock takes part. Servers also ask each other for certificates and compare them in the
same way. So an expired certificate still works, and one that somebody else signed never does.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import ssl
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from ..errors import AuthenticationError, ParameterError, UnreachableError

__all__ = [
    "ADDRESSES",
    "HTTP",
    "MESH",
    "addresses_context",
    "check_handshake",
    "client_context",
    "connect",
    "connect_unpinned",
    "mesh_context",
    "server_context",
]

#: application protocols (ALPN) on one port: what clients speak, and what servers speak among themselves
HTTP, MESH = "http/1.1", "mipp-mesh/1"
#: HTTP for the signed list of addresses alone. A server's URL can lead to any machine; nothing is sent to one that does
#: not name this protocol
ADDRESSES = "mipp-addresses/1"
#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME: certificates are compared as a whole, so their dates say nothing
_NO_CHECK_TIME = 0x200000


def _pem(certificates: Collection[bytes]) -> str:
    return "".join(ssl.DER_cert_to_PEM_cert(c) for c in certificates)


def _pinned(context: ssl.SSLContext, trusted: Collection[bytes]) -> None:
    """Trust these certificates, each as a whole, and no other."""
    context.verify_flags = ssl.VerifyFlags(
        ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_TRUSTED_FIRST | _NO_CHECK_TIME
    )
    if trusted:
        context.load_verify_locations(cadata=_pem(trusted))


def client_context() -> ssl.SSLContext:
    """Make the context of a client; :func:`connect` compares the server's certificate.

    Returns
    -------
    SSLContext
        TLS 1.3 only. It verifies nothing by itself.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([HTTP])
    return context


def addresses_context() -> ssl.SSLContext:
    """Make the context for :func:`connect_unpinned`.

    Returns
    -------
    SSLContext
        TLS 1.3 only, with the protocol for addresses.
    """
    context = client_context()
    context.set_alpn_protocols([ADDRESSES])
    return context


def server_context(
    certificate: Path, key: Path, peers: Mapping[int, Collection[bytes]] | None = None
) -> ssl.SSLContext:
    """Make the context of a server that clients and other servers connect to.

    A server that connects names itself (SNI), and is compared with its own certificates alone. In one list of all
    servers' certificates one server could name a certificate that makes OpenSSL refuse another one's: it looks for
    issuers by name.

    Parameters
    ----------
    certificate, key : Path
        PEM files of this server.
    peers : mapping of int to collection of bytes, optional
        Certificates (DER) of each other server, by its number. Clients show none.

    Returns
    -------
    SSLContext
        TLS 1.3 only, with both application protocols.
    """
    context = _accepting(certificate, key, ())
    if peers:
        contexts = {_name(i): _accepting(certificate, key, trusted) for i, trusted in peers.items()}

        def choose(sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name in contexts:
                sock.context = contexts[name]

        context.sni_callback = choose
    return context


def _accepting(certificate: Path, key: Path, trusted: Collection[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([MESH] if trusted else [HTTP, ADDRESSES])
    context.verify_mode = ssl.CERT_OPTIONAL
    _pinned(context, trusted)
    return context


def _name(server: int) -> str:
    """Under which a server introduces itself to another one."""
    return f"server-{server}.mipp.invalid"


class _MeshContext(ssl.SSLContext):
    """Context of a server, with the name under which it introduces itself."""

    me: str


def mesh_context(certificate: Path, key: Path, peer: Collection[bytes], server: int) -> ssl.SSLContext:
    """Make the context of a server that connects to another server.

    Parameters
    ----------
    certificate, key : Path
        PEM files of this server.
    peer : collection of bytes
        Certificates (DER) that the other server may show.
    server : int
        Number of this server.

    Returns
    -------
    SSLContext
        TLS 1.3 only, with the servers' application protocol.
    """
    context = _MeshContext(ssl.PROTOCOL_TLS_CLIENT)
    context.me = _name(server)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    _pinned(context, peer)
    context.set_alpn_protocols([MESH])
    return context


def check_handshake(certificate: Path, key: Path, der: bytes) -> None:
    """Try out, in memory, whether a server can use a certificate: to be connected to, and to connect to others.

    Parameters
    ----------
    certificate, key : Path
        PEM files.
    der : bytes
        What others will know it by.

    Raises
    ------
    ParameterError
        TLS refuses it; a certificate for servers alone, for one, which is no certificate of a client.
    """
    try:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        me = mesh_context(certificate, key, [der], 1)
        server = server_context(certificate, key, {1: [der]}).wrap_bio(to_server, to_client, server_side=True)
        client = me.wrap_bio(to_client, to_server, server_hostname=_name(1))
        for _ in range(4):
            for end in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        with contextlib.suppress(ssl.SSLWantReadError):  # TLS 1.3 tells a client of a refusal only then
            client.read(1)
        if not server.getpeercert(binary_form=True) or client.getpeercert(binary_form=True) != der:
            raise ParameterError("servers cannot show this certificate to each other")
    except (ssl.SSLError, OSError, ValueError) as error:
        if isinstance(error, ParameterError):
            raise
        reason = getattr(error, "reason", "") or type(error).__name__
        raise ParameterError(
            f"servers cannot use this certificate ({reason}): it must serve for servers and for clients"
        ) from None


def connect(
    host: str, port: int, context: ssl.SSLContext, certificates: Collection[bytes], seconds: float, who: str
) -> ssl.SSLSocket:
    """Connect to a server and compare its certificate.

    Parameters
    ----------
    host, port
        Its address.
    context : SSLContext
        Of :func:`client_context` or :func:`mesh_context`.
    certificates : collection of bytes
        Certificates (DER) that it may show.
    seconds : float
        Time limit of all together.
    who : str
        Name of the server, for errors.

    Returns
    -------
    SSLSocket
        The connection, with that time limit.

    Raises
    ------
    UnreachableError
        Nobody answers at this address, or not by TLS 1.3.
    AuthenticationError
        Somebody else answers.
    """
    until = time.monotonic() + seconds
    secured = _dialled(host, port, context, seconds, who)
    shown = secured.getpeercert(binary_form=True) or b""
    if not any(hmac.compare_digest(shown, known) for known in certificates):
        with contextlib.suppress(OSError):
            secured.close()
        raise AuthenticationError(_other(who))
    secured.settimeout(max(until - time.monotonic(), 0.01))
    return secured


def connect_unpinned(host: str, port: int, seconds: float, who: str) -> ssl.SSLSocket:
    """Connect to whoever answers in place of a server, to exchange what is public and signed, and nothing else.

    Parameters
    ----------
    host, port, seconds, who
        As of :func:`connect`.

    Returns
    -------
    SSLSocket
        The connection. Who is at its other end is not known.

    Raises
    ------
    UnreachableError
        Nobody answers at this address, or somebody who does not speak the protocol for addresses.
    """
    secured = _dialled(host, port, addresses_context(), seconds, who)
    if secured.selected_alpn_protocol() != ADDRESSES:
        with contextlib.suppress(OSError):
            secured.close()
        raise UnreachableError(f"{who} tells no addresses of servers")
    return secured


def _dialled(host: str, port: int, context: ssl.SSLContext, seconds: float, who: str) -> ssl.SSLSocket:
    """A connection whose other end was not compared with anything yet."""
    until = time.monotonic() + seconds
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((host, port), timeout=seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(max(until - time.monotonic(), 0.01))
        me = context.me if isinstance(context, _MeshContext) else None
        return context.wrap_socket(sock, server_hostname=me)
    except ssl.SSLCertVerificationError:
        if sock is not None:
            sock.close()
        raise AuthenticationError(_other(who)) from None
    except OSError as error:
        if sock is not None:
            sock.close()
        reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or "the connection broke")
        raise UnreachableError(f"{who} cannot be reached at {host}:{port} ({reason})") from None


def _other(who: str) -> str:
    return f"whoever answers in place of {who} has another certificate than those that the server is known by"
