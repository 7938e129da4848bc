"""What parties and the user see: distributions of messages, transcripts of opened bits, views of the user."""

import functools
import itertools
from collections import Counter

import numpy as np
import pytest

from mipp.mpc import comparison, session, topk
from mipp.mpc import kernels as local
from mipp.mpc.comparison import CIRCUITS, combine_matches, less_than, sign_shares, threshold
from mipp.mpc.quickselect import Quickselect
from mipp.mpc.replicated import reshare_words
from mipp.mpc.shuffle import shuffle
from mipp.mpc.topk import combine_top_k, distinct_keys, top_k
from tests.mpc.parties import in_session, public, recorded, run, share

ROWS = 7000


@pytest.fixture(autouse=True)
def three_blocks(monkeypatch):
    """Rows split by all three parties, also when they are few."""
    monkeypatch.setattr(comparison, "_SPLIT_GROUPS", 12)


def chi_square(data):
    """Chi-square statistic of bytes against uniform, 255 degrees of freedom."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return float(((counts - len(data) / 256) ** 2 / (len(data) / 256)).sum())


def looks_uniform(data):
    """Within 6.5 standard deviations (one in 10^10)."""
    return abs(chi_square(data) - 255) < 6.5 * 22.6


SCORES = {
    "zeros": np.zeros(ROWS, np.int64), "constant": np.full(ROWS, 77), "ramp": np.arange(ROWS) % 201 - 100,
}  # fmt: skip
PROTOCOLS = {
    **{f"less-than {c}": lambda p, s, c=c: less_than(p, reshare_words(p, s), 32, c) for c in CIRCUITS},
    **{f"shuffle {v}": lambda p, s, v=v: shuffle(p, [s.astype(np.uint64)], v) for v in (64, 43)},
}


def plain_shares(scores):
    """The worst sharing there is: two shares are zero, so that only the protocol's own masks hide anything."""
    return {1: scores.astype(np.uint32), 2: np.zeros(ROWS, np.uint32), 3: np.zeros(ROWS, np.uint32)}


def messages(protocol, scores):
    """Payloads by (kind, sender, receiver, step), without nonces and opened results."""
    frames, shares = [], plain_shares(scores)
    recorded(in_session(lambda p: PROTOCOLS[protocol](p, shares[p.index])), frames)
    found = {}
    for header, payload in frames:
        if header.kind not in ("hello", "confirm", "done") and payload:
            found[header.kind, header.sender, header.receiver, header.step] = payload
    return found


def of_kind(found, kind):
    """All payloads of a kind; what one party sends to both peers counts once."""
    return b"".join(sorted({payload for key, payload in found.items() if key[0] == kind}))


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_message_is_uniform_whatever_the_scores(protocol, name):
    found = messages(protocol, SCORES[name])
    kinds = {key[0] for key in found}
    assert kinds == ({"shuffle"} if "shuffle" in protocol else {"reshare", "split", "and", "open", "generate"} - (
        {"generate"} if "ripple" in protocol else set()))  # fmt: skip
    for kind in kinds:
        assert looks_uniform(of_kind(found, kind)), kind
    for key, payload in found.items():
        if len(payload) >= 800:
            assert looks_uniform(payload), key


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_messages_to_one_party_are_independent_of_each_other(protocol):
    """Any two messages to one receiver, xored or subtracted from their beginning: no mask is used twice."""
    found = messages(protocol, SCORES["ramp"])
    for (a, x), (b, y) in itertools.combinations(sorted(found.items()), 2):
        size = min(len(x), len(y))
        if a[2] == b[2] and size >= 800 and (a[0], b[0]) != ("open", "open"):
            u, v = (np.frombuffer(m[:size], np.uint64) for m in (x, y))
            assert looks_uniform((u ^ v).tobytes()) and looks_uniform((u - v).tobytes()), (a, b)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_planted_zero_mask_is_caught(protocol, monkeypatch):
    """The distribution test of the test: masks of zeros, by whatever kernel they come, fail for every message kind."""

    class NoMasks:
        def __getattr__(self, name):
            return getattr(local._core_before, name)

        def prf_words(self, key, out, threads):
            out[...] = 0

        def prf_xor(self, key, out, threads):
            pass

        def prf_add(self, key, out, negate, threads):
            pass

        def masked(self, name, a, b, out, *values):
            """A gate kernel applied to its masks twice, so that they cancel."""
            getattr(local._core_before, name)(*values, a, b, out, 1)
            local._core_before.prf_xor(a, out, 1)
            local._core_before.prf_xor(b, out, 1)

        def and_layer(self, *values):
            self.masked("and_layer", *values[-4:-1], *values[:-4])

        def tree_layer(self, *values):
            self.masked("tree_layer", *values[-4:-1], *values[:-4])

        def shuffle_pass(self, x, perm, key, sign, out, threads):
            local._core_before.shuffle_pass(x, perm, None, 0, out, threads)

    monkeypatch.setattr(local, "_core_before", local._core, raising=False)
    monkeypatch.setattr(local, "_core", NoMasks())
    found = messages(protocol, SCORES["ramp"])
    for kind in {key[0] for key in found}:
        assert not looks_uniform(of_kind(found, kind)), kind


