"""Servers' box and pair keys by epoch in updates of addresses, and key sets that queries name."""

import dataclasses

import pytest

from mipp.crypto import signing
from mipp.deployment.servers import ServerSecrets
from mipp.errors import AuthenticationError, DeploymentError, StaleKeysError
from mipp.rpc.address_book import AddressBook
from mipp.rpc.address_updates import AddressUpdate, check_update, read_updates, signed_update, updates_json
from mipp.rpc.key_sets import EpochKeys, KeySet, first_keys
from mipp.server.key_ring import KeyRing
from tests.rpc.test_address_updates import World

WORLD = World()
PAIRS = [ServerSecrets.new() for _ in range(3)]
#: keys of epochs 1 to 3 of server 1
KEYS = [EpochKeys(epoch, pair.public().box, pair.public().pair) for epoch, pair in enumerate(PAIRS, 1)]
FIRST = first_keys(WORLD.config, 1)


def update(*keys, server=1, version=1):
    plain = WORLD.update(server, version)
    key = signing.private_key(WORLD.secrets[server].sign)
    certificates = list(zip(plain.certificates, plain.proofs, strict=True))
    return signed_update(WORLD.config, server, version, plain.url, certificates, key, keys)


def test_round_trip():
    for keys in ((), (KEYS[0],), (KEYS[0], FIRST), (KEYS[2], KEYS[0])):
        made = update(*keys)
        assert read_updates(updates_json([made]))[0] == [made] and made.keys == keys
        check_update(WORLD.config, made)
    assert "keys" not in update().to_data()  # as earlier versions wrote it


def test_keys_are_signed():
    made = update(KEYS[0], FIRST)
    for keys in (
        (KEYS[0],),
        (KEYS[1], FIRST),
        (KEYS[0]._replace(epoch=2), FIRST),
        (KEYS[0]._replace(box=FIRST.box), FIRST),
        (),
    ):
        with pytest.raises(AuthenticationError):
            check_update(WORLD.config, dataclasses.replace(made, keys=keys))
    # what is signed as keys passes for no certificate
    spent = dataclasses.replace(
        update(KEYS[0]), keys=(), certificates=(*made.certificates, KEYS[0].box), proofs=(*made.proofs, KEYS[0].pair)
    )
    with pytest.raises(AuthenticationError):
        check_update(WORLD.config, spent)


@pytest.mark.parametrize("keys", [
    (KEYS[2], KEYS[1], KEYS[0]), (KEYS[0], KEYS[1]), (KEYS[0], KEYS[0]), (KEYS[0]._replace(epoch=1 << 31),),
    (KEYS[0]._replace(epoch=-1),), (KEYS[0]._replace(box=b"x"),), (KEYS[0]._replace(pair=bytes(33)),),
    (KEYS[0]._replace(epoch=True),),
])  # fmt: skip
def test_malformed(keys):
    with pytest.raises(DeploymentError):
        AddressUpdate(**{**vars(update()), "keys": keys})


@pytest.mark.parametrize("data", [
    {}, [1], [{"epoch": 1}], [{"epoch": "1", "box": "", "pair": ""}], "keys", [None], 7, [],
    [{"epoch": 1, "box": "00" * 32, "pair": "zz" * 32}], [{"epoch": 1, "box": "00" * 32, "pair": "00" * 32, "more": 1}],
])  # fmt: skip
def test_malformed_json(data):
    with pytest.raises(DeploymentError):
        AddressUpdate.from_data(update().to_data() | {"keys": data})


@pytest.mark.parametrize("keys", [
    (KEYS[0]._replace(epoch=0),), (KEYS[0]._replace(pair=KEYS[0].box),), (KEYS[0]._replace(box=bytes(32)),),
    (KEYS[0]._replace(pair=bytes(32)),), (KEYS[0]._replace(pair=(1).to_bytes(32, "little")),),
])  # fmt: skip
def test_keys_that_are_none(keys):
    with pytest.raises(DeploymentError, match="not usable"):
        check_update(WORLD.config, update(*keys))


def test_keys_of_another_server():
    """Who names them as its own keeps that one from nothing, and gains nothing: what is shared names the servers."""
    book = AddressBook(WORLD.config)
    book.take([update(KEYS[0], server=2)])
    assert book.keys(2) == (KEYS[0],) and book.keys(1) == (FIRST,)
    theirs = first_keys(WORLD.config, 2)
    for version, stolen in enumerate((KEYS[0], EpochKeys(1, theirs.box, theirs.pair)), 1):
        done = book.take([update(stolen, version=version)])
        assert done.changed == {1} and not done.refused
    assert book.take([update(KEYS[1], server=2, version=2)]).changed == {2}


def test_key_sets():
    first = KeySet.first(WORLD.config)
    assert first.id == b""
    one = KeySet(WORLD.config.id, {**first.servers, 1: KEYS[0]})
    others = [{**one.servers, 1: KEYS[0]._replace(epoch=2)}, {**one.servers, 2: KEYS[1]}, {**first.servers, 2: KEYS[0]},
              {**one.servers, 1: KEYS[0]._replace(pair=KEYS[1].pair)}]  # fmt: skip
    names = {one.id, *(KeySet(WORLD.config.id, some).id for some in others), KeySet(bytes(16), one.servers).id}
    assert len(names) == 6 and {len(name) for name in names} == {32}


def ring(server, *pairs):
    return KeyRing(WORLD.config, server, [WORLD.secrets[server][:2], *(pair[:2] for pair in pairs)])


def test_rings_of_all_servers_agree():
    rings = {i: ring(i, *(PAIRS if i == 1 else ())) for i in WORLD.config.servers}
    shared = {}
    for valid in ((FIRST,), (KEYS[0], FIRST), (KEYS[1], KEYS[0])):
        for i, one in rings.items():
            pairs = [WORLD.secrets[i][:2], *(p[:2] for p in PAIRS if i == 1)]
            one.take(pairs, {1: valid, **{j: (first_keys(WORLD.config, j),) for j in (2, 3)}})
        for keys in valid:
            name = KeySet(WORLD.config.id, {**KeySet.first(WORLD.config).servers, 1: keys}).id
            for i in rings:
                for j, key in rings[i].pair_keys(name).items():
                    assert rings[j].pair_keys(name)[i] == key
                    assert shared.setdefault((keys.epoch if 1 in (i, j) else 0, *sorted((i, j))), key) == key
        assert len({one.current for one in rings.values()}) == 1
    with pytest.raises(StaleKeysError):
        rings[2].pair_keys(b"")  # epoch 0 has ended
    assert len(set(shared.values())) == len(shared) == 7


def test_a_ring_without_its_newest_keys():
    one = ring(1)
    one.take([WORLD.secrets[1][:2]], {1: (KEYS[0], FIRST), **{j: (first_keys(WORLD.config, j),) for j in (2, 3)}})
    assert "epoch 1" in one.problem and one.current == b""  # the earlier ones count still
    one.take([WORLD.secrets[1][:2]], {1: (KEYS[0],), **{j: (first_keys(WORLD.config, j),) for j in (2, 3)}})
    with pytest.raises(StaleKeysError):
        one.pair_keys(b"")
    with pytest.raises(StaleKeysError):
        _ = one.current
    with pytest.raises(TypeError):
        one.__reduce__()
    assert WORLD.secrets[1].pair.hex() not in repr(one)
