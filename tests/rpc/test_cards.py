"""Cards of servers and their addresses: round trips; anything changed, doubled, too large or unprintable is refused."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.crypto import signing
from mipp.crypto.certificates import certificate_pin
from mipp.errors import DeploymentError, MippError, ParameterError
from mipp.rpc.addresses import Address, check_server_name, check_url
from mipp.rpc.cards import MAX_CARD_BYTES, ServerCard, signed_card
from tests.conftest import server_card

CARD = server_card()
TEXT = CARD.to_json()


def test_round_trip():
    assert ServerCard.from_json(TEXT) == CARD == ServerCard.from_json(TEXT.encode())
    assert CARD.pin == certificate_pin(CARD.certificate) and len(CARD.pin) == 32
    assert (CARD.address.host, CARD.address.port) == ("north.example", 7443)
    assert repr(CARD) == "ServerCard('cloud', 'north', 'https://north.example:7443')"


@pytest.mark.parametrize("url, host, port", [
    ("https://north.example:7443", "north.example", 7443), ("https://192.0.2.1:1", "192.0.2.1", 1),
    ("https://[2001:db8::1]:65535", "2001:db8::1", 65535), ("https://n:443", "n", 443),
    ("HTTPS://North.Example:80", "north.example", 80), ("https://xn--nrd-soa.example:9", "xn--nrd-soa.example", 9),
])  # fmt: skip
def test_urls(url, host, port):
    assert check_url(url) == (url.lower(), host, port)


@pytest.mark.parametrize("url", [
    "", "north.example:7443", "http://north.example:7443", "https://north.example", "https://north.example:",
    "https://north.example:0", "https://north.example:65536", "https://north.example:07", "https://north.example:+7",
    "https://north.example:7443/", "https://north.example:7443/path", "https://north.example:7443?q",
    "https://north.example:7443#f", "https://u@north.example:7443", "https://u:p@north.example:7443", "https://:7443",
    "https://[::1]", "https://[::1%25eth0]:7", "https://::1:7", "https://[::1:7", "https://[0:0::1]:7",
    "https://1.2.3:7", "https://1.2.3.256:7", "https://a..b:7", "https://-a.b:7", "https://a_b:7", "https://n\u00f6rd:7",
    "https://north.example:7443 ", " https://north.example:7443", "https://a\n:7", "https://a\x1b[2J:7", "https://a:7\0",
    f"https://{'a' * 64}:7", f"https://{'.'.join(['a' * 60] * 5)}:7", "https://" + "a" * 400 + ":7", "https://\u0661:7",
    "https://a:\u0661", 7, None, b"https://a:7",
], ids=ascii)  # fmt: skip
def test_bad_urls(url):
    with pytest.raises(ParameterError) as error:
        check_url(url)
    assert str(error.value).isprintable()


@given(st.text(max_size=40) | st.from_regex(r"https://\S{0,30}:\d{0,6}", fullmatch=True))
def test_any_text_as_a_url(text):
    try:
        url, host, port = check_url(text)
    except ParameterError:
        return
    assert check_url(url) == (url, host, port) and 0 < port < 65536 and url.isascii() and url.isprintable()


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\x1b[2J", "a/b", "con", "a" * 65, "\u00e9" * 33, "e\u0301", 7])
def test_bad_names_of_servers(name):
    with pytest.raises(DeploymentError):
        Address(name, CARD.url, CARD.certificate)
    data = json.loads(TEXT) | {"name": name}
    with pytest.raises(DeploymentError) as error:
        ServerCard.from_json(json.dumps(data))
    assert str(error.value).isprintable()


def test_names_are_normalised_at_the_start():
    assert check_server_name("e\u0301") == "\u00e9"
    with pytest.raises(ParameterError, match="64 bytes"):
        check_server_name("\u00e9" * 33)


def test_every_field_is_signed():
    other = server_card("key-centre", "south", "https://other.example:1")
    for field in dataclasses.fields(ServerCard):
        with pytest.raises(DeploymentError, match="signature"):
            dataclasses.replace(CARD, **{field.name: getattr(other, field.name)})


def test_bad_values():
    for changed in (
        {"role": "boss"}, {"box": CARD.box[:31]}, {"box": CARD.pair}, {"box": bytes(32)}, {"certificate": b""},
        {"signature": b""}, {"url": "https://North.example:7443"}, {"sign": b"\xff" * 32},
    ):  # fmt: skip
        with pytest.raises(DeploymentError):
            dataclasses.replace(CARD, **changed)
    key = signing.private_key(b"k" * 32)
    with pytest.raises(DeploymentError, match="not usable"):
        signed_card("cloud", CARD.address, bytes(32), CARD.pair, key)


def changes():
    """Other JSON than a card's: fields changed, dropped, added, of other types."""
    data = json.loads(TEXT)
    values = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.integers(), max_size=2)
    return st.one_of(
        st.tuples(st.sampled_from(sorted(data)), values).map(lambda c: data | {c[0]: c[1]}),
        st.sampled_from(sorted(data)).map(lambda name: {k: v for k, v in data.items() if k != name}),
        st.text(max_size=5).map(lambda name: {name: 1, **data}),
        st.sampled_from(["box", "pair", "sign", "signature"]).map(lambda name: data | {name: data[name].upper()}),
        values,
    ).filter(lambda other: other != data)


@settings(max_examples=200, deadline=None)
@given(changes())
def test_other_json(other):
    with pytest.raises(DeploymentError):
        ServerCard.from_json(json.dumps(other))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 255))
def test_one_changed_byte(at, mask):
    raw = bytearray(TEXT.encode())
    raw[at % len(raw)] ^= mask
    with contextlib.suppress(DeploymentError):
        assert ServerCard.from_json(bytes(raw)) == CARD  # white space


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", "\xff", "[" * 100_000, TEXT[:-3], TEXT + "x", b"\xff\xfe", '{"a": NaN}',
    TEXT.replace('"role"', '"role": "cloud", "role"'), TEXT.replace('"version": 1', '"version": 2'),
    " " * MAX_CARD_BYTES + TEXT, '{"format": ' + "1" * 5000 + "}",
    TEXT.replace("{", '{"x": 1e999,', 1), TEXT.replace("{", '{"x":' + "[" * 960 + "]" * 960 + ",", 1),
], ids=range(16))  # fmt: skip
def test_other_text(text):
    with pytest.raises(DeploymentError):
        ServerCard.from_json(text)


@given(st.binary(max_size=200))
def test_any_bytes(data):
    with pytest.raises(MippError):
        ServerCard.from_json(data)
