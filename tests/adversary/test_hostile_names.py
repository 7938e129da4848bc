"""Names of parties and files that would escape a folder, rewrite a terminal or pass for another's."""

import json
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mipp
from mipp.client.owner import ImageOwner
from mipp.client.user import User
from mipp.crypto import box, schedule, signing
from mipp.errors import KeyFileError, NotFoundError, ParameterError
from mipp.rpc import messages as m
from mipp.rpc.associated_data import owner_seal_info
from mipp.rpc.names import check_name, known_name, safe_name
from tests.conftest import embedded_only, invited, vectors

BAD_NAMES = [
    "", ".", "..", ".hidden", "a/b", "a\\b", "../a", "a\0", "a\n", "a\x1b[2J", "a b", "a" * 65, "a" * 300, "con", "NUL",
    "com1.x", "dot.", "\u202ea", "a\u200b", "e\u0301", "\U00020000" * 60, "ab" * 16, "\ud800",
]  # fmt: skip
HOSTILE_FILES = [
    ("../../etc/passwd", "passwd"),
    ("/absolute.png", "absolute.png"),
    ("a\\b\\c.png", "c.png"),
    ("C:\\x.png", "x.png"),
    ("..", "image"),
    ("", "image"),
    ("\0\x1b[31mred.png", "[31mred.png"),
    ("\u202egnp.exe", "gnp.exe"),
    ("-rf.png", "rf.png"),
    (".bashrc", "bashrc"),
    ("con.png", "_con.png"),
    ("aux", "_aux"),
    ("a\u2028b\u00a0c.png", "abc.png"),
    ("stream.png:evil", "stream.png_evil"),
    ("trailing. . ", "trailing"),
    ("x" * 300 + ".jpeg", "x" * 95 + ".jpeg"),
    ("\U0001f600" * 100 + ".png", "\U0001f600" * 49 + ".png"),
    ("\ud800.png", "png"),
]


class Stranger:
    """Registers with any name, past every check of a client."""

    def __init__(self, world):
        self.world, self.config = world, world.deployment.config

    def owner(self, name):
        seed, registration = schedule.random_bytes(32), schedule.random_bytes(16)
        channel = self.world.deployment.channel
        made = ImageOwner("x", self.config, channel, schedule.random_bytes(32), seed, registration)
        made.name = name
        return made

    def user(self, name):
        made = User(
            "x", self.config, self.world.deployment.channel, schedule.random_bytes(32), schedule.random_bytes(32)
        )
        made.name = name
        return made


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_servers_refuse_bad_names(world, name):
    stranger = Stranger(world)
    assert known_name(name, b"i" * 16) == (b"i" * 16).hex()
    for party in (stranger.owner(name), stranger.user(name)):
        for server in (1, 2, 3):
            request = _registration(party, server)
            with pytest.raises((ParameterError, mipp.errors.MessageError)):
                party.ask({server: request})


def _registration(party, server, invitation=b""):
    if isinstance(party, User):
        return m.RegisterUser(party.name, *party._public, b"", invitation)
    key_part, cloud_part = party.image_parts()
    sealed = []
    for s, keys in party.config.servers.items():
        secret = party.keys.server_key(s) + key_part if s == 3 else cloud_part
        sealed.append(box.seal(keys.box, secret, owner_seal_info(party.config.id, party.id, s)))
    return m.RegisterOwner(party.name, signing.sign_public(party._seed), party.keys.registration, sealed, invitation)


@pytest.mark.parametrize(("kind", "name"), [("owner", "anna"), ("owner", "ANNA"), ("user", "ulla"), ("user", "Ulla")])
def test_a_second_party_of_the_same_name_is_refused(world, kind, name):
    party = getattr(Stranger(world), kind)(name)
    for server in (1, 2, 3):
        with pytest.raises(ParameterError, match="taken"):
            party.ask({server: _registration(party, server, invited(world.deployment, kind, name))})
    create = world.deployment.create_owner if kind == "owner" else world.deployment.create_user
    if name not in ("anna", "ulla"):
        with pytest.raises(ParameterError, match="taken"):
            create(name)
        assert not (world.deployment.folder / f"{kind}s" / f"{name}.key").exists()


def test_registering_again_is_fine_and_forgotten_names_are_free(world):
    world.owners[0].register()
    world.user.register()
    world.owners[0].forget()
    anna = Stranger(world).owner("anna")
    anna._invitation = invited(world.deployment, "owner", "anna")
    anna.register()


