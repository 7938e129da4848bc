"""Updates of servers' addresses: round trips, every mutation, replays, wrong signers, and the book that keeps them."""

import base64
import contextlib
import dataclasses
import json
import os
import ssl
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mipp
from mipp.crypto import signing
from mipp.crypto.certificates import make_tls, prove_possession
from mipp.deployment.ceremony import assemble
from mipp.deployment.servers import ServerSecrets
from mipp.errors import AuthenticationError, ConflictError, DeploymentError, StoreError
from mipp.rpc import address_book
from mipp.rpc.address_book import ADDRESSES_NAME, AddressBook
from mipp.rpc.address_exchange import Learner, versions_text
from mipp.rpc.address_updates import (
    MAX_UPDATES_BYTES,
    AddressUpdate,
    check_update,
    possession_statement,
    read_updates,
    signed_update,
    updates_json,
)
from mipp.rpc.addresses import Address
from mipp.rpc.cards import signed_card
from tests.conftest import DIM


class World:
    """A description, and all secrets of its servers."""

    def __init__(self):
        self.secrets, self.tls, cards = {}, {}, []
        for i, (name, role) in enumerate((("north", "cloud"), ("south", "cloud"), ("mid", "key-centre")), 1):
            secrets, tls = ServerSecrets.new(), make_tls(name, f"{name}.example")
            public, key = secrets.public(), signing.private_key(secrets.sign)
            address = Address(name, f"https://{name}.example:7443", tls.certificate)
            cards.append(signed_card(role, address, public.box, public.pair, key))
            self.secrets[i], self.tls[i] = secrets, [tls]
        self.config = assemble(cards, mipp.Encoding("cosine", DIM))

    def new_tls(self, server):
        tls = make_tls("n", "n.example")
        self.tls[server].insert(0, tls)
        return tls

    def proof(self, server, tls):
        return prove_possession(tls.key, possession_statement(self.config.id, server, tls.certificate))

    def update(self, server, version, url="https://new.example:7443", some=None, signer=None, config=None):
        some = self.tls[server][:2] if some is None else some
        proofs = [(t.certificate, self.proof(server, t)) for t in some]
        key = signing.private_key(self.secrets[signer or server].sign)
        return signed_update(config or self.config, server, version, url, proofs, key)


WORLD = World()
WORLD.new_tls(1)
UPDATE = WORLD.update(1, 1)


def test_round_trip():
    updates, refused = read_updates(updates_json([UPDATE], [UPDATE]))
    assert updates == refused == [UPDATE] and repr(UPDATE) == "AddressUpdate(server 1, version 1)"
    assert read_updates(updates_json([])) == ([], [])
    address = check_update(WORLD.config, UPDATE)
    assert (address.name, address.host, address.certificate) == ("north", "new.example", WORLD.tls[1][0].certificate)
    assert WORLD.secrets[1].sign.hex() not in updates_json([UPDATE]).decode()


def test_every_field_is_signed():
    other = make_tls("x", "x.example")
    for change in (
        {"version": 2}, {"url": "https://new.example:7444"}, {"certificates": UPDATE.certificates[::-1]},
        {"certificates": (other.certificate, UPDATE.certificates[1])}, {"proofs": UPDATE.proofs[::-1]},
        {"certificates": UPDATE.certificates[:1], "proofs": UPDATE.proofs[:1]}, {"signature": bytes(64)}, {"server": 2},
    ):  # fmt: skip
        with pytest.raises(AuthenticationError, match="signature of this update"):
            check_update(WORLD.config, dataclasses.replace(UPDATE, **change))
    for change in ({"deployment": bytes(16)}, {"server": 4}):
        with pytest.raises(DeploymentError):
            check_update(WORLD.config, dataclasses.replace(UPDATE, **change))


def test_signers():
    """Nobody but the server itself, of this deployment, with keys that it has."""
    with pytest.raises(AuthenticationError):
        check_update(WORLD.config, WORLD.update(1, 1, signer=2))
    elsewhere = dataclasses.replace(WORLD.config, id=b"e" * 16)
    with pytest.raises(DeploymentError, match="another deployment"):
        check_update(WORLD.config, WORLD.update(1, 1, config=elsewhere))
    key = signing.private_key(WORLD.secrets[2].sign)
    stolen = [(UPDATE.certificates[0], UPDATE.proofs[0])]  # another server's certificate, with its proof
    with pytest.raises(AuthenticationError, match="proof"):
        check_update(WORLD.config, signed_update(WORLD.config, 2, 1, "https://n:1", stolen, key))
    book = AddressBook(WORLD.config)
    both = WORLD.update(2, 1, some=WORLD.tls[1][1:])  # a server that has another one's TLS key
    assert not book.take([both]).changed and "TLS key of server 1" in book.take([both]).refused[0]


@pytest.mark.parametrize("url", [
    "http://n:1", "https://N:1", "https://n", "https://n:1/p", "https://a\x1b[2J:7", "", "https://n:1\n",
], ids=ascii)  # fmt: skip
def test_bad_urls(url):
    with pytest.raises(DeploymentError) as error:
        check_update(WORLD.config, WORLD.update(1, 1, url))
    assert str(error.value).isprintable()


