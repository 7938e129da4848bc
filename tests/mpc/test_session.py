"""Sessions, keys and labels: who can derive what, and that nothing repeats."""

import hmac
import itertools
import pickle
import sys
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mipp.errors import MippError, OutOfRangeError, ParameterError, ProtocolError
from mipp.mpc import session
from mipp.mpc.comparison import CIRCUITS, threshold
from mipp.mpc.link import local_links
from mipp.mpc.session import Party, step_label
from mipp.mpc.topk import top_k
from mipp.rpc.turns import short_turns
from tests.mpc.parties import HEADER, KEYS, SNAPSHOT, in_session, public, run, share, tapped

RNG = np.random.default_rng(9)


def test_an_attempt_of_late_messages_ends(monkeypatch):
    """Each message comes in time; all together do not."""
    monkeypatch.setattr(session, "PATIENCE", 2)
    began, pub, shares = time.monotonic(), public(300), share(np.zeros(300, np.int64), np.uint32, RNG)

    def late(header, frame, send):
        time.sleep(0.2)
        send(frame)

    with pytest.raises(ProtocolError, match=r"longer than it may|silent for too long"):
        run(lambda p: top_k(p, shares[p.index], 5, pub, circuit="ripple"), links=tapped(late, [2]), timeout=0.5)
    assert time.monotonic() - began < 5  # 32 rounds of it would be 12 seconds


def test_two_parties_share_what_the_third_lacks():
    keys = [k for k, _ in run(in_session(lambda p: {c: p.key(c, "x") for c in p.peers}))]
    for c in (1, 2, 3):
        both = [k[c] for k in keys if c in k]
        assert len(both) == 2 and both[0] == both[1] and len(both[0]) == 32
    assert len({k for mine in keys for k in mine.values()}) == 3


def test_a_party_cannot_derive_the_key_it_lacks_or_one_twice():
    for wrong in (lambda p: p.key(p.index, "x"), lambda p: [p.key(p.next, "x") for _ in range(2)]):
        with pytest.raises(ProtocolError):
            run(in_session(wrong))
    party = Party(1, KEYS[1], local_links()[1])
    with pytest.raises(ProtocolError):
        party.key(2, "x")


def test_step_keys_are_hkdf():
    """Two steps of HKDF-SHA256, by the standard library and by `cryptography`."""
    key, label = bytes(range(32)), step_label(7, "and", 2)
    assert session._expand(key, label) == hmac.digest(key, label + b"\x01", "sha256")
    expand = HKDFExpand(hashes.SHA256(), 32, label)
    assert session._expand(key, label) == expand.derive(key)


def test_labels_are_told_apart():
    labels = [
        step_label(*values)
        for values in itertools.product((0, 1, 256), ("a", "ab", "a\x00", "b"), (0, 1, 255, 256, 2**32 - 1))
    ]
    assert len(set(labels)) == len(labels)


def test_no_mask_repeats_across_steps_sessions_and_restarts(monkeypatch):
    """Every key that any party derives, over all protocols: each is derived by exactly two parties, once."""
    derived = []
    expand = session._expand

    def watch(key, label):
        derived.append((key, label))
        return expand(key, label)

    monkeypatch.setattr(session, "_expand", watch)
    shares = share(RNG.integers(-100, 101, (2, 300)), np.uint32, RNG)
    for _ in range(2):  # the same query again, as after a restart
        for circuit in CIRCUITS:
            run(lambda p, c=circuit: top_k(p, shares[p.index], 5, public(300), circuit=c))
            run(lambda p, c=circuit: threshold(p, shares[p.index], public(300), 5, circuit=c))
    counts = {}
    for pair in derived:
        counts[pair] = counts.get(pair, 0) + 1
    assert set(counts.values()) == {2}
    outputs = [expand(*pair) for pair in counts]
    assert len(set(outputs)) == len(outputs) > 300


