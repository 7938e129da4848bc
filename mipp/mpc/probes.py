"""Query shares of the clusters that a user chose, one in each group, made by servers that learn none of the choices.

Rows lie in clusters of public centroids, padded to equal sizes; clusters are dealt to groups (:class:`Layout`). The
user shares the bits of its query (:mod:`.query_proof`) and, for each group, a vector of bits with a single 1: its
*choice*. The servers multiply both on shares, and turn the product into query shares of the whole group: words that
are the query at the chosen cluster and 0 at all others. A product of stored words with them, a plain one as for any
query, gives shares of the scores of the chosen cluster alone. So ``groups * slots`` scores are ranked instead of all.

Query shares are values of a polynomial of degree 1 whose leading coefficient, the key centre's, is keystream of both
its keys. Party 3, the key centre, gives its part of the product away, masked. Each cloud sends the other its part of
the other's value.

1. 3 -> 1: t_3 - M, M a mask of 2 and 3
2. 1 -> 2 and 2 -> 1: the receiver's value of the polynomial of the sender's own part and of its own key's stream

Cost: 2 rounds, a word of ``width`` bits for each word of a group's query shares and party (:func:`probe_cost`).
Leakage: none to the servers. The user learns the nearest rows of the clusters that it chose.

Source: the query of a chosen cluster as a product with its unit vector is from Henzinger, Dauterman, Corrigan-Gibbs,
Zeldovich, "Private Web Search with Tiptoe", SOSP 2023; one choice in each group is a batch code, as in Angel, Chen,
Laine, Setty, "PIR with Compressed Queries and Amortized Query Processing", S&P 2018.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from .._native import _core
from ..encoding.bounds import QueryRule
from ..errors import DTypeError, ParameterError, ShapeError
from ..params import RING_DTYPES, Params
from ..sharing import constants
from . import kernels as local
from .cost import Cost, add_check
from .query_proof import Summand, held_by, share_bits, zero_bits
from .replicated import Pair
from .session import MAX_ROWS, Party

__all__ = [
    "Layout",
    "choice_bits",
    "choice_relations",
    "choose",
    "probe_cost",
    "probe_memory",
    "probe_shares",
    "split_choice",
]

#: clusters of an index
MAX_CLUSTERS = 1 << 20
#: clusters of a group: sums of so many bits do not wrap in the narrowest words of a proof
MAX_SIZE = (1 << 16) - 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the rows of a batch lie: ``groups`` times ``slots`` times ``size`` rows, one of each cluster side by side.

    Row ``(g * slots + j) * size + i`` is the j-th of cluster i of group g, or padding. The ``slots * size`` rows of a
    group are ``slots`` rows of ``size`` times as many words: what query shares of a group are multiplied with. Public.

    Parameters
    ----------
    groups : number of groups; a query chooses one cluster in each
    size : clusters of a group
    slots : rows of a cluster, padding included

    Raises
    ------
    ParameterError
        A number out of range.

    Examples
    --------
    >>> from mipp.mpc.probes import Layout
    >>> layout = Layout(groups=32, size=8, slots=4300)
    >>> layout.clusters, layout.rows, layout.scores
    (256, 1100800, 137600)
    """

    groups: int
    size: int
    slots: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive integer, not {value!r}")
        if self.size > MAX_SIZE or self.clusters > MAX_CLUSTERS or self.rows > MAX_ROWS:
            raise ParameterError(
                f"at most {MAX_SIZE} clusters in a group, {MAX_CLUSTERS} in all, and {MAX_ROWS} rows; not {self}"
            )

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return self.groups * self.size

    @property
    def rows(self) -> int:
        """Rows that are stored, padding included."""
        return self.clusters * self.slots

    @property
    def scores(self) -> int:
        """Scores that a query has: those of the chosen clusters."""
        return self.groups * self.slots


# --- the user --------------------------------------------------------------------------------------------------------


def choose(chosen: np.ndarray, layout: Layout, proof_bits: int) -> dict[int, Summand]:
    """Summands 1, 2, 3 of the choice of one cluster in each group; party a is to get all but number a.

    Parameters
    ----------
    chosen : (B, groups) integers, the cluster of each group, from 0; secret
    layout : public
    proof_bits : 16, 32 or 64, of the words: as those of the query's proof

    Returns
    -------
    dict
        Number to summand of (B, clusters) words; secret. Each party's two are uniform.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not one integer for each group, or no cluster of it.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.mpc.probes import Layout, choose
    >>> summands = choose(np.array([[2, 0]]), Layout(groups=2, size=3, slots=5), 32)
    >>> sum(s.expanded((1, 6), np.dtype(np.uint32), 1) for s in summands.values())
    array([[0, 0, 1, 1, 0, 0]], dtype=uint32)
    """
    if proof_bits not in RING_DTYPES:
        raise ParameterError(f"words have 16, 32 or 64 bits, not {proof_bits!r}")
    return share_bits(choice_bits(chosen, layout.groups, layout.size), RING_DTYPES[proof_bits])


