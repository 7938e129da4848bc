"""Passphrases: from files and standard input, changed, set and removed."""

import io
import os
import subprocess
import sys

import pytest

from mipp.crypto.keyfile import change_passphrase, load_key_file, save_key_file
from mipp.errors import KeyFileError

RUN = [sys.executable, "-c", "from mipp.cli import main; main()"]


@pytest.fixture
def secret(tmp_path):
    """A file with a passphrase, mode 0600."""

    def write(name, text):
        path = tmp_path / f"{name}.txt"
        path.write_bytes(text)
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def index(mipp_command, monkeypatch):
    monkeypatch.delenv("MIPP_PASSPHRASE", raising=False)
    monkeypatch.delenv("MIPP_NEW_PASSPHRASE", raising=False)
    mipp_command("init", "--descriptor", "cld")


def give(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_every_command_that_reads_a_key_takes_a_file(index, mipp_command, secret, pictures):
    good, bad = ("--passphrase-file", secret("good", b"sesame\n")), ("--passphrase-file", secret("bad", b"other"))
    for kind, name in (("owner", "anna"), ("user", "ulla")):
        assert mipp_command(kind, "create", name, *good)[0] == 0
    commands = [
        ["owner", "add", "anna", *pictures],
        ["owner", "grant", "anna", "ulla"],
        ["search", "ulla", pictures[0], "-k", 1],
        ["owner", "compact", "anna"],
        ["owner", "revoke", "anna", "ulla"],
        ["owner", "delete", "anna", "00" * 16 + ":0"],
        ["owner", "forget", "anna", "--yes"],
    ]
    for command in commands:
        code, _, err = mipp_command(*command)
        assert code == 1 and "--passphrase-file" in err, command
        code, _, err = mipp_command(*command, *bad)
        assert code == 1 and "wrong passphrase" in err, command
        code, _, err = mipp_command(*command, *good)
        assert (code == 0) != ("delete" in command) and "passphrase" not in err, command


def test_standard_input_and_how_lines_end(index, mipp_command, secret, monkeypatch, pictures):
    give(monkeypatch, b"sesame\r\n")
    assert mipp_command("owner", "create", "anna", "--passphrase-file", "-")[0] == 0
    for name, text in (("a", b"sesame"), ("b", b"sesame\n"), ("c", b"sesame\r\n")):
        assert mipp_command("owner", "add", "anna", pictures[0], "--passphrase-file", secret(name, text))[0] == 0
    for name, text, reason in [
        ("d", b"", "empty"), ("e", b"\n", "empty"), ("f", b"sesame\nmore\n", "more than one line"),
        ("g", b"x" * 9999, "more than"), ("h", b"\xff\n", "UTF-8"),
    ]:  # fmt: skip
        code, _, err = mipp_command("owner", "add", "anna", pictures[0], "--passphrase-file", secret(name, text))
        assert code == 1 and reason in err and "sesame" not in err
    code, _, err = mipp_command(
        "owner", "add", "anna", pictures[0], "--passphrase-file", secret("x", b"").parent / "no"
    )
    assert code == 1 and "cannot read passphrase file" in err
    path = secret("i", b"sesame\n")
    path.chmod(0o644)
    code, _, err = mipp_command("owner", "add", "anna", pictures[0], "--passphrase-file", path)
    assert code == 0 and "readable by others" in err


@pytest.mark.parametrize("kind", ["owner", "user"])
def test_set_change_and_remove(index, mipp_command, secret, monkeypatch, tmp_path, kind):
    assert "no passphrase" in mipp_command(kind, "create", "x")[1]
    key = tmp_path / f"d/{kind}s/x.key"
    first, second = secret("first", b"one\n"), secret("second", b"two\n")
    old, new = "--passphrase-file", "--new-passphrase-file"
    before = load_key_file(key, kind)
    assert "passphrase set" in mipp_command(kind, "passphrase", "x", new, first)[1]
    assert load_key_file(key, kind, "one") == before and key.stat().st_mode & 0o777 == 0o600
    kept = key.read_bytes()
    for args in ([new, second], [old, second, new, second], [old, first], [old, first, new, secret("empty", b"\n")]):
        assert mipp_command(kind, "passphrase", "x", *args)[0] == 1
        assert key.read_bytes() == kept, "nothing changed"
    assert mipp_command(kind, "passphrase", "x", "--remove", old, first, new, second)[0] == 2
    assert "passphrase changed" in mipp_command(kind, "passphrase", "x", old, first, new, second)[1]
    assert load_key_file(key, kind, "two") == before
    give(monkeypatch, b"two\nthree\n")
    assert mipp_command(kind, "passphrase", "x", old, "-", new, "-")[0] == 0
    monkeypatch.setenv("MIPP_PASSPHRASE", "three")
    monkeypatch.setenv("MIPP_NEW_PASSPHRASE", "four")
    assert mipp_command(kind, "passphrase", "x")[0] == 0
    assert load_key_file(key, kind, "four") == before
    monkeypatch.setenv("MIPP_PASSPHRASE", "four")
    assert "passphrase removed" in mipp_command(kind, "passphrase", "x", "--remove")[1]
    assert load_key_file(key, kind) == before
    assert mipp_command(kind, "passphrase", "x", "--remove")[0] == 0
    assert mipp_command(kind, "passphrase", "nobody", "--remove")[0] == 1
    assert [p.name for p in key.parent.iterdir() if "key" in p.name] == ["x.key"]


def test_a_change_that_is_killed_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.key"
    save_key_file(path, "owner", {"name": "a"}, {"root": b"r" * 32}, "one")

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        patch.setattr(os, "unlink", lambda path: None)  # as if it were killed: the new file stays beside the old one
        with pytest.raises(KeyboardInterrupt):
            change_passphrase(path, "owner", "one", None)
    assert load_key_file(path, "owner", "one")[1] == {"root": b"r" * 32}
    assert len(list(tmp_path.iterdir())) == 2
    change_passphrase(path, "owner", "one", "two")
    assert list(tmp_path.iterdir()) == [path], "what the killed one left, in the clear, is gone"
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        change_passphrase(path, "owner", "one", "three")


def test_of_two_changes_at_once_one_wins(index, mipp_command, secret, tmp_path):
    first = secret("first", b"one\n")
    mipp_command("owner", "create", "anna", "--passphrase-file", first)
    both = [
        subprocess.Popen(
            [*RUN, "owner", "passphrase", "anna", "--passphrase-file", str(first), "--new-passphrase-file",
             str(secret(f"new{i}", b"new %d\n" % i))], stderr=subprocess.PIPE,
        )
        for i in range(2)
    ]  # fmt: skip
    codes = [(p.communicate()[1], p.returncode)[1] for p in both]
    assert sorted(codes) == [0, 1]
    load_key_file(tmp_path / "d/owners/anna.key", "owner", f"new {codes.index(0)}")
