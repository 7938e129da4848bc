"""Scores against plain integers, for every parameter set: shares, extremes, blocks, retries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp._native import _core
from mipp.errors import DTypeError, MessageError, ParameterError, ShapeError, VerificationError
from mipp.lattice import (
    EvaluationKey,
    NoiseReport,
    Parameters,
    SecretKey,
    answer_words,
    decrypt,
    encrypt,
    masks,
    matvec,
    prepare,
)
from mipp.lattice import polynomials as poly
from mipp.lattice import products as products_module
from mipp.lattice.products import unpack_answer
from mipp.lattice.vectors import PreparedQuery

KEYS = [bytes([i]) * 32 for i in range(1, 3)]


def keys_of(parameters, coordinates=8):
    secret = SecretKey.generate(parameters)
    return secret, EvaluationKey.generate(secret, coordinates) if parameters.special else None


def expected(words, values, parameters):
    half = 2 ** (parameters.plain_bits - 1)
    return [int(x) - half for x in (words.astype(object) @ values.astype(object) + half) % (2 * half)]


def both(words, query, mask, rng, **options):
    """Answers of two servers to rows that they share."""
    share = rng.integers(0, 2**32, words.shape, np.uint64).astype(words.dtype)
    rest = (words - share).astype(words.dtype)
    return [
        matvec(part, query, noise_key=key, context=b"query", mask=mask, negate=i == 1, **options)
        for i, (part, key) in enumerate(zip((share, rest), KEYS, strict=True))
    ]


@pytest.mark.parametrize(
    ("choice", "coordinates", "dtype"),
    [
        ((3, 20, 32), 3, np.uint32),
        ((3, 16, 16), 2, np.uint16),
        ((3, 32, 64), 3, np.uint64),
        ((3, 32, 32), 1, np.uint32),
    ],
)
def test_scores_of_shares_are_those_of_plain_integers(choice, coordinates, dtype):
    rng = np.random.default_rng(5)
    p = Parameters.choose(*choice)
    secret, evaluation = keys_of(p, 3)
    rows, half = p.degree + 3, 2 ** (p.plain_bits - 1)
    values = rng.integers(-half, half, coordinates)
    values[0] = -half
    words = rng.integers(0, np.iinfo(dtype).max, (rows, coordinates), np.uint64, endpoint=True).astype(dtype)
    query = prepare(encrypt(secret, values), evaluation)
    mask = masks(p, bytes(32), b"query", rows)
    answers = both(words, query, mask, rng)
    scores, report = decrypt(secret, answers, rows)
    assert scores.tolist() == expected(words, values, p)
    assert report.limit == p.largest_noise(2) >= report.largest > 0
    for answer in answers:  # a mask hides the products of each server
        alone, one = decrypt(secret, answer, rows)
        assert sum(a == b for a, b in zip(alone.tolist(), expected(words, values, p), strict=True)) < 5
        assert one.limit == p.largest_noise(1)


@pytest.mark.parametrize("choice", [(3, 20, 32), (3, 32, 32)])
def test_extreme_words_and_queries(choice):
    p = Parameters.choose(*choice)
    secret, evaluation = keys_of(p, 2)
    half = 2 ** (p.plain_bits - 1)
    ends = np.array([half - 1, 2**32 - half, half, 2**32 - 1, 0, 1], np.uint32)  # t/2-1, -t/2, -t/2 unreduced, -1, 0, 1
    words = np.array([[a, b] for a in ends for b in ends], np.uint32)
    words = np.concatenate([words, np.full((p.degree - len(words), 2), 2**32 - half, np.uint32)])
    for values in ([half - 1, half - 1], [-half, -half], [-half, half - 1], [0, 1]):
        values = np.array(values)
        answer = matvec(words, encrypt(secret, values), evaluation, noise_key=KEYS[0], context=b"query")
        scores, report = decrypt(secret, answer, len(words))
        assert scores.tolist() == expected(words, values, p)
        assert report.bits_left > 1


@pytest.mark.parametrize("choice", [(128, 20, 32), (1024, 32, 64)])
def test_as_many_coordinates_as_a_set_allows(choice):
    p = Parameters.choose(*choice)
    assert p.max_coordinates == choice[0]
    secret, evaluation = keys_of(p, choice[0])
    half = 2 ** (p.plain_bits - 1)
    words = np.full((3, choice[0]), 2**32 - half, np.uint32)
    words[1], words[2] = half - 1, np.arange(choice[0])
    values = np.where(np.arange(choice[0]) % 3 == 0, -half, half - 1)
    query = prepare(encrypt(secret, values), evaluation)
    answers = both(words, query, masks(p, bytes(32), b"query", 3), np.random.default_rng(2))
    scores, report = decrypt(secret, answers, 3)
    assert scores.tolist() == expected(words, values, p)
    assert report.largest <= report.limit


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_numbers(small, small_expanding, data):
    p = data.draw(st.sampled_from([small, small_expanding]))
    secret, evaluation = keys_of(p)
    coordinates, half = data.draw(st.integers(1, 8)), 2 ** (p.plain_bits - 1)
    draw = st.lists(st.integers(-half, half - 1), min_size=coordinates, max_size=coordinates)
    values = np.array(data.draw(draw))
    words = np.array(data.draw(st.lists(draw, min_size=1, max_size=70))).astype(np.uint32)
    query, rng = encrypt(secret, values), np.random.default_rng(0)
    answers = both(words, query, masks(p, bytes(32), b"query", len(words)), rng, evaluation=evaluation)
    assert decrypt(secret, answers, len(words))[0].tolist() == expected(words, values, p)


@pytest.mark.parametrize("coordinates", [1, 2, 3, 4, 7, 8])
def test_one_ciphertext_is_expanded_to_any_number(small_expanding, coordinates):
    secret, evaluation = keys_of(small_expanding)
    values = np.arange(1, coordinates + 1) * 1001 - 3000
    query = prepare(encrypt(secret, values), evaluation)
    words = np.eye(coordinates, dtype=np.uint32)
    answer = matvec(words, query, noise_key=KEYS[0], context=b"query")
    assert decrypt(secret, answer, coordinates)[0].view(np.int32).tolist() == values.tolist()


def test_blocks_give_the_bytes_of_the_whole(small, monkeypatch):
    rng = np.random.default_rng(7)
    secret, _ = keys_of(small)
    words = rng.integers(0, 2**32, (5 * 64 + 9, 4), np.uint32)
    query = prepare(encrypt(secret, np.array([1, -2, 3, -4])))
    mask = masks(small, bytes(32), b"query", len(words))
    options = {"noise_key": KEYS[0], "context": b"query"}
    whole = matvec(words, query, mask=mask, **options)
    parts = [
        matvec(words[at : at + 128], query, first_row=at, **options,
               mask=masks(small, bytes(32), b"query", len(words[at : at + 128]), first_row=at))
        for at in range(0, len(words), 128)
    ]  # fmt: skip
    assert np.concatenate(parts).tolist() == whole.tolist()
    monkeypatch.setattr(products_module, "BATCH", 2)
    assert matvec(words, query, mask=mask, **options).tolist() == whole.tolist()
    assert decrypt(secret, matvec(words, query, **options), len(words))[0].tolist() == expected(
        words, np.array([1, -2, 3, -4]), small
    )
    wide = np.concatenate([words, words], axis=1)[:, 4:]  # rows that are not contiguous
    assert matvec(wide, query, mask=mask, **options).tolist() == whole.tolist()


def test_answers_are_fixed_by_key_and_context_and_by_nothing_less(small):
    rng = np.random.default_rng(8)
    secret, _ = keys_of(small)
    words = rng.integers(0, 2**32, (64, 3), np.uint32)
    query = prepare(encrypt(secret, np.array([5, 6, 7])))
    first = matvec(words, query, noise_key=KEYS[0], context=b"query 1")
    assert matvec(words, query, noise_key=KEYS[0], context=b"query 1", threads=1).tolist() == first.tolist()
    others = [
        matvec(words, query, noise_key=KEYS[0], context=b"query 2"),
        matvec(words, query, noise_key=KEYS[1], context=b"query 1"),
        matvec(words, query, noise_key=KEYS[0], context=b"query 1", first_row=64),
    ]
    for other in others:
        assert np.mean(other == first) < 0.05
        assert decrypt(secret, other, 64)[0].tolist() == decrypt(secret, first, 64)[0].tolist()


def test_encryption_is_fresh_and_keys_differ(small):
    secret, other = SecretKey.generate(small), SecretKey.generate(small)
    values = np.array([1, 2])
    a, b = encrypt(secret, values).to_words(), encrypt(secret, values).to_words()
    assert np.mean(a[10:] == b[10:]) < 0.01
    assert (secret.coefficients != other.coefficients).any()
    answer = matvec(np.ones((640, 2), np.uint32), encrypt(secret, values), noise_key=KEYS[0], context=b"query")
    with pytest.raises(VerificationError):
        decrypt(other, answer, 640)


def test_no_keystream_is_used_twice(small, small_expanding, monkeypatch):
    """Of secret polynomials each has a key of its own, whatever is asked of one server in whichever blocks."""
    used, real = [], _core.KeySchedules

    def spy(key, infos, threads=None):
        used.extend((key, bytes(row)) for row in infos)
        return real(key, infos, threads)

    monkeypatch.setattr(_core, "KeySchedules", spy)
    words = np.ones((130, 2), np.uint32)
    for p in (small, small_expanding):
        secret, evaluation = keys_of(p)
        for name in (b"query 1", b"query 2"):
            query = prepare(encrypt(secret, np.array([1, 2])), evaluation)
            for at in (0, 64, 128):
                block = words[at : at + 64]
                mask = masks(p, KEYS[1], name, len(block), first_row=at)
                matvec(block, query, noise_key=KEYS[0], context=name, first_row=at, mask=mask)
    public = [poly.UNIFORM_QUERY, poly.UNIFORM_ZERO, poly.UNIFORM_SWITCH]
    kinds = [info[len(b"mipp v1 lattice ") :][:1] for _, info in used]
    secret_ones = [x for x, kind in zip(used, kinds, strict=True) if kind not in (*public, poly.MASK)]
    assert len(set(secret_ones)) == len(secret_ones) > 50
    assert {k for k in kinds if k not in public} == {b"s", b"e", b"f", b"g", b"v", b"w", b"u", b"m"}
    assert all(key != KEYS[0] for (key, _), kind in zip(used, kinds, strict=True) if kind in public)


def test_masks_are_uniform_and_bound_to_key_context_and_row(small):
    words = masks(small, bytes(32), b"query", 4096)
    counts = np.bincount(words >> 28, minlength=16)
    assert ((counts - 256) ** 2 / 256).sum() < 60  # chi-square, 15 degrees of freedom: 1e-7
    assert np.mean(np.unpackbits(words.view(np.uint8))) == pytest.approx(0.5, abs=0.01)
    assert masks(small, bytes(32), b"query", 64, first_row=128).tolist() == words[128:192].tolist()
    for other in (masks(small, KEYS[0], b"query", 4096), masks(small, bytes(32), b"other", 4096)):
        assert (other == words).sum() < 3
    assert masks(small, bytes(32), b"query", 0).shape == (0,)


def test_no_rows(small):
    secret, _ = keys_of(small)
    query = encrypt(secret, np.array([1]))
    answer = matvec(np.empty((0, 1), np.uint32), query, noise_key=KEYS[0], context=b"query")
    scores, report = decrypt(secret, answer, 0)
    assert answer.shape == scores.shape == (0,)
    assert report == NoiseReport(0, small.largest_noise(1))


def test_changed_answers_are_noticed(small):
    secret, _ = keys_of(small)
    query = encrypt(secret, np.array([1, 2]))
    answer = matvec(np.ones((640, 2), np.uint32), query, noise_key=KEYS[0], context=b"query")
    random = np.random.default_rng(9).integers(0, 2**64, len(answer), np.uint64)
    for changed in (answer ^ random, random, 2 * answer, np.roll(answer, 1)):
        with pytest.raises(VerificationError):
            decrypt(secret, changed, 640)


def test_bad_queries_are_refused(small, small_expanding):
    secret, _ = keys_of(small)
    half = 2 ** (small.plain_bits - 1)
    for values, error in [
        (np.array([half]), ParameterError), (np.array([-half - 1]), ParameterError),
        (np.array([], np.int64), ParameterError),
        (np.zeros(129, np.int64), ParameterError), (np.array([1.0]), DTypeError),
        (np.array([1], np.uint64), DTypeError),
        ([1], DTypeError), (np.array([[1]]), ShapeError), (np.array([True]), DTypeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            encrypt(secret, values)
    secret, evaluation = keys_of(small_expanding, 4)
    for query, key in [
        (encrypt(secret, np.arange(5)), evaluation), (encrypt(secret, np.arange(4)), None),
        (encrypt(SecretKey.generate(small), np.arange(4)), evaluation),
    ]:  # fmt: skip
        with pytest.raises(ParameterError):
            prepare(query, key)
    with pytest.raises(ParameterError):
        prepare(encrypt(SecretKey.generate(small), np.arange(4)), evaluation)
    for coordinates in (0, 65, 1.5):
        with pytest.raises(ParameterError):
            EvaluationKey.generate(secret, coordinates)
    with pytest.raises(ParameterError, match="needs no evaluation key"):
        EvaluationKey.generate(SecretKey.generate(small), 4)


def test_bad_rows_keys_and_answers_are_refused(small):
    secret, _ = keys_of(small)
    query = prepare(encrypt(secret, np.array([1, 2])))
    words = np.ones((3, 2), np.uint32)
    good = {"noise_key": KEYS[0], "context": b"query"}
    for rows, change, error in [
        (words.astype(np.int32), {}, DTypeError), (words.tolist(), {}, DTypeError), (words[:, :1], {}, ShapeError),
        (words[0], {}, ShapeError), (words.astype(np.uint16), {}, ParameterError),
        (words, {"noise_key": b"short"}, ParameterError),
        (words, {"noise_key": "a" * 32}, ParameterError), (words, {"context": b""}, ParameterError),
        (words, {"context": "query"}, ParameterError), (words, {"first_row": 63}, ParameterError),
        (words, {"first_row": -64}, ParameterError), (words, {"mask": np.ones(3, np.uint64)}, DTypeError),
        (words, {"mask": np.ones(4, np.uint32)}, ShapeError), (words, {"mask": [1, 2, 3]}, DTypeError),
    ]:  # fmt: skip
        with pytest.raises(error):
            matvec(rows, query, **{**good, **change})
    answer = matvec(words, query, **good)
    for answers, rows, error in [
        (answer[:-1], 3, MessageError), (np.append(answer, answer[:1]), 3, MessageError), (answer, 65, MessageError),
        (answer.astype(np.int64), 3, DTypeError), ([], 3, ParameterError), ([answer] * 3, 3, ParameterError),
        ([answer, answer.tolist()], 3, DTypeError), (answer, -1, ParameterError), (answer[None], 3, MessageError),
    ]:  # fmt: skip
        with pytest.raises(error):
            decrypt(secret, answers, rows)
    with pytest.raises(ParameterError):
        masks(small, b"short", b"query", 3)
    with pytest.raises(ParameterError):
        masks(small, bytes(32), b"query", 3, first_row=1)


def test_a_query_with_more_in_its_polynomials_opens_no_more_than_its_rows(small):
    """A user who hides a second query behind the rows' coefficients does not get its scores."""
    secret, rng = SecretKey.generate(small), np.random.default_rng(12)
    rows, coordinates = 20, 3
    words = rng.integers(0, 1000, (rows, coordinates), dtype=np.uint32)
    queries = rng.integers(-50, 50, (2, coordinates))
    polynomials = prepare(encrypt(secret, queries[0])).polynomials.copy()
    moved = prepare(encrypt(secret, queries[1])).polynomials
    of = poly.ring(small)
    shift = np.zeros((1, small.limbs, small.degree), np.uint64)
    shift[..., rows] = 1
    _core.lattice_forward(of, shift)
    _core.lattice_add(of, polynomials, poly.multiply(of, moved, shift, None))
    query = PreparedQuery(small, polynomials, prepare(encrypt(secret, queries[0])).zero)
    answer = matvec(words, query, noise_key=KEYS[0], context=b"packed")
    assert len(answer) == answer_words(small, rows)
    parts = unpack_answer(small, answer, rows, None)
    phase = np.empty((1, small.degree), np.uint64)
    c0, c1 = np.ascontiguousarray(parts[:, 0]), np.ascontiguousarray(parts[:, 1])
    _core.lattice_phase(of, c0, c1, np.ascontiguousarray(secret.residues), small.switched_bits, phase)
    found = ((phase[0] + np.uint64(1024)) >> np.uint64(11)) % np.uint64(1 << small.plain_bits)
    scores = (words.astype(np.int64) @ queries.T) % (1 << small.plain_bits)
    assert (found[:rows] == scores[:, 0]).all()
    assert (found[rows : 2 * rows] == scores[:, 1]).sum() <= 1
    # with the first component it would be there
    products = np.empty((1, 2, small.limbs, small.degree), np.uint64)
    _core.lattice_matvec(of, words, small.plain_bits, polynomials, products)
    _core.lattice_inverse(of, products)
    switched = np.empty((1, 2, small.degree), np.uint64)
    _core.lattice_switch(of, products, small.switched_bits, switched)
    c0, c1 = np.ascontiguousarray(switched[:, 0]), np.ascontiguousarray(switched[:, 1])
    _core.lattice_phase(of, c0, c1, np.ascontiguousarray(secret.residues), small.switched_bits, phase)
    found = ((phase[0] + np.uint64(1024)) >> np.uint64(11)) % np.uint64(1 << small.plain_bits)
    assert (found[rows : 2 * rows] == scores[:, 1]).all()