def test_a_planted_fixed_key_is_caught(monkeypatch):
    """One mask for all steps: each message is uniform, but two of them are not independent."""
    monkeypatch.setattr(session, "_expand", lambda key, label: key)
    with pytest.raises(AssertionError):
        test_messages_to_one_party_are_independent_of_each_other("less-than tree")


# --- opened bits ----------------------------------------------------------------------------------------------------


def transcript(keys, k):
    """What the servers see of clear keys in shuffled order: which positions are compared, and every opened bit."""
    q, seen = Quickselect(len(keys), k), []
    while not q.done:
        answers = []
        for c in q.requests():
            a, b = c.positions(0, c.size)
            bits = keys[a] > keys[b]
            seen.append((np.arange(len(keys))[a].tobytes(), np.asarray(b).tobytes(), bits.tobytes()))
            answers.append(np.packbits(np.pad(bits, (0, -len(bits) % 64)), bitorder="little").view(np.uint64))
        q.feed(answers)
    return (*seen, q.order.tobytes())


def clear_keys(scores):
    """K of each row, by the servers' own code on a sharing of which two parts are zero."""
    words = np.asarray(scores, np.uint32)
    r = (len(scores) - 1).bit_length()
    parts = [distinct_keys(i, words if i == 1 else words * np.uint32(0), r) for i in (1, 2, 3)]
    return (sum(parts) & np.uint64((1 << (32 + r)) - 1)).astype(np.int64)


@pytest.mark.parametrize(("sample", "cross"), [(6, 0), (2, 0), (2, 2), (2, 3)])
def test_opened_bits_have_one_distribution_whatever_the_scores(sample, cross, monkeypatch):
    """N = 6, k = 2, all 720 permutations: the exact distribution is that of distinct scores, also with ties.

    Also with segments of more than two members split by a pivot, and by a sample in one call.
    """
    from mipp.mpc import quickselect

    monkeypatch.setattr(quickselect, "cross_size", lambda n, rows: min(cross, n - 1))
    monkeypatch.setattr(quickselect, "sample_size", lambda rows: sample)
    seen = []
    for scores in ([9, 3, 5, 1, 7, 2], [4, 4, 1, 4, 0, 1], [5] * 6):
        keys = clear_keys(scores)
        assert len(set(keys.tolist())) == 6
        seen.append(Counter(transcript(keys[list(p)], 2) for p in itertools.permutations(range(6))))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) > 20
    # the test can fail: without distinct keys ties show
    tied = Counter(
        tuple(np.asarray(np.array([5, 5, 1, 2, 3, 4])[list(p)] > 4).tolist()) for p in itertools.permutations(range(6))
    )
    assert tied != Counter(
        tuple(np.asarray(np.array([6, 5, 1, 2, 3, 4])[list(p)] > 5).tolist()) for p in itertools.permutations(range(6))
    )


