"""TLS certificates of servers: what is made works in mutual TLS, what operators bring is checked."""

import contextlib
import hashlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.crypto.certificates import (
    MAX_CERTIFICATE_BYTES,
    MAX_PROOF_BYTES,
    certificate_pem,
    certificate_pin,
    check_possession,
    make_tls,
    operator_tls,
    prove_possession,
)
from mipp.errors import AuthenticationError, ParameterError

PEM = serialization.Encoding.PEM
NOW = datetime.now(UTC)
DER = make_tls("north", "north.example").certificate


def private_pem(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)


def signed(key, start=NOW - timedelta(days=1), end=NOW + timedelta(days=1), issuer=None):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "operator")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(start).not_valid_after(end)
    issuer = issuer or key
    return builder.sign(issuer, None if isinstance(issuer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


@pytest.mark.parametrize("host", ["north.example", "192.0.2.7", "2001:db8::7"])
def test_a_new_certificate(host):
    tls = make_tls("north", host)
    certificate = x509.load_der_x509_certificate(tls.certificate)
    assert certificate.subject.rfc4514_string() == "CN=north"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in names] == [host]
    assert certificate.not_valid_after_utc.year == 9999
    assert timedelta(days=30) <= datetime.now(UTC) - certificate.not_valid_before_utc < timedelta(days=30, minutes=5)
    assert certificate_pem(tls.certificate) == tls.chain
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert certificate_pin(tls.certificate) == hashlib.sha256(public).digest()
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    assert operator_tls(tls.chain, tls.key).certificate == tls.certificate
    assert tls.key.decode() not in repr(tls) and "PRIVATE" not in repr(tls)


def test_mutual_tls_with_the_certificate_alone(tmp_path):
    """As servers dial each other: the peer's certificate is the only one that is trusted, strictly checked."""
    contexts = {}
    made = {name: make_tls(name, "localhost") for name in ("north", "south")}
    for name, tls in made.items():
        (tmp_path / f"{name}.key").write_bytes(tls.key)
        (tmp_path / f"{name}.pem").write_bytes(tls.chain)
    for name, peer, side in (
        ("north", "south", ssl.PROTOCOL_TLS_CLIENT),
        ("south", "north", ssl.PROTOCOL_TLS_SERVER),
    ):
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        context.load_verify_locations(tmp_path / f"{peer}.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        contexts[name] = context
    left, right = socket.socketpair()
    found = {}

    def serve():
        with contexts["south"].wrap_socket(right, server_side=True) as server:
            found["south"] = server.getpeercert(binary_form=True)
            server.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    with contexts["north"].wrap_socket(left, server_hostname="localhost") as client:
        assert client.recv(1) == b"x"
        assert client.getpeercert(binary_form=True) == made["south"].certificate
    thread.join()
    assert found["south"] == made["north"].certificate


def test_operators_files():
    key, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    own, above = signed(key, issuer=other), signed(other)
    chain = own.public_bytes(PEM) + above.public_bytes(PEM)
    tls = operator_tls(chain, private_pem(key))
    assert tls.chain == chain and tls.certificate == own.public_bytes(serialization.Encoding.DER)
    for wrong_chain, wrong_key, said in (
        (above.public_bytes(PEM) + own.public_bytes(PEM), private_pem(key), "not that of the certificate"),
        (chain, private_pem(other), "not that of the certificate"),
        (chain, private_pem(key, b"word"), "passphrase"),
        (chain, b"nothing", "private key"),
        (b"nothing", private_pem(key), "X.509"),
        (b"", private_pem(key), "X.509"),
        (chain, chain, "private key"),
        (b"x" * (1 << 19), private_pem(key), "at most"),
        (signed(key, end=NOW - timedelta(hours=1)).public_bytes(PEM), private_pem(key), "not now"),
        (signed(key, start=NOW + timedelta(hours=1)).public_bytes(PEM), private_pem(key), "not now"),
    ):
        with pytest.raises(ParameterError, match=said) as error:
            operator_tls(wrong_chain, wrong_key)
        assert "PRIVATE" not in str(error.value)


def test_kinds_of_keys():
    der = serialization.Encoding.DER
    for key in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)):
        assert len(certificate_pin(signed(key).public_bytes(der))) == 32
    issuer = ec.generate_private_key(ec.SECP256R1())
    for key in (
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(2048),
        x25519.X25519PrivateKey.generate(),
    ):
        with pytest.raises(ParameterError, match="P-256"):
            certificate_pin(signed(key, issuer=issuer).public_bytes(der))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 255), st.binary(max_size=100))
def test_any_other_bytes(at, mask, noise):
    der, changed = DER, bytearray(DER)
    at %= len(der)
    changed[at] ^= mask
    for other in (bytes(changed), der[:at], der + b"\0", noise):
        with contextlib.suppress(ParameterError):
            assert len(certificate_pin(other)) == 32
    with pytest.raises(ParameterError, match="at most"):
        certificate_pin(bytes(MAX_CERTIFICATE_BYTES + 1))


def test_proofs_of_possession():
    """Of every kind of key that servers use; of another key, statement or kind they are not valid."""
    kinds = {
        "p256": ec.generate_private_key(ec.SECP256R1()), "p521": ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(), "rsa": rsa.generate_private_key(65537, 2048),
    }  # fmt: skip
    made = {
        name: (private_pem(key), signed(key).public_bytes(serialization.Encoding.DER)) for name, key in kinds.items()
    }
    for name, (key, der) in made.items():
        proof = prove_possession(key, b"statement")
        assert 0 < len(proof) <= MAX_PROOF_BYTES
        check_possession(der, proof, b"statement")
        for wrong in (b"", proof[:-1], proof + b"x", bytes(len(proof))):
            with pytest.raises(AuthenticationError):
                check_possession(der, wrong, b"statement")
        with pytest.raises(AuthenticationError):
            check_possession(der, proof, b"Statement")
        for other, (_, certificate) in made.items():
            if other != name:
                with pytest.raises(AuthenticationError):
                    check_possession(certificate, proof, b"statement")
    for wrong in (b"", b"-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(ParameterError):
            prove_possession(wrong, b"statement")
    with pytest.raises(ParameterError):
        check_possession(b"x", b"x", b"statement")
