"""The scheme ``lattice``: inner products under the user's lattice key, by one cloud and a key centre.

Rows x are stored as c = x + p mod 2^k, as in the scheme ``paillier``: the cloud has c, the key centre makes the
keystream p, and so -p, from keys. Both get the query q, encrypted (:mod:`mipp.lattice`: RLWE, believed to withstand
quantum computers), and take the low w bits of their words: these share the low w bits of the rows, and w bits hold
every score. Each computes its product, <c, q> or <-p, q>, modulo 2^w, for as many rows at once as a ciphertext has
coefficients, and adds

* an encryption of zero with fresh randomness and a flood of noise, so that the key's owner reads nothing of the words
  from the randomness of the answer or from its noise;
* U or -U, uniform mod 2^w, from the PRF of the two servers over the hash of the header: either answer alone has a
  uniform plaintext.

The user adds both, decrypts once, and has <x, q> mod 2^w, which is the score.

Semi-honest servers that do not collude, and a user that follows the protocol: one that sends something else than an
encrypted query has answers computed whose noise the flood does not hide.

Source: Brakerski, CRYPTO 2012, and Fan, Vercauteren, ePrint 2012/144, for the encryption.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..backends import Rows
from ..encoding import Encoding
from ..errors import LimitError, MessageError, MissingKeyError, NotFoundError, ParameterError, ShapeError
from ..lattice import (
    EncryptedVector,
    EvaluationKey,
    Parameters,
    SecretKey,
    answer_words,
    decrypt,
    encrypt,
    masks,
    matvec,
    prepare,
)
from ..lattice.products import BATCH
from ..params import RING_DTYPES, Params
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig
from ..rpc.limits import MAX_ANSWER_BYTES, MAX_QUERIES, MAX_QUERY_BYTES
from .base import Hidden, PairKeys, RowPlan, Scheme, SearchCost, ServerScheme, UserKeys, UserScheme

__all__ = ["LatticeScheme", "parameters_of"]

#: for who makes an index that the scheme cannot carry
_HINT = (
    "coordinates are words of a row: --project N --fit FILE leaves fewer of vectors, another --descriptor has fewer; "
    "fewer --bits and --query-bits leave shorter scores; --scheme paillier carries all"
)
#: ciphertexts to which servers expand the queries of one header, where they do: a millisecond each
MAX_EXPANDED = 1 << 12
#: words of rows that a server multiplies at a time, and of those that it reads at a time
_BLOCK_BYTES, _PIECE_BYTES = 1 << 26, 1 << 23
#: users whose evaluation keys a server keeps ready, up to 25 MB each
_READY = 8


def parameters_of(encoding: Encoding) -> Parameters:
    """The parameters that hold every score of an encoding; ParameterError if none do."""
    low, high = encoding.score_range
    return Parameters.choose(encoding.encoded_dim, max(high, -low - 1).bit_length() + 1, encoding.ring_bits)


def _most_queries(parameters: Parameters, dim: int) -> int:
    """Queries that go under one header, at most: what both ends hold in memory, and what servers compute for each."""
    most = MAX_QUERY_BYTES // (8 * EncryptedVector.words(parameters, dim))
    if parameters.special is not None:
        most = min(most, MAX_EXPANDED // dim)
    return min(MAX_QUERIES, max(1, most))


class LatticeScheme(Scheme):
    """One cloud and a key centre; each user encrypts its queries under its own lattice key and ranks by itself."""

    name = "lattice"
    cloud_counts = (1,)
    summary = (
        "one cloud and a key centre; queries are encrypted under the user's lattice key, also against quantum "
        "computers, the user ranks"
    )

    def params(self, ring_bits: int, clouds: int | None = None) -> Params:
        return Params(1 + self.checked_clouds(clouds), 1, ring_bits, self.name)

    def check_encoding(self, encoding: Encoding) -> None:
        try:
            parameters_of(encoding)
        except ParameterError as error:
            raise ParameterError(f"{error}; {_HINT}") from None

    def facts(self, config: DeploymentConfig) -> dict[str, Any]:
        """The parameter set, and bytes of messages: of a query, of an answer for each row of many, of a user's key."""
        parameters, words = parameters_of(config.encoding), config.encoding.encoded_dim
        return {
            "parameters": parameters.name,
            "query_bytes": 8 * EncryptedVector.words(parameters, words),
            "answer_bytes_a_row": 8 * answer_words(parameters, parameters.degree) / parameters.degree,
            "evaluation_key_bytes": EvaluationKey.size(parameters, words) if parameters.special else 0,
        }

    def user_secrets(self, config: DeploymentConfig, key_bits: int) -> dict[str, bytes]:
        parameters = parameters_of(config.encoding)
        return {"lattice": SecretKey.generate(parameters).to_bytes()} if parameters.special else {}

    def for_user(
        self, config: DeploymentConfig, servers: Sequence[int] | None, secrets: Mapping[str, bytes], threads: int | None
    ) -> UserScheme:
        parameters = parameters_of(config.encoding)
        key = SecretKey.from_bytes(parameters, secrets["lattice"]) if parameters.special else None
        return _User(config, servers, key, threads)

    def for_server(
        self, config: DeploymentConfig, index: int, pair_keys: PairKeys, threads: int | None, keys: UserKeys,
        own_key: bytes,
    ) -> ServerScheme:  # fmt: skip
        return _Server(config, index, pair_keys, threads, keys, own_key)