def test_bad_certificates():
    key = signing.private_key(WORLD.secrets[1].sign)
    for der in (b"x", UPDATE.certificates[0] + b"x", UPDATE.certificates[0][:-1]):
        with pytest.raises(DeploymentError):
            made = signed_update(WORLD.config, 1, 1, "https://n:1", [(der, UPDATE.proofs[0])], key)
            check_update(WORLD.config, made)


@pytest.mark.parametrize("change", [
    {"version": 0}, {"version": 1 << 31}, {"version": True}, {"version": 1.0}, {"server": 0}, {"server": 256},
    {"server": "1"}, {"url": 7}, {"url": "https://" + "a" * 400}, {"deployment": "00"}, {"signature": "00"},
    {"certificates": []}, {"certificates": ["eA=="] * 2}, {"certificates": ["eA==", "eQ==", "eg=="]},
    {"certificates": [base64.b64encode(bytes(17 << 10)).decode()], "proofs": ["eA=="]}, {"certificates": 7},
    {"proofs": [base64.b64encode(bytes(1025)).decode()] * 2}, {"proofs": ["eA== "] * 2}, {"more": 1},
    {"signature": "A" * 128}, {"url": None},
], ids=lambda c: str(c)[:60])  # fmt: skip
def test_malformed(change):
    with pytest.raises(DeploymentError):
        AddressUpdate.from_data(UPDATE.to_data() | change)
    whole = {"format": "mipp addresses", "version": 1, "updates": [UPDATE.to_data() | change]}
    with pytest.raises(DeploymentError):
        read_updates(json.dumps(whole).encode())


def test_lists_are_bounded():
    one = UPDATE.to_data()
    for data in ([], {}, {"format": "mipp addresses", "version": 2, "updates": []},
                 {"format": "mipp addresses", "version": 1, "updates": {}},
                 {"format": "mipp addresses", "version": 1, "updates": [one] * 17},
                 {"format": "mipp addresses", "version": 1, "updates": [], "refused": None}):  # fmt: skip
        with pytest.raises(DeploymentError):
            read_updates(json.dumps(data).encode())
    with pytest.raises(DeploymentError, match="more than"):
        read_updates(b" " * (MAX_UPDATES_BYTES + 1))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_byte_changed(data):
    text = bytearray(updates_json([UPDATE]))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255).filter(lambda b: b != text[at]))
    book = AddressBook(WORLD.config)
    with contextlib.suppress(DeploymentError):
        book.take(read_updates(bytes(text))[0])
    # but for a space at the end
    assert book.version(1) == 0 or bytes(text).strip() == updates_json([UPDATE]).strip()


# --- the book -------------------------------------------------------------------------------------------------------


def test_only_newer_ones_are_taken(tmp_path):
    world = World()
    base = world.config.addresses[1].certificate
    book = AddressBook(world.config, tmp_path)
    assert book.certificates(1) == (base,) and book.versions == {1: 0, 2: 0, 3: 0} and book.update(1) is None
    world.new_tls(1)
    first = world.update(1, 1)
    second = world.update(1, 2, some=world.tls[1][:1])
    assert book.take([first]).changed == {1} and len(book.certificates(1)) == 2
    assert book.take([first]).changed == set() == book.take([]).changed
    for again in (book, AddressBook(world.config, tmp_path)):  # and after a restart
        assert again.take([second]).changed in ({1}, set()) and again.version(1) == 2
        done = again.take([first])  # an old one again
        assert (done.changed, done.refused) == (set(), []) and base not in again.certificates(1)
    assert book.address(2) == world.config.addresses[2] and book.address(1).name == "north"
    assert world.config.fingerprint == AddressBook(world.config, tmp_path)._config.fingerprint
    with pytest.raises(ConflictError):
        book.take([first], own=True)


def test_two_updates_of_one_version(tmp_path):
    """The first one stays, the other is kept as evidence; the next version ends it."""
    world = World()
    book = AddressBook(world.config, tmp_path)
    one, two, three = (world.update(1, 1, f"https://n:{port}") for port in (1, 2, 3))
    book.take([one])
    done = book.take([two])
    assert not done.changed and "signed two different addresses" in done.refused[0]
    before = (tmp_path / ADDRESSES_NAME).read_bytes()
    assert book.take([three]).refused == [] and (tmp_path / ADDRESSES_NAME).read_bytes() == before
    for again in (book, AddressBook(world.config, tmp_path)):
        assert again.address(1).port == 1 and "server 1 (north) signed two" in again.conflicts[0]
        assert b"refused" not in again.to_json()
    assert book.take([world.update(1, 2)]).changed == {1} and book.conflicts == []
    assert AddressBook(world.config, tmp_path).conflicts == []