def test_the_session_depends_on_header_and_every_nonce(monkeypatch):
    sessions = [s for s, _ in run(in_session(lambda p: p.session))]
    assert len(set(sessions)) == 1 and len(sessions[0]) == 32
    assert sessions[0] != run(in_session(lambda p: p.session))[0][0]

    def with_nonces(header, nonces):
        left = iter(nonces)
        monkeypatch.setattr(session.schedule, "random_bytes", lambda n: next(left))

        def task(party):
            with party.attempt():
                party.hello(header, b"p" * 32, SNAPSHOT)
            return party.session

        return run(task)[0]

    base = with_nonces(HEADER, [b"1" * 16] * 3)
    assert base == with_nonces(HEADER, [b"1" * 16] * 3)
    assert base != with_nonces(b"g" * 32, [b"1" * 16] * 3)
    assert base != with_nonces(HEADER, [b"1" * 16, b"1" * 16, b"2" * 16])


def test_messages_that_go_along():
    """They are sent and read before the round's own, in the same round; what they raise is raised there."""
    word = [np.array([7], np.uint64)]

    def task(party, wrong):
        seen = []

        def then(got):
            seen.append(got[party.next][0].tolist())
            if wrong:
                raise OutOfRangeError("wrong")

        with party.attempt():
            party.hello(HEADER, b"p" * 32, SNAPSHOT)
            sizes = {p: [(1, np.uint64)] for p in party.peers}
            party.along("check", dict.fromkeys(party.peers, word), sizes, then)
            assert not seen and party.counters.rounds == 1
            party.exchange("open", dict.fromkeys(party.peers, word), sizes)
            assert seen == [[7]] and party.counters.rounds == 2
            party.exchange("open", dict.fromkeys(party.peers, word), sizes)
            assert party.counters.frames == 8
            party.confirm()

    run(lambda party: task(party, False))
    with pytest.raises(OutOfRangeError):
        run(lambda party: task(party, True))


def test_an_attempt_is_used_once():
    def task(party):
        with party.attempt():
            party.hello(HEADER, b"p" * 32, SNAPSHOT)
        with pytest.raises(ProtocolError):
            party.exchange("open", {}, {})
        with pytest.raises(ProtocolError):
            top_k(party, np.zeros(3, np.uint32), 1, public(3))

    run(task)


def test_a_failure_poisons_the_party_and_reaches_the_peers():
    failed = {}

    def task(party):
        try:
            with party.attempt():
                party.hello(HEADER, b"p" * 32, SNAPSHOT)
                if party.index == 2:
                    raise ValueError("secret 123")
                party.confirm()
        except Exception as error:
            failed[party.index] = error
        with pytest.raises(ProtocolError):
            threshold(party, np.zeros(3, np.uint32), public(3), 1)

    run(task, timeout=5)
    assert isinstance(failed[2], ValueError)
    for i in (1, 3):
        assert isinstance(failed[i], MippError) and "123" not in str(failed[i]) and "party 2" in str(failed[i])


def test_different_opened_bits_are_noticed():
    with pytest.raises(ProtocolError, match="different opened bits"):
        run(in_session(lambda p: p.note_opened(np.array([p.index == 1], np.uint64))))


def test_secrets_do_not_show():
    party = Party(1, KEYS[1], local_links()[1])
    assert "aaaa" not in repr(party) and "hidden" in repr(party)
    with pytest.raises(TypeError):
        pickle.dumps(party)
    with pytest.raises(ParameterError):
        Party(4, KEYS[1], local_links()[1])
    with pytest.raises(ParameterError):
        Party(1, {2: b"a" * 32}, local_links()[1])
    with pytest.raises(ParameterError):
        Party(1, {2: b"a" * 32, 3: b"short"}, local_links()[1])


def test_short_turns_are_given_back():
    """Nested and concurrent users share one setting; the interpreter's own comes back, after an error too."""
    before = sys.getswitchinterval()
    with pytest.raises(KeyError), short_turns():
        with short_turns():
            assert sys.getswitchinterval() < before
        assert sys.getswitchinterval() < before
        raise KeyError
    assert sys.getswitchinterval() == before