def test_a_bad_name_from_a_server_is_never_shown(world):
    """A store of an earlier version, or a hostile server, hands out any name."""
    anna = world.owners[0]
    for server in world.deployment.servers.values():
        server.store.catalog.all("UPDATE owners SET name=? WHERE id=?", "\x1b[2Jberta\n", anna.id)
        server.store.views.clear()
    user = world.deployment.user("ulla")
    names = {h.owner_name for h in user.search(vectors(1)[0], 60).hits}
    assert names == {anna.id.hex(), "berta"}
    assert {o["name"] for o in world.deployment.status()["owners"]} == names
    anna.register()  # an existing party stays


@pytest.mark.parametrize(("text", "safe"), HOSTILE_FILES, ids=ascii)
def test_safe_names(text, safe):
    assert safe_name(text) == safe


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=400) | st.from_regex(r"[./\\ a-c:-]{0,12}(con|nul|com1)?[./ ]{0,3}", fullmatch=True))
def test_any_text_gives_a_safe_name(text):
    name = safe_name(text)
    assert 1 <= len(name) <= 100 and len(name.encode()) <= 200
    assert not set(name) & set('/\\<>:"|?*\0') and name[0] not in ".- " and name[-1] not in ". "
    assert all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in name)
    assert os.path.basename(name) == name and safe_name(name) == name


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=70))
def test_any_party_name_is_refused_or_harmless(text):
    shown = known_name(text, b"i" * 16)
    assert shown.isprintable() and shown.encode() and not set(shown) & set("/\\ ") and shown[0] != "."
    assert shown == (b"i" * 16).hex() or check_name(shown) == shown


def test_owners_store_clean_names_and_users_get_clean_names(world):
    anna = world.owners[0]
    names = ["../../x.png", "y" * 300 + ".png", "\x1b[2J.png", ""]
    ids = anna.add_vectors(vectors(4, 5), [(name, b"content") for name in names])
    files = world.user.fetch(ids)
    assert [f.name for f in files] == ["x.png", "y" * 96 + ".png", "[2J.png", "image"]
    for bad in ((b"bytes.png", b"x"), (None, b"x"), ("a.png", "text")):
        with pytest.raises(ParameterError):
            anna.add_vectors(vectors(1, 6), [bad])


def test_the_id_that_is_granted_is_that_of_the_keys(world):
    """A key file whose id was exchanged for another user's does not get that user a grant."""
    deployment = world.deployment
    other = deployment.create_user("other")
    path = deployment.folder / "users/ulla.key"
    text = path.read_text()
    assert deployment.user_id("ulla") == world.user.id
    path.write_text(text.replace(world.user.id.hex(), other.id.hex()))
    for act in (lambda: deployment.user_id("ulla"), lambda: deployment.user("ulla")):
        with pytest.raises(KeyFileError):
            act()
    path.write_text(text.replace(world.user._public[0].hex(), other._public[0].hex()))
    with pytest.raises(KeyFileError):
        deployment.user_id("ulla")
    path.write_text(text.replace(world.user.id.hex(), "00" * 16))
    with pytest.raises((NotFoundError, KeyFileError)):
        deployment.user_id("ulla")
    owner = deployment.folder / "owners/anna.key"
    owner.write_text(owner.read_text().replace(world.owners[0].id.hex(), world.owners[1].id.hex()))
    with pytest.raises(KeyFileError):
        deployment.owner("anna")


@embedded_only
def test_key_files_of_earlier_versions(world):
    """They hold no public keys: those that the servers registered are compared with the id and the name."""
    deployment = world.deployment
    other = deployment.create_user("other")
    path = deployment.folder / "users/ulla.key"
    data = json.loads(path.read_text())
    del data["public"]["sign_key"], data["public"]["box_key"]
    path.write_text(json.dumps(data))
    assert deployment.user_id("ulla") == world.user.id and deployment.user("ulla").id == world.user.id
    data["public"]["id"] = other.id.hex()
    path.write_text(json.dumps(data))
    with pytest.raises(KeyFileError):
        deployment.user_id("ulla")


def test_unusable_keys_are_refused_at_registration(world):
    """Nothing can be sealed to an X25519 key of small order; it used to fail at the first fetch."""
    user = Stranger(world).user("weak")
    user._public = user._public[0], bytes(32)
    user.id = signing.party_id(*user._public)
    for server in (1, 2, 3):
        with pytest.raises(ParameterError, match="X25519"):
            user.ask({server: _registration(user, server, invited(world.deployment, "user", "weak"))})


def test_image_bytes_are_copied_as_they_are(world):
    content = np.arange(256, dtype=np.uint8).tobytes()
    ids = world.owners[0].add_vectors(vectors(1, 8), [("a.bin", bytearray(content))])
    assert world.user.fetch(ids)[0].content == content
