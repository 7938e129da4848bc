"""Sealed records: known answers from plain calls of cryptography, nothing opens elsewhere, and no salt repeats."""

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mipp.crypto import schedule
from mipp.crypto.records import RECORD_OVERHEAD, album_key, album_part, open_record, seal_records
from mipp.errors import AuthenticationError, ParameterError
from mipp.rpc.associated_data import album_seal_info, image_seal_info, record_data

D, O, A, K = b"d" * 16, b"o" * 16, b"a" * 16, b"k" * 32


def derived(key, info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(key)


def test_keys_of_albums():
    assert album_part(K, A) == derived(K, b"mipp v1 album" + A)
    assert album_key(b"1" * 32, b"2" * 32, D, O, A) == derived(b"1" * 32 + b"2" * 32, b"mipp v1 album key" + D + O + A)
    base = (b"1" * 32, b"2" * 32, D, O, A)
    keys = {album_key(*base), album_key(base[1], base[0], *base[2:]), album_key(D * 2, O * 2, D, O, A)}
    keys |= {album_key(*base[:i], b"x" * len(base[i]), *base[i + 1 :]) for i in range(5)}
    assert len(keys) == 8
    # an album of an image's id: the labels differ
    assert album_part(K, A) != schedule.image_part(K, A)


@pytest.mark.parametrize("place", range(5))
def test_lengths_of_keys_and_ids(place):
    values = [b"1" * 32, b"2" * 32, D, O, A]
    values[place] += b"x"
    with pytest.raises(ParameterError, match="bytes, not"):
        album_key(*values)
    with pytest.raises(ParameterError, match="bytes, not"):
        album_part(*((K + b"x", A) if place else (K, A + b"x")))


def test_a_sealed_record_is_what_cryptography_makes():
    plains, about = [b"first", b"other"], [b"one", b"two"]
    sealed = seal_records(K, plains, about)
    assert sealed.dtype == np.uint8 and sealed.shape == (2, 5 + RECORD_OVERHEAD) and RECORD_OVERHEAD == 32
    for row, plain, data in zip(sealed, plains, about, strict=True):
        salt, rest = row[:16].tobytes(), row[16:].tobytes()
        key = derived(K, b"mipp v1 record" + salt)
        assert AESGCM(key).encrypt(bytes(12), plain, data) == rest
        assert open_record(K, row, data) == open_record(K, row.tobytes(), data) == plain


def test_no_records_and_empty_ones():
    assert seal_records(K, [], []).shape == (0, RECORD_OVERHEAD)
    assert open_record(K, seal_records(K, [b""], [b"x"])[0], b"x") == b""


def test_every_record_has_its_own_salt_and_looks_random():
    sealed = seal_records(K, [bytes(64)] * 500, [b""] * 500)
    again = seal_records(K, [bytes(64)] * 500, [b""] * 500)
    both = np.concatenate([sealed, again])
    assert len({row[:16].tobytes() for row in both}) == 1000 == len({row[16:].tobytes() for row in both})
    counts = np.bincount(both.ravel(), minlength=256)
    expected = both.size / 256
    # chi squared with 255 degrees of freedom: mean 255, deviation 22.6
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 8 * 22.6
    assert np.all(np.unpackbits(both, axis=1).any(axis=0)) and not np.unpackbits(both, axis=1).all(axis=0).any()


def test_a_planted_salt_is_noticed(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(schedule, "random_bytes", bytes)
    sealed = seal_records(K, [bytes(64)] * 2, [b""] * 2)
    assert np.array_equal(sealed[0], sealed[1])


def test_nothing_else_opens():
    sealed = seal_records(K, [b"content"], [b"place"])[0]
    assert open_record(K, sealed, b"place") == b"content"
    for key, data in ((b"x" * 32, b"place"), (K, b"other"), (K, b"")):
        with pytest.raises(AuthenticationError):
            open_record(key, sealed, data)
    for place in range(len(sealed)):
        changed = sealed.copy()
        changed[place] ^= 1
        with pytest.raises(AuthenticationError):
            open_record(K, changed, b"place")
    for blob in (b"", sealed[:31], sealed[:-1], bytes(sealed) + b"\0"):
        with pytest.raises(AuthenticationError):
            open_record(K, blob, b"place")


def test_wrong_input():
    for plains, about in (([b"a", b"bc"], [b"", b""]), ([b"a"], []), ([], [b""])):
        with pytest.raises(ParameterError, match="records"):
            seal_records(K, plains, about)
    for key in (b"", K + b"x"):
        with pytest.raises(ParameterError, match="32 bytes"):
            seal_records(key, [b"a"], [b""])
        with pytest.raises(ParameterError, match="32 bytes"):
            open_record(key, bytes(40), b"")


def test_associated_data():
    assert record_data(D, O, A, 258) == b"mipp v1 record data" + D + O + A + b"\0\0\0\0\0\0\1\2"
    assert album_seal_info(D, O, 3, [A, K[:16]]) == (
        b"mipp v1 album parts" + D + O + b"\3" + hashlib.sha256(A + K[:16]).digest()
    )
    assert album_seal_info(D, O, 3, [A]) != image_seal_info(D, O, 3, [A])
