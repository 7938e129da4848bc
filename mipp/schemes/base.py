"""Interface of a scheme, as clients, servers and deployments use.

A scheme says how many servers there are, how a query is hidden from them, what each computes, and how the user opens
the scores. It has one object for the facts that all parties know (:class:`Scheme`), one at a user
(:class:`UserScheme`) and one at a server (:class:`ServerScheme`). Everything else (grants, snapshots, quotas, ranking)
is the same for all schemes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np

from ..backends import Rows
from ..encoding import Encoding
from ..errors import ParameterError
from ..mpc.probed import ProbedRows
from ..params import Params
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig
from ..rpc.limits import MAX_QUERY_BYTES

__all__ = [
    "Hidden",
    "RowPlan",
    "Scheme",
    "SearchCost",
    "ServerScheme",
    "UserCost",
    "UserScheme",
    "seconds_on_lines",
]


class UserCost(TypedDict):
    """Rounds of a search between the user and the servers, and bytes to and from each server."""

    rounds: int
    sent: int
    received: int
    #: further bytes to each cloud where servers rank or compare: the proof that queries are in range
    proof: NotRequired[int]
    #: further bytes to each server, before this user's first search alone: its evaluation key
    once: NotRequired[int]


class CostBound(TypedDict):
    """Rounds and bytes that a ranking by servers exceeds with a chance below one in a thousand."""

    rounds: int
    #: by number of the server that sends them
    bytes: dict[int, int]


class ServersCost(TypedDict):
    """Rounds and bytes between the servers: exact for a range search, expected for a ranking."""

    rounds: int
    #: by number of the server that sends them
    bytes: dict[int, int]
    #: of a ranking
    bound: NotRequired[CostBound]
    #: comparisons of two scores, or of scores and thresholds; of a ranking the expected number
    comparisons: NotRequired[int]


class MemoryCost(TypedDict):
    """Bytes of a search on disks and in memory, beside what programs and mapped rows take; of public facts alone."""

    #: of live rows that each cloud reads: from its disk where memory does not hold them. The key centre stores none
    read: int
    #: that a server holds at once: score shares, what it ranks, check columns that wait to be folded
    server: int
    #: that the user holds at once: what the servers sent for some rows, and the best so far
    user: int


class SearchCost(TypedDict):
    """Rounds and bytes of a search (:meth:`mipp.User.cost`)."""

    ranking: str
    images: int
    user: UserCost
    #: where servers rank or compare
    servers: NotRequired[ServersCost]
    #: where the scheme tells it
    memory: NotRequired[MemoryCost]
    #: of a search of chosen clusters: rows that lie in clusters
    clustered: NotRequired[int]


def seconds_on_lines(cost: SearchCost, round_trip: float, rate: float) -> float:
    """Predict what messages of a search add to its time between machines, beside what the machines compute.

    The user asks all servers at once, each over a line of its own. Where servers rank, the key centre first hears of
    the query from the others and starts it (a round trip), then a round of messages takes half a round trip. TCP's
    slow start after a pause is not counted.

    Parameters
    ----------
    cost : SearchCost
        Of :meth:`mipp.User.cost`.
    round_trip : float
        Between any two machines, in seconds.
    rate : float
        Of each machine's line, in bits a second.

    Returns
    -------
    float
        Seconds.

    Examples
    --------
    >>> from mipp.schemes.base import seconds_on_lines
    >>> cost = {"ranking": "user", "images": 10, "user": {"rounds": 1, "sent": 500_000, "received": 500_000}}
    >>> seconds_on_lines(cost, 0.02, 1e9)
    0.028
    """
    user = cost["user"]
    size, trips = float(user["sent"] + user["received"]), float(user["rounds"])
    if "servers" in cost:
        servers = cost["servers"]
        size += max(servers["bytes"].values())
        trips += 1 + servers["rounds"] / 2
    return trips * round_trip + 8 * size / rate


class RowPlan(Protocol):
    """Which rows a query covers, as a server laid them out (:class:`mipp.server.plan.Plan`); public facts."""

    @property
    def live_total(self) -> int:
        """Live rows."""

    @property
    def live(self) -> np.ndarray | None:
        """Original positions of all live rows, None if all are."""

    def spans(self, rows: range) -> Iterator[tuple[slice, int, int, np.ndarray | None]]:
        """Original rows to multiply for live rows ``rows``."""

    def masks(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Batches of original rows ``start`` to ``stop``, for zero shares."""


@dataclass(frozen=True, repr=False)
class Hidden:
    """Queries as a scheme hid them.

    Parameters
    ----------
    shares : mapping of int to ndarray
        The query share of each server, which tells it nothing of the queries.
    opening : object, optional
        What opening the answers to these queries needs beside the user's own keys, such as a secret key that is used
        for them alone. Secret; it goes when the queries do.
    """

    shares: Mapping[int, np.ndarray]
    opening: Any = None

    def __reduce__(self) -> str:
        raise TypeError("hidden queries hold secrets and do not pickle")


