"""Readers of files and messages that strangers write: whatever comes, only the errors that they promise, and no more
memory than a small multiple of its bytes."""

import base64
import dataclasses
import json
import tomllib
import types
import typing

import msgpack
import numpy as np
from hypothesis import strategies as st

import mipp
from mipp.client.tags import TagStore
from mipp.crypto import signing
from mipp.deployment import ConnectedDeployment
from mipp.deployment.ceremony import assemble
from mipp.deployment.settings import ServerSettings
from mipp.deployment.tables import TABLES
from mipp.errors import (
    AuthenticationError,
    DeploymentError,
    IntegrityError,
    LimitError,
    MessageError,
    MippError,
    ParameterError,
)
from mipp.mpc.link import Header, parse_header
from mipp.rpc import messages as m
from mipp.rpc import wire
from mipp.rpc.address_book import AddressBook
from mipp.rpc.address_updates import check_update, read_updates, signed_update, updates_json
from mipp.rpc.bodies import announce, announcement, body_parts, frames_of
from mipp.rpc.cards import ServerCard, _signed_bytes
from mipp.rpc.description import DeploymentConfig
from mipp.rpc.http_channel import _refusal
from mipp.rpc.http_server import Refused, _head
from mipp.rpc.invitations import _LABEL, Invitation, invite
from mipp.rpc.key_sets import EpochKeys
from mipp.server.rendezvous_network import CloudRendezvous, KeyCentreRendezvous, _pack, deliver
from tests.adversary.fuzz import VALUES, Reading, changed, changed_json, fuzz, modes
from tests.adversary.test_network_peers import Wire
from tests.adversary.test_network_strangers import HEAD
from tests.conftest import DIM, three_cards

KEY = signing.private_key(b"k" * 32)
CARDS = three_cards()
CONFIG = assemble(CARDS, mipp.Encoding("cosine", DIM), window=(-10.0, 300.0))
URL = "https://north.example:7443"


def sample(kind):
    """A message of a kind, with small values in all fields."""
    hints, values = typing.get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        item = typing.get_args(hint)[0] if typing.get_origin(hint) is list else hint
        if item is np.ndarray:
            value = np.ones((2,) * field.metadata["ndim"], field.metadata["dtypes"][0])
        else:
            value = {int: 1, bool: True, str: "server", bytes: b"x" * 16}[item]
        values.append([value, value] if item is not hint else value)
    return kind(*values)


SAMPLES = [wire.encode(sample(kind)) for kind in wire._KINDS.values()]
ANY = st.sampled_from((
    None, True, -1, 2**63 - 1, 2**64 - 1, 1.5, "", "\0\x1b[2J", "server", b"", b"x" * 16, b"x" * 5000, [], [[]] * 50,
    [b"x"] * 50, [1] * 50, {}, {"a": []}, msgpack.ExtType(1, b""), msgpack.ExtType(2, b"x"), msgpack.Timestamp(1, 1),
    msgpack.ExtType(1, msgpack.packb(["<u8", [1 << 40], 1])),
    msgpack.ExtType(1, msgpack.packb(["|u1", [0, 1 << 47], 1])),
    msgpack.ExtType(1, msgpack.packb(["|u1", [2], 1])), msgpack.ExtType(1, msgpack.packb([[[]], {}, 1])),
))  # fmt: skip


@st.composite
def messages(draw):
    """Frames of a valid message, with other values in its fields, or with frames changed, lost, doubled."""
    frames = [bytes(f) for f in draw(st.sampled_from(SAMPLES))]
    if draw(st.booleans()):
        kind, fields = msgpack.unpackb(frames[0][5:])
        kind = draw(ANY) if draw(st.integers(0, 9)) == 0 else kind
        for _ in range(draw(st.integers(1, 2))):
            at, value = draw(st.integers(0, len(fields))), draw(ANY)
            deep = isinstance(fields, list) and at < len(fields) and isinstance(fields[at], list)
            if deep and draw(st.booleans()):
                fields[at] = [*fields[at], value]
            else:
                fields[at : at + draw(st.integers(0, 1))] = [value]
        frames[0] = frames[0][:5] + msgpack.packb([kind, fields])
    else:
        at = draw(st.integers(0, len(frames) - 1))
        frames[at] = draw(changed([frames[at]]))
    for _ in range(draw(st.integers(0, 1))):
        at = draw(st.integers(0, len(frames) - 1))
        frames[at : at + draw(st.integers(0, 1))] = draw(st.sampled_from(([], [b""], [frames[at]], [frames[at]] * 2)))
    return frames