class _User(UserScheme):
    """Encrypts queries, each under a key of its own, or all under the user's, where servers have its evaluation key.

    The user learns all exact scores; the servers learn nothing of a query.
    """

    by_rows = False

    def __init__(
        self, config: DeploymentConfig, servers: Sequence[int] | None, key: SecretKey | None, threads: int | None
    ) -> None:
        p = config.params
        self._config, self._key, self._threads = config, key, threads
        self.servers = p.check_servers(servers if servers is not None else p.clouds + p.key_centres)
        self._parameters, self._dim = parameters_of(config.encoding), config.encoding.encoded_dim
        self.evaluation_key_bytes = 0 if key is None else EvaluationKey.size(self._parameters, self._dim)

    def evaluation_key(self) -> bytes:
        return (
            b"" if self._key is None else EvaluationKey.generate(self._key, self._dim, threads=self._threads).to_bytes()
        )

    def hide(self, encoded: np.ndarray) -> Hidden:
        values = encoded.astype(np.int64)
        if values.size and int(np.abs(values).sum(axis=1).max()) > self._config.encoding.query_norm1:
            raise ParameterError("the query is longer than the encoding's bound")
        keys = [self._key or SecretKey.generate(self._parameters) for _ in values]
        shares = np.empty((len(values), EncryptedVector.words(self._parameters, self._dim)), np.uint64)
        for key, query, words in zip(keys, values, shares, strict=True):
            words[:] = encrypt(key, query, threads=self._threads).to_words(threads=self._threads)
        return Hidden(dict.fromkeys(self.servers, shares), tuple(keys))

    def portion(self, rows: int, ranking: str, k: int, *, choice: int = 0) -> int:
        most = MAX_ANSWER_BYTES // (8 * answer_words(self._parameters, rows))
        return max(1, min(most, _most_queries(self._parameters, self._dim)))

    def verify(self, score_shares: Sequence[np.ndarray], queries: int, rows: int, width: int) -> None:
        expected = queries, answer_words(self._parameters, rows)
        if any(s.shape != expected or s.dtype != np.dtype("<u8") for s in score_shares):
            raise MessageError("a server's answer has the wrong shape")

    def open(self, score_shares: Sequence[np.ndarray], rows: int, opening: Any) -> list[np.ndarray]:
        signed = {16: np.int16, 32: np.int32, 64: np.int64}[self._config.params.ring_bits]
        out = np.empty((len(opening), rows), RING_DTYPES[self._config.params.ring_bits])
        for query, key in enumerate(opening):
            found, _ = decrypt(key, [shares[query] for shares in score_shares], rows, threads=self._threads)
            out[query] = found.astype(signed).view(out.dtype)
        return [out]

    @property
    def unverified(self) -> str:
        return "answers of the lattice scheme are not verified: the cloud could use a wrong row throughout, unnoticed"

    def cost(
        self, images: int, batches: int, k: int, ranking: str, queries: int, width: int, *, checks: int = 0,
        folded: bool = False,
    ) -> SearchCost:  # fmt: skip
        sent = queries * 8 * EncryptedVector.words(self._parameters, self._dim) + 16 * batches
        received = queries * 8 * answer_words(self._parameters, images)
        cost: SearchCost = {
            "ranking": ranking, "images": images, "user": {"rounds": 1, "sent": sent, "received": received},
        }  # fmt: skip
        if self.evaluation_key_bytes:
            cost["user"]["once"] = self.evaluation_key_bytes
        return cost