class UserScheme(ABC):
    """A user's side of a scheme: hides queries, opens scores. Holds the user's secret keys of the scheme, if any."""

    #: servers that a query goes to, in order
    servers: tuple[int, ...]
    #: whether servers answer for some rows at a time
    by_rows: bool
    #: what servers register of the user's keys of this scheme; public, empty if there are none
    public_key: bytes = b""
    #: length of the user's evaluation key; 0 if it has none
    evaluation_key_bytes: int = 0

    def __reduce__(self) -> str:
        raise TypeError("a user's side of a scheme may hold keys and does not pickle")

    def evaluation_key(self) -> bytes:
        """Make a public key that servers compute with, of :attr:`evaluation_key_bytes`.

        Sent to servers that have none of this user; empty if the scheme has none. Another one each time.
        """
        return b""

    @abstractmethod
    def hide(self, encoded: np.ndarray) -> Hidden:
        """Hide encoded queries (B, encoded_dim) from the servers.

        ParameterError for queries that the scheme cannot carry.
        """

    @property
    def checks(self) -> int:
        """Check columns that make wrong score shares noticed; 0 if that cannot be, and :attr:`unverified` says why."""
        return 0

    @property
    def unverified(self) -> str:
        """Why this scheme's answers cannot be verified, in a sentence; empty if they can."""
        return f"answers cannot be verified in the {type(self).__name__} scheme"

    def header_blocks(self, queries: int) -> Iterator[slice]:
        """The queries under each header, where servers answer for some rows at a time."""
        yield slice(0, queries)

    def row_blocks(self, rows: int, queries: int) -> Iterator[range]:
        """The rows that are asked for at a time, under one header of so many queries."""
        yield range(rows)

    @abstractmethod
    def portion(self, rows: int, ranking: str, k: int, *, choice: int = 0) -> int:
        """Queries that go under one header, at most, over ``rows`` rows that are not answered some at a time.

        ``choice``: clusters of which each query chooses some, 0 without.
        """

    @abstractmethod
    def verify(self, score_shares: Sequence[np.ndarray], queries: int, rows: int, width: int) -> None:
        """MessageError for replies that are no score shares of so many queries and rows.

        ``width`` : bits to which they are cut, 0 for whole words.
        """

    @abstractmethod
    def open(self, score_shares: Sequence[np.ndarray], rows: int, opening: Any) -> list[np.ndarray]:
        """Words (B, rows), or packed ones, that add up to the scores modulo the ring or 2^width; secret from everybody
        but this user.

        ``opening`` : of :class:`Hidden`, for the queries that were answered.
        """

    @abstractmethod
    def cost(
        self, images: int, batches: int, k: int, ranking: str, queries: int, width: int, *, checks: int = 0,
        folded: bool = False,
    ) -> SearchCost:  # fmt: skip
        """Rounds and bytes of a search, before anything is sent. ``width``: as for :meth:`verify`.

        ``checks``, ``folded``: as of :class:`~mipp.rpc.messages.QueryHeader`.
        """

    def probe_cost(self, images: int, batches: int, k: int, queries: int, probed: ProbedRows) -> SearchCost:
        """Rounds and bytes of a search of chosen clusters, before anything is sent."""
        raise ParameterError("servers of this scheme do not rank")


