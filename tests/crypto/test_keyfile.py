"""Key files: never readable by others, never overwritten, corrupt ones refused without showing content."""

import json
import os
import stat

import pytest

from mipp.crypto.keyfile import load_key_file, read_public, save_key_file
from mipp.errors import KeyFileError

SECRETS = {"root": b"0123456789abcdef0123456789abcdef", "sign": b"S" * 32}


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_round_trip(tmp_path, passphrase):
    path = tmp_path / "a.key"
    old = os.umask(0)
    try:
        save_key_file(path, "owner", {"name": "a"}, SECRETS, passphrase)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key_file(path, "owner", passphrase) == ({"name": "a"}, SECRETS)
    assert read_public(path, "owner") == {"name": "a"}
    assert os.listdir(tmp_path) == ["a.key"]
    with pytest.raises(KeyFileError, match="never overwritten"):
        save_key_file(path, "owner", {"name": "b"}, SECRETS, passphrase)
    assert load_key_file(path, "owner", passphrase)[0] == {"name": "a"}
    with pytest.raises(KeyFileError, match="kind"):
        load_key_file(path, "user", passphrase)


def test_passphrase(tmp_path):
    path = tmp_path / "a.key"
    save_key_file(path, "owner", {"name": "a"}, SECRETS, "right")
    raw = path.read_bytes()
    assert b"MDEyMzQ1" not in raw  # the root's base64
    for wrong in (None, "wrong", ""):
        with pytest.raises(KeyFileError):
            load_key_file(path, "owner", wrong)
    data = json.loads(raw)
    data["public"]["name"] = "mallory"
    path.write_text(json.dumps(data))
    with pytest.raises(KeyFileError):
        load_key_file(path, "owner", "right")
    with pytest.raises(KeyFileError):
        save_key_file(tmp_path / "b.key", "owner", {}, SECRETS, "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_readable_by_others_is_refused(tmp_path, mode):
    path = tmp_path / "a.key"
    save_key_file(path, "owner", {}, SECRETS)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_key_file(path, "owner")


def test_corrupt_files(tmp_path):
    path = tmp_path / "a.key"
    save_key_file(path, "owner", {}, SECRETS)
    good = path.read_bytes()
    variants = [b"", b"{}", b"[]", b"null", b"\xff\xfe", good[:-20], good.replace(b'"version": 1', b'"version": 2')]
    variants += [good.replace(b'"secret": "', b'"secret": "!'), good.replace(b'"public": {}', b'"public": 3')]
    for bad in variants:
        path.write_bytes(bad)
        with pytest.raises(KeyFileError) as caught:
            load_key_file(path, "owner")
        assert "MDEy" not in str(caught.value)
    with pytest.raises(KeyFileError):
        load_key_file(tmp_path / "none.key", "owner")
    with pytest.raises(KeyFileError):
        save_key_file(tmp_path / "none" / "a.key", "owner", {}, SECRETS)


def test_a_passphrase_holds_any_bytes_of_an_environment(tmp_path):
    raw = b"\xffsecret".decode("utf-8", "surrogateescape")
    save_key_file(tmp_path / "a.key", "user", {"name": "a"}, {"sign": b"k" * 32}, raw)
    assert load_key_file(tmp_path / "a.key", "user", raw)[1] == {"sign": b"k" * 32}
    with pytest.raises(KeyFileError, match="half of a character"):
        load_key_file(tmp_path / "a.key", "user", "\ud800")