def choice_bits(chosen: np.ndarray, groups: int, size: int) -> np.ndarray:
    """Unit vectors of the chosen clusters, group by group.

    Parameters
    ----------
    chosen : (B, groups) integers, the cluster of each group, from 0; secret
    groups, size : number of groups, and of clusters in each

    Returns
    -------
    (B, groups * size) bool; secret

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not one integer for each group, or no cluster of it.
    """
    chosen = np.asarray(chosen)
    if chosen.dtype.kind not in "iu":
        raise DTypeError(f"chosen clusters must be integers, not {chosen.dtype}")
    if chosen.ndim != 2 or chosen.shape[1] != groups or not len(chosen):
        raise ShapeError(f"chosen clusters must be (queries, {groups}), not {chosen.shape}")
    if int(chosen.min()) < 0 or int(chosen.max()) >= size:
        raise ParameterError(f"chosen clusters must be from 0 to {size - 1}")
    return np.asarray((chosen[:, :, None] == np.arange(size)).reshape(len(chosen), groups * size))


# --- the servers -----------------------------------------------------------------------------------------------------


def split_choice(
    rule: QueryRule, party: int, summands: Mapping[int, Summand], queries: int, clusters: int, threads: int
) -> tuple[dict[int, Summand], Pair]:
    """Split what a party got of a proof with a choice behind it (:func:`mipp.mpc.query_proof.prove`).

    Parameters
    ----------
    rule : of the encoding
    party : 1, 2 or 3
    summands : the two that it has; secret
    queries, clusters : B, and bits of a choice

    Returns
    -------
    summands : of the proof alone
    choice : Pair of (B, clusters) words of the proof
    """
    bits, dtype = rule.words(threshold=False), RING_DTYPES[rule.proof_bits]
    whole = {n: summands[n].expanded((queries, bits + clusters), dtype, threads) for n in held_by(party)}
    proof = {n: Summand(summands[n].seed, words[:, :bits]) for n, words in whole.items()}
    return proof, Pair(*(np.ascontiguousarray(whole[n][:, bits:]) for n in held_by(party)))


def choice_relations(party: int, choice: Pair, groups: int) -> np.ndarray:
    """This party's additive shares of what is zero just when each group's words are bits with a single 1.

    For :func:`mipp.mpc.query_proof.check_relations`, together with the query's own. A word b is 0 or 1 when b^2 - b is
    0, for b and b - 1 are coprime. A sum of fewer than 2^16 of these is 1 modulo 2^16 or more only with a single 1.

    Parameters
    ----------
    party : 1, 2 or 3
    choice : (B, clusters) words of the proof, this party's two summands; secret
    groups : number of groups

    Returns
    -------
    (B, clusters + groups) words; secret
    """
    lo = choice.lo
    one = lo.dtype.type(party == 1)
    sums = lo.reshape(len(lo), groups, -1).sum(axis=2, dtype=lo.dtype) - one
    return np.concatenate([zero_bits(choice), sums], axis=1)