def test_a_flood_of_updates(tmp_path, monkeypatch):
    """A server that signs updates all day has one a second taken, and one is kept."""
    world, now, written = World(), [0.0], []
    real = address_book.replace_file
    monkeypatch.setattr(address_book, "replace_file", lambda *a: (written.append(1), real(*a)))
    book = AddressBook(world.config, tmp_path, spacing=1.0, clock=lambda: now[0])
    many = [world.update(2, version) for version in range(1, 60)]
    done = book.take(many)
    assert book.version(2) == 1 and len(written) == 1 and "too often" in done.refused[0]
    assert book.take([world.update(1, 1)]).changed == {1}  # others are not held up
    now[0] = 1.0
    assert book.take(many[-1:]).changed == {2} and book.version(2) == 59
    assert len(read_updates((tmp_path / ADDRESSES_NAME).read_bytes())[0]) == 2


def test_many_processes_use_a_folder(tmp_path):
    world = World()
    books = [AddressBook(world.config, tmp_path) for _ in range(3)]
    threads = [
        threading.Thread(target=book.take, args=([world.update(server, 1)],))
        for server, book in enumerate(books, 1)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert AddressBook(world.config, tmp_path).versions == {1: 1, 2: 1, 3: 1}
    books[0].reload()
    assert books[0].versions == {1: 1, 2: 1, 3: 1} and books[0].reload() == set()
    (tmp_path / ADDRESSES_NAME).write_bytes(updates_json([world.update(1, 2, "https://later:1")]))
    books[0].reload()  # an older file never takes back what is known
    assert books[0].versions == {1: 2, 2: 1, 3: 1}


def poison(number):
    """A certificate that one parser takes and TLS refuses: its common name is no UTF-8."""
    made = make_tls(f"poison{number}", "127.0.0.1")
    der = made.certificate.replace(f"poison{number}".encode(), b"\xff\xfe\xfdson" + str(number).encode())
    assert len(der) == len(made.certificate)
    return der, made.key


def test_certificates_that_tls_refuses(tmp_path):
    """Nothing of them is kept: a server that kept one could not start again."""
    world = World()
    book = AddressBook(world.config, tmp_path)
    der, key = poison(1)
    with pytest.raises(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    proof = prove_possession(key, possession_statement(world.config.id, 1, der))
    identity = signing.private_key(world.secrets[1].sign)
    update = signed_update(world.config, 1, 1, "https://new.example:7443", [(der, proof)], identity)
    done = book.take([update])
    assert not done.changed and "certificate" in done.refused[0] and not (tmp_path / ADDRESSES_NAME).exists()


def test_a_url_of_other_characters():
    with pytest.raises(DeploymentError):
        AddressUpdate(b"d" * 16, 1, 1, "https://\ud800.example:1", (b"c",), (b"p",), b"s" * 64)


def test_a_file_that_is_none(tmp_path):
    os.mkfifo(tmp_path / ADDRESSES_NAME)
    with pytest.raises(DeploymentError, match="no file"):
        AddressBook(World().config, tmp_path)


def test_damaged_files(tmp_path):
    world, path = World(), tmp_path / ADDRESSES_NAME
    foreign = World().update(1, 1)
    for content in (b"", b"{}", updates_json([foreign]), updates_json([], [foreign]), b" " * (MAX_UPDATES_BYTES + 1)):
        path.write_bytes(content)
        with pytest.raises(DeploymentError, match="damaged"):
            AddressBook(world.config, tmp_path)
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(DeploymentError, match="cannot read"):
        AddressBook(world.config, tmp_path)


def test_a_full_disk(tmp_path, monkeypatch):
    """What strangers told holds in memory; what a server says of itself does not hold."""

    def full(path, content):
        raise StoreError("cannot write: no space")

    world = World()
    book = AddressBook(world.config, tmp_path)
    monkeypatch.setattr(address_book, "replace_file", full)
    with pytest.raises(StoreError):
        book.take([world.update(1, 1)], own=True)
    assert book.version(1) == 0
    assert book.take([world.update(1, 1)]).changed == {1} and book.version(1) == 1
    only_read = AddressBook(world.config, tmp_path, keep=False)
    assert only_read.take([world.update(1, 1)]).changed == {1} and not (tmp_path / ADDRESSES_NAME).exists()


@pytest.mark.parametrize("header, asked", [
    ("0.0.0", 0), ("0.1.0", 1), ("9999999999.0.0", 1), (None, 0), ("", 0), ("1", 0), ("1.0.0.0", 1), ("1.0.0.0.0", 0),
    ("-1.0.0", 0), ("1.a.0", 0), ("99999999999.0.0", 0), ("1.0.0" * 100, 0), ("\u0661.0.0", 0), ("1..0", 0),
])  # fmt: skip
def test_what_replies_tell(monkeypatch, header, asked):
    """Versions in a reply only make a client ask; a server that lies is asked once in a while."""
    calls = []
    learner = Learner(AddressBook(WORLD.config))
    monkeypatch.setattr(learner, "_ask", calls.append)
    for _ in range(3):
        learner.told(2, header)
    assert calls == [2] * asked


def test_versions_text():
    book = AddressBook(WORLD.config)
    book.take([UPDATE])
    assert versions_text(book) == "1.0.0"