class _Server(ServerScheme):
    """Users' evaluation keys, where they have any; masked and flooded score shares.

    It answers for all rows at once. The randomness of an answer comes from a key of its own and the header: a retry has
    the same bytes, and counts against quotas.
    """

    by_rows = False

    def __init__(
        self, config: DeploymentConfig, index: int, pair_keys: PairKeys, threads: int | None, keys: UserKeys,
        own_key: bytes,
    ) -> None:  # fmt: skip
        self._config, self._index, self._threads, self._registered = config, index, threads, keys
        self._pair_keys, self._own_key = pair_keys, own_key
        self._parameters, self._dim = parameters_of(config.encoding), config.encoding.encoded_dim
        #: by user: its evaluation key, and the hash of its bytes
        self._keys: OrderedDict[bytes, tuple[EvaluationKey, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        self._keys.clear()

    def drop_user(self, user: bytes) -> None:
        with self._lock:
            self._keys.pop(user, None)

    @property
    def evaluation_key_bytes(self) -> int:
        return EvaluationKey.size(self._parameters, self._dim) if self._parameters.special else 0

    @property
    def query_bytes(self) -> int:
        return max(MAX_QUERY_BYTES, 8 * EncryptedVector.words(self._parameters, self._dim))

    def check_evaluation_key(self, key: bytes) -> None:
        if not self.evaluation_key_bytes:
            super().check_evaluation_key(key)
        self._read_key(key)

    def _read_key(self, data: bytes) -> EvaluationKey:
        key = EvaluationKey.from_bytes(self._parameters, data, threads=self._threads)
        if key.coordinates != self._dim:
            raise ParameterError(f"evaluation keys of this index are for {self._dim} coordinates")
        return key

    def _key(self, user: bytes) -> tuple[EvaluationKey | None, bytes]:
        """A user's evaluation key and its hash; None where queries bring all that is needed. MissingKeyError."""
        if not self.evaluation_key_bytes:
            return None, b""
        with self._lock:
            if user in self._keys:
                self._keys.move_to_end(user)
                return self._keys[user]
        try:
            data = self._registered(user)
        except NotFoundError:
            raise MissingKeyError(f"server {self._index} has no evaluation key of this user") from None
        found = self._read_key(data), hashlib.sha256(data).digest()
        with self._lock:
            self._keys[user] = found
            while len(self._keys) > _READY:
                self._keys.popitem(last=False)
        return found

    def check_query(
        self, header: m.QueryHeader, query_share: np.ndarray, theta: np.ndarray
    ) -> tuple[EvaluationKey | None, bytes]:
        """The evaluation key that the query is answered with, and its hash: it may go from the disk meanwhile."""
        if header.ranking != "user":
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        if theta.size:
            raise ShapeError("only a threshold query has thresholds")
        words = EncryptedVector.words(self._parameters, self._dim)
        if query_share.shape != (header.queries, words) or query_share.dtype != np.dtype("<u8"):
            raise ShapeError(f"query shares must be ({header.queries}, {words}) words of 64 bits")
        if header.queries > (most := _most_queries(self._parameters, self._dim)):
            raise LimitError(f"at most {most} queries are taken at once, not {header.queries}: send fewer queries")
        key = self._key(header.user)
        for query in query_share:
            self._read_query(query)
        return key

    def _read_query(self, words: np.ndarray) -> EncryptedVector:
        return EncryptedVector.from_words(self._parameters, self._dim, words, threads=self._threads)

    def check_size(self, header: m.QueryHeader, rows: int) -> int:
        if not rows:
            raise ParameterError("the query covers no images")
        size = header.queries * 8 * answer_words(self._parameters, rows)
        if header.queries > 1 and size > MAX_ANSWER_BYTES:
            raise LimitError(
                f"{header.queries} queries over {rows} rows are {size} bytes of score shares; at most "
                f"{MAX_ANSWER_BYTES} are given at once: send fewer queries together"
            )
        return size + self._memory(rows)

    def _memory(self, rows: int) -> int:
        """Bytes that an answer takes beside the answer itself: of one query and one block of rows at a time."""
        p, dim = self._parameters, self._dim
        polynomial, row = p.limbs * p.degree * 8, dim * self._config.params.dtype.itemsize
        prepared = 2 * dim * polynomial
        # the query as it is read and what its seed gives, which go when it is prepared
        read = 2 * (1 if p.special is not None else 1 + dim) * polynomial
        block = min(rows, self._block_rows)
        # to read a piece: its words twice at the key centre, and numbers of live rows
        piece = min(block, max(1, _PIECE_BYTES // row)) * (2 * row + 24)
        # products of some rows at a time: two components, and what is added to one; numbers after the modulus switch
        products = min(BATCH, -(-block // p.degree)) * (6 * polynomial + 5 * p.degree * 8)
        products += 8 * answer_words(p, block) + 12 * block
        return prepared + max(read, block * row + max(piece, products))

    @property
    def _block_rows(self) -> int:
        """Rows that are multiplied at a time: whole ciphertexts."""
        degree, row = self._parameters.degree, self._dim * self._config.params.dtype.itemsize
        return degree * max(1, _BLOCK_BYTES // (degree * row))

    def answer(
        self,
        header: m.QueryHeader,
        header_hash: bytes,
        plan: RowPlan,
        stored: Rows,
        query_share: np.ndarray,
        rows: range,
        checked: Any = None,
    ) -> np.ndarray:
        key, key_hash = self._key(header.user) if checked is None else checked
        (pair_key,) = self._pair_keys(header.keys).values()
        p, out = self._parameters, np.empty((len(query_share), answer_words(self._parameters, len(rows))), np.uint64)
        step = self._block_rows
        # one block alone is read once, for all queries
        alone = self._words(plan, stored, range(len(rows))) if len(rows) <= step else None
        for query, into in enumerate(out):
            number = query.to_bytes(4, "big")
            prepared = prepare(self._read_query(query_share[query]), key, threads=self._threads)
            for first in range(0, len(rows), step):
                some = range(first, min(first + step, len(rows)))
                block = self._words(plan, stored, some) if alone is None else alone
                into[answer_words(p, first) : answer_words(p, first + len(block))] = matvec(
                    block, prepared,
                    # another evaluation key makes another answer: it must not have the same randomness
                    noise_key=self._own_key, context=header_hash + number + key_hash, first_row=first,
                    mask=masks(p, pair_key, header_hash + number, len(block), first_row=first),
                    negate=self._index in self._config.params.key_centres, threads=self._threads,
                )  # fmt: skip
                del block  # before the next one is read
        return out

    def _words(self, plan: RowPlan, stored: Rows, rows: range) -> np.ndarray:
        """Words of live rows ``rows``, (rows, dim). Secret."""
        words = np.empty((len(rows), self._dim), self._config.params.dtype)
        step = max(1, _PIECE_BYTES // (self._dim * words.itemsize))  # what is read is copied: little at a time
        for first in range(0, len(rows), step):
            piece = words[first : first + step]
            for some, start, stop, live in plan.spans(range(rows.start + first, rows.start + first + len(piece))):
                found = stored.words(self._dim, start, stop)
                if live is None:
                    piece[some] = found
                else:
                    np.take(found, live, axis=0, out=piece[some], mode="clip")  # "raise" would copy
        return words
