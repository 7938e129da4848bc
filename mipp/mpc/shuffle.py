"""Shuffle of additively shared words under a permutation that no party knows.

Three passes, each pair of parties knowing one permutation: pi_12, pi_23, pi_31. Roles 1, 2, 3 turn with session and
query. Z_12 and R_3 are keystream of roles 1 and 2 (key lacked by 3), Z_23, R_1 and the input mask M of roles 2 and 3.
The input is s_1 + s_2 + s_3, one summand at each role:

1. 3 -> 1: i = s_3 - M;  2 -> 1: m2 = pi_23(pi_12(s_2 + M) - Z_12) - Z_23
2. 1 -> 3: m1 = pi_12(s_1 + i) + Z_12;  1 -> 3: m4 = pi_31(m2) - R_3
3. 3 -> 1: m3 = pi_31(pi_23(m1) + Z_23) - R_1

The output is replicated: y_1 = R_1 (roles 2, 3), y_3 = R_3 (roles 1, 2), y_2 = m3 + m4 (roles 1, 3), and
y_1 + y_2 + y_3 = pi_31 pi_23 pi_12 (s_1 + s_2 + s_3), where pi(t)[i] = t[pi[i]].

All sums count modulo 2^v, v the width of the keys. So a message is the low v bits of each word, one word after the
other: bits above them carry, would depend on shares, and stay where they are.

Cost: 3 rounds, 5 v bits per row over the three parties: one word to bring the input to two summands, four for the
shuffle. Leakage: none. Role 1 lacks pi_23, role 2 lacks pi_31, role 3 lacks pi_12, so to each the result is uniform;
every message is masked by keystream that its receiver lacks, so modulo 2^v, too, it is uniform.

Source: Araki, Furukawa, Ohara, Pinkas, Rosemarin, Tsuchida, "Secure Graph Analysis at Scale", CCS 2021.
"""

from __future__ import annotations

import numpy as np

from . import kernels as local
from .replicated import Pair
from .session import Party

__all__ = ["role_of", "shuffle"]

ROLES = (1, 2, 3)


def role_of(party: Party, query: int) -> int:
    """Role 1, 2 or 3 of a party for one query: turns with session and query."""
    return (party.index - 1 + party.session[0] + query) % 3 + 1


class _One:
    """One query at one party: its role, who has the other roles, and all keys (labels hold the step of the start)."""

    def __init__(self, party: Party, query: int) -> None:
        self.role = role_of(party, query)
        self.at = {role: (party.index - 1 + role - self.role) % 3 + 1 for role in ROLES}
        names = {1: ("z", "mask", "output"), 2: (), 3: ("z", "output")}
        self.perm_keys: dict[int, bytes] = {}
        self.keys: dict[tuple[str, int], bytes] = {}
        for missing in ROLES:
            if missing != self.role:
                self.perm_keys[missing] = party.key(self.at[missing], "permutation", query)
                for name in names[missing]:
                    self.keys[name, missing] = party.key(self.at[missing], name, query)
        self.perms: dict[int, np.ndarray] = {}
        self.got: dict[int, list[np.ndarray]] = {}  # by peer
        self.kept: list[np.ndarray] = []


class _Mail:
    """Messages of one round, over all queries: n words of ``width`` bits each."""

    def __init__(self, n: int, width: int, threads: int) -> None:
        self._n, self._width, self._threads = n, width, threads
        self._out: dict[int, list[np.ndarray]] = {}
        self._into: dict[int, list[_One]] = {}

    def send(self, to: int, words: np.ndarray) -> None:
        self._out.setdefault(to, []).append(local.pack(words, self._width, self._threads))

    def expect(self, source: int, one: _One) -> None:
        self._into.setdefault(source, []).append(one)

    def exchange(self, party: Party) -> None:
        size = local.packed_words(self._n, self._width)
        got = party.exchange(
            "shuffle", self._out, {p: [(size, np.uint64)] * len(ones) for p, ones in self._into.items()}
        )
        for peer, ones in self._into.items():
            for one in ones:
                one.got[peer] = []
            for one, words in zip(ones, got[peer], strict=True):
                one.got[peer].append(local.unpack(words, self._n, self._width, self._threads))


def shuffle(party: Party, words: np.ndarray, width: int) -> list[Pair]:
    """Shuffle each query's words under a permutation of its own.

    Parameters
    ----------
    words : (B, N) uint64, this party's additive shares, N < 2^32; secret; not kept, not changed
    width : v from 1 to 64; the low v bits of the words count

    Returns
    -------
    list of B Pairs of (N,) uint64, of which the low v bits count: above them the two copies of a summand differ
    """
    queries, n = words.shape
    t = party.threads
    ones = [_One(party, q) for q in range(queries)]
    for one in ones:
        one.perms = {missing: local.permutation(key, n) for missing, key in one.perm_keys.items()}

    mail = _Mail(n, width, t)
    for one, s in zip(ones, words, strict=True):
        if one.role == 3:
            masked = s.copy()
            local.add_mask(one.keys["mask", 1], masked, -1, t)
            mail.send(one.at[1], masked)
        elif one.role == 2:
            z12 = (one.keys["z", 3], -1)
            half = local.shuffle_pass(s, None, one.perms[3], (one.keys["mask", 1], 1), z12, t)
            mail.send(one.at[1], local.shuffle_pass(half, None, one.perms[1], None, (one.keys["z", 1], -1), t))
        else:
            mail.expect(one.at[3], one)
            mail.expect(one.at[2], one)
    mail.exchange(party)

    mail = _Mail(n, width, t)
    for one, s in zip(ones, words, strict=True):
        if one.role == 1:
            (i,), (m2,) = one.got[one.at[3]], one.got[one.at[2]]
            mail.send(one.at[3], local.shuffle_pass(s, i, one.perms[3], None, (one.keys["z", 3], 1), t))
            m4 = local.shuffle_pass(m2, None, one.perms[2], None, (one.keys["output", 3], -1), t)
            mail.send(one.at[3], m4)
            one.kept = [m4]
        elif one.role == 3:
            mail.expect(one.at[1], one)
            mail.expect(one.at[1], one)
    mail.exchange(party)

    mail = _Mail(n, width, t)
    for one in ones:
        if one.role == 3:
            m1, m4 = one.got[one.at[1]]
            half = local.shuffle_pass(m1, None, one.perms[1], None, (one.keys["z", 1], 1), t)
            m3 = local.shuffle_pass(half, None, one.perms[2], None, (one.keys["output", 1], -1), t)
            mail.send(one.at[1], m3)
            one.kept = [m3, m4]
        elif one.role == 1:
            mail.expect(one.at[3], one)
    mail.exchange(party)
    return [_output(one, n, t) for one in ones]


def _output(one: _One, n: int, threads: int) -> Pair:
    """Summands (role + 1, role + 2) of one query."""

    def stream(missing: int) -> np.ndarray:
        out = np.empty(n, np.uint64)
        local.words_mask(one.keys["output", missing], out, threads)
        return out

    if one.role == 1:
        return Pair(one.kept[0] + one.got[one.at[3]][0], stream(3))
    if one.role == 2:
        return Pair(stream(3), stream(1))
    return Pair(stream(1), one.kept[0] + one.kept[1])