def test_opened_bits_of_the_protocol_are_the_transcript(monkeypatch):
    """The bits opened in real runs are those of the clear transcript under the run's own permutation."""
    opened = []
    monkeypatch.setattr(session.Party, "note_opened", lambda self, words: opened.append(words.tobytes()))
    orders = []
    for scores in ([9, 3, 5, 1, 7, 2], [5] * 6):
        shares = share(np.array(scores), np.uint32, np.random.default_rng(1))
        for _ in range(150):
            opened.clear()
            run(lambda p, s=shares: top_k(p, s[p.index], 2, public(6)))
            assert len(opened) == 3 and len(set(opened)) == 1
            orders.append(opened[0][:8])
    # 15 bits of 6 distinct keys: one of 720 patterns, in both halves many of them
    assert len(set(orders[:150])) > 100 and len(set(orders[150:])) > 100
    legal = set()
    for p in itertools.permutations(range(6)):
        bits = [p[i] > p[j] for i, j in itertools.combinations(range(6), 2)]
        legal.add(np.packbits(np.pad(bits, (0, 49)), bitorder="little").tobytes())
    assert set(orders) <= legal


# --- the user's view ------------------------------------------------------------------------------------------------


def views(scores, runs, granted):
    """The user's opened values, and its words as they come."""
    shares = share(np.array(scores), np.uint32, np.random.default_rng(2))
    pub = public(len(scores))
    opened, words = [], []
    for _ in range(runs):
        parts = run(lambda p: top_k(p, shares[p.index], 2, pub, scores=granted))
        rows, values = combine_top_k(parts, pub, scores=granted)
        opened.append((rows.tolist(), None if values is None else values.tolist()))
        words.append([p.words for p in parts])
    return opened, np.array(words)


@pytest.mark.parametrize("granted", [True, False])
def test_the_user_sees_the_same_for_databases_with_the_same_winners(granted):
    """Two collections that differ everywhere but in the first two: opened values are equal, all else is uniform."""
    one, two = (views([50, 1, 40, *rest], 100, granted) for rest in ([2, 3, 4, 5, 6], [-90, 39, 39, 0, 39]))
    assert one[0] == two[0] and len({str(o) for o in one[0]}) == 1
    bits = public(8).key_bits if granted else 3
    for _, words in (one, two):
        assert int(words.max()) < 1 << bits
        # any two of the three words are uniform: bit counts within 6 standard deviations
        for bit in range(bits):
            ones = (words >> np.uint64(bit)) & np.uint64(1)
            for pick in ([0], [1], [2], [0, 1], [1, 2], [0, 2]):
                both = functools.reduce(np.bitwise_xor, [ones[:, i] for i in pick])
                assert abs(both.mean() - 0.5) < 6 * 0.5 / np.sqrt(both.size), (bit, pick)
    # nothing above the granted bits: the sum of the words is the key and no more
    total = one[1].sum(axis=1) & np.uint64((1 << bits) - 1)
    assert len(np.unique(total[:, 0, 0])) == 1


@pytest.mark.parametrize("circuit", CIRCUITS)
def test_match_shares_are_uniform_for_the_user(circuit):
    """Each server's part, and any two together, also in the padding beyond the rows."""
    shares = plain_shares(SCORES["ramp"])
    parts = run(lambda p: threshold(p, shares[p.index], public(ROWS), 3, circuit=circuit))
    a, b, c = (p.words for p in parts)
    for words in (a, b, c, a ^ b, b ^ c, a ^ c):
        assert looks_uniform(words.tobytes())
    assert combine_matches(parts)[0].tolist() == (SCORES["ramp"] >= 3).tolist()


def test_sign_shares_of_width_two_are_masked():
    for circuit in CIRCUITS:
        words = [w for w, _ in run(in_session(lambda p, c=circuit: sign_shares(
            p, reshare_words(p, np.zeros(60_000, np.uint32)), 2, c)))]  # fmt: skip
        assert all(looks_uniform(w.tobytes()) for w in words)
        assert not np.any(words[0] ^ words[1] ^ words[2])


def test_garbage_above_the_key_never_leaves_a_server(monkeypatch):
    """Lifted shares carry into bits above w + r, which depend on the shares: the user's words have none."""
    kept = []

    def shuffled(party, words, width):
        kept.append(words[0].copy())
        return shuffle(party, words, width)

    monkeypatch.setattr(topk, "shuffle", shuffled)
    shares = share(np.arange(20), np.uint32, np.random.default_rng(3))
    parts = run(lambda p: top_k(p, shares[p.index], 3, public(20)))
    total = sum(kept)
    bits = public(20).key_bits
    assert int(total.max()) >> bits  # there is garbage
    assert all(int(p.words.max()) < 1 << bits for p in parts)
