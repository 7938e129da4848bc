"""The description of a deployment: formats, addresses, fingerprint; anything else is refused with a typed error."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mipp
from mipp.deployment.ceremony import assemble
from mipp.encoding import Clusters
from mipp.errors import DeploymentError, ParameterError
from mipp.rpc.description import Address, DeploymentConfig, check_fingerprint
from tests.conftest import DIM, embedded_only, three_cards, vectors

CARDS = three_cards()
CONFIG = assemble(CARDS, mipp.Encoding("cosine", DIM), window=(-10.0, 300.0))
TEXT = CONFIG.to_json()
DATA = json.loads(TEXT)


def test_round_trip():
    assert DeploymentConfig.from_json(TEXT) == CONFIG == DeploymentConfig.from_json(TEXT.encode())
    assert DATA["version"] == 3 and (CONFIG.version, CONFIG.registrar) == (1, CARDS[0].sign)
    assert {i: a.name for i, a in CONFIG.addresses.items()} == {1: "north", 2: "south", 3: "mid"}
    assert [CONFIG.addresses[i].pin for i in (1, 2, 3)] == [card.pin for card in CARDS]
    assert DeploymentConfig.from_json(json.dumps(DATA, sort_keys=True)).fingerprint == CONFIG.fingerprint


@embedded_only
def test_embedded_descriptions_keep_their_format(deployment):
    text = (deployment.folder / "deployment.json").read_text()
    data = json.loads(text)
    assert data["version"] == 2 and set(data) == {
        "format", "version", "id", "params", "descriptor", "encoding", "servers"
    }  # fmt: skip
    config = DeploymentConfig.from_json(text)
    assert (config.addresses, config.registrar, config.version) == ({}, b"", 1)
    assert config.to_json() == text


def test_nothing_of_format_3_is_lost():
    for changed in ({"addresses": {}}, {"registrar": b""}, {"version": 7}, {"addresses": {}, "registrar": b""}):
        config = dataclasses.replace(CONFIG, **changed)
        assert DeploymentConfig.from_json(config.to_json()) == config


CLUSTERED = assemble(CARDS, mipp.Encoding("cosine", DIM), clusters=Clusters.of(CONFIG.encoding, vectors(8), 2))


def test_clusters():
    assert DeploymentConfig.from_json(CLUSTERED.to_json()) == CLUSTERED != CONFIG
    assert "clusters" not in DATA and CLUSTERED.probe_hash != CLUSTERED.encoding.hash
    other = dataclasses.replace(CLUSTERED, clusters=Clusters.of(CONFIG.encoding, vectors(8), 4))
    assert other.probe_hash != CLUSTERED.probe_hash and other.fingerprint != CLUSTERED.fingerprint
    with pytest.raises(ParameterError, match="no clusters"):
        _ = CONFIG.probe_hash


@pytest.mark.parametrize(
    "change",
    [
        {"clusters": None}, {"clusters": {}}, {"clusters": []}, {"groups": 3}, {"groups": 10**30}, {"layout": 9},
        {"centroids": "AAAA"}, {"words": DIM - 1}, {"words": DIM * 2, "groups": 1}, {"least": True},
    ],
)  # fmt: skip
def test_clusters_that_are_none(change):
    data = json.loads(CLUSTERED.to_json())
    if "clusters" in change:
        data |= change
    else:
        data["clusters"] |= change
    with pytest.raises(DeploymentError):
        DeploymentConfig.from_json(json.dumps(data))


def test_programs_that_know_no_clusters_refuse_an_index_that_has_some():
    """They would add rows without their layout. Both kinds of descriptions have formats of their own."""
    embedded = dataclasses.replace(CLUSTERED, addresses={}, registrar=b"", signatures={})
    for config, number in ((CLUSTERED, 5), (embedded, 4), (CONFIG, 3)):
        data = json.loads(config.to_json())
        assert data["version"] == number and DeploymentConfig.from_json(config.to_json()) == config
        for other in {2, 3, 4, 5, 6} - {number}:
            with pytest.raises(DeploymentError):
                DeploymentConfig.from_json(json.dumps(data | {"version": other}))
    data = json.loads(CLUSTERED.to_json())
    data["clusters"]["layout"] = 2
    with pytest.raises(DeploymentError, match="layout 2, which this program does not know"):
        DeploymentConfig.from_json(json.dumps(data))


def test_clusters_are_of_the_encoding():
    """Nor of an index whose servers do not rank."""
    for encoding in (mipp.Encoding("cosine", DIM + 1), mipp.Encoding("ip", DIM), mipp.Encoding("cosine", DIM, bits=16)):
        data = json.loads(CLUSTERED.to_json())
        data["encoding"] = encoding.to_dict()
        fits = encoding.dim == DIM and encoding.metric == "cosine" and encoding.allows_server_ranking
        if fits:
            assert DeploymentConfig.from_json(json.dumps(data)).encoding == encoding
        else:
            with pytest.raises(DeploymentError):
                DeploymentConfig.from_json(json.dumps(data))


def test_fingerprint_covers_everything():
    base = CONFIG.fingerprint
    assert [len(group) for group in base.split("-")] == [4] * 8
    others = [
        dataclasses.replace(CONFIG, id=b"j" * 16),
        dataclasses.replace(CONFIG, version=2),
        dataclasses.replace(CONFIG, registrar=b"r" * 32),
        dataclasses.replace(CONFIG, descriptor_version=5, descriptor="csd64"),
        dataclasses.replace(CONFIG, window=None),
        dataclasses.replace(CONFIG, rankings=("user",)),
        dataclasses.replace(CONFIG, encoding=mipp.Encoding("cosine", DIM, bits=7)),
        dataclasses.replace(CONFIG, servers=CONFIG.servers | {1: CONFIG.servers[2]}),
        *(
            dataclasses.replace(CONFIG, addresses=CONFIG.addresses | {1: Address(*values)})
            for values in (
                ("nord", CONFIG.addresses[1].url, CONFIG.addresses[1].certificate),
                ("north", "https://north.example:7444", CONFIG.addresses[1].certificate),
                ("north", CONFIG.addresses[1].url, CONFIG.addresses[2].certificate),
            )
        ),
    ]
    assert len({base, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_typed_fingerprints():
    right = CONFIG.fingerprint
    for typed in (right, right.lower(), right.replace("-", ""), right.replace("-", " "), f" {right}\n",
                  right.replace("0", "o").replace("1", "l")):  # fmt: skip
        check_fingerprint(CONFIG, typed)
    changed = ("0" if right[0] != "0" else "2") + right[1:]
    with pytest.raises(DeploymentError, match="another fingerprint"):
        check_fingerprint(CONFIG, changed)
    for short in ("", right[:-1], right[:19], right + "0", "U" + right[1:], right * 10, "\u0660" + right[1:]):
        with pytest.raises(DeploymentError, match="32 letters"):
            check_fingerprint(CONFIG, short)


def twice(*changed):
    """The description with values of server 1 at server 2."""
    data = json.loads(TEXT)
    for part, name in changed:
        data[part]["2"][name] = data[part]["1"][name]
    return data


@pytest.mark.parametrize("data, said", [
    (twice(("addresses", "name")), "same name"), (twice(("addresses", "url")), "same URL"),
    (twice(("addresses", "certificate")), "same TLS key"), (twice(("servers", "sign")), "same key"),
    (twice(("servers", "box")), "same key"), (twice(("servers", "pair")), "same key"),
])  # fmt: skip
def test_servers_differ(data, said):
    with pytest.raises(DeploymentError, match=said):
        DeploymentConfig.from_json(json.dumps(data))


def test_names_differ_in_more_than_case():
    data = json.loads(TEXT)
    data["addresses"]["2"]["name"] = "NORTH"
    with pytest.raises(DeploymentError, match="same name"):
        DeploymentConfig.from_json(json.dumps(data))


def bad():
    """Descriptions that were never written so."""
    for name in DATA:
        if name != "window":  # the one that may be left out
            yield {k: v for k, v in DATA.items() if k != name}
        for value in (None, "x", [], -1, True, 10**30):
            yield DATA | {name: value}
    yield DATA | {"more": 1}
    for part in ("servers", "addresses"):
        for number in ("4", "0", "x", "\u0661", "01"):
            yield DATA | {part: DATA[part] | {number: DATA[part]["1"]}}
        yield DATA | {part: {i: DATA[part][i] for i in ("1", "2")}}
        for name in DATA[part]["1"]:
            for value in (None, 7, "", DATA[part]["1"][name] + " ", "\x1b[2J", []):
                yield DATA | {part: DATA[part] | {"1": DATA[part]["1"] | {name: value}}}
        yield DATA | {part: DATA[part] | {"1": DATA[part]["1"] | {"more": "x"}}}
    yield DATA | {"registrar": DATA["registrar"].upper()}
    yield DATA | {"registrar": "ab"}
    yield DATA | {"id": DATA["id"].upper()}


def test_other_descriptions():
    count = 0
    for data in bad():
        try:
            with pytest.raises(DeploymentError) as error:
                DeploymentConfig.from_json(json.dumps(data))
        except BaseException:
            print({k: v for k, v in data.items() if DATA.get(k) != v}, set(DATA) - set(data))
            raise
        assert str(error.value).isprintable()
        count += 1
    assert count > 100


@pytest.mark.parametrize("text", [
    "", "{}", "[" * 200_000, TEXT.replace('"id"', '"id": "00", "id"'), TEXT.replace('"version": 3', '"version": 4'),
    TEXT.replace('"version": 3', '"version": 2'), TEXT.replace("300.0", "NaN"), TEXT.replace("300.0", "1e999"), b"\xff",
    TEXT.replace("{", '{"x": 1e999,', 1), TEXT.replace("{", '{"x":' + "[" * 960 + "]" * 960 + ",", 1),
], ids=range(11))  # fmt: skip
def test_other_text(text):
    with pytest.raises(DeploymentError):
        DeploymentConfig.from_json(text)


def test_size_is_bounded(monkeypatch):
    monkeypatch.setattr("mipp.rpc.description.MAX_DESCRIPTION_BYTES", 100)
    with pytest.raises(DeploymentError, match="more than 100 bytes"):
        DeploymentConfig.from_json(TEXT)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 255))
def test_one_changed_byte(at, mask):
    raw = bytearray(TEXT.encode())
    raw[at % len(raw)] ^= mask
    try:
        other = DeploymentConfig.from_json(bytes(raw))
    except DeploymentError:
        return
    assert other == CONFIG or other.fingerprint != CONFIG.fingerprint
