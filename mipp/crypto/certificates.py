"""TLS certificates of servers: made self-signed, taken from an operator's PEM files, and named by their public key."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from ..errors import AuthenticationError, ParameterError

__all__ = [
    "MAX_CERTIFICATE_BYTES",
    "MAX_PROOF_BYTES",
    "ServerTls",
    "certificate_pem",
    "certificate_pin",
    "check_possession",
    "make_tls",
    "operator_tls",
    "prove_possession",
]

#: most bytes of a certificate (DER), and of an operator's PEM file
MAX_CERTIFICATE_BYTES, _MAX_PEM = 16 << 10, 256 << 10
#: most bytes of a proof of possession: a signature of RSA with 8192 bits
MAX_PROOF_BYTES = 1024
_FORMATS = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, repr=False)
class ServerTls:
    """A server's TLS key and certificate.

    Parameters
    ----------
    key : bytes
        PEM of the private key, PKCS 8 without a passphrase. Secret.
    chain : bytes
        PEM of the certificate, and of those above it that an operator gave.
    certificate : bytes
        The server's own certificate, DER.
    """

    key: bytes
    chain: bytes
    certificate: bytes


def make_tls(name: str, host: str, *, now: datetime | None = None) -> ServerTls:
    """Make an EC P-256 key and a self-signed certificate for it, from OS randomness.

    Parameters
    ----------
    name : str
        Common name of the certificate, at most 64 bytes.
    host : str
        Host name or IP address that clients dial; its alternative name.
    now : datetime, optional
        With a time zone; default this machine's clock.

    Returns
    -------
    ServerTls
        Valid from 30 days ago, so that clocks may differ, to the end of the year 9999: pins decide, not dates.
    """
    now = datetime.now(UTC) if now is None else now
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - timedelta(days=30)).replace(microsecond=0))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([_host_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return ServerTls(key.private_bytes(*_FORMATS), certificate_pem(der), der)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def operator_tls(chain: bytes, key: bytes, *, dated: bool = True) -> ServerTls:
    """Take an operator's own TLS key and certificate.

    Parameters
    ----------
    chain : bytes
        PEM: the server's certificate first, then those above it, if any.
    key : bytes
        PEM of the private key, without a passphrase. Secret.
    dated : bool
        Whether the certificate must be valid now, by this machine's clock.

    Returns
    -------
    ServerTls
        The same key and certificates.

    Raises
    ------
    ParameterError
        A file that is no PEM or too large, a key that is not the certificate's, a kind of key that TLS 1.3 servers do
        not use, a certificate that is not valid now. The text holds no content of the files.
    """
    if len(chain) > _MAX_PEM or len(key) > _MAX_PEM:
        raise ParameterError(f"a PEM file of a certificate or key has at most {_MAX_PEM} bytes")
    try:
        own = x509.load_pem_x509_certificates(chain)[0]
        der = own.public_bytes(serialization.Encoding.DER)
    except Exception:
        raise ParameterError("the certificate is no PEM file of X.509 certificates") from None
    public = _public_bytes(_parsed(der))
    try:
        private = serialization.load_pem_private_key(key, None)
        same = private.public_key().public_bytes(*_PUBLIC) == public
    except TypeError:
        raise ParameterError("the TLS key has a passphrase; give a PEM file without one (mode 0600)") from None
    except Exception:
        raise ParameterError("the TLS key is no PEM file of a private key") from None
    if not same:
        raise ParameterError("the TLS key is not that of the certificate (the first one of its file)")
    now = datetime.now(UTC)
    if dated and not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        raise ParameterError(
            f"the certificate is valid from {own.not_valid_before_utc:%Y-%m-%d} to {own.not_valid_after_utc:%Y-%m-%d}, "
            f"not now ({now:%Y-%m-%d})"
        )
    return ServerTls(private.private_bytes(*_FORMATS), chain, der)


_PUBLIC = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


def _parsed(certificate: bytes) -> x509.Certificate:
    """A certificate from any bytes; ParameterError for what is none."""
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise ParameterError(f"a certificate has at most {MAX_CERTIFICATE_BYTES} bytes")
    try:
        found = x509.load_der_x509_certificate(certificate)
        whole = found.public_bytes(serialization.Encoding.DER) == certificate
        # TLS has a parser of its own, which refuses some that this one takes
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificate)
    except Exception:  # bytes of strangers: the parser has many errors of its own
        whole = False
    if not whole:
        raise ParameterError("this is no X.509 certificate")
    return found


def _public_bytes(certificate: x509.Certificate) -> bytes:
    """SubjectPublicKeyInfo of a certificate whose key TLS 1.3 can use."""
    try:
        public = certificate.public_key()
        usable = (
            isinstance(public, ed25519.Ed25519PublicKey)
            or (isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, _CURVES))
            or (isinstance(public, rsa.RSAPublicKey) and 2048 <= public.key_size <= 8192)
        )
        encoded = public.public_bytes(*_PUBLIC)
    except Exception:
        usable = False
    if not usable:
        raise ParameterError("a certificate's key is EC P-256, P-384, P-521, Ed25519, or RSA of 2048 to 8192 bits")
    return encoded


def certificate_pin(certificate: bytes) -> bytes:
    """Pin of a certificate: SHA-256 of its public key (SubjectPublicKeyInfo).

    Parameters
    ----------
    certificate : bytes
        DER, from anybody.

    Returns
    -------
    bytes
        32 bytes. Public.

    Raises
    ------
    ParameterError
        It is no certificate, too large, or of a kind of key that servers do not use.
    """
    return hashlib.sha256(_public_bytes(_parsed(certificate))).digest()


def certificate_pem(certificate: bytes) -> bytes:
    """Write a certificate as PEM.

    Parameters
    ----------
    certificate : bytes
        DER.

    Returns
    -------
    bytes
        PEM. Public.

    Raises
    ------
    ParameterError
        It is no certificate.
    """
    return _parsed(certificate).public_bytes(serialization.Encoding.PEM)


# --- proofs of possession -------------------------------------------------------------------------------------------

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def prove_possession(key: bytes, statement: bytes) -> bytes:
    """Sign a statement with a TLS key, so that nobody can claim the certificate of another server as its own.

    Parameters
    ----------
    key : bytes
        PEM of the private key, without a passphrase. Secret.
    statement : bytes
        Begins with a label of its own, so that it is never part of a TLS handshake.

    Returns
    -------
    bytes
        Signature: ECDSA or RSA-PSS with SHA-256, or Ed25519. Public.

    Raises
    ------
    ParameterError
        It is no PEM of such a key.
    """
    try:
        private = serialization.load_pem_private_key(key, None)
    except Exception:
        raise ParameterError("the TLS key is no PEM file of a private key") from None
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.sign(statement, ec.ECDSA(hashes.SHA256()))
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(statement, _PSS, hashes.SHA256())
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.sign(statement)
    raise ParameterError("a TLS key is of EC, RSA or Ed25519")


def check_possession(certificate: bytes, proof: bytes, statement: bytes) -> None:
    """Check a proof of possession.

    Parameters
    ----------
    certificate : bytes
        DER, from anybody.
    proof : bytes
        Made by :func:`prove_possession`.
    statement : bytes
        The statement that was signed.

    Raises
    ------
    ParameterError
        It is no certificate, or of a kind of key that servers do not use.
    AuthenticationError
        Whoever made the proof does not have the certificate's key.
    """
    parsed = _parsed(certificate)
    _public_bytes(parsed)  # refuses other kinds of keys
    public = parsed.public_key()
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(proof, statement, ec.ECDSA(hashes.SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(proof, statement, _PSS, hashes.SHA256())
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(proof, statement)
    except (InvalidSignature, ValueError):
        raise AuthenticationError("the proof that a server has its certificate's key is not valid") from None
