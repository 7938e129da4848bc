"""Scores from servers' answers, with a report of the noise."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from .._native import _core
from ..errors import DTypeError, MessageError, ParameterError, VerificationError
from .keys import SecretKey
from .parameters import NOISE_BITS
from .polynomials import ring
from .products import BATCH, answer_words, unpack_answer

__all__ = ["NoiseReport", "decrypt"]


@dataclasses.dataclass(frozen=True)
class NoiseReport:
    """Noise of decrypted answers, in units of 2^-11 of a score's step.

    Parameters
    ----------
    largest : int
        Largest absolute value that was found.
    limit : int
        Largest absolute value of honest answers (:meth:`Parameters.largest_noise`). From 1024 on scores are wrong.

    Attributes
    ----------
    largest, limit
        As given.

    Examples
    --------
    >>> from mipp.lattice import NoiseReport
    >>> NoiseReport(largest=512, limit=708).bits_left
    1.0
    """

    largest: int
    limit: int

    @property
    def bits_left(self) -> float:
        """Bits by which the noise could grow before a score is wrong."""
        return NOISE_BITS - 1 - math.log2(max(self.largest, 1))


def decrypt(
    secret: SecretKey, answers: np.ndarray | Sequence[np.ndarray], rows: int, *, threads: int | None = None
) -> tuple[np.ndarray, NoiseReport]:
    """Open a server's answer, or the sum of two servers' answers.

    Parameters
    ----------
    secret : SecretKey
        The user's key. Secret.
    answers : ndarray of uint64, shape (answer_words,), or one or two of them
        Answers to one query under this key. Public.
    rows : int
        Number of rows.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    scores : ndarray of int32, shape (rows,)
        Scores, which are right from -2^(w-1) to 2^(w-1) - 1 and wrap beyond. With an answer that was masked and not
        its counterpart: uniform numbers of w bits. Secret.
    report : NoiseReport
        The noise. Secret: of honest answers it tells of rows what flooding leaves.

    Raises
    ------
    DTypeError
        An answer is not an array of uint64.
    MessageError
        An answer has another length.
    VerificationError
        There is more noise than honest answers have: they are not of this query and key, or were changed. Nothing is
        used. Not every change is seen: who adds multiples of 2^11 to the first component changes scores, and who swaps
        polynomials swaps rows. Make a new key after this error: a server that learns of it may learn of the key.
    ParameterError
        Neither one nor two answers, or a bad number of rows. That the answers are of two servers, and of so many rows,
        is for the caller to know: an answer given twice is added to itself.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.lattice import Parameters, SecretKey, decrypt, encrypt, masks, matvec, prepare
    >>> parameters = Parameters.choose(coordinates=2, score_bits=20, ring_bits=32)
    >>> secret = SecretKey.generate(parameters)
    >>> query = prepare(encrypt(secret, np.array([10, -3])))
    >>> shares = [np.array([[5, 7]], np.uint32), np.array([[1, 2]], np.uint32)]  # of the row (6, 9)
    >>> mask = masks(parameters, bytes(32), b"query 0", rows=1)  # an example's keys
    >>> answers = [
    ...     matvec(share, query, noise_key=bytes([i] * 32), context=b"query 0", mask=mask, negate=i == 1)
    ...     for i, share in enumerate(shares)
    ... ]
    >>> scores, report = decrypt(secret, answers, rows=1)
    >>> scores.tolist(), report.bits_left > 0.5
    ([33], True)
    """
    p = secret.parameters
    found = [answers] if isinstance(answers, np.ndarray) else list(answers)
    if not 1 <= len(found) <= 2:
        raise ParameterError(f"one or two answers are opened together, not {len(found)}")
    expected = answer_words(p, rows)
    for answer in found:
        if not isinstance(answer, np.ndarray) or answer.dtype != np.uint64:
            raise DTypeError("an answer must be an array of uint64")
        if answer.shape != (expected,):
            raise MessageError(f"an answer for {rows} rows has {expected} words, not {answer.shape}")
    scores, largest = np.empty(rows, np.int32), 0
    key = np.ascontiguousarray(secret.residues)
    for start in range(0, rows, BATCH * p.degree):
        stop = min(start + BATCH * p.degree, rows)
        at = slice(answer_words(p, start), answer_words(p, stop))
        total = unpack_answer(p, found[0][at], stop - start, threads)
        for answer in found[1:]:
            total += unpack_answer(p, answer[at], stop - start, threads)
        total &= np.uint64((1 << p.switched_bits) - 1)
        phase = np.empty((len(total), p.degree), np.uint64)
        c0, c1 = (np.ascontiguousarray(total[:, i]) for i in range(2))
        _core.lattice_phase(ring(p), c0, c1, key, p.switched_bits, phase, threads)
        phases = phase.reshape(-1)[: stop - start]  # behind the last row there is no first component
        phases += np.uint64(1 << NOISE_BITS - 1)
        noise = (phases & np.uint64((1 << NOISE_BITS) - 1)).astype(np.int64) - (1 << NOISE_BITS - 1)
        largest = max(largest, int(np.abs(noise).max()))
        # w bits as a signed number: moved to the top of 64, and back with the sign
        scores[start:stop] = (phases << np.uint64(64 - p.switched_bits)).view(np.int64) >> (64 - p.plain_bits)
    report = NoiseReport(largest, p.largest_noise(len(found)))
    if report.largest > report.limit:
        raise VerificationError("answers have more noise than honest ones: they are not of this query and key")
    return scores, report
