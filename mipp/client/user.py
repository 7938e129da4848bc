"""The user: searches by example, by range or by image; fetches and decrypts images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..crypto import box, signing
from ..encoding.ranges import checked_threshold
from ..errors import ParameterError, ShapeError
from ..mpc.facts import require_ranking
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.grants import PROBE, offered_rankings
from ..schemes.base import SearchCost
from . import ranking as ranks
from .choosing import Owners
from .given import checked_ranking, chosen_clusters, clusters_of, encoded_queries, whole_number
from .image_features import query_vector
from .index import Index
from .nearest import Nearest
from .previewing import PreviewClient
from .query import Querier, Verification
from .results import Hits, SearchResult

__all__ = ["User"]

#: neighbours of a search that does not say how many
DEFAULT_K = 10


class User(PreviewClient):
    """An authorised user: searches the images of all owners that grant it something, and fetches them.

    Made by :meth:`mipp.Deployment.create_user` and :meth:`mipp.Deployment.user`. Servers learn who asks, over which
    owners, when, and k; never a query, a score or a row. With ``ranking="server"`` the user learns the k nearest only;
    with ``ranking="user"`` all exact scores, from which a few dozen queries give the features themselves.

    With ``ranking="user"`` a row whose score is out of the encoding's range is dropped: a hostile owner can store rows
    that are longer than the encoding allows. A row whose score wraps into the range cannot be told from others.

    Parameters
    ----------
    name : str
        Public.
    config : DeploymentConfig
        Public description of the deployment.
    channel : Channel
        To the servers.
    sign_seed, box_key : bytes
        Seed of the Ed25519 identity and X25519 private key, 32 bytes each. Secret.
    secrets : mapping of str to bytes, optional
        The user's keys of the deployment's scheme, by name (:meth:`mipp.schemes.Scheme.user_secrets`). Secret.
    servers : sequence of int, optional
        Servers to query; default the scheme's choice.
    threads : int, optional
        Native threads; default all cores.
    blocked : iterable of bytes
        Ids of owners that searches leave out, whatever they grant.
    invitation : bytes, optional
        The registrar's invitation, for a deployment that takes users by invitation. A password until it is used.

    Examples
    --------
    >>> import tempfile, numpy as np, mipp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
    ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
    ...         ids = anna.add_vectors(np.eye(4), [(f"{i}.png", bytes([i])) for i in range(4)])
    ...         anna.grant(ulla)
    ...         hits = ulla.search(np.array([0.1, 0.2, 0.9, 0.3]), k=2).hits
    ...         images = ulla.fetch(hits)
    >>> [(hit.owner_name, hit.row, round(hit.value, 1)) for hit in hits], images[0].name, images[0].content
    ([('anna', 2, 0.9), ('anna', 3, 0.3)], '2.png', b'\\x02')
    """

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, box_key: bytes, *,
        secrets: Mapping[str, bytes] | None = None, servers: Sequence[int] | None = None, threads: int | None = None,
        blocked: Iterable[bytes] = (), invitation: bytes = b"",
    ) -> None:  # fmt: skip
        super().__init__(
            name, config, channel, sign_seed, box_key, secrets=secrets or {}, servers=servers, threads=threads,
            blocked=blocked,
        )  # fmt: skip
        public = box.box_private(box_key).public_key().public_bytes_raw()
        self._public, self._invitation = (signing.sign_public(sign_seed), public), invitation
        self.id = signing.party_id(*self._public)
        #: who may rank, the default first; empty in an index for range searches alone
        self.rankings = tuple(r for r in config.offered if r != "threshold")

    @property
    def default_ranking(self) -> str:
        """The ranking of searches that name none: ``server``, ``user``, or ``threshold`` in an index without both."""
        return self.rankings[0] if self.rankings else "threshold"

    def register(self) -> None:
        """Register this user's public keys with all servers. Repeating it is harmless.

        Raises
        ------
        MippError
            A server cannot be reached or refuses.
        """
        self.register_with_all(m.RegisterUser(self.name, *self._public, self.scheme.public_key, self._invitation))

    def search(
        self, query: np.ndarray, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False, verify: bool = True, probe: bool = False,
    ) -> SearchResult:  # fmt: skip
        """Find the k nearest images of all owners that grant this user a search, or of those named.

        One round for the user, two if the index changed. The user sends D words to each server, D being the encoding's
        words a row, and gets k words from each; with ``ranking="user"`` the low bits of N words, N being all rows, in
        several rounds if they are many. :meth:`cost` says what a search costs, between the servers too.

        Parameters
        ----------
        query : array of numbers, (dim,)
            Features of the example. Secret: no server learns anything about them.
        k : int, optional
            Number of images, 1 to all; default 10, or all if they are fewer. Servers learn it.
        owners : str, bytes, ImageOwner or sequence of them, optional
            Names, ids (16 bytes or 32 hex digits) or owner objects, one or several; default all that are not blocked.
        ranking : str, optional
            ``server`` (default): the servers find the k nearest without learning a score, an order or a row. The user
            learns those k only, with their scores if the grants give them. ``user``: the user gets all scores and
            ranks them; default with one cloud, which has no other.
        strict : bool
            Raise IntegrityError for batches that are damaged or missing at a server, and for owners on whom the servers
            differ. Otherwise the search goes on without them, and the result's ``left_out`` names them.
        verify : bool
            With ``ranking="user"``: check that the servers answered as they must, by check columns
            (:mod:`mipp.sharing.checks`); a wrong answer passes with a probability below 2^-40. It counts as one more
            query where a grant has a quota. The result's ``verified`` says whether it was done.
        probe : bool
            With ``ranking="server"``, in an index with clusters: look at the nearest cluster of each group only, and at
            the rows that have none. Grants must name ``probe``. Servers learn that, but no cluster. They send each
            other a few times less, and some of the nearest images may be missed; ``mipp evaluate --clusters`` tells how
            many. k is at most the number of rows that such a search is sure to cover.

        Returns
        -------
        SearchResult
            The hits, best first. With ``ranking="user"`` rows whose scores are out of the encoding's range are no hits,
            also with ``strict``. If fewer than k rows are left, ``left_out`` names the batches of as many dropped rows
            as hits are missing; :meth:`scores` names all.

        Raises
        ------
        AccessDeniedError, ParameterError, EncodingError, ShapeError
            No grant (of this ranking); k out of range; a bad query. No score was computed.
        ScoreRangeError
            Servers cannot compare scores of this encoding, as their differences could wrap.
        ProtocolError
            A server failed while they compared, or did not get the query; nobody learnt anything.
        BusyError
            The servers had too many rankings open, also after some seconds of retries.
        VerificationError
            A server answered wrongly. There is no telling which one.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("ip", 2)) as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         ids = anna.add_vectors(np.array([[1, 0], [0, 3], [2, 2]]))
        ...         anna.grant(ulla, rankings=["server", "user"])
        ...         by_servers = ulla.search(np.array([1, 3]), k=2).hits
        ...         by_user = ulla.search(np.array([1, 3]), k=2, ranking="user").hits
        >>> [(hit.row, hit.score) for hit in by_servers], by_user == by_servers
        ([(1, 9), (2, 8)], True)
        """
        query = np.asarray(query)
        queries = query[None] if query.ndim == 1 else query
        if queries.ndim == 2 and len(queries) != 1:
            raise ShapeError(f"search takes one query, not {len(queries)}; search_batch takes several")
        return self.search_batch(queries, k, owners=owners, ranking=ranking, strict=strict, verify=verify, probe=probe)[
            0
        ]

    def search_image(
        self, image: Any, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False, verify: bool = True, probe: bool = False,
    ) -> SearchResult:  # fmt: skip
        """Find the k nearest images to an example image: :meth:`search` by its features.

        Parameters
        ----------
        image : str, path, bytes, ndarray of uint8 (H, W, 3) or Pillow image
            Path or bytes of an image file, pixels in RGB, or an image of Pillow. Secret: no server learns anything
            about it or its features.
        k, owners, ranking, strict, verify, probe : optional
            As for :meth:`search`.

        Returns
        -------
        SearchResult
            As of :meth:`search`.

        Raises
        ------
        ImageError
            The image cannot be read.
        ParameterError
            An index of vectors; also the errors of :meth:`search`.

        Examples
        --------
        >>> import tempfile, mipp
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from mipp.features.encoding import descriptor_encoding
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     photos = [Path(folder) / f"{colour}.png" for colour in ("red", "green", "blue")]
        ...     for path in photos:
        ...         Image.new("RGB", (32, 32), path.stem).save(path)
        ...     encoding = descriptor_encoding("cld", server_ranking=True)
        ...     with mipp.Deployment.create(Path(folder) / "index", encoding, descriptor="cld") as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         report = anna.add_images(photos, workers=1)
        ...         anna.grant(ulla)
        ...         result = ulla.search_image(Image.new("RGB", (40, 40), "darkgreen"), k=1)
        ...         found = ulla.fetch(result.hits)
        >>> found[0].name
        'green.png'
        """
        vector = query_vector(self.config, image)
        return self.search(vector, k, owners=owners, ranking=ranking, strict=strict, verify=verify, probe=probe)

    def search_batch(
        self, queries: np.ndarray, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False, verify: bool = True, probe: bool = False,
    ) -> list[SearchResult]:  # fmt: skip
        """Find the k nearest images to each of several queries, in constant memory.

        With two clouds that is faster than one by one. With ``ranking="user"`` their servers answer a batch some rows
        at a time, under one header, and read each row once. Otherwise large batches are split into parts whose score
        shares fit in memory.

        Parameters
        ----------
        queries : array of numbers, (B, dim)
            Features of B examples. Secret; servers learn B.
        k, owners, ranking, strict, verify, probe : optional
            As for :meth:`search`.

        Returns
        -------
        list of SearchResult
            One for each query.

        Raises
        ------
        StaleSnapshotError
            The index kept changing; also the errors of :meth:`search`.
        """
        found = self.nearest(queries, k, owners=owners, ranking=ranking, strict=strict, verify=verify, probe=probe)
        results: list[SearchResult] = []
        for q in range(len(found.rows)):
            scores = None if found.scores is None else found.scores[q]
            there = found.rows[q][found.rows[q] >= 0]  # empty places are the last ones
            values = None if found.values is None else found.values[q]
            hits = Hits.at(found.index, there, scores, values)
            seconds = {name: s / len(found.rows) for name, s in found.seconds.items()}
            results.append(SearchResult(
                hits, seconds, found.left_out, found.verified, found.unverified, found.suspects, found.clustered
            ))  # fmt: skip
        return results

    def nearest(
        self, queries: np.ndarray, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None,
        strict: bool = False, verify: bool = True, probe: bool = False,
    ) -> Nearest:  # fmt: skip
        """Find the k nearest images to each of several queries, as arrays: no Python object for each hit.

        All results are about one state of the index, whatever is uploaded meanwhile. When rows are deleted or a grant
        changes before all queries are sent, the whole batch is sent again under a new header, so it counts against
        quotas again.

        Parameters
        ----------
        queries : array of numbers, (B, dim)
            Features of B examples. Secret; servers learn B.
        k, owners, ranking, strict, verify, probe : optional
            As for :meth:`search`.

        Returns
        -------
        Nearest
            Rows, scores and values, (B, k) each. Rows whose scores are out of the encoding's range leave the last
            places empty if fewer than k others are there (``ranking="user"``).

        Raises
        ------
        StaleSnapshotError
            The index kept changing; also the errors of :meth:`search`.
        """
        ranking = checked_ranking(ranking, self.rankings, self.config)
        most = DEFAULT_K if k is None else whole_number(k, "k")
        if most < 1:
            raise ParameterError(f"k must be a positive integer, not {k!r}")
        queries, encoded = encoded_queries(self.config.encoding, queries)
        chosen = chosen_clusters(self.config, ranking, queries) if probe else None
        unverified, told = self._unverified(ranking, verify), Verification()
        clusters = None if chosen is None else clusters_of(self.config, ranking)

        def attempt(querier: Querier, index: Index) -> tuple[Index, ranks.Ranked]:
            least = index.total
            if clusters is not None and k is None:
                least = max(1, index.probed(clusters).least_live)
            told.problem, how = "", None if unverified else told
            return index, ranks.nearest(
                querier, index, encoded, min(most, least), ranking, self.threads, verification=how, chosen=chosen
            )

        index, (rows, scores, seconds) = self._searched(
            owners, most, attempt, strict, (ranking if chosen is None else PROBE, self._counted(encoded, unverified)),
            fewer=k is None, verified=not unverified,
        )  # fmt: skip
        if ranking == "user" and scores is not None:
            empty = scores == ranks.DROPPED
            index = index.dropping(np.unique(rows[empty]))
            rows[empty], scores[empty] = -1, self.config.encoding.score_range[0] - 1
        values = None if scores is None else self.config.encoding.values(scores, np.atleast_2d(queries))
        clustered = None if clusters is None else index.probed(clusters).clustered
        return Nearest(index, rows, scores, values, seconds, unverified or told.problem, clustered)

    def range_search(
        self, query: np.ndarray, threshold: float, *, owners: Owners | None = None, strict: bool = False,
        ranking: str | None = None, verify: bool = True,
    ) -> Hits:  # fmt: skip
        """Find all images at least as near as a threshold.

        Where servers compare, the user learns which images these are and nothing else, not even scores. With
        ``ranking="user"``, and always with one cloud, it gets all scores and picks by itself, and hits have
        scores. In the scheme ``shares`` scores come some rows at a time: memory grows with the rows found alone.

        Parameters
        ----------
        query : array of numbers, (dim,)
            Features of the example. Secret.
        threshold : float
            In the metric's unit (:meth:`mipp.Encoding.values`): least inner product or cosine, or largest distance
            (squared for ``l2``). Secret; the servers get shares of it.
        owners, strict, verify : optional
            As for :meth:`search`.
        ranking : str, optional
            ``user``: this user compares, by a grant of that ranking. ``server``: the servers do; default where they
            can.

        Returns
        -------
        Hits
            In row order where servers compare; best first where the user does (of equal scores the earlier row first).

        Raises
        ------
        ParameterError
            A threshold that no score or every score reaches; also the errors of :meth:`search`.
        AccessDeniedError
            No grant, or an owner that is named does not grant ``threshold``, or ``user`` where the user compares.
        VerificationError
            With ``ranking="user"``: a server answered wrongly.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 2)) as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         ids = anna.add_vectors(np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
        ...         anna.grant(ulla, rankings=["threshold"])
        ...         hits = ulla.range_search(np.array([1.0, 0.1]), 0.7)
        >>> [hit.row for hit in hits], hits.searched
        ([0, 1], 3)
        """
        compared = "threshold" in offered_rankings(self.config.params)  # by the servers
        if ranking is not None:
            ranking = checked_ranking(ranking, ("server", "user") if compared else ("user",), self.config)
        compared = compared and ranking != "user"
        if compared and "threshold" not in self.config.offered:
            raise ParameterError("this index was made without thresholds; search for the nearest instead")
        if compared:
            require_ranking(self.config)
        encoding, query = self.config.encoding, np.asarray(query)
        threshold = checked_threshold(encoding, threshold, self.config.largest_distance)
        query, encoded = encoded_queries(encoding, query if query.ndim == 2 and len(query) == 1 else query[None])
        theta = encoding.score_threshold(threshold, query[0])  # the least score that reaches it
        if not compared:
            return self._reaching(query, encoded, theta, owners, strict, verify)

        def attempt(querier: Querier, index: Index) -> tuple[Index, np.ndarray]:
            return index, ranks.within(querier, index, encoded, theta)

        index, rows = self._searched(owners, 0, attempt, strict, ("threshold", 1))
        hits = Hits.at(index, rows)
        hits.unverified = "answers to a threshold are not verified: see the threat model"
        return hits

    def _reaching(
        self, query: np.ndarray, encoded: np.ndarray, theta: int, owners: Owners | None, strict: bool, verify: bool
    ) -> Hits:
        """Hits whose score reaches ``theta``; this user compares."""
        unverified, told = self._unverified("user", verify), Verification()

        def attempt(querier: Querier, index: Index) -> tuple[Index, tuple[np.ndarray, np.ndarray]]:
            told.problem, how = "", None if unverified else told
            rows, scores, gone = ranks.reaching(querier, index, encoded, theta, self.threads, verification=how)
            return index.dropping(gone), (rows, scores)

        about = "user", self._counted(encoded, unverified)
        index, (rows, scores) = self._searched(owners, 1, attempt, strict, about, verified=not unverified)
        order = np.argsort(-scores, kind="stable")  # rows come in order: of equal scores the earlier stays first
        rows, scores = rows[order], scores[order]
        hits = Hits.at(index, rows, scores, self.config.encoding.values(scores[None], query)[0])
        hits.unverified = unverified or told.problem
        return hits

    def match(self, query: np.ndarray, threshold: float, *, owners: Owners | None = None, strict: bool = False) -> Hits:
        """Deprecated name of :meth:`range_search`.

        Parameters
        ----------
        query, threshold, owners, strict : as before
            As for :meth:`range_search`.

        Returns
        -------
        Hits
            As of :meth:`range_search`.
        """
        warnings.warn("User.match is called range_search now", DeprecationWarning, stacklevel=2)
        return self.range_search(query, threshold, owners=owners, strict=strict)

    def scores(
        self, queries: np.ndarray, *, owners: Owners | None = None, strict: bool = False, verify: bool = True
    ) -> tuple[Index, np.ndarray]:
        """Compute the exact scores of all rows for each of several queries; needs grants of ``ranking="user"``.

        Parameters
        ----------
        queries : array of numbers, (B, dim)
            Features of B examples. Secret; servers learn B.
        owners, strict, verify : optional
            As for :meth:`search`.

        Returns
        -------
        index : Index
            The state that was searched: ``index.ids()`` says which row is which. Its ``left_out`` names the batches of
            all rows with a score out of the encoding's range, and the number of these rows.
        scores : ndarray of int64, (B, N)
            One less than the encoding's least for a score out of its range. Secret of the user. All are in memory,
            8 bytes each; :meth:`nearest` and :meth:`range_search` with ``ranking="user"`` keep what they find alone.

        Raises
        ------
        StaleSnapshotError
            The index kept changing; also the errors of :meth:`search`.
        """
        _, encoded = encoded_queries(self.config.encoding, queries)
        unverified = self._unverified("user", verify)

        def attempt(querier: Querier, index: Index) -> tuple[Index, np.ndarray]:
            verification = None if unverified else Verification()
            found, dropped = ranks.all_scores(querier, index, encoded, self.threads, verification=verification)
            return index.dropping(dropped), found

        about = "user", self._counted(encoded, unverified)
        return self._searched(owners, 1, attempt, strict, about, verified=not unverified)

    def cost(
        self, k: int | None = None, *, owners: Owners | None = None, ranking: str | None = None, queries: int = 1,
        verify: bool = True, probe: bool = False,
    ) -> SearchCost:  # fmt: skip
        """Compute rounds and bytes of a search, and memory and disk that it takes, without sending a query.

        Parameters
        ----------
        k, owners : optional
            As for :meth:`search`.
        ranking : str, optional
            As for :meth:`search`, or ``threshold`` for a range search.
        queries : int
            Number of queries in a batch.
        verify, probe : bool
            As for :meth:`search`.

        Returns
        -------
        SearchCost
            A dict: ``ranking``, ``images``, with ``probe`` ``clustered`` (rows in clusters, deleted ones too), ``user``
            (``rounds``, bytes ``sent`` to and ``received`` from each server), where servers rank ``servers``
            (``rounds``, ``bytes`` by number of the server that sends them), and in the scheme ``shares`` ``memory``:
            bytes of rows that each cloud must ``read``, and bytes that a ``server`` and the ``user`` hold at once for
            it, beside mapped rows. Where servers rank, these are an estimate.

        Raises
        ------
        ParameterError, AccessDeniedError
            A bad k or ranking; no grant.
        """
        if ranking != "threshold" or "server" not in self.rankings:
            ranking = checked_ranking(ranking, self.rankings, self.config)
        index = self.index(owners)
        probed = index.probed(clusters_of(self.config, ranking)) if probe else None
        least = index.total if probed is None else max(1, probed.least_live)
        k = min(DEFAULT_K, least) if k is None else whole_number(k, "k")
        if ranking != "threshold" and not 1 <= k <= index.total:
            raise ParameterError(f"k must be from 1 to {index.total}, not {k!r}")
        if probed is not None:
            probed.require(k)
        return self._querier.cost(index, k, ranking, queries, verify, probed)

    def _unverified(self, ranking: str, verify: bool) -> str:
        """Why answers are not verified; empty if they are."""
        if ranking != "user":
            return "answers of servers that rank are not verified: see the threat model"
        return self.scheme.unverified if verify else "verification was not asked for"

    def _counted(self, encoded: np.ndarray, unverified: str) -> int:
        """Queries that a batch counts as, where it is counted: folded check columns are one for each header."""
        return len(encoded) + (0 if unverified else sum(1 for _ in self.scheme.header_blocks(len(encoded))))
