"""Key schedule, seals, signatures."""

import dataclasses
import hashlib
import hmac
import pickle

import pytest

from mipp.crypto import box, schedule, signing
from mipp.errors import AuthenticationError, ParameterError
from mipp.params import Params
from mipp.sharing import OwnerKeys

D, R = b"d" * 16, b"r" * 16


def test_hkdf_matches_rfc_5869():
    """RFC 5869, test case 3 (empty salt and info), and an independent computation."""
    okm = bytes.fromhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
    assert schedule.hkdf(b"\x0b" * 22, b"", 42) == okm
    prk = hmac.new(b"\0" * 32, b"key", hashlib.sha256).digest()
    assert schedule.hkdf(b"key", b"info") == hmac.new(prk, b"info\x01", hashlib.sha256).digest()


def test_keys_are_bound_to_everything():
    base = {"root": b"a" * 32, "deployment": D, "registration": R, "size": 3, "t": 1, "point": 3, "sharing": "finite"}
    changes = {
        "root": b"b" * 32,
        "deployment": b"e" * 16,
        "registration": b"s" * 16,
        "size": 4,
        "t": 2,
        "point": 2,
        "sharing": "masked",
    }
    keys = {schedule.key_centre_key(**base)}
    keys |= {schedule.key_centre_key(**{**base, name: value}) for name, value in changes.items()}
    keys.add(schedule.key_centre_key(**{**base, "sharing": "infinity"}))
    assert len(keys) == 2 + len(changes)
    infos = {
        schedule.batch_info(b"n" * 16, 32, 8, 3),
        schedule.batch_info(b"n" * 16, 16, 8, 3),
        schedule.batch_info(b"n" * 16, 32, 9, 3),
        schedule.batch_info(b"n" * 16, 32, 8, 4),
    }
    assert len(infos) == 4
    completions = {
        schedule.completion_info(b"s" * 32, b"n" * 16, (2, 1, 0)),
        schedule.completion_info(b"t" * 32, b"n" * 16, (2, 1, 0)),
        schedule.completion_info(b"s" * 32, b"m" * 16, (2, 1, 0)),
        schedule.completion_info(b"s" * 32, b"n" * 16, (3, 1, 0)),
        schedule.completion_info(b"s" * 32, b"n" * 16, (2, 1, 3)),
    }
    assert len(completions) == 5
    for wrong in ((b"s" * 31, b"n" * 16), (b"s" * 32, b"n" * 15)):
        with pytest.raises(ParameterError):
            schedule.completion_info(*wrong, (2, 1, 0))
    for wrong in ({"root": b""}, {"deployment": b"x"}, {"registration": b"x" * 17}):
        with pytest.raises(ParameterError):
            schedule.key_centre_key(**{**base, **wrong})


def test_batch_nonces_never_repeat(monkeypatch):
    """Fresh for the same content; and still different for other content if the machine's randomness repeats."""
    assert schedule.batch_nonce(b"r" * 32, [b"x"]) != schedule.batch_nonce(b"r" * 32, [b"x"])
    monkeypatch.setattr(schedule, "random_bytes", lambda n: b"\0" * n)
    assert schedule.batch_nonce(b"r" * 32, [b"x"]) != schedule.batch_nonce(b"r" * 32, [b"y"])


def test_seal():
    private = b"p" * 32
    public = box.box_private(private).public_key().public_bytes_raw()
    sealed = box.seal(public, b"secret", b"info")
    assert box.open_sealed(private, sealed, b"info") == b"secret"
    for key, data, info in [
        (b"q" * 32, sealed, b"info"),
        (private, sealed, b"other"),
        (private, sealed[:-1], b"info"),
        (private, b"", b"info"),
        (private, bytes([sealed[0] ^ 1]) + sealed[1:], b"info"),
    ]:
        with pytest.raises(AuthenticationError):
            box.open_sealed(key, data, info)


def test_small_order_keys_are_refused():
    with pytest.raises(AuthenticationError):
        box.shared_secret(b"p" * 32, b"\0" * 32)


def test_image_files():
    owner, image = b"o" * 16, b"i" * 24
    parts = b"k" * 32, b"c" * 32
    blob = box.seal_image(*parts, D, owner, image, b"content")
    assert b"content" not in blob
    assert box.seal_image(*parts, D, owner, image, b"content") != blob
    assert box.open_image(*parts, D, owner, image, blob) == b"content"
    for position in range(0, len(blob), 7):
        bad = bytearray(blob)
        bad[position] ^= 1
        with pytest.raises(AuthenticationError):
            box.open_image(*parts, D, owner, image, bytes(bad))
    for args in [
        (b"x" * 32, parts[1], D, owner, image),
        (parts[0], b"x" * 32, D, owner, image),
        (*parts, b"e" * 16, owner, image),
        (*parts, D, b"p" * 16, image),
        (*parts, D, owner, b"j" * 24),
    ]:
        with pytest.raises(AuthenticationError):
            box.open_image(*args, blob)
    with pytest.raises(AuthenticationError):
        box.open_image(*parts, D, owner, image, b"short")


def test_signatures_cover_all_of_a_statement():
    seed = b"s" * 32
    public = signing.sign_public(seed)
    good = signing.Statement(D, 2, "Query", b"h" * 32, 5000, b"r" * 16)
    key = signing.private_key(seed)
    signature = signing.sign(key, good)
    signing.verify(public, signature, good)
    changes = {
        "deployment": R, "receiver": 1, "purpose": "Grant", "content": b"g" * 32, "issued": 5001, "random": b"q" * 16,
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(AuthenticationError):
            signing.verify(public, signature, dataclasses.replace(good, **{name: value}))
    for wrong in ((signing.sign_public(b"t" * 32), signature), (public, b""), (b"", signature)):
        with pytest.raises(AuthenticationError):
            signing.verify(*wrong, good)
    for name, value in {
        "deployment": b"", "receiver": 256, "content": b"h", "issued": -1, "random": b"r" * 17, "purpose": "x" * 256,
    }.items():  # fmt: skip
        with pytest.raises(AuthenticationError):
            signing.sign(key, dataclasses.replace(good, **{name: value}))


def test_owner_keys_hide():
    keys = OwnerKeys(b"secret-secret-secret-secret-root", D, R, Params())
    assert "secret-secret" not in repr(keys) and keys.server_key(3).hex() not in repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)
    with pytest.raises(ParameterError):
        keys.server_key(1)
    with pytest.raises(ParameterError):
        OwnerKeys(b"short", D, R, Params())
