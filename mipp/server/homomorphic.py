"""The two servers of the homomorphic scheme: one cloud with masked rows, and the key centre with the masks."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..errors import LimitError, ParameterError, ShapeError
from ..paillier import PublicKey, RandomnessPool
from ..rpc import messages as m
from ..rpc.limits import MAX_ANSWER_BYTES
from ..schemes.paillier import SlotLayout, answer, check_query
from ..sharing import key_server_rows
from .cloud import CloudServer
from .key_centre import KeyCentre
from .plan import Plan
from .server import Server

__all__ = ["HomomorphicCloud", "HomomorphicKeyCentre"]


class HomomorphicServer(Server):
    """What both have in common: users' Paillier keys, randomness made ahead, masked and packed answers.

    They answer for all rows at once: ciphertexts are packed across rows, and every retry has fresh randomness, so it
    counts against quotas.
    """

    by_rows = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._keys: dict[bytes, tuple[PublicKey, SlotLayout, RandomnessPool]] = {}
        self._keys_lock = threading.Lock()

    def close(self) -> None:
        super().close()
        self._keys.clear()

    def prepare(self, user: bytes, rows: int, queries: int = 1) -> None:
        """Make the randomness of this user's next queries ahead: one power mod n^2 per ciphertext of an answer.

        Kept in memory only; each value is used once. A query that finds too little makes the rest itself.
        """
        _, layout, pool = self._key(user)
        pool.prepare(layout.ciphertexts(rows) * queries)

    def _check_paillier(self, key: bytes) -> None:
        SlotLayout.of(self.config.encoding, PublicKey.from_bytes(key))

    def _key(self, user: bytes) -> tuple[PublicKey, SlotLayout, RandomnessPool]:
        with self._keys_lock:
            if user not in self._keys:
                key = PublicKey.from_bytes(self.store.paillier_key(user))
                # r of full range: a key's owner can tell short exponents
                pool = RandomnessPool(key, full_range=True)
                self._keys[user] = key, SlotLayout.of(self.config.encoding, key), pool
            return self._keys[user]

    def _check_column(self, header: m.QueryHeader, msg: m.Query) -> None:
        if header.ranking != "user":
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        if msg.theta.size:
            raise ShapeError("only a threshold query has thresholds")
        check_query(msg.column, header.queries, self.config.encoding.encoded_dim, self._key(header.user)[0])

    def _within(self, header: m.QueryHeader, rows: int) -> None:
        key, layout, _ = self._key(header.user)
        size = header.queries * layout.ciphertexts(rows) * 8 * key.element_limbs
        if size > MAX_ANSWER_BYTES and header.queries > 1:
            raise LimitError(
                f"{header.queries} queries over {rows} rows are {size} bytes of answers; at most {MAX_ANSWER_BYTES} "
                "are given at once: send fewer queries together"
            )

    def _answers(self, header: m.QueryHeader, bound: bytes, plan: Plan, column: np.ndarray, rows: range) -> np.ndarray:
        key, layout, pool = self._key(header.user)
        other = 3 - self.index
        return answer(
            self._live_rows(plan), column, layout, key, pool, self._pair_keys[other], bound,
            negate=not self.has_shares, threads=self.threads,
        )  # fmt: skip

    def _live_rows(self, plan: Plan) -> np.ndarray:
        """(live rows, encoded dim) words of this server."""
        raise NotImplementedError


class HomomorphicCloud(HomomorphicServer, CloudServer):
    """The one cloud: rows masked by keystream. Semi-honest; with the key centre it rebuilds all features.

    Learns what a :class:`CloudServer` learns. Queries are under the user's Paillier key.
    """

    def _live_rows(self, plan: Plan) -> np.ndarray:
        dim = self.config.encoding.encoded_dim
        rows = np.zeros((plan.total, dim), self.config.params.dtype)
        for words, first, ordinals in plan.segments():
            if ordinals is None:
                rows[first : first + len(words)] = words[:, :dim]
            else:
                rows[first + ordinals] = words[:, :dim]
        live = plan.live
        return rows if live is None else rows[live]


class HomomorphicKeyCentre(HomomorphicServer, KeyCentre):
    """The key centre: minus the masks of all rows, made from 32 bytes an owner. Semi-honest."""

    def _live_rows(self, plan: Plan) -> np.ndarray:
        p, dim = self.config.params, self.config.encoding.encoded_dim
        rows = np.empty((plan.total, dim), p.dtype)
        for part in plan.parts:
            if part.batches:
                schedules = self._keyed(part, self._owner_secret(part.view.owner)[:32])
                rows[part.start : part.stop] = key_server_rows(schedules, part.run, p, dim)
        live = plan.live
        return rows if live is None else rows[live]
