"""The user of the homomorphic scheme: encrypts its query under its own Paillier key, and ranks all scores itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ParameterError
from ..paillier import PrivateKey
from ..rpc import messages as m
from ..rpc.limits import MAX_ANSWER_BYTES, MAX_QUERIES
from ..schemes.paillier import SlotLayout, encrypt_query, scores
from .choosing import Owners
from .results import Hits, Index
from .user import User

__all__ = ["HomomorphicUser"]


class HomomorphicUser(User):
    """A user with a Paillier key pair.

    Parameters
    ----------
    paillier : this user's key pair, secret; the others as for :class:`~mipp.client.user.User`

    The servers get every coordinate of the query as a ciphertext and learn nothing of it. The user learns all exact
    scores and nothing else, if it follows the protocol: one that encrypts numbers above the encoding's bound reads
    more. ``ranking="server"`` does not exist here.
    """

    default_ranking = "user"
    rankings = ("user",)
    by_rows = False

    def __init__(self, *args: Any, paillier: PrivateKey, **options: Any) -> None:
        super().__init__(*args, **options)
        self._paillier = paillier
        self._layout = SlotLayout.of(self.config.encoding, paillier.public)

    def register(self) -> None:
        self._tell(m.RegisterUser(self.name, *self._public, self._paillier.public.to_bytes()))

    def match(self, query: np.ndarray, threshold: float, *, owners: Owners | None = None, strict: bool = False) -> Hits:
        """All images at least as near as ``threshold``, in row order, picked by this user from all scores.

        Costs and errors of ``search``. The scores are no secret from the user in this scheme, so hits carry them.
        """
        query, _, theta = self._with_threshold(query, threshold)
        index, found = self.scores(query, owners=owners, strict=strict)
        rows = np.flatnonzero(found[0] >= theta)
        values = self.config.encoding.values(found[:, rows], query)
        return self._hits(index, rows, found[0, rows], values, 0)

    def _columns(self, encoded: np.ndarray) -> dict[int, np.ndarray]:
        if encoded.size and int(np.abs(encoded.astype(np.int64)).sum(axis=1).max()) > 1 << self._layout.bound_bits:
            raise ParameterError("the query is longer than the encoding's bound")
        return dict.fromkeys(self.servers, encrypt_query(encoded, self._paillier.public, threads=self.threads))

    def _portions(self, index: Index, encoded: np.ndarray, ranking: str, k: int = 1) -> Iterator[np.ndarray]:
        per_query = self._layout.ciphertexts(index.total) * 8 * self._paillier.public.element_limbs
        step = min(MAX_QUERIES, max(1, MAX_ANSWER_BYTES // per_query))
        for start in range(0, len(encoded), step):
            yield encoded[start : start + step]

    def _words(self, asked: Any) -> list[np.ndarray]:
        answers = [asked.replies[s].values for s in self.servers]
        return [scores(answers, asked.index.total, self._layout, self._paillier, threads=self.threads)]

    def _cost(self, images: int, batches: int, k: int, ranking: str, queries: int) -> dict[str, Any]:
        element = 8 * self._paillier.public.element_limbs
        sent = queries * self.config.encoding.encoded_dim * element + 16 * batches
        received = queries * self._layout.ciphertexts(images) * element
        return {"ranking": ranking, "images": images, "user": {"rounds": 1, "sent": sent, "received": received}}
