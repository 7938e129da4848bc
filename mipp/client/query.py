"""Queries under one header: hidden by the scheme, sent for one state of the index; replies are opened."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..crypto import schedule
from ..errors import (
    AccessDeniedError,
    BusyError,
    IntegrityError,
    MessageError,
    MissingKeyError,
    NotFoundError,
    ProtocolError,
    StaleSnapshotError,
    VerificationError,
)
from ..mpc.facts import public_facts
from ..mpc.probed import ProbedRows
from ..mpc.probes import choice_bits
from ..mpc.query_proof import commitment, pack, prove
from ..mpc.replicated import UserShare
from ..mpc.session import Public
from ..rpc import messages as m
from ..rpc.associated_data import query_share_commitment
from ..rpc.limits import MAX_KEPT_BYTES
from ..rpc.wire import encode, frames_hash
from ..schemes import UserScheme
from ..schemes.base import SearchCost
from ..sharing import reconstruct
from ..sharing.checks import CheckColumns
from .client import Client
from .index import Index
from .retry import collect_pending, retry_busy

__all__ = ["HiddenQueries", "Probe", "Querier", "ScoreWords", "Verification"]

#: bytes of check columns that a server sends rather than wait for one more round
FOLD_BYTES = 1 << 18
_CONTRADICT = "the servers' answers contradict each other: at least one server answered wrongly. Nothing was used"


@dataclass
class Verification:
    """What becomes of the verification of one search; ``problem``: why its answers count as not verified, or empty."""

    problem: str = ""


class ScoreWords(NamedTuple):
    """Words that add up to scores: those of some rows, from each server.

    Parameters
    ----------
    rows : range
        The rows.
    words : list of ndarray, (B, rows) or packed
        Secret together.
    width : int or None
        Bits of each score share if they are packed.
    """

    rows: range
    words: list[np.ndarray]
    width: int | None


@dataclass(frozen=True, repr=False)
class HiddenQueries:
    """Queries under one header, ready to be sent. Secret, but for the header and its hash.

    Parameters
    ----------
    header : list of ndarray of uint8
        Frames of the header, the same for all servers.
    hash : bytes
        Hash of the header.
    servers : dict of int to tuple
        For each server its salt, query share and share of the thresholds.
    newest : bytes
        See :class:`~mipp.rpc.messages.Query`.
    proof : mapping of int to tuple
        For each server its part of the proof that the queries are in range; empty if the user ranks.
    opening : object
        What opening the answers needs, of :class:`~mipp.schemes.base.Hidden`. Never sent.
    """

    header: list[np.ndarray]
    hash: bytes
    servers: dict[int, tuple[bytes, np.ndarray, np.ndarray]]
    newest: bytes = b""
    proof: Mapping[int, tuple[bytes, np.ndarray]] = field(default_factory=dict)
    opening: Any = None


class Probe(NamedTuple):
    """The scores of some queries that look at chosen clusters: which rows they are of, and the choice (B, groups).

    The choice is secret.
    """

    rows: ProbedRows
    chosen: np.ndarray

    def __repr__(self) -> str:
        """Sizes alone."""
        return f"Probe({len(self.chosen)} queries, {self.rows.scores} scores)"


class Querier:
    """Hides queries, sends them, and opens the replies.

    Parameters
    ----------
    client : Client
        The user who asks.
    scheme : UserScheme
        The user's side of the deployment's scheme.
    """

    def __init__(self, client: Client, scheme: UserScheme) -> None:
        self._client, self.scheme, self.config = client, scheme, client.config
        #: servers that could not be given the user's evaluation key; asked before the next query
        self._keyless: set[int] = set()

    # --- replies ------------------------------------------------------------------------------------------------

    def score_words(self, index: Index, encoded: np.ndarray, k: int) -> list[np.ndarray]:
        """Words (B, N) that add up to the scores of all rows. Grants limit ``k``, the number that the user keeps."""
        hidden, replies = self._sent(index, encoded, k, "user")
        return self._opened(hidden, replies, len(encoded), range(index.total), 0).words

    def blocks(
        self, index: Index, encoded: np.ndarray, k: int, *, verification: Verification | None = None,
        threads: int | None = None,
    ) -> Iterator[ScoreWords]:  # fmt: skip
        """:meth:`score_words` of some rows at a time, all under one header.

        With ``verification`` the whole is checked after the last rows: use nothing before the iterator has ended.

        Raises
        ------
        VerificationError
            A server answered wrongly.
        ProtocolError
            A server did not fold the check columns.
        """
        check, wrong = None if verification is None else self.check_columns(encoded), False
        folded = check is not None and self.folds(index)
        hidden, width = self.hide(index, encoded, k, "user", check=check, folded=folded), self.width(index)
        sums = np.zeros(0 if check is None else self.scheme.checks, self.config.params.dtype)
        for rows in self.scheme.row_blocks(index.total, len(encoded) + len(sums)):
            try:
                replies = self.send(hidden, rows, width=width)
            except BusyError:
                if rows.start or not folded or index.counted:
                    raise
                # no room for columns that wait: they travel, under a new header
                check, folded = self.check_columns(encoded), False
                hidden = self.hide(index, encoded, k, "user", check=check)
                replies = self.send(hidden, rows, width=width)
            words = self._opened(hidden, replies, len(encoded), rows, width)
            if check is not None and verification is not None:
                # no failure before the end: a server that sees what is asked next would learn whether a score that
                # it added to is in range
                if check.add(rows, words.words, width=words.width, threads=threads):
                    wrong |= self._out_of_range(index, words, verification)
                columns = self._columns(replies, 0 if folded else len(sums), len(rows))
                if not folded:
                    sums += check.folded(rows, columns, threads=threads)
                del columns  # they are parts of the replies
            del replies  # before the next request, so that its memory is reused
            yield words
            del words
        if check is None:
            return
        if folded:
            sums = self._folded(hidden, check.seed)
        if not check.passes(sums) or wrong:
            raise VerificationError(_CONTRADICT)

    def _out_of_range(self, index: Index, words: ScoreWords, verification: Verification) -> bool:
        """Whether scores out of range are wrong answers; if the rows were never tested, these are not verified."""
        if self.config.certifies and index.certified:
            return True  # which rows they are would cost time
        low, high = self.config.checked_range
        scores = reconstruct(words.words, width=words.width, rows=len(words.rows))
        outside = np.flatnonzero(((scores < low) | (scores > high)).any(axis=0)) + words.rows.start
        if self.config.certifies and not index.untested(outside):
            return True
        verification.problem = "rows that were not tested have scores out of range, which no check covers"
        return False

    def check_columns(self, encoded: np.ndarray) -> CheckColumns | None:
        """New check columns for queries; None if the scheme has none."""
        if not self.scheme.checks:
            return None
        return CheckColumns(encoded, self.scheme.checks, self.config.params, self.config.checked_range)

    def folds(self, index: Index) -> bool:
        """Whether servers fold the check columns instead of sending them: one more round, and less to send.

        Where queries are counted, too: folded columns count as one query.
        """
        size = self.scheme.checks * index.total * self.config.params.dtype.itemsize
        return (index.counted or (self._client.channel.remote and size > FOLD_BYTES)) and size <= MAX_KEPT_BYTES

    def _columns(self, replies: Mapping[int, Any], checks: int, rows: int) -> list[np.ndarray]:
        """Words of the check columns from each server."""
        columns = [replies[s].checks for s in self.scheme.servers]
        shape = (checks, rows) if checks else None
        if any(c.size if shape is None else c.shape != shape or c.dtype != self.config.params.dtype for c in columns):
            raise MessageError("a server's check columns have the wrong shape")
        return columns

    def _folded(self, hidden: HiddenQueries, seed: bytes) -> np.ndarray:
        """The folded check columns, added up over the servers."""
        try:
            fold = dict.fromkeys(hidden.servers, m.FoldColumns(hidden.hash, seed))
            replies = self._client.ask(fold, spare=self._client.spare)
        except (StaleSnapshotError, AccessDeniedError, NotFoundError, IntegrityError) as error:
            # not asked again by itself: a server knows the weights now, and could refuse until they suit it
            raise ProtocolError(f"a server did not fold the check columns: {error}") from None
        words = [replies[s].words for s in self.scheme.servers]
        shape, dtype = (self.scheme.checks,), self.config.params.dtype
        if any(w.shape != shape or w.dtype != dtype for w in words):
            raise MessageError("a server's folded check columns have the wrong shape")
        return np.sum(words, axis=0, dtype=dtype)

    def width(self, index: Index) -> int:
        """Bits to which servers are asked to cut the score shares of rows that the user ranks; 0 for whole words.

        Where nothing travels, packing is work for nothing. Rows that are not known in range may have longer scores.
        """
        return self.config.score_width if self._client.channel.remote and index.certified else 0

    def ranked(
        self, index: Index, encoded: np.ndarray, k: int, ranking: str, theta: int = 0, *,
        probe: Probe | None = None,
    ) -> tuple[list[UserShare], Public]:  # fmt: skip
        """The servers' parts of a ranking, or of the bits of a range search, and the public facts of that protocol.

        With ``probe`` the ranking is of the scores of chosen clusters.
        """
        hidden, replies = self._sent(index, encoded, k, ranking, theta, None if probe is None else probe.chosen)
        parties = self.config.params.parties(self.scheme.servers)
        rows = index.total if probe is None else probe.rows.scores
        parts = [_part(s, parties.index(s) + 1, r, len(encoded), rows, ranking) for s, r in replies.items()]
        return parts, public_facts(self.config, hidden.hash, index.snapshot, rows, probed=probe is not None)

    def cost(
        self, index: Index, k: int, ranking: str, queries: int, verify: bool = False, probed: ProbedRows | None = None
    ) -> SearchCost:
        """Rounds and bytes of a search, before anything is sent."""
        if probed is not None:
            return self.scheme.probe_cost(index.total, len(index.batches), k, queries, probed)
        if ranking != "user":
            return self.scheme.cost(index.total, len(index.batches), k, ranking, queries, 0)
        checks = self.scheme.checks if verify else 0
        return self.scheme.cost(
            index.total, len(index.batches), k, ranking, queries, self.width(index), checks=checks,
            folded=bool(checks) and self.folds(index),
        )  # fmt: skip

    def _opened(
        self, hidden: HiddenQueries, replies: Mapping[int, Any], queries: int, rows: range, width: int
    ) -> ScoreWords:
        """Score words; ``width`` is what was asked for, and the servers gave that or whole words, all the same."""
        answers = [replies[s] for s in self.scheme.servers]
        if not all(isinstance(answer, m.Answer) for answer in answers):
            raise MessageError("a server sent no score shares")
        shares, given = [answer.score_shares for answer in answers], {answer.width for answer in answers}
        if given not in ({0}, {width}):
            raise MessageError("the servers sent score shares of different widths, or of one that was not asked for")
        (width,) = given
        self.scheme.verify(shares, queries, len(rows), width)
        return ScoreWords(rows, self.scheme.open(shares, len(rows), hidden.opening), width or None)

    # --- requests -----------------------------------------------------------------------------------------------

    def _sent(
        self, index: Index, encoded: np.ndarray, k: int, ranking: str, theta: int = 0,
        chosen: np.ndarray | None = None,
    ) -> tuple[HiddenQueries, dict[int, Any]]:  # fmt: skip
        """Hide and send queries; retries under a new header while servers are busy. The queries, and the replies."""

        def attempt() -> tuple[HiddenQueries, dict[int, Any]]:
            hidden = self.hide(index, encoded, k, ranking, theta, chosen=chosen)
            return hidden, self.send(hidden, together=ranking != "user")

        return retry_busy(attempt, spare=self._client.spare)

    def hide(
        self, index: Index, encoded: np.ndarray, k: int, ranking: str, theta: int = 0, *,
        check: CheckColumns | None = None, folded: bool = False, chosen: np.ndarray | None = None,
    ) -> HiddenQueries:  # fmt: skip
        """Hide encoded queries and commit to them in a new header.

        Parameters
        ----------
        index : Index
            The state to search.
        encoded : ndarray of int, (B, encoded_dim)
            Encoded queries. Secret.
        k : int
            Number of neighbours, for the header.
        ranking : str
            ``server``, ``user`` or ``threshold``.
        theta : int
            Least score, for ranking ``threshold``; the same for all queries. Secret.
        check : CheckColumns, optional
            Check columns that go with the queries. Secret.
        folded : bool
            Whether the servers keep their words until they are folded.
        chosen : ndarray of int, (B, groups), optional
            With ranking ``probe``: the cluster of each group that each query looks at. Secret.

        Returns
        -------
        HiddenQueries
            The header, and each server's part.
        """
        servers = self.scheme.servers
        hidden = self.scheme.hide(encoded if check is None else check.with_columns(encoded))
        query_shares = hidden.shares
        thetas = self.theta_shares(theta if ranking == "threshold" else None, len(encoded))
        salts = {s: schedule.random_bytes(32) for s in servers}
        proofs, parts_of_proof = self._range_proof(encoded, ranking, theta, chosen)
        header = encode(
            m.QueryHeader(
                self.config.id,
                self._client.id,
                schedule.random_bytes(16),
                ranking,
                k,
                len(encoded),
                list(servers),
                self.config.encoding.hash if chosen is None else self.config.probe_hash,
                index.snapshot,
                [o.grant for o in index.owners],
                [o.position for o in index.owners],
                [len(o.batches) for o in index.owners],
                [query_share_commitment(salts[s], query_shares[s], thetas[s]) for s in servers],
                index.batches,
                proofs,
                self._client.key_set().id,
                0 if check is None else self.scheme.checks,
                folded,
            )
        )
        frames = [np.frombuffer(f, np.uint8) for f in header]
        parts = {s: (salts[s], query_shares[s], thetas[s]) for s in servers}
        return HiddenQueries(frames, frames_hash(header), parts, index.newest, parts_of_proof, hidden.opening)

    def send(
        self, hidden: HiddenQueries, rows: range = range(0), *, together: bool = False, width: int = 0
    ) -> dict[int, Any]:
        """Send queries and wait for all replies.

        Parameters
        ----------
        hidden : HiddenQueries
            From :meth:`hide`.
        rows : range
            Live rows to answer for; all if empty.
        together : bool
            Whether the servers talk to each other to answer.
        width : int
            See :class:`~mipp.rpc.messages.Query`.

        Returns
        -------
        dict of int to message
            Replies by server.

        Raises
        ------
        ProtocolError
            A server did not finish a ranking in time, asked for an evaluation key that the scheme does not have, or did
            not take the one that it asked for.
        MippError
            A refusal, or the error that ended the ranking.
        """
        # a cloud may have been away when the index changed; the key centre takes part in every change
        params = self.config.params
        judge = params.key_centres[0] if params.spare_clouds else self.scheme.servers[0]
        newest = {judge: hidden.newest if not rows.start else b""}
        no_proof = b"", np.empty((0, 0), self.config.params.dtype)
        messages = {
            s: m.Query(
                hidden.header, *part, rows.start, len(rows), newest.get(s, b""), *hidden.proof.get(s, no_proof), width
            )
            for s, part in hidden.servers.items()
        }
        ask = functools.partial(self._client.ask, together=together, spare=self._client.spare)
        if self._keyless:  # before any server counts the query
            self._bring_key(sorted(self._keyless))
        try:
            replies = ask(messages, refusals=(MissingKeyError,) if self.scheme.evaluation_key_bytes else ())
        except MissingKeyError as error:
            raise ProtocolError(f"server {error.server} wants an evaluation key, but users have none here") from None
        if missing := [server for server, reply in replies.items() if isinstance(reply, MissingKeyError)]:
            # these counted nothing; the others have answered, and would count the queries again under a new header
            def complete() -> dict[int, Any]:
                self._bring_key(missing)
                return ask({server: messages[server] for server in missing})

            try:
                replies |= retry_busy(complete, spare=self._client.spare)
            except (BusyError, MissingKeyError) as error:
                raise ProtocolError(f"server {error.server} did not take the user's evaluation key: {error}") from None
        return self.collect(hidden, replies)

    def _bring_key(self, servers: list[int]) -> None:
        """Give this user's evaluation key to those of some servers that have none now: it may have come meanwhile."""
        self._keyless |= set(servers)
        needed = self._client.ask_all(m.EvaluationKeyRequest(self._client.id), servers)
        if lacking := [server for server, state in needed.items() if state.needed]:
            key = np.frombuffer(self.scheme.evaluation_key(), np.uint8)
            self._client.ask_all(m.KeepEvaluationKey(key), lacking)
        self._keyless -= set(servers)

    def collect(self, hidden: HiddenQueries, replies: dict[int, Any]) -> dict[int, Any]:
        """Ask the servers that replied ``Pending`` again until each has given its part; all replies, by server."""
        collect, spare = m.CollectRanking(hidden.hash), self._client.spare
        ask = functools.partial(self._client.ask_all, collect, together=True, spare=spare)
        return collect_pending(replies, ask, "finish the ranking")

    def theta_shares(self, theta: int | None, queries: int) -> dict[int, np.ndarray]:
        """Additive shares of the threshold, one word per query and server; empty ones without a threshold."""
        dtype, servers = self.config.params.dtype, self.scheme.servers
        if theta is None:
            return dict.fromkeys(servers, np.empty(0, dtype))
        first, *others = servers
        raw = schedule.random_bytes(len(others) * queries * dtype.itemsize)
        shares = dict(zip(others, np.frombuffer(raw, dtype).reshape(len(others), queries), strict=True))
        rest = np.full(queries, theta % (1 << 8 * dtype.itemsize), dtype)
        return {first: rest - sum(shares.values()), **shares}

    def _range_proof(
        self, encoded: np.ndarray, ranking: str, theta: int, chosen: np.ndarray | None = None
    ) -> tuple[list[bytes], dict[int, tuple[bytes, np.ndarray]]]:
        """Prove that queries which servers rank are in range; nothing if the user ranks.

        Returns the commitments to the three summands, for the header, and by server the seeds of its two summands with
        the words of the third, or none. The latter are secret.
        """
        if ranking == "user" or not self.config.certifies:
            return [], {}
        thetas = [theta] * len(encoded) if ranking == "threshold" else None
        clusters = self.config.clusters
        choice = None
        if chosen is not None and clusters is not None:
            choice = choice_bits(chosen, clusters.groups, clusters.size)
        made = prove(self.config.query_rule, encoded, thetas, choice)
        commitments = [commitment(number, made[number]) for number in sorted(made)]
        parties = self.config.params.parties(self.scheme.servers)
        return commitments, {server: pack(made, party) for party, server in enumerate(parties, 1)}


def _part(server: int, party: int, reply: Any, queries: int, rows: int, ranking: str) -> UserShare:
    """A server's part, as that of a party, of a ranking, or of the bits of a range search."""
    fits = isinstance(reply, m.Ranked) and reply.server == server
    if not fits or reply.queries != queries or reply.rows != rows or (ranking == "threshold" and len(reply.words) != 1):
        raise MessageError("the user's parts: a server's part of a ranking does not fit the query")
    words = reply.words[0] if ranking == "threshold" else reply.words
    return UserShare(party, reply.session, reply.parameters, reply.queries, reply.rows, words)