@modes
def test_messages(times):
    reading = Reading(MessageError)

    def check(frames):
        for read in (wire.decode, wire.kind_of):
            reading.every = 20
            found = reading(read, frames)
        packed = wire.pack_frames(frames)
        assert wire.unpack_frames(packed) == frames
        if not isinstance(found, str) and found is not None:
            wire.encode(found)

    fuzz(messages(), check, 1800 * times)
    assert 0.2 * reading.calls < reading.refused < reading.calls


@modes
def test_packed_frames_and_bodies(times):
    seeds = [wire.pack_frames(f) for f in SAMPLES]
    reading, bodies = Reading(MessageError), Reading(MessageError, LimitError)
    content = wire.encode(m.Ok())
    told = [announce([b"h" * size, *content]) for size in (0, 200, 60_000)]

    def check(data):
        packed, body, announced = data
        reading(wire.unpack_frames, packed)
        bodies(frames_of, memoryview(body))
        bodies(announcement, memoryview(announced), 1 << 33)

    whole = [b"".join(map(bytes, body_parts(f))) for f in SAMPLES]
    fuzz(st.tuples(changed(seeds), changed(whole), changed(told)), check, 1000 * times)


def test_small_messages_that_unpack_to_much():
    """Lists of empty lists, lists within lists, announced lengths: a byte would become an object of 64."""
    head = b"MIPP\x01\x92" + msgpack.packb("Signed")
    many, nested, size = (
        b"\x90" * (1 << 20),
        (b"\xdd" + (50_000).to_bytes(4, "big")) * 1000,
        (1 << 20).to_bytes(4, "big"),
    )
    tree = b"\x90"
    for _ in range(3):
        tree = b"\xdc\x00\x40" + tree * 64
    reading = Reading(MessageError, every=1, factor=4)
    for content in (b"\xdd" + size + many, many, nested + bytes(60_000), b"\x97" + nested, b"\x97\xdd" + size + many):
        assert reading(wire.decode, [head + content]) is None
        assert reading(wire.unpack_frames, content) is None
        assert reading(announcement, memoryview(content), 1 << 33) is None
        assert reading(deliver, {}, 1, content) is None
    assert reading(announcement, memoryview(b"\x94" + tree * 4), 1 << 33) is None
    assert reading.refused == reading.calls


# --- what operators and registrars hand out -------------------------------------------------------------------------


CHANGED_CARDS = changed_json([json.loads(card.to_json()) for card in CARDS])
TEXTS = [v for v in VALUES if type(v) is str]


@st.composite
def cards(draw):
    """Cards with other values; some of them signed again, as whoever makes a card can sign anything."""
    if draw(st.booleans()):
        return draw(CHANGED_CARDS)
    data = json.loads(CARDS[0].to_json())
    public = KEY.public_key().public_bytes_raw()
    der = draw(changed([CARDS[0].certificate]))
    name, role, url = (
        draw(st.sampled_from((data[field], *TEXTS, "https://[::1]:1", "cloud"))) for field in ("name", "role", "url")
    )
    values = [v.encode("utf-8", "surrogatepass") for v in (role, name, url)]
    signed = [*values, bytes.fromhex(data["box"]), bytes.fromhex(data["pair"]), public, der]
    label = _signed_bytes("", CARDS[0].address)[:19]
    body = label + b"".join(len(v).to_bytes(4, "big") + v for v in signed)
    data |= {"name": name, "role": role, "url": url, "sign": public.hex(),
             "certificate": base64.b64encode(der).decode(), "signature": signing.sign_raw(KEY, body).hex()}  # fmt: skip
    return json.dumps(data)


@modes
def test_cards(times):
    reading = Reading(DeploymentError)
    fuzz(cards(), lambda text: reading(ServerCard.from_json, text), 700 * times)
    assert reading.refused


