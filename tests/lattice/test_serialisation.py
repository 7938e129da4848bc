"""Bytes of strangers: round trips, and refusal of what is no key or query of these parameters."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.errors import DTypeError, MessageError, MippError, ParameterError
from mipp.lattice import EncryptedVector, EvaluationKey, SecretKey, decrypt, encrypt, matvec
from mipp.lattice import polynomials as poly

OPTIONS = {"noise_key": bytes(range(32)), "context": b"query"}


def test_queries_and_keys_return(small, small_expanding):
    words = np.arange(12, dtype=np.uint32).reshape(4, 3)
    for p in (small, small_expanding):
        secret = SecretKey.from_bytes(p, SecretKey.generate(p).to_bytes())
        evaluation = EvaluationKey.generate(secret, 5) if p.special else None
        query = encrypt(secret, np.array([1, -2, 3]))
        sent = query.to_words()
        assert sent.shape == (EncryptedVector.words(p, 3),)
        again = EncryptedVector.from_words(p, 3, sent)
        assert again.to_words().tolist() == sent.tolist()
        key = None
        if evaluation is not None:
            data = evaluation.to_bytes()
            assert len(data) == EvaluationKey.size(p, 5)
            key = EvaluationKey.from_bytes(p, data)
            assert key.to_bytes() == data
            assert key.coordinates == 5
            assert EvaluationKey.from_bytes(p, memoryview(bytearray(data))).to_bytes() == data
        answers = [matvec(words, q, k, **OPTIONS) for q, k in ((query, evaluation), (again, key))]
        assert answers[0].tolist() == answers[1].tolist()
        scores = decrypt(SecretKey.from_bytes(p, secret.to_bytes()), answers[0], 4)[0]
        assert scores.tolist() == (words.astype(np.int64) @ [1, -2, 3] % 2**p.plain_bits).tolist()


def with_residue(p, packed, moduli, index, value):
    residues = poly.unpack(p, packed, [2**50] * len(moduli), (packed.size // poly.packed_words(p, len(moduli)),), "", 1)
    residues.reshape(-1)[index] = value
    return poly.pack(p, residues, 1)


@pytest.mark.parametrize("limb", [0, 1])
def test_a_residue_that_is_its_prime_is_refused(small, limb):
    query = encrypt(SecretKey.generate(small), np.array([1, 2])).to_words()
    for index in (64 * limb, 64 * limb + 63, 128 * 2 + 64 * limb):
        for over in (0, 1):
            changed = query.copy()
            value = small.primes[limb] + over
            changed[10:] = with_residue(small, query[10:].copy(), small.primes, index, value)
            with pytest.raises(MessageError, match="not below its prime"):
                EncryptedVector.from_words(small, 2, changed)
        changed[10:] = with_residue(small, query[10:].copy(), small.primes, index, small.primes[limb] - 1)
        EncryptedVector.from_words(small, 2, changed)


def test_a_residue_of_an_evaluation_key_that_is_its_prime_is_refused(small_expanding):
    p = small_expanding
    data = EvaluationKey.generate(SecretKey.generate(p), 2).to_bytes()
    words = np.frombuffer(data, np.uint64)
    first = 10 + poly.packed_words(p, 3)
    for start, stop, moduli in ((10, first, p.primes), (first, len(words), p.moduli)):
        for limb, prime in enumerate(moduli):
            changed = words.copy()
            changed[start:stop] = with_residue(p, words[start:stop].copy(), moduli, 64 * limb + 5, prime)
            with pytest.raises(MessageError, match="not below its prime"):
                EvaluationKey.from_bytes(p, changed.tobytes())


def test_other_lengths_versions_and_parameters_are_refused(small, small_expanding):
    query = encrypt(SecretKey.generate(small), np.array([1, 2])).to_words()
    wrong = [query[:-1], np.append(query, query[:1]), query[:5], query[:0], query[None], query[:10]]
    for word in range(6):  # version, coordinates, hash
        wrong.append(query.copy())
        wrong[-1][word] ^= np.uint64(1 << 8)
    for words in wrong:
        with pytest.raises(MessageError):
            EncryptedVector.from_words(small, 2, words)
    for coordinates in (1, 3):
        with pytest.raises(MessageError):
            EncryptedVector.from_words(small, coordinates, query)
    with pytest.raises(MessageError):
        EncryptedVector.from_words(small_expanding, 2, query)
    for words in (query.tobytes(), query.astype(np.int64), query.tolist(), None):
        with pytest.raises(DTypeError):
            EncryptedVector.from_words(small, 2, words)
    for coordinates in (0, 129, "2", 2**70):
        with pytest.raises(ParameterError):
            EncryptedVector.from_words(small, coordinates, query)


def test_other_evaluation_keys_are_refused(small, small_expanding):
    p = small_expanding
    data = EvaluationKey.generate(SecretKey.generate(p), 4).to_bytes()
    changed = [data[:-1], data + b"\0", data[:79], data[:80], b"", bytes(len(data))]
    for at in (0, 7, 8, 9, 15, 16, 47):  # version, coordinates, hash
        changed.append(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
    for other in changed:
        with pytest.raises(MessageError):
            EvaluationKey.from_bytes(p, other)
    for coordinates, like in ((0, 2), (p.max_coordinates + 1, 2 * p.max_coordinates)):  # of a length that fits
        other = bytes(EvaluationKey.size(p, like) - 80)
        with pytest.raises(MessageError, match="number of coordinates"):
            EvaluationKey.from_bytes(p, data[:8] + coordinates.to_bytes(8, "little") + data[16:80] + other)
    with pytest.raises(DTypeError):
        EvaluationKey.from_bytes(p, "text")
    with pytest.raises(ParameterError):
        EvaluationKey.from_bytes(small, data)


def test_other_secret_keys_are_refused(small, small_expanding):
    data = SecretKey.generate(small).to_bytes()
    for other in (data[:-1], data + b"\0", b"", b"x" + data[1:], data.decode("latin1"), None):
        with pytest.raises(ParameterError, match="not a lattice secret key"):
            SecretKey.from_bytes(small, other)
    with pytest.raises(ParameterError, match="other parameters"):
        SecretKey.from_bytes(small_expanding, data)
    with pytest.raises(ParameterError):
        SecretKey(small, b"short")


@given(st.binary(max_size=400), st.integers(0, 2**64 - 1))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_typed_errors(small, small_expanding, data, word):
    for head in (b"", b"mippLEK1", b"mippLEK1" + (8).to_bytes(8, "little") + small_expanding.hash):
        with pytest.raises(MippError):
            EvaluationKey.from_bytes(small_expanding, head + data)
    words = np.full(EncryptedVector.words(small, 1), word, np.uint64)
    with pytest.raises(MippError):
        EncryptedVector.from_words(small, 1, words)
    with pytest.raises(MippError):
        EncryptedVector.from_words(small, 1, words[: len(data)])


def test_a_huge_number_of_coordinates_takes_no_memory(small_expanding):
    head = b"mippLEK1" + (2**40).to_bytes(8, "little") + small_expanding.hash + bytes(32)
    with pytest.raises(MessageError):
        EvaluationKey.from_bytes(small_expanding, head)


def test_secrets_do_not_show_or_pickle(small):
    secret = SecretKey.generate(small)
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(secret)
    assert repr(secret) == str(secret) == "SecretKey(small, secret hidden)"
    seed = secret.to_bytes()[-32:]
    query = encrypt(secret, np.array([1, 2]))
    assert seed not in query.to_words().tobytes()
    for shown in (repr(query), str(vars(query))):
        assert seed.hex() not in shown
