"""Shuffle of additively shared words under a permutation that no party knows.

Three passes, each pair of parties knowing one permutation: pi_12, pi_23, pi_31. Roles 1, 2, 3 turn with session and
query. Z_12 and R_3 are keystream of roles 1 and 2 (key lacked by 3), Z_23, R_1 and the input mask M of roles 2 and 3.
The input is s_1 + s_2 + s_3, one summand at each role:

1. 3 -> 1: i = s_3 - M;  2 -> 1: m2 = pi_23(pi_12(s_2 + M) - Z_12) - Z_23
2. 1 -> 3: m1 = pi_12(s_1 + i) + Z_12
3. 3 -> 1: m3 = pi_31(pi_23(m1) + Z_23) - R_1;  1 -> 3: m4 = pi_31(m2) - R_3, at the same time

The output is replicated: y_1 = R_1 (roles 2, 3), y_3 = R_3 (roles 1, 2), y_2 = m3 + m4 (roles 1, 3), and
y_1 + y_2 + y_3 = pi_31 pi_23 pi_12 (s_1 + s_2 + s_3), where pi(t)[i] = t[pi[i]].

All sums count modulo 2^v, v the width of the keys. So a message is the low v bits of each word, one word after the
other: bits above them carry, would depend on shares, and stay where they are.

Cost: 3 rounds, 5 v bits per row over the three parties: one word to bring the input to two summands, four for the
shuffle. Leakage: none. Role 1 lacks pi_23, role 2 lacks pi_31, role 3 lacks pi_12, so to each the result is uniform;
every message is masked by keystream that its receiver lacks, so modulo 2^v, too, it is uniform.

Memory of one query at one party: at most 30 bytes a row. Permutations, 4 bytes a row each, are drawn before the first
message, so that nobody waits for them; each is dropped when it was used, and so is every word.

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

    def __init__(self, party: Party, query: int, words: np.ndarray) -> None:
        self.role, self.words = role_of(party, query), words
        self.at = {role: (party.index - 1 + role - self.role) % 3 + 1 for role in ROLES}
        names = {1: ("z", "mask", "output"), 2: (), 3: ("z", "output")}
        self.perms: dict[int, np.ndarray] = {}
        self.keys: dict[tuple[str, int], bytes] = {}
        for missing in ROLES:
            if missing != self.role:
                self.perms[missing] = local.permutation(party.key(self.at[missing], "permutation", query), len(words))
                for name in names[missing]:
                    self.keys[name, missing] = party.key(self.at[missing], name, query)
        self.got: dict[int, np.ndarray] = {}  # packed, by the role that sent it


class _Mail:
    """Messages of one round, over all queries: n words of ``width`` bits each."""

    def __init__(self, n: int, width: int, threads: int) -> None:
        self._n, self._width, self._threads = n, width, threads
        self._out: dict[int, list[np.ndarray]] = {}
        self._into: dict[int, list[tuple[_One, int]]] = {}

    def send(self, one: _One, role: int, words: np.ndarray) -> None:
        self._out.setdefault(one.at[role], []).append(local.pack(words, self._width, self._threads))

    def expect(self, one: _One, role: int) -> None:
        self._into.setdefault(one.at[role], []).append((one, role))

    def exchange(self, party: Party) -> None:
        size = local.packed_words(self._n, self._width)
        got = party.exchange(
            "shuffle", self._out, {p: [(size, np.uint64)] * len(ones) for p, ones in self._into.items()}
        )
        self._out.clear()
        for peer, ones in self._into.items():
            for one, role in reversed(ones):
                one.got[role] = got[peer].pop()


def shuffle(party: Party, words: list[np.ndarray], width: int) -> list[Pair]:
    """Shuffle each query's words under a permutation of its own.

    Parameters
    ----------
    words : B times (N,) uint64, this party's additive shares, N < 2^32; secret. They are used up: the list is empty
        afterwards, the arrays are changed
    width : v from 1 to 64; the low v bits of the words count

    Returns
    -------
    list of B Pairs of (N,) uint64, of which the low v bits count: above them the two copies of a summand differ
    """
    n, t = len(words[0]), party.threads
    ones = [_One(party, query, taken) for query, taken in enumerate(words)]
    words.clear()

    mail = _Mail(n, width, t)
    for one in ones:
        if one.role == 3:
            local.add_mask(one.keys["mask", 1], one.words, -1, t)
            mail.send(one, 1, one.words)
            one.words = _NONE
        elif one.role == 2:
            local.add_mask(one.keys["mask", 1], one.words, 1, t)
            one.words = local.shuffle_pass(one.words, one.perms.pop(3), (one.keys["z", 3], -1), t)
            one.words = local.shuffle_pass(one.words, one.perms.pop(1), (one.keys["z", 1], -1), t)
            mail.send(one, 1, one.words)
            one.words = _NONE
        else:
            mail.expect(one, 3)
            mail.expect(one, 2)
    mail.exchange(party)

    mail = _Mail(n, width, t)
    for one in ones:
        if one.role == 1:
            local.unpack_add(one.got.pop(3), one.words, width, t)
            one.words = local.shuffle_pass(one.words, one.perms.pop(3), (one.keys["z", 3], 1), t)
            mail.send(one, 3, one.words)
            one.words = _NONE
        elif one.role == 3:
            mail.expect(one, 1)
    mail.exchange(party)

    mail = _Mail(n, width, t)
    for one in ones:
        if one.role == 3:
            one.words = local.unpack(one.got.pop(1), n, width, t)
            one.words = local.shuffle_pass(one.words, one.perms.pop(1), (one.keys["z", 1], 1), t)
            one.words = local.shuffle_pass(one.words, one.perms.pop(2), (one.keys["output", 1], -1), t)
            mail.send(one, 1, one.words)
            mail.expect(one, 1)
        elif one.role == 1:
            one.words = local.unpack(one.got.pop(2), n, width, t)
            one.words = local.shuffle_pass(one.words, one.perms.pop(2), (one.keys["output", 3], -1), t)
            mail.send(one, 3, one.words)
            mail.expect(one, 3)
    mail.exchange(party)
    return [_output(one, n, width, t) for one in ones]


_NONE = np.empty(0, np.uint64)


def _output(one: _One, n: int, width: int, threads: int) -> Pair:
    """Summands (role + 1, role + 2) of one query."""

    def stream(missing: int) -> np.ndarray:
        out = np.empty(n, np.uint64)
        local.words_mask(one.keys["output", missing], out, threads)
        return out

    if one.role == 2:
        return Pair(stream(3), stream(1))
    local.unpack_add(one.got.pop(4 - one.role), one.words, width, threads)
    return Pair(one.words, stream(3)) if one.role == 1 else Pair(stream(1), one.words)