@modes
def test_descriptions(times):
    reading = Reading(DeploymentError, factor=64)
    both = [json.loads(CONFIG.to_json())]
    both.append({k: v for k, v in both[0].items() if k not in ("addresses", "registrar", "description_version")})
    both[1] = json.loads(json.dumps(both[1] | {"version": 2}))
    fuzz(changed_json(both), lambda text: reading(DeploymentConfig.from_json, text), 900 * times)
    assert reading.refused > reading.calls / 2


@modes
def test_invitations(times):
    reading, texts = Reading(MessageError), Reading(ParameterError)
    made = [Invitation(b"d" * 16, kind, "anna", 2**40, rows) for kind, rows in (("owner", 5), ("user", None))]
    signed = [invite(i, KEY) for i in made]

    def check(data):
        reading(Invitation.from_bytes, data)
        resigned = data[:-64] + signing.sign_raw(KEY, _LABEL + data[:-64])
        reading(Invitation.from_bytes, resigned)
        text = "mipp-invitation-" + base64.urlsafe_b64encode(data).decode().rstrip("=")
        for one in (text, data.decode("latin-1"), text[:50] + data.decode("utf-8", "surrogateescape")):
            texts(Invitation.from_text, one)

    fuzz(changed([i.to_bytes() for i in signed]), check, 800 * times)
    assert reading.refused and texts.refused


@modes
def test_settings_of_servers(times):
    template = ServerSettings.template(URL)
    spelled = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in template.splitlines())
    assert set(tomllib.loads(spelled)) > {table.name for table in TABLES}
    tokens = (
        b"=", b"\n", b"[", b"[[", b"]", b'"', b"'''", b'"""', b"{", b"{a.b=", b"a." * 400 + b"a=1\n", b"[" * 900,
        b"=" + b"9" * 5000, b"= 0x" + b"f" * 5000, b"=1e999", b"=nan", b"=1979-05-27T07:32:00.999999Z", b"\\uD800",
        b'"\\u001b[2J"=1\n', b"\0", b"\x1b", b"# \xff", b"[party]\n", b"rows = 1\n", b"=-1", b"=99999999999999999999",
    )  # fmt: skip
    reading = Reading(DeploymentError, factor=200)

    names = [line.split("=")[0].encode() for line in spelled.splitlines() if "=" in line and line[0] != "#"]
    line = st.tuples(st.sampled_from(names), st.sampled_from((*tokens, b"=1", b"='x'", b"=[]"))).map(b"".join)
    header = st.sampled_from([b"", *(f"[{table.name}]".encode() for table in TABLES), b"[[peers]]", b"[x.y]"])
    lines = st.tuples(header, st.lists(line, min_size=1, max_size=2)).map(lambda h: b"\n".join([h[0], *h[1]]))

    def check(data):
        reading(ServerSettings.from_toml, data.decode("utf-8", "replace"), URL)

    fuzz(changed([spelled.encode(), template.encode()], tokens) | lines, check, 1000 * times)
    assert reading.refused > reading.calls / 3


# --- what comes over connections ------------------------------------------------------------------------------------


@modes
def test_heads_of_requests(times):
    seeds = [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", HEAD,
        b"POST /v1/finish/" + b"0" * 32 + b" HTTP/1.0\r\nhost: x\r\n\r\n",
        b"POST /v1/upload/" + b"0" * 32 + b"/419 HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\n",
    ]  # fmt: skip
    tokens = (
        b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"content-length: 4\r\n", b"content-length: -1\r\n", b"\xff",
        b"content-length: 99999999999999999999\r\n", b"transfer-encoding: chunked\r\n", b"expect: 100-continue\r\n",
        b"x: " + b"y" * 15_000 + b"\r\n", b"a: b\r\n" * 500, b"GET ", b"HTTP/9.9", b"/" * 300, b"%00", b"\xe2\x80\xae",
    )  # fmt: skip
    reading = Reading(Refused, factor=100)

    def check(data):
        head = reading(_head, data)
        assert head is None or 0 <= head.length < 10**20

    fuzz(changed(seeds, tokens), check, 800 * times)
    assert reading.refused