class ServerScheme(ABC):
    """A server's side of a scheme: what it computes from its rows and a hidden query."""

    #: whether a user may ask for some rows at a time
    by_rows: bool

    @property
    def checks(self) -> int:
        """Check columns that a query may have, beside none."""
        return 0

    def __reduce__(self) -> str:
        raise TypeError("a server's side of a scheme holds keys and does not pickle")

    def check_user_key(self, key: bytes) -> None:
        """ParameterError for a user's public key of the scheme that is malformed, or that the scheme has no use for."""
        if key:
            raise ParameterError("users of this deployment have no key of the scheme")

    @property
    def evaluation_key_bytes(self) -> int:
        """Length of a user's evaluation key: the same for all users of a deployment; 0 where users have none."""
        return 0

    def check_evaluation_key(self, key: bytes) -> None:
        """ParameterError or MessageError for an evaluation key of another length, or one that is malformed."""
        raise ParameterError("users of this deployment have no evaluation keys")

    @property
    def query_bytes(self) -> int:
        """Most bytes of a query share, thresholds and proof that may come with one header; more is not even taken."""
        return MAX_QUERY_BYTES

    def drop_user(self, user: bytes) -> None:  # noqa: B027 - most schemes keep nothing
        """Drop what is kept in memory of a user's keys: it brought another evaluation key."""

    @abstractmethod
    def check_query(self, header: m.QueryHeader, query_share: np.ndarray, theta: np.ndarray) -> Any:
        """ShapeError or ParameterError for what is no query share, or no share of thresholds, of this header.

        LimitError for more than is taken at once, before anything is read. MissingKeyError if the server lacks the
        user's evaluation key. Returns what :meth:`answer` needs beside the query share, such as that key.
        """

    @abstractmethod
    def check_size(self, header: m.QueryHeader, rows: int) -> int:
        """Bytes that a query over ``rows`` rows takes; LimitError, before that, for more than a server gives."""

    @abstractmethod
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
        """This server's score shares for live rows ``rows``, the first axis being queries.

        ``checked``: what :meth:`check_query` returned for this query.
        """

    def fill(
        self,
        header: m.QueryHeader,
        header_hash: bytes,
        plan: RowPlan,
        stored: Rows,
        query_share: np.ndarray,
        rows: range,
        out: np.ndarray,
    ) -> None:
        """Write score shares for live rows ``rows`` into (B, rows) words: for servers that compare them."""
        raise ParameterError("these servers do not compare scores; use ranking='user'")

    def fill_probed(
        self,
        header: m.QueryHeader,
        header_hash: bytes,
        plan: RowPlan,
        stored: Rows,
        query_share: np.ndarray,
        probed: ProbedRows,
        made: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Write this server's score shares of a query with chosen clusters into (B, scores) words.

        ``made``: (B, groups, words) query shares of the chosen clusters that the servers made, secret. Other rows are
        multiplied with ``query_share``.
        """
        raise ParameterError("these servers do not compare scores; use ranking='user'")

    def prepare(self, user: bytes, rows: int, queries: int) -> None:  # noqa: B027 - most schemes need nothing
        """Make ahead what the next queries of a user need, in memory."""

    def close(self) -> None:  # noqa: B027 - most schemes keep nothing
        """Drop what is kept in memory."""


class Scheme(ABC):
    """The facts of a scheme that all parties know. Stateless."""

    #: the scheme's name, in descriptions of deployments and on the command line
    name: str
    #: one line for people who choose a scheme
    summary: str
    #: numbers of clouds that a deployment can have, the default first
    cloud_counts: tuple[int, ...]
    #: whether the size of a user's key of the scheme can be chosen
    sized_keys: bool = False

    @abstractmethod
    def params(self, ring_bits: int, clouds: int | None = None) -> Params:
        """Servers and threshold of a new deployment, with words of so many bits.

        ``clouds`` : their number, None for the scheme's default; ParameterError for one that the scheme does not have.
        """

    def checked_clouds(self, clouds: int | None) -> int:
        """A number of clouds that the scheme has, by default its first; ParameterError for another."""
        if clouds is not None and clouds not in self.cloud_counts:
            known = " or ".join(map(str, self.cloud_counts))
            noun = "cloud" if self.cloud_counts == (1,) else "clouds"
            raise ParameterError(f"the scheme {self.name!r} has {known} {noun}, not {clouds}")
        return clouds or self.cloud_counts[0]

    def check_encoding(self, encoding: Encoding) -> None:  # noqa: B027 - most schemes carry all
        """ParameterError for an encoding that the scheme cannot carry; asked before an index is made."""

    def facts(self, config: DeploymentConfig) -> dict[str, Any]:
        """Public facts of a deployment that the scheme derives from its description, by name: text and numbers."""
        return {}

    def user_secrets(self, config: DeploymentConfig, key_bits: int) -> dict[str, bytes]:
        """New secret keys of a user, by name, beside its identity; none in most schemes.

        ``key_bits`` : of a key whose size can be chosen.
        """
        return {}

    @abstractmethod
    def for_user(
        self, config: DeploymentConfig, servers: Sequence[int] | None, secrets: Mapping[str, bytes], threads: int | None
    ) -> UserScheme:
        """A user's side.

        Parameters
        ----------
        servers : that queries go to; None for the scheme's choice
        secrets : the user's keys, those of :meth:`user_secrets` among them; KeyError if one is missing
        threads : native threads, None for all cores
        """

    @abstractmethod
    def for_server(
        self, config: DeploymentConfig, index: int, pair_keys: PairKeys, threads: int | None, keys: UserKeys,
        own_key: bytes,
    ) -> ServerScheme:  # fmt: skip
        """The side of server ``index``.

        Parameters
        ----------
        pair_keys : keys shared with each other server, by the key set that a query's header names; secret
        keys : a registered user's public key of the scheme, or its evaluation key
        own_key : 32 bytes that no other server knows, the same after each start; secret
        """


class PairKeys(Protocol):
    """Looks up the keys that a server shares with each other one, by the id of a key set; StaleKeysError."""

    def __call__(self, key_set: bytes) -> Mapping[int, bytes]: ...


class UserKeys(Protocol):
    """Looks up what a user registered of its keys of the scheme; NotFoundError if that is nothing."""

    def __call__(self, user: bytes) -> bytes: ...
