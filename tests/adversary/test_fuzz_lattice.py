"""Queries, keys and answers of the lattice room from strangers: refused with the error that is promised, or used."""

import numpy as np

from mipp.errors import MessageError, VerificationError
from mipp.lattice import EncryptedVector, EvaluationKey, Parameters, SecretKey, decrypt, encrypt, matvec, prepare
from tests.adversary.fuzz import Reading, changed, fuzz, modes

OPTIONS = {"noise_key": bytes(range(32)), "context": b"query"}
PRIMES = (70368743669761, 70368743587841, 70368743489537)
PLAIN = Parameters("small", 64, PRIMES[:2], None, 16, insecure=True)
EXPANDING = Parameters("small expanding", 64, PRIMES, 70368743374849, 32, insecure=True)


def words_of(data):
    return np.frombuffer(data[: len(data) // 8 * 8], np.uint64)


@modes
def test_queries(times):
    for p in (PLAIN, EXPANDING):
        secret = SecretKey.generate(p)
        key = EvaluationKey.generate(secret, 3) if p.special else None
        reading = Reading(MessageError)

        def check(data, p=p, key=key, reading=reading):
            query = reading(lambda raw: EncryptedVector.from_words(p, 3, words_of(raw), threads=1), data)
            if query is not None:
                assert prepare(query, key, threads=1).coordinates == 3

        seeds = [encrypt(secret, np.array(values)).to_words().tobytes() for values in ([1, 2, 3], [0, 0, -7], [1, 2])]
        fuzz(changed(seeds), check, 2000 * times)
        assert 0 < reading.refused < reading.calls


@modes
def test_evaluation_keys(times):
    secret = SecretKey.generate(EXPANDING)
    query, reading = encrypt(secret, np.array([5])), Reading(MessageError)

    def check(data):
        key = reading(lambda raw: EvaluationKey.from_bytes(EXPANDING, raw, threads=1), data)
        if key is not None:
            assert prepare(query, key, threads=1).coordinates == 1

    fuzz(changed([EvaluationKey.generate(secret, d).to_bytes() for d in (1, 2, 3, 8)]), check, 3000 * times)
    assert 0 < reading.refused < reading.calls


@modes
def test_answers(times):
    secret = SecretKey.generate(PLAIN)
    query, reading = encrypt(secret, np.array([1, -1])), Reading(MessageError, VerificationError)
    answer = matvec(np.ones((70, 2), np.uint32), query, **OPTIONS)

    def check(data):
        found = reading(lambda raw: decrypt(secret, words_of(raw), 70, threads=1), data)
        assert found is None or found[0].shape == (70,)

    fuzz(changed([answer.tobytes()]), check, 3000 * times)
    assert 0 < reading.refused < reading.calls
