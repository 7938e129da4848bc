"""The user: shares its query, adds the answers, ranks, fetches and decrypts images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ..crypto import box, schedule, signing
from ..encoding.ranges import checked_threshold
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    MessageError,
    NotFoundError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
    StoreError,
)
from ..mpc.comparison import combine_matches
from ..mpc.cost import largest_call
from ..mpc.query_proof import proof_bytes
from ..mpc.topk import combine_top_k
from ..rpc import messages as m
from ..rpc.associated_data import column_commitment
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.limits import MAX_PROOF_BYTES, MAX_QUERIES, MAX_RANKED_HITS
from ..rpc.wire import encode, frames_hash
from ..server.ranking import collect_ranked, most_rows, public_facts, require_ranking, retry_busy
from ..sharing import RunningTopK, query_columns, reconstruct, top_k
from .blocks import query_blocks, row_blocks
from .choosing import Owners
from .client import image_rows, several_images
from .fetching import failed_image, fetch_images
from .given import whole_number
from .indexing import IndexClient
from .preview import search_cost
from .query import Asked, Prepared, parts_of, range_proof
from .results import FetchedImage, Hit, Hits, Index, Nearest, SearchResult

__all__ = ["User"]

#: neighbours of a search that does not say how many
DEFAULT_K = 10
#: seconds that a query is sent anew while the index keeps changing under it
_PATIENCE = 10.0
#: what one server holds at once for a batch that is not answered by rows
_ANSWER_BYTES = 1 << 28

#: errors of one cloud that another may not have
_ELSEWHERE = (IntegrityError, StoreError, NotFoundError, AuthenticationError)
#: the score of rows that a top-k dropped; no encoding's range reaches it
_DROPPED = np.iinfo(np.int64).min
#: stand for an owner in ids of images: nobody has the batch, or several do
_NOBODY, _SEVERAL = bytes(16), b"several owners.."
T = TypeVar("T")
# index, rows, scores if given, seconds
_Ranked: TypeAlias = tuple[Index, np.ndarray, np.ndarray | None, dict[str, float]]


class User(IndexClient):
    """An authorised user.

    Parameters
    ----------
    name : public
    config, channel : the deployment and the way to its servers
    sign_seed, box_key : 32 secret bytes each (Ed25519, X25519)
    servers : the servers to query, default all key servers and the first t+1 storage servers
    blocked : ids of owners that are never searched, whatever they grant

    Servers learn who asks, over which owners, when, and k. With ``ranking="server"`` the user learns the k nearest
    only; with ``ranking="user"`` all exact scores, from which features can be solved with a few dozen queries.

    An owner's program can store rows that are longer than the encoding allows. With ``ranking="user"`` a row whose
    score is out of the encoding's range is dropped, high or low; nothing is asked again because of it. A row whose
    score lies or wraps into the range cannot be told from others.
    """

    #: who ranks when a search does not say; and all that the servers offer
    default_ranking = "server"
    rankings: tuple[str, ...] = ("server", "user")
    #: whether servers answer for some rows at a time
    by_rows = True

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, box_key: bytes, *,
        servers: Sequence[int] | None = None, threads: int | None = None, blocked: Iterable[bytes] = (),
    ) -> None:  # fmt: skip
        super().__init__(name, config, channel, sign_seed, blocked)
        self._box_key = box_key
        public = box.box_private(box_key).public_key().public_bytes_raw()
        self._public = signing.sign_public(sign_seed), public
        self.id = signing.party_id(*self._public)
        p = config.params
        self.servers = p.check_servers(servers if servers is not None else p.storage_servers[: p.t + 1] + p.key_servers)
        self.threads = threads
        if config.rankings:
            self.rankings = tuple(r for r in config.rankings if r != "threshold")
            self.default_ranking = self.rankings[0] if self.rankings else "threshold"

    def register(self) -> None:
        """Make this user's public keys known to all servers. Again is harmless."""
        self._tell(m.RegisterUser(self.name, *self._public, b""))

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
            scores (the default, and all there is, in the homomorphic scheme)
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
        ranked = self._by_rows if ranking == "user" and self.by_rows else self._by_queries
        index, rows, scores, spent = self._anew(
            owners, most, lambda index: ranked(index, encoded, min(most, index.total), ranking), strict,
            (ranking, len(encoded)), fewer=k is None,
        )  # fmt: skip
        if ranking == "user" and scores is not None:
            empty = scores == _DROPPED
            index = index.dropping(np.unique(rows[empty]))
            rows[empty], scores[empty] = -1, self.config.encoding.score_range[0] - 1
        values = None if scores is None else self.config.encoding.values(scores, np.atleast_2d(queries))
        return Nearest(index, rows, scores, values, spent)

    def _by_rows(self, index: Index, encoded: np.ndarray, k: int, ranking: str) -> _Ranked:
        """The k nearest from the answers to some rows at a time."""
        low, high = self.config.encoding.score_range
        spent = {"score": 0.0, "rank": 0.0}
        best: list[RunningTopK] = []

        def use(rows: range, answers: list[np.ndarray]) -> None:
            began = time.perf_counter()
            best[-1].add(answers, threads=self.threads)
            spent["rank"] += time.perf_counter() - began

        began = time.perf_counter()
        for some in query_blocks(len(encoded)):
            best.append(RunningTopK(len(encoded[some]), k, low=low, high=high))
            # the first header asks whether the state is the newest; the others are of the same state
            self._each_block(index.asking(b"") if some.start else index, encoded[some], k, use)
        spent["score"] = time.perf_counter() - began - spent["rank"]
        return index, np.concatenate([b.rows for b in best]), np.concatenate([b.scores for b in best]), spent

    def _by_queries(self, index: Index, encoded: np.ndarray, k: int, ranking: str) -> _Ranked:
        """The k nearest of as many queries at a time as fit, over all rows."""
        low, high = self.config.encoding.score_range
        parts: list[tuple[np.ndarray, np.ndarray | None]] = []
        spent = {"score": 0.0, "rank": 0.0}
        for some in self._portions(index, encoded, ranking, k):
            began = time.perf_counter()
            asked = self._ask_about(index.asking(b"") if parts else index, some, k, ranking)
            ranked = time.perf_counter()
            if ranking == "user":
                parts.append(top_k(self._words(asked), k, low=low, high=high, threads=self.threads))
            else:
                parts.append(combine_top_k(parts_of(asked), asked.public, scores=index.gives_scores))
            spent["score"] += ranked - began
            spent["rank"] += time.perf_counter() - ranked
        given = [s for _, s in parts if s is not None]
        return index, np.concatenate([rows for rows, _ in parts]), np.concatenate(given) if given else None, spent

    def match(self, query: np.ndarray, threshold: float, *, owners: Owners | None = None, strict: bool = False) -> Hits:
        """All images at least as near as ``threshold``, in row order; the user learns nothing else, not even scores.

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
        if "threshold" not in self.config.offered:
            raise ParameterError("this index was made without thresholds; search for the nearest instead")
        require_ranking(self.config)
        query, encoded, theta = self._with_threshold(query, threshold)
        asked = self._anew(
            owners, 0, lambda index: self._ask_about(index, encoded, 0, "threshold", theta), strict, ("threshold", 1)
        )
        rows = np.flatnonzero(combine_matches(parts_of(asked))[0])
        return self._hits(asked.index, rows, None, None, 0)

    def scores(
        self, queries: np.ndarray, *, owners: Owners | None = None, strict: bool = False
    ) -> tuple[Index, np.ndarray]:
        """All exact scores (B, N) int64 of (B, dim) queries, and the index that says which row is which.

        A score out of the encoding's range is given as one less than its least. The index's ``left_out`` names the
        batches of all rows that have such a score for one of the queries, and how many rows they are.
        """
        _, encoded = self._encoded(queries)

        def attempt(index: Index) -> tuple[Index, np.ndarray]:
            if not self.by_rows:
                parts = [self._ask_about(index, some, 1, "user") for some in self._portions(index, encoded, "user")]
                out = np.concatenate([reconstruct(self._words(a), threads=self.threads) for a in parts])
                return index.dropping(self._drop(out)), out
            out = np.empty((len(encoded), index.total), np.int64)
            dropped: list[np.ndarray] = []

            for some in query_blocks(len(encoded)):
                into = out[some]

                def use(rows: range, answers: list[np.ndarray], into: np.ndarray = into) -> None:
                    found = reconstruct(answers, threads=self.threads)
                    dropped.append(rows.start + self._drop(found))
                    into[:, rows.start : rows.stop] = found

                self._each_block(index.asking(b"") if some.start else index, encoded[some], 1, use)
            return index.dropping(np.unique(np.concatenate(dropped))), out

        return self._anew(owners, 1, attempt, strict, ("user", len(encoded)))

    def _drop(self, scores: np.ndarray) -> np.ndarray:
        """Rows that have a score out of the encoding's range among (B, N) ``scores``, where it is replaced."""
        low, high = self.config.encoding.score_range
        if low <= scores.min() and scores.max() <= high:
            return np.empty(0, np.int64)
        wrong = (scores < low) | (scores > high)
        scores[wrong] = low - 1
        return np.flatnonzero(wrong.any(axis=0))

    def cost(
        self, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None, queries: int = 1
    ) -> dict[str, Any]:
        """Rounds and bytes of a search, before anything is sent: see :func:`mipp.client.preview.search_cost`."""
        if ranking != "threshold" or "server" not in self.rankings:
            ranking = self._ranking(ranking)
        index = self.index(owners)
        k = min(DEFAULT_K, index.total) if k is None else whole_number(k, "k")
        if ranking != "threshold" and not 1 <= k <= index.total:
            raise ParameterError(f"k must be from 1 to {index.total}, not {k!r}")
        return self._cost(index.total, len(index.batches), k, ranking, queries)

    def _cost(self, images: int, batches: int, k: int, ranking: str, queries: int) -> dict[str, Any]:
        return search_cost(self.config, images, batches, k, ranking, queries)

    def _ranking(self, ranking: str | None) -> str:
        ranking = self.default_ranking if ranking is None else ranking
        if ranking not in self.rankings:
            if not self.rankings:
                raise ParameterError(
                    "this index is for range searches alone: give a threshold (match, or mipp search --threshold)"
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

    def _anew(
        self, owners: Owners, k: int, attempt: Callable[[Index], T], strict: bool, about: tuple[str, int], *,
        fewer: bool = False,
    ) -> T:  # fmt: skip
        """What ``attempt`` gives for one state of the index; again with a newer one when that or a grant changed.

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

    def _portions(self, index: Index, encoded: np.ndarray, ranking: str, k: int = 1) -> Iterator[np.ndarray]:
        """As many queries at a time as a server can hold."""
        # comparing needs some eight words a score where handing it out needs one
        scores = index.total if ranking == "user" else 8 * largest_call(index.total, k)
        step = min(MAX_QUERIES, max(1, _ANSWER_BYTES // (scores * self.config.params.k // 8)))
        if ranking != "user" and self.config.certifies:
            step = min(step, max(1, MAX_PROOF_BYTES // proof_bytes(self.config.query_rule, 1)))
            step = min(step, max(1, MAX_RANKED_HITS // k))
        for start in range(0, len(encoded), step):
            yield encoded[start : start + step]

    def _ask_about(self, index: Index, encoded: np.ndarray, k: int, ranking: str, theta: int = 0) -> Asked:
        """The servers' replies about all rows to some queries."""
        replies, bound = self._replies(index, encoded, k, ranking, theta)
        facts = None if ranking == "user" else public_facts(self.config, bound, index.snapshot, index.total)
        return Asked(index, replies, len(encoded), facts, ranking == "threshold")

    def _replies(
        self, index: Index, encoded: np.ndarray, k: int, ranking: str, theta: int = 0
    ) -> tuple[dict[int, Any], bytes]:
        """The servers' replies to one header, and its hash; under a new header when they are busy."""

        def attempt() -> tuple[dict[int, Any], bytes]:
            prepared = self._prepare(index, encoded, k, ranking, theta)
            return self._send(prepared, together=ranking != "user"), prepared.bound

        return retry_busy(attempt)

    def _each_block(
        self, index: Index, encoded: np.ndarray, k: int, use: Callable[[range, list[np.ndarray]], None]
    ) -> None:
        """Give ``use`` the answers to all queries, some rows at a time, all under one header."""
        prepared = self._prepare(index, encoded, k, "user")
        for rows in row_blocks(index.total, len(encoded), self.config.params.dtype.itemsize):
            replies = self._send(prepared, rows)
            use(rows, self._checked(replies, len(encoded), len(rows)))
            del replies  # before the next block: its memory is used again

    def _prepare(self, index: Index, encoded: np.ndarray, k: int, ranking: str, theta: int = 0) -> Prepared:
        """Share queries and bind them to a new header."""
        columns = self._columns(encoded)
        thetas = self._theta_shares(theta if ranking == "threshold" else None, len(encoded))
        salts = {s: schedule.random_bytes(32) for s in self.servers}
        proofs, parts_of_proof = range_proof(self.config, self.servers, encoded, ranking, theta)
        header = encode(
            m.QueryHeader(
                self.config.id,
                self.id,
                schedule.random_bytes(16),
                ranking,
                k,
                len(encoded),
                list(self.servers),
                self.config.encoding.hash,
                index.snapshot,
                [o.grant for o in index.owners],
                [o.position for o in index.owners],
                [len(o.batches) for o in index.owners],
                [column_commitment(salts[s], columns[s], thetas[s]) for s in self.servers],
                index.batches,
                proofs,
            )
        )
        frames = [np.frombuffer(f, np.uint8) for f in header]
        parts = {s: (salts[s], columns[s], thetas[s]) for s in self.servers}
        return Prepared(frames, frames_hash(header), parts, index.newest, parts_of_proof)

    def _send(self, prepared: Prepared, rows: range = range(0), *, together: bool = False) -> dict[int, Any]:
        """Ask for live rows ``rows``, all if there are none in it."""
        newest = {self.servers[0]: prepared.newest if not rows.start else b""}
        queries = {
            s: self._sign(
                m.Query(prepared.header, *part, rows.start, len(rows), newest.get(s, b""), *prepared.proof.get(s, ())),
                s,
            )
            for s, part in prepared.servers.items()
        }
        return collect_ranked(self, prepared.bound, self.channel.gather(queries, together=together))

    def _columns(self, encoded: np.ndarray) -> dict[int, np.ndarray]:
        """What each server gets of encoded queries."""
        return query_columns(encoded, self.config.params, self.servers)

    def _theta_shares(self, theta: int | None, queries: int) -> dict[int, np.ndarray]:
        """Additive shares of the threshold, one word per query and server; empty ones without a threshold."""
        dtype = self.config.params.dtype
        if theta is None:
            return dict.fromkeys(self.servers, np.empty(0, dtype))
        first, *others = self.servers
        raw = schedule.random_bytes(len(others) * queries * dtype.itemsize)
        shares = dict(zip(others, np.frombuffer(raw, dtype).reshape(len(others), queries), strict=True))
        rest = np.full(queries, theta % (1 << self.config.params.k), dtype)
        return {first: rest - sum(shares.values()), **shares}

    def _words(self, asked: Asked) -> list[np.ndarray]:
        """Answers that add up to the scores of all rows."""
        return self._checked(asked.replies, asked.queries, asked.index.total)

    def _checked(self, replies: dict[int, Any], queries: int, rows: int) -> list[np.ndarray]:
        answers = [replies[s].values for s in self.servers]
        if any(a.shape != (queries, rows) or a.dtype != self.config.params.dtype for a in answers):
            raise MessageError("a server's answer has the wrong shape")
        return answers

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
        named = self._owned(hits)
        wanted = sorted({place for place in named if place[0] != _SEVERAL})
        found: dict[tuple[bytes, bytes, int], FetchedImage] = {}
        clouds = sorted(self.config.params.storage_servers, key=lambda s: s != self.servers[0])
        for cloud in clouds:  # what is damaged or missing at one is asked for at the next
            left = [p for p in wanted if p not in found or isinstance(found[p].error, _ELSEWHERE)]
            if left:
                found |= self._fetch_from(cloud, left)
        images = []
        for place in named:
            if place not in found:
                why = ParameterError(
                    f"several owners have a batch {place[1].hex()}; fetch a hit of a search, which names its owner"
                )
                found[place] = failed_image(place, why)
            images.append(found[place])
        for image in images:
            if strict and image.error is not None:
                raise image.error
        return images

    def _fetch_from(
        self, cloud: int, places: list[tuple[bytes, bytes, int]]
    ) -> dict[tuple[bytes, bytes, int], FetchedImage]:
        key_centre = self.config.params.key_servers[0]
        return fetch_images(
            places, lambda msg: self._tell(msg, (cloud, key_centre)), deployment=self.config.id,
            user=self.id, box_key=self._box_key, cloud=cloud, key_centre=key_centre,
        )  # fmt: skip

    def _owned(self, hits: Sequence[Hit | tuple[bytes, int] | str]) -> list[tuple[bytes, bytes, int]]:
        """(owner, batch, row) of hits and ids.

        An id of no owner that is known is asked for in nobody's name: servers say that it belongs to no owner. One that
        several owners have is not asked for.
        """
        owners: dict[bytes, list[bytes]] | None = None
        found = []
        for hit in several_images(hits):
            if isinstance(hit, Hit):
                found.append((hit.owner, hit.batch, hit.row))
                continue
            ((batch, row),) = image_rows([hit])
            if owners is None:
                owners = self._owners_of_batches()
            of = owners.get(batch, [_NOBODY])
            found.append((of[0] if len(of) == 1 else _SEVERAL, batch, row))
        return found