def probe_shares(
    party: Party, query: Pair, choice: Pair, groups: int, params: Params, width: int,
    servers: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """This server's query shares of the chosen clusters, one for each group.

    Parameters
    ----------
    party : in a session; what :func:`mipp.mpc.query_proof.check_relations` was given is opened in the first round
    query : (B, D) words of the ring or wider, this party's two summands of the encoded queries; secret
    choice : (B, clusters) words, likewise, of which each group has a single 1; secret
    groups : number of groups
    params : two or three clouds and a key centre that stores no shares (sharing ``infinity``)
    width : number of bits that hold every score; the low bits of a sharing are a sharing
    servers : of the query; default the first that can be

    Returns
    -------
    (B, groups, size * D) words of the ring; secret, uniform to this server. The score of the j-th row of a chosen
    cluster is the product with the ``size`` rows of slot j (:class:`Layout`), modulo 2^width.

    Raises
    ------
    ParameterError, ShapeError
        Parameters that do not fit together, before anything is sent.
    """
    numbers = params.check_servers(params.parties(servers))
    parties = params.parties(servers)
    if params.t != 1 or len(constants.query_parts(params, servers)) != 2:
        raise ParameterError("clusters can be chosen where two clouds hold shares and the key centre holds keys alone")
    if not 1 <= width <= params.ring_bits:
        raise ParameterError(f"width must be from 1 to {params.ring_bits}, not {width!r}")
    if query.lo.shape[1] % params.m or len(query.lo) != len(choice.lo) or choice.lo.shape[1] % groups:
        raise ShapeError(f"{query!r} and {choice!r} are no queries and choices of {groups} groups")
    part = _products(query, choice, params.dtype)
    matrices = {a: constants.query_matrices(params, numbers)[numbers.index(parties[a - 1])] for a in (1, 2, 3)}
    part = _two_parts(party, part, width)
    out = _values(party, part, matrices, width)
    return out.reshape(len(query.lo), groups, -1)


def _products(query: Pair, choice: Pair, dtype: np.dtype[np.unsignedinteger]) -> np.ndarray:
    """Additive shares of the products of each choice bit with each word of its query: (B, clusters * D)."""
    q, h = (words.astype(dtype)[:, None, :] for words in query)
    e, f = (words.astype(dtype)[:, :, None] for words in choice)
    return np.asarray(e * (q + h) + f * q).reshape(len(query.lo), -1)


def _two_parts(party: Party, part: np.ndarray, width: int) -> np.ndarray:
    """The clouds' additive shares, party 3's part given away. Cost: 1 round, one message."""
    if party.index == 1:
        size = local.packed_words(part.size, width)
        (got,) = party.exchange("probe", {}, {3: [(size, np.uint64)]})[3]
        return part + _unpacked(got, part, width, party.threads)
    mask = _stream(party, 1, "probe mask", part)
    if party.index == 2:
        party.exchange("probe", {}, {})
        return part + mask
    party.exchange("probe", {1: [_packed(part - mask, width, party.threads)]}, {})
    return np.zeros_like(part)


def _values(party: Party, part: np.ndarray, matrices: dict[int, np.ndarray], width: int) -> np.ndarray:
    """This server's values of the polynomials. Cost: 1 round, one message of each cloud."""
    stream = np.zeros_like(part)
    for missing in (1, 2):
        if missing != party.index:
            stream += _stream(party, missing, "probe line", part)

    def value(at: int) -> np.ndarray:
        out = np.empty_like(part)
        _core.combine([part, stream], matrices[at][None], [out], party.threads)
        return out

    mine = value(party.index)
    if party.index == 3:
        party.exchange("probe", {}, {})
        return _low(mine, width)
    other = 3 - party.index
    size = local.packed_words(part.size, width)
    sent = _packed(value(other), width, party.threads)
    (got,) = party.exchange("probe", {other: [sent]}, {other: [(size, np.uint64)]})[other]
    return _low(mine + _unpacked(got, part, width, party.threads), width)


def _stream(party: Party, missing: int, purpose: str, like: np.ndarray) -> np.ndarray:
    key = party.key(missing, purpose)
    return local.keystream(key, like.size, like.dtype, party.threads).reshape(like.shape)


def _packed(words: np.ndarray, width: int, threads: int) -> np.ndarray:
    return local.pack(words.reshape(-1).astype(np.uint64), width, threads)


def _unpacked(packed: np.ndarray, like: np.ndarray, width: int, threads: int) -> np.ndarray:
    return local.unpack(packed, like.size, width, threads).astype(like.dtype).reshape(like.shape)


def _low(words: np.ndarray, width: int) -> np.ndarray:
    return words & words.dtype.type((1 << width) - 1)


def probe_memory(clusters: int, queries: int, words: int, ring_bits: int) -> int:
    """Bytes that a server holds at once in :func:`probe_shares`: for each word six of the ring, and one of 64 bits."""
    return (6 * ring_bits // 8 + 8) * queries * clusters * words


def probe_cost(layout: Layout, queries: int, words: int, width: int, *, proof_bits: int = 0) -> Cost:
    """Exact cost of :func:`probe_shares`, without the session's first and last rounds.

    Parameters
    ----------
    layout, width : as there
    queries : B
    words : D
    proof_bits : bits of a word of what :func:`mipp.mpc.query_proof.check_relations` opens along; 0 without it

    Examples
    --------
    >>> from mipp.mpc.probes import Layout, probe_cost
    >>> cost = probe_cost(Layout(groups=32, size=8, slots=4300), 1, 128, 18)
    >>> cost.rounds, cost.payload
    (2, {1: 73728, 2: 73728, 3: 73728})
    """
    cost = Cost()
    add_check(cost, proof_bits)
    cost.rounds += 2
    for party in (1, 2, 3):
        cost.send(party, 8 * local.packed_words(queries * layout.clusters * words, width))
    return cost
