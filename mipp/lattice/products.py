"""A server's answers: products of rows and a query, a fresh encryption of zero with a flood of noise, a mask."""

from __future__ import annotations

import hashlib

import numpy as np

from .._native import _core
from ..errors import DTypeError, ParameterError, ShapeError
from . import polynomials as poly
from .keys import EvaluationKey
from .parameters import NOISE_BITS, Parameters, whole_number
from .vectors import EncryptedVector, PreparedQuery, prepare

__all__ = ["answer_words", "masks", "matvec", "unpack_answer"]

#: polynomials of rows at once: 30 to 100 MB of residues
BATCH = 64
_WORDS = {np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64)}


def answer_words(parameters: Parameters, rows: int) -> int:
    """Give the length of a server's answer.

    Parameters
    ----------
    parameters : Parameters
        The parameter set.
    rows : int
        Number of rows.

    Returns
    -------
    int
        64-bit words: for each N rows N numbers of w + 11 bits of the first component, of begun ones one a row, and N of
        the second, each in whole words.

    Examples
    --------
    >>> from mipp.lattice import Parameters, answer_words
    >>> parameters = Parameters.choose(coordinates=64, score_bits=20, ring_bits=32)
    >>> answer_words(parameters, 40960) * 8 / 40960  # bytes for each row
    7.75
    """
    full, rest = divmod(whole_number(rows, 0, 2**40, "rows"), parameters.degree)
    component = parameters.degree // 64 * parameters.switched_bits
    return full * 2 * component + (-(-rest * parameters.switched_bits // 64) + component if rest else 0)


def masks(parameters: Parameters, pair_key: bytes, context: bytes, rows: int, *, first_row: int = 0) -> np.ndarray:
    """Make the masks that one server adds and the other subtracts, so that neither answer alone opens to anything.

    Parameters
    ----------
    parameters : Parameters
        The parameter set.
    pair_key : bytes
        32 bytes that the two servers share. Secret.
    context : bytes
        What names the query for good, as for :func:`matvec`: both servers give the same. Public.
    rows : int
        Number of rows.
    first_row : int
        Number of the first row, a multiple of N, where rows come in blocks.

    Returns
    -------
    ndarray of uint32, shape (rows,)
        Uniform modulo 2^32, so modulo t as well. Secret.

    Raises
    ------
    ParameterError
        A key of another length, an empty context, or a number out of range.

    Examples
    --------
    >>> from mipp.lattice import Parameters, masks
    >>> parameters = Parameters.choose(coordinates=64, score_bits=20, ring_bits=32)
    >>> masks(parameters, bytes(32), b"query 0 of the header", 5).shape  # an example's key
    (5,)
    """
    first_row = _first_row(parameters, first_row)
    rows = whole_number(rows, 0, 2**34 - first_row, "rows")
    stream = _streams(parameters, pair_key, poly.MASK, context, range(1), 1)
    out = np.empty(-(-rows // 4) * 4, np.uint32)
    if rows:
        _core.keystream_words(stream, 0, first_row // 4, out)
    return out[:rows]


def matvec(
    words: np.ndarray, query: EncryptedVector | PreparedQuery, evaluation: EvaluationKey | None = None, *,
    noise_key: bytes, context: bytes, first_row: int = 0, mask: np.ndarray | None = None, negate: bool = False,
    threads: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Multiply rows with an encrypted query, and hide everything but the products: one server's answer.

    Parameters
    ----------
    words : ndarray of uint16, uint32 or uint64, shape (rows, coordinates)
        Rows, modulo t: public numbers, or shares of them. Secret.
    query : EncryptedVector or PreparedQuery
        The query; prepare it once where rows come in blocks. Public.
    evaluation : EvaluationKey or None
        As for :func:`prepare`; None with a prepared query.
    noise_key : bytes
        32 bytes of this server alone. Secret.
    context : bytes
        What names these rows and this query for good: a hash of the header and the query's number. The same context
        gives the same bytes, as a retry must. **It must never come again with other rows or another query.** Public.
    first_row : int
        Number of the first row, a multiple of N, where rows come in blocks: every block but the last has a multiple
        of N rows. Answers to blocks are joined by concatenation.
    mask : ndarray of uint32, shape (rows,), optional
        Masks from :func:`masks`. Secret.
    negate : bool
        Subtract the mask. One server adds, the other subtracts.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray of uint64, shape (answer_words,)
        The answer: to the user, products modulo t (with the mask) and noise. To others nothing, if Ring-LWE is hard.

    Raises
    ------
    DTypeError, ShapeError
        Words or masks of another dtype or shape.
    ParameterError
        Words of fewer bits than w; a key of another length; an empty context; ``first_row`` is no multiple of N; or as
        for :func:`prepare`.

    Notes
    -----
    Let (b, a) be the user's encryption of zero. The answer is the sum of row_j(X) Enc(q_j), plus
    (v b + flood, v a + e1), with v ternary, e1 Gaussian and the flood uniform in [-2^(f-1), 2^(f-1)): without the first
    the second component is a known combination of the rows, without the flood the noise is one. Then both components
    are switched to modulus 2^(w+11), and the mask is added. Time and memory access do not depend on words or masks.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.lattice import Parameters, SecretKey, decrypt, encrypt, matvec
    >>> parameters = Parameters.choose(coordinates=2, score_bits=20, ring_bits=32)
    >>> secret = SecretKey.generate(parameters)
    >>> rows = np.array([[5, 7], [1, 2**32 - 1]], np.uint32)
    >>> answer = matvec(rows, encrypt(secret, np.array([10, 3])), noise_key=bytes(range(32)), context=b"query 0")
    >>> decrypt(secret, answer, rows=2)[0]
    array([71,  7], dtype=int32)
    """
    if isinstance(query, EncryptedVector):
        query = prepare(query, evaluation, threads=threads)
    elif evaluation is not None:
        raise ParameterError("a prepared query needs no evaluation key")
    p = query.parameters
    _check_words(p, words, query.coordinates)
    first_row = _first_row(p, first_row)
    if mask is not None:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.uint32:
            raise DTypeError("masks must be an array of uint32")
        if mask.shape != (len(words),):
            raise ShapeError(f"masks must be one for each of {len(words)} rows, not {mask.shape}")
    _context(context)
    _noise_key(noise_key)
    out = np.empty(answer_words(p, len(words)), np.uint64)
    for start in range(0, len(words), BATCH * p.degree):
        block = np.ascontiguousarray(words[start : start + BATCH * p.degree])
        products = np.empty((-(-len(block) // p.degree), 2, p.limbs, p.degree), np.uint64)
        _core.lattice_matvec(poly.ring(p), block, p.plain_bits, query.polynomials, products, threads)
        first = (first_row + start) // p.degree
        indices = range(first, first + len(products))
        switched = _hidden(p, products, query.zero, noise_key, context, indices, threads)
        if mask is not None:
            _add_mask(p, switched[0], mask[start : start + len(block)], negate)
        part = out[answer_words(p, start) : answer_words(p, start + len(block))]
        _pack(p, switched, len(block), part, threads)
    return out


def _pack(p: Parameters, switched: list[np.ndarray], rows: int, out: np.ndarray, threads: int | None) -> None:
    """Pack both components of some polynomials, (polys, N) each; of the first those coefficients that belong to rows.

    The others have no mask, and a user who sends something else than a query could put products into them.
    """
    first, second = switched
    full, rest = divmod(rows, p.degree)
    done = answer_words(p, full * p.degree)
    _core.pack_words(np.stack([first[:full], second[:full]], axis=1).reshape(-1), p.switched_bits, out[:done], threads)
    if rest:
        middle = done + -(-rest * p.switched_bits // 64)
        _core.pack_words(np.ascontiguousarray(first[full, :rest]), p.switched_bits, out[done:middle], threads)
        _core.pack_words(np.ascontiguousarray(second[full]), p.switched_bits, out[middle:], threads)


def unpack_answer(parameters: Parameters, answer: np.ndarray, rows: int, threads: int | None) -> np.ndarray:
    """Both components of an answer of :func:`answer_words` words: uint64 (polys, 2, N), zeros where rows end."""
    p, (full, rest) = parameters, divmod(rows, parameters.degree)
    out = np.zeros((full + (rest > 0), 2, p.degree), np.uint64)
    done = answer_words(p, full * p.degree)
    if full:
        _core.unpack_words(np.ascontiguousarray(answer[:done]), p.switched_bits, out[:full].reshape(-1), threads)
    if rest:
        middle = done + -(-rest * p.switched_bits // 64)
        _core.unpack_words(np.ascontiguousarray(answer[done:middle]), p.switched_bits, out[full, 0, :rest], threads)
        _core.unpack_words(np.ascontiguousarray(answer[middle:]), p.switched_bits, out[full, 1], threads)
    return out


def _hidden(
    p: Parameters, products: np.ndarray, zero: np.ndarray, noise_key: bytes, context: bytes, indices: range,
    threads: int | None,
) -> list[np.ndarray]:  # fmt: skip
    """Both components with a fresh encryption of zero and the flood, switched to modulus 2^(w+11): two (polys, N)."""
    of, shape = poly.ring(p), (len(products), p.limbs, p.degree)

    def stream(kind: bytes) -> _core.KeySchedules:
        return _streams(p, noise_key, kind, context, indices, threads)

    ternary, noise, found = np.empty(shape, np.uint64), np.empty(shape, np.uint64), []
    _core.lattice_ternary(of, stream(poly.SERVER_TERNARY), 0, ternary, threads)
    _core.lattice_forward(of, ternary, threads)
    for component in range(2):
        part = poly.multiply(of, ternary, zero[component][None], threads)
        _core.lattice_add(of, part, np.ascontiguousarray(products[:, component]), threads)
        _core.lattice_inverse(of, part, threads)
        if component == 0:
            _core.lattice_flood(of, stream(poly.SERVER_FLOOD), 0, p.flood_bits, noise, threads)
        else:
            _core.lattice_gaussian(of, stream(poly.SERVER_ERROR), 0, noise, threads)
        _core.lattice_add(of, part, noise, threads)
        switched = np.empty((len(products), p.degree), np.uint64)
        _core.lattice_switch(of, part, p.switched_bits, switched, threads)
        found.append(switched)
    return found


def _add_mask(p: Parameters, first: np.ndarray, mask: np.ndarray, negate: bool) -> None:
    """Add U 2^11, or -U 2^11, modulo 2^(w+11) to the coefficients of the rows."""
    part = first.reshape(-1)[: len(mask)]
    wide = mask.astype(np.uint64) << np.uint64(NOISE_BITS)
    if negate:
        part -= wide
    else:
        part += wide
    part &= np.uint64((1 << p.switched_bits) - 1)


def _streams(
    p: Parameters, key: bytes, kind: bytes, context: bytes, indices: range, threads: int | None
) -> _core.KeySchedules:
    place = hashlib.sha256(b"mipp v1 lattice context" + _context(context)).digest()
    return poly.schedules(_noise_key(key), kind, p, place, indices, threads)


def _check_words(p: Parameters, words: np.ndarray, coordinates: int) -> None:
    if not isinstance(words, np.ndarray) or words.dtype not in _WORDS:
        raise DTypeError("words must be an array of uint16, uint32 or uint64; of signed numbers use .astype(np.uint32)")
    if words.ndim != 2 or words.shape[1] != coordinates:
        raise ShapeError(f"words must be (rows, {coordinates}), not {words.shape}")
    if words.dtype.itemsize * 8 < p.plain_bits:
        raise ParameterError(f"words modulo 2^{p.plain_bits} do not fit {words.dtype}")


def _first_row(p: Parameters, first_row: int) -> int:
    first_row = whole_number(first_row, 0, 2**34, "first_row")
    if first_row % p.degree:
        raise ParameterError(f"first_row must be a multiple of {p.degree}, not {first_row}")
    return first_row


def _context(context: bytes) -> bytes:
    if not isinstance(context, bytes) or not context:
        raise ParameterError("a context must be bytes that name the query, not empty")
    return context


def _noise_key(key: bytes) -> bytes:
    if not isinstance(key, bytes) or len(key) != 32:
        raise ParameterError("a server's key must be 32 bytes")
    return key
