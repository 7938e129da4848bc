"""Invitations: round trips as bytes and text; anything else is refused; the rules that clients and servers share."""

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipp.crypto import signing
from mipp.errors import AccessDeniedError, AuthenticationError, MessageError, MippError, ParameterError
from mipp.rpc import messages as m
from mipp.rpc.invitations import Invitation, check_invitation, invite
from mipp.rpc.wire import _KINDS, decode, encode

KEY = signing.private_key(b"k" * 32)
CONFIG = SimpleNamespace(id=b"d" * 16, registrar=signing.sign_public(b"k" * 32))
ANNA = invite(Invitation(CONFIG.id, "owner", "anna", 2000, 10**6, 10**10, 600), KEY)
ULLA = invite(Invitation(CONFIG.id, "user", "\u00fclla", 2000), KEY)


@pytest.mark.parametrize("invitation", [ANNA, ULLA])
def test_round_trip(invitation):
    assert Invitation.from_bytes(invitation.to_bytes()) == invitation
    text = invitation.to_text()
    assert Invitation.from_text(f"  {text}\n") == invitation and text.isascii() and len(text.split()) == 1
    check_invitation(CONFIG, invitation, invitation.kind, invitation.name, 1999.9)
    assert invitation.signature.hex() not in repr(invitation) and invitation.id.hex() not in repr(invitation)


def test_every_invitation_has_an_id_of_its_own():
    assert ANNA.id != ULLA.id and ANNA.id != dataclasses.replace(ANNA, id=Invitation(b"d" * 16, "user", "x", 1).id).id


@pytest.mark.parametrize("changed", [
    {"name": "bad name"}, {"name": "a\x1b"}, {"name": "e\u0301"}, {"kind": "boss"}, {"expiry": 0}, {"expiry": -1},
    {"expiry": 1 << 63}, {"max_rows": 0}, {"max_rows": -1}, {"max_bytes": 1 << 62}, {"requests": 0}, {"requests": 1.5},
    {"max_rows": True}, {"kind": "user"}, {"id": b"x"}, {"deployment": b""}, {"signature": b"x"},
], ids=str)  # fmt: skip
def test_bad_values(changed):
    with pytest.raises(ParameterError):
        dataclasses.replace(ANNA, **changed)


def test_rules():
    def refused(kind, match, invitation=ANNA, config=CONFIG, party=("owner", "anna"), now=0.0):
        with pytest.raises(kind, match=match):
            check_invitation(config, invitation, *party, now)

    refused(AccessDeniedError, "by invitation only", None)
    refused(AccessDeniedError, "takes no invitations", config=SimpleNamespace(id=CONFIG.id, registrar=b""))
    refused(AccessDeniedError, "another deployment", config=SimpleNamespace(id=b"e" * 16, registrar=CONFIG.registrar))
    refused(AccessDeniedError, "not for user", party=("user", "anna"))
    refused(AccessDeniedError, "not for owner 'anne'", party=("owner", "anne"))
    refused(AccessDeniedError, "ended at 1970-01-01 00:33:20 UTC", now=2000.0)
    check_invitation(CONFIG, ANNA, "owner", "anna", None)  # another server accepted it in time
    stranger = invite(ANNA, signing.private_key(b"s" * 32))
    unsigned = dataclasses.replace(ANNA, signature=b"")
    better = dataclasses.replace(ANNA, max_rows=None)
    for forged in (stranger, unsigned, better, dataclasses.replace(ANNA, expiry=3000)):
        refused(AuthenticationError, "not signed by this deployment's registrar", forged)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 16), st.integers(1, 255))
def test_one_changed_byte(at, mask):
    for good in (ANNA, ULLA):
        raw = bytearray(good.to_bytes())
        raw[at % len(raw)] ^= mask
        with pytest.raises(MippError):
            check_invitation(CONFIG, Invitation.from_bytes(bytes(raw)), good.kind, good.name, 0.0)
        text = bytearray(good.to_text().encode())
        text[at % len(text)] ^= mask
        with pytest.raises(MippError):
            found = Invitation.from_text(text.decode("latin-1"))
            check_invitation(CONFIG, found, good.kind, good.name, 0.0)
            assert found == good  # white space around it
            raise MippError


@given(st.binary(max_size=400))
def test_any_bytes(data):
    with pytest.raises(MessageError):
        Invitation.from_bytes(data)


@given(st.text(max_size=600) | st.text("AB-_mip=", max_size=600).map(lambda t: "mipp-invitation-" + t))
def test_any_text(text):
    with pytest.raises(ParameterError):
        Invitation.from_text(text)


def test_sizes_and_other_forms():
    text = ANNA.to_text()
    for other in (text * 3, text + "=", text + "A", text[:-1], text.replace("-", " "), "A" * 10**6, "mipp-invitation-"):
        with pytest.raises(ParameterError):
            Invitation.from_text(other)
    for data in (ANNA.to_bytes() + bytes(200), ANNA.to_bytes()[:-1], b"\x02" + ANNA.to_bytes()[1:], b""):
        with pytest.raises(MippError):
            check_invitation(CONFIG, Invitation.from_bytes(data), "owner", "anna", 0.0)


# --- registrations of earlier versions, which had no invitation -----------------------------------------------------


def test_registrations_of_earlier_versions(monkeypatch):
    @dataclasses.dataclass
    class RegisterUser:
        name: str
        sign_key: bytes
        box_key: bytes
        paillier: bytes

    old = encode(RegisterUser("ulla", b"s", b"b", b""))
    assert decode(old, m.RegisterUser).invitation == b""
    new = m.RegisterUser("ulla", b"s", b"b", b"", b"i")
    assert decode(encode(new), m.RegisterUser).invitation == b"i"
    assert len(encode(m.RegisterUser("ulla", b"s", b"b", b""))[0]) == len(old[0]) + 2  # always sent

    @dataclasses.dataclass
    class Grant:  # no other message may be cut
        owner: bytes

    with pytest.raises(MessageError):
        decode(encode(Grant(b"o")), m.Grant)
    cut = [name for name, kind in _KINDS.items() if any("added" in f.metadata for f in dataclasses.fields(kind))]
    assert sorted(cut) == [
        "BeginCompletion", "CertifyBatch", "CertifyRows", "ChainState", "CollectBatch", "CollectCertificate",
        "Handover", "OwnerSnapshot", "PackPart", "PackRequest", "RegisterOwner", "RegisterUser", "Status",
        "UploadOp",
    ]  # fmt: skip