@modes
def test_pages_of_servers(times):
    """What a client reads of a server that lies about its state, or refuses with garbage."""
    reading = Reading()
    pages = [{"ready": True, "takes_changes": False, "reasons": ["it stops soon"]}, {"error": "malformed request"}]
    client = types.SimpleNamespace(config=CONFIG)
    waits = st.sampled_from((None, "1", "30", "\u00b2", "9" * 5000, "-1", "\u0664", "x", ""))

    def check(data):
        body, wait = data
        client.channel = types.SimpleNamespace(get=lambda server, path: (200, body), book=AddressBook(CONFIG))
        state = reading(ConnectedDeployment._state, client, 1)
        assert all(r.isprintable() and len(r) <= 300 for r in state["reasons"])
        response = types.SimpleNamespace(status=429, getheader=lambda name: wait)
        text = str(reading(_refusal, "server 1", response, body))
        assert text.isprintable() and len(text) < 700

    fuzz(st.tuples(changed_json(pages), waits), check, 400 * times)


@modes
def test_addresses(times):
    """A list of addresses: whoever changes one has not the server's identity, so nothing of it is taken."""
    reading = Reading(DeploymentError, AuthenticationError)
    proofs, update = [], signed_update(CONFIG, 1, 3, URL, [(CARDS[0].certificate, b"p" * 70)], KEY)
    keys = (EpochKeys(2, b"b" * 32, b"p" * 32), EpochKeys(1, b"c" * 32, b"q" * 32))
    later = signed_update(CONFIG, 1, 4, URL, [(CARDS[0].certificate, b"p" * 70)], KEY, keys)
    seeds = [
        json.loads(updates_json([update])),
        json.loads(updates_json([], [update])),
        json.loads(updates_json([later])),
    ]

    def read(text):
        updates, refused = read_updates(text)
        for one in (*updates, *refused):
            check_update(CONFIG, one)
            proofs.append(one)

    fuzz(changed_json(seeds), lambda text: reading(read, text), 300 * times)
    assert reading.refused and not proofs


@modes
def test_frames_between_servers(times):
    reading = Reading(MessageError)
    seeds = [Header("and", 1, 2, 7, b"s" * 16, 100).pack(), Header("abort", 3, 1, 0, bytes(16), 1024).pack()]
    fuzz(changed(seeds), lambda data: reading(parse_header, data), 400 * times)
    assert reading.refused


@modes
def test_notes_between_servers(times):
    reading = Reading(MippError)
    key = b"u" * 16, b"q" * 32
    notes = [("have", *key), ("refuse", *key, "BusyError", "later"), ("done", b"a" * 16), ("start", *key, b"a" * 16),
             ("cancel", *key, "BusyError", "later")]  # fmt: skip
    seeds = [_pack(table, *note) for table in ("rankings", "tests") for note in notes]
    centre = {t: KeyCentreRendezvous(Wire(3), t) for t in ("rankings", "tests")}
    cloud = {t: CloudRendezvous(Wire(1), t, 3) for t in ("rankings", "tests")}

    def check(data):
        reading(deliver, centre, 1, data)
        reading(deliver, cloud, 3, data)

    fuzz(changed(seeds), check, 500 * times)
    assert reading.refused


@modes
def test_files_of_tags(times, tmp_path):
    """An owner's disk may lie, too: what is read is what was written, or nothing."""
    reading, store, batches = Reading(IntegrityError), TagStore(tmp_path, b"k" * 32), (b"a" * 16, b"b" * 16)
    tags = {cloud: np.random.default_rng(cloud).integers(0, 1 << 61, 40, np.uint64) for cloud in (0, 1, 2)}
    for batch in batches:
        store.write(batch, tags)
    path = tmp_path / batches[0].hex()
    seeds = [(tmp_path / batch.hex()).read_bytes() for batch in batches]

    def check(data):
        path.write_bytes(data)
        reading(store.sections, batches[0])
        found = reading(store.read, batches[0], 2, 40)
        assert not isinstance(found, np.ndarray) or np.array_equal(found, tags[2])

    fuzz(changed(seeds), check, 500 * times)
    assert 0.2 * reading.calls < reading.refused < reading.calls
