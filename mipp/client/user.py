"""The user: searches by example, ranks what the servers give, fetches and decrypts images."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .. import schemes
from ..crypto import box, signing
from ..encoding.ranges import checked_threshold
from ..errors import AccessDeniedError, IntegrityError, NotFoundError, ParameterError, ShapeError, StaleSnapshotError
from ..mpc.facts import most_rows, require_ranking
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.grants import offered_rankings
from . import ranking as ranks
from .choosing import Owners
from .fetching import Fetcher
from .given import whole_number
from .image_features import query_vector
from .index import Index
from .indexing import IndexClient
from .query import Querier
from .results import FetchedImage, Hit, Hits, Nearest, SearchResult

__all__ = ["User"]

#: neighbours of a search that does not say how many
DEFAULT_K = 10
#: seconds that a query is retried while the index keeps changing under it
_PATIENCE = 10.0
T = TypeVar("T")


class User(IndexClient):
    """An authorised user.

    Parameters
    ----------
    name : public
    config, channel : the deployment and the way to its servers
    sign_seed, box_key : 32 secret bytes each (Ed25519, X25519)
    secrets : this user's keys of the deployment's scheme, by name (:meth:`mipp.schemes.Scheme.user_secrets`)
    servers : the servers to query, default the scheme's choice
    threads : native threads, default all cores
    blocked : ids of owners that are never searched, whatever they grant

    Servers learn who asks, over which owners, when, and k. With ``ranking="server"`` the user learns the k nearest
    only; with ``ranking="user"`` all exact scores, from which features can be solved with a few dozen queries.

    An owner's program can store rows that are longer than the encoding allows. With ``ranking="user"`` a row whose
    score is out of the encoding's range is dropped, high or low; nothing is asked again because of it. A row whose
    score lies or wraps into the range cannot be told from others.
    """

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, box_key: bytes, *,
        secrets: Mapping[str, bytes] | None = None, servers: Sequence[int] | None = None, threads: int | None = None,
        blocked: Iterable[bytes] = (),
    ) -> None:  # fmt: skip
        super().__init__(name, config, channel, sign_seed, blocked)
        self._box_key = box_key
        public = box.box_private(box_key).public_key().public_bytes_raw()
        self._public = signing.sign_public(sign_seed), public
        self.id = signing.party_id(*self._public)
        self.scheme = schemes.get(config.params.scheme).for_user(config, servers, secrets or {}, threads)
        self.servers = self.scheme.servers
        self.threads = threads
        self._querier = Querier(self, self.scheme)
        self._fetcher = Fetcher(self, box_key)
        #: who may rank, the default first; empty in an index for range searches alone
        self.rankings = tuple(r for r in config.offered if r != "threshold")

    @property
    def default_ranking(self) -> str:
        """Who ranks when a search does not say."""
        return self.rankings[0] if self.rankings else "threshold"

    def register(self) -> None:
        """Make this user's public keys known to all servers. Again is harmless."""
        self.ask_all(m.RegisterUser(self.name, *self._public, self.scheme.public_key))

    # --- search -------------------------------------------------------------------------------------------------

    def search(
        self, query: np.ndarray, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False,
    ) -> SearchResult:  # fmt: skip
        """The k nearest images of all owners that granted this user (or of those named).

        Parameters
        ----------
        query : (dim,) features; secret, no server learns it
        k : 1 to the number of images; default 10, or all there are if they are fewer
        owners : names, ids or owner objects, one or several; default all that are not blocked
        ranking : ``"server"`` (default): the servers find the k nearest without learning a score, an order or a row,
            and the user learns those k only (with their scores, if the grants give them); ``"user"``: the user gets all
            scores (the default, and all there is, in the Paillier scheme)
        strict : raise IntegrityError instead of going on without batches that are damaged or missing at a server, and
            owners on whom the servers differ; what was left out is in the result's ``left_out``

        With ``"user"``, rows whose scores are out of the encoding's range are no hits, also with ``strict``: there are
        fewer than k hits if fewer rows are left, and only then ``left_out`` names batches of such rows (of as many as
        would have filled the k places, over all queries of the call). :meth:`scores` names all.

        Raises
        ------
        AccessDeniedError, ParameterError, EncodingError, ShapeError
            No grant (of this ranking); k out of range; a bad query. No score was computed.
        ScoreRangeError
            Differences of this encoding's scores could wrap, so that servers cannot compare them.
        ProtocolError
            A server failed while they compared, or did not get the query; nobody learnt anything.
        BusyError
            The servers had too many rankings open, also after some seconds of retrying.

        Costs the user one round (two if the index changed): D words to each server, and from each k words, or N
        words with ``"user"`` (in several rounds if they are more than 32 MiB).
        See :func:`mipp.mpc.cost.top_k_cost` for what the servers send each other.
        """
        query = np.asarray(query)
        queries = query[None] if query.ndim == 1 else query
        if queries.ndim == 2 and len(queries) != 1:
            raise ShapeError(f"search takes one query, not {len(queries)}; search_batch takes several")
        return self.search_batch(queries, k, owners=owners, ranking=ranking, strict=strict)[0]

    def search_image(
        self, image: Any, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False,
    ) -> SearchResult:  # fmt: skip
        """As :meth:`search`, by an example image.

        Parameters
        ----------
        image : path, bytes of an image file, uint8 array (H, W, 3) in RGB, or Pillow image
            Secret; no server learns it or its features.
        k, owners, ranking, strict
            As for :meth:`search`.

        Raises
        ------
        ImageError
            The image cannot be read.
        ParameterError
            An index of vectors; also the errors of :meth:`search`.
        """
        vector = query_vector(self.config, image)
        return self.search(vector, k, owners=owners, ranking=ranking, strict=strict)

    def search_batch(
        self, queries: np.ndarray, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False,
    ) -> list[SearchResult]:  # fmt: skip
        """As :meth:`search` for (B, dim) queries, in constant memory.

        With ``ranking="user"`` the servers answer a batch some rows at a time, under one header, and read each row
        once; otherwise large batches are split into queries whose answers fit in memory.
        """
        found = self.nearest(queries, k, owners=owners, ranking=ranking, strict=strict)
        results: list[SearchResult] = []
        for q in range(len(found.rows)):
            scores = None if found.scores is None else found.scores[q]
            there = found.rows[q][found.rows[q] >= 0]  # empty places are the last ones
            hits = self._hits(found.index, there, scores, found.values, q)
            seconds = {name: s / len(found.rows) for name, s in found.seconds.items()}
            results.append(SearchResult(hits, seconds, found.left_out))
        return results

    def nearest(
        self, queries: np.ndarray, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False,
    ) -> Nearest:  # fmt: skip
        """As :meth:`search_batch`, as arrays: no Python object per hit.

        All of it is about one state of the index, whatever is uploaded meanwhile. When rows are deleted or a grant
        changes before all queries are sent, the whole batch is asked again, under a new header (so it counts against
        quotas again).

        Rows whose scores are out of the encoding's range leave the last places empty if fewer than k others are there
        (``ranking="user"``): row -1, and a score one less than the encoding's least.

        Raises
        ------
        StaleSnapshotError
            The index kept changing.
        """
        ranking = self._ranking(ranking)
        most = DEFAULT_K if k is None else whole_number(k, "k")
        if most < 1:
            raise ParameterError(f"k must be a positive integer, not {k!r}")
        queries, encoded = self._encoded(queries)

        def attempt(index: Index) -> tuple[Index, ranks.Ranked]:
            k = min(most, index.total)
            return index, ranks.nearest(self._querier, index, encoded, k, ranking, self.threads)

        index, (rows, scores, seconds) = self._retry(
            owners, most, attempt, strict, (ranking, len(encoded)), fewer=k is None
        )
        if ranking == "user" and scores is not None:
            empty = scores == ranks.DROPPED
            index = index.dropping(np.unique(rows[empty]))
            rows[empty], scores[empty] = -1, self.config.encoding.score_range[0] - 1
        values = None if scores is None else self.config.encoding.values(scores, np.atleast_2d(queries))
        return Nearest(index, rows, scores, values, seconds)

    def range_search(
        self, query: np.ndarray, threshold: float, *, owners: Owners | None = None, strict: bool = False
    ) -> Hits:
        """All images at least as near as ``threshold``, in row order.

        Where servers compare, the user learns nothing else, not even scores. Else (the Paillier scheme) it gets all
        scores and picks by itself, with the costs and errors of :meth:`search`, and hits carry scores.

        Parameters
        ----------
        query : (dim,) features; secret
        threshold : in the metric's unit (:meth:`mipp.Encoding.values`): least inner product or cosine, or largest
            distance (squared for l2); secret too, the servers get shares of it
        owners : names, ids or owner objects, one or several; default all that are not blocked

        Raises
        ------
        ParameterError
            A threshold that no score or every score reaches; also the errors of :meth:`search`.
        AccessDeniedError
            Also when an owner does not grant ``"threshold"``: thresholds tell about scores.
        """
        if "threshold" not in offered_rankings(self.config.params):  # these servers never compare
            query, encoded, theta = self._with_threshold(query, threshold)
            index, found = self.scores(query, owners=owners, strict=strict)
            rows = np.flatnonzero(found[0] >= theta)
            values = self.config.encoding.values(found[:, rows], query)
            return self._hits(index, rows, found[0, rows], values, 0)
        if "threshold" not in self.config.offered:
            raise ParameterError("this index was made without thresholds; search for the nearest instead")
        require_ranking(self.config)
        query, encoded, theta = self._with_threshold(query, threshold)

        def attempt(index: Index) -> tuple[Index, np.ndarray]:
            return index, ranks.matches(self._querier, index, encoded, theta)

        index, rows = self._retry(owners, 0, attempt, strict, ("threshold", 1))
        return self._hits(index, rows, None, None, 0)

    def match(self, query: np.ndarray, threshold: float, *, owners: Owners | None = None, strict: bool = False) -> Hits:
        """Deprecated name of :meth:`range_search`."""
        warnings.warn("User.match is called range_search now", DeprecationWarning, stacklevel=2)
        return self.range_search(query, threshold, owners=owners, strict=strict)

    def scores(
        self, queries: np.ndarray, *, owners: Owners | None = None, strict: bool = False
    ) -> tuple[Index, np.ndarray]:
        """All exact scores (B, N) int64 of (B, dim) queries, and the index that says which row is which.

        A score out of the encoding's range is given as one less than its least. The index's ``left_out`` names the
        batches of all rows that have such a score for one of the queries, and how many rows they are.
        """
        _, encoded = self._encoded(queries)

        def attempt(index: Index) -> tuple[Index, np.ndarray]:
            found, dropped = ranks.all_scores(self._querier, index, encoded, self.threads)
            return index.dropping(dropped), found

        return self._retry(owners, 1, attempt, strict, ("user", len(encoded)))

    def cost(
        self, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None, queries: int = 1
    ) -> dict[str, Any]:
        """Rounds and bytes of a search, before anything is sent: see :meth:`mipp.schemes.UserScheme.cost`."""
        if ranking != "threshold" or "server" not in self.rankings:
            ranking = self._ranking(ranking)
        index = self.index(owners)
        k = min(DEFAULT_K, index.total) if k is None else whole_number(k, "k")
        if ranking != "threshold" and not 1 <= k <= index.total:
            raise ParameterError(f"k must be from 1 to {index.total}, not {k!r}")
        return self.scheme.cost(index.total, len(index.batches), k, ranking, queries)

    def _ranking(self, ranking: str | None) -> str:
        ranking = self.default_ranking if ranking is None else ranking
        if ranking not in self.rankings:
            if not self.rankings:
                raise ParameterError(
                    "this index is for range searches alone: give a threshold (range_search, mipp search --threshold)"
                )
            offered = " or ".join(f'"{r}"' for r in self.rankings)
            raise ParameterError(f"ranking must be {offered} in this deployment, not {ranking!r}")
        if ranking == "server":
            require_ranking(self.config)  # before anything is sent
        return ranking

    def _encoded(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        queries = np.asarray(queries)
        encoded = self.config.encoding.encode_queries(queries)
        if not len(encoded):
            raise ParameterError("no queries")
        return queries, encoded

    def _with_threshold(self, query: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, int]:
        """A query (1, dim), as it is and encoded, and the least score that reaches the threshold."""
        threshold = checked_threshold(self.config.encoding, threshold, self.config.largest_distance)
        query = np.asarray(query)
        query, encoded = self._encoded(query if query.ndim == 2 and len(query) == 1 else query[None])
        return query, encoded, self.config.encoding.score_threshold(threshold, query[0])

    def _retry(
        self, owners: Owners, k: int, attempt: Callable[[Index], T], strict: bool, about: tuple[str, int], *,
        fewer: bool = False,
    ) -> T:  # fmt: skip
        """Run ``attempt`` on a state of the index; retries on a newer one when that or a grant changed.

        ``fewer``: an index with fewer than k rows is searched all the same.

        A remembered state costs nothing to use: the first server refuses the query, before anything is counted, when it
        knows a newer one. A state that was asked for just now is answered whatever is uploaded meanwhile.
        """
        key = self._chosen(owners)
        state = self._remembered(key, 1 if fewer else max(k, 1), about[0]) or self._index(key)
        until, stuck = math.inf, 0
        while True:
            # an owner that was not asked for by name does not stop the others by what it grants
            index = state.ranked_by(about[0])
            if not key and not strict:
                index = index.covering(about[0], min(k, index.total) if fewer else k, about[1])
            if about[0] == "server" and not key and not strict:
                index = index.within(most_rows(self.config))
            if strict and index.left_out:
                raise IntegrityError(f"cannot search {index.left_out[0]}")
            if not index.total or (k > index.total and not index.left_out and not fewer):
                gone = f"; left out: {'; '.join(str(o) for o in index.left_out[:3])}" if index.left_out else ""
                if not index.total:
                    raise ParameterError(f"the index has 0 images for this user{gone}")
                raise ParameterError(
                    f"k={k} is larger than the index, which has {index.total} images for this user{gone}"
                )
            try:
                return attempt(index)
            except (StaleSnapshotError, AccessDeniedError, NotFoundError, IntegrityError) as error:
                newer = self._index(key)  # raises if nothing is granted any more
                now, same = time.monotonic(), newer.hashes == state.hashes
                if now > until or (same and not isinstance(error, StaleSnapshotError)):
                    raise
                until = min(until, now + _PATIENCE)  # from the first change on: a large batch may take longer
                stuck = stuck + 1 if same else 0
                if stuck:
                    time.sleep(min(0.01 * 2**stuck, 0.5))  # a change is on its way through the servers
                    if stuck > 2 and self.recover is not None:
                        self.recover()  # or got stuck on it
                state = newer

    def _hits(
        self, index: Index, positions: np.ndarray, scores: np.ndarray | None, values: np.ndarray | None, q: int
    ) -> Hits:
        batch, row = index.locate(positions)
        out = Hits()
        out.left_out, out.searched = index.left_out, index.total
        for i, (b, r) in enumerate(zip(batch, row, strict=True)):
            owner = index.owners[int(index.owner_of_batch[b])]
            score = None if scores is None else int(scores[i])
            value = None if values is None else float(values[q, i])
            out.append(Hit(index.batches[b].tobytes(), int(r), owner.owner, owner.name, score, value))
        return out

    # --- images -------------------------------------------------------------------------------------------------

    def fetch(self, hits: Sequence[Hit | tuple[bytes, int] | str], *, strict: bool = False) -> list[FetchedImage]:
        """Fetch and decrypt images; one result per hit, in the order of ``hits``.

        They are asked for in row order, so that a cloud does not see the ranking; it does see which are asked for.
        Large fetches are split into several requests.

        Parameters
        ----------
        hits : hits of a search, or image ids; one or several
        strict : raise the first error of an image instead of returning it as :attr:`FetchedImage.error`

        Raises
        ------
        AccessDeniedError
            No owner grants this user anything. Otherwise only with ``strict``, or as an image's ``error``: the image's
            owner does not grant this user anything (any more).
        NotFoundError
            Deleted, or stored without an image.
        IntegrityError, StoreError
            The stored file is damaged or cannot be read.
        AuthenticationError, MessageError
            A file that was tampered with; one whose owner wrote a malformed header.
        """
        return self._fetcher.fetch(hits, strict=strict)
