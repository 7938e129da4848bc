"""Commands of the ceremony and of the registrar, as people call them: from cards to a client's folder."""

import json
import os
import stat

import pytest

from mipp.crypto.keyfile import load_key_file
from mipp.deployment.ceremony import read_card, read_description
from mipp.rpc.invitations import Invitation, check_invitation


@pytest.fixture
def servers(mipp_command, tmp_path):
    for name, role in (("north", "cloud"), ("south", "cloud"), ("mid", "key-centre")):
        url = f"https://{name}.example:7443"
        code, out, err = mipp_command("server", "init", tmp_path / name, "--role", role, "--name", name, "--url", url)
        assert (code, err) == (0, "") and str(tmp_path / name / "card.json") in out
    return [tmp_path / name for name in ("north", "south", "mid")]


@pytest.fixture
def assembled(mipp_command, servers, tmp_path):
    """(folders, file of the description, what the command printed)."""
    cards = [part for folder in servers for part in ("--card", folder / "card.json")]
    path = tmp_path / "deployment.json"
    code, out, _ = mipp_command("deployment", "assemble", *cards, "--vectors", 12, "-o", path, "--json")
    assert code == 0
    return servers, path, json.loads(out)


def secrets_of(folder):
    found = []
    for name, kind in (("server.key", "server"), ("identity.key", "server")):
        found += load_key_file(folder / name, kind)[1].values()
    return found


def test_the_whole_ceremony(mipp_command, assembled, tmp_path):
    folders, path, told = assembled
    config = read_description(path)
    assert told["fingerprint"] == config.fingerprint and told["id"] == config.id.hex()
    assert told["registrar"] == read_card(folders[0]).sign.hex() and told["rankings"][0] == "server"
    assert {i: s["name"] for i, s in told["servers"].items()} == {"1": "north", "2": "south", "3": "mid"}
    printed = json.dumps(told)
    for number, folder in enumerate(folders, 1):
        code, out, err = mipp_command("server", "join", folder, path)
        assert (code, err) == (0, "") and config.fingerprint in out and f"server {number}" in out
        printed += out
        assert json.loads(mipp_command("server", "join", folder, path, "--json")[1])["server"] == number
    code, out, err = mipp_command(
        "invite", "--owner", "anna", "--max-rows", "1e6", "--max-bytes", "10GB", "--requests", "600", "--server",
        folders[0],
    )  # fmt: skip
    assert code == 0 and "owner anna until" in err
    invitation = Invitation.from_text(out)
    check_invitation(config, invitation, "owner", "anna", 0.0)
    assert (invitation.max_rows, invitation.max_bytes, invitation.requests) == (10**6, 10**10, 600)
    printed += out + err
    code, out, err = mipp_command(
        "connect", path, "--fingerprint", config.fingerprint.lower(), "--to", tmp_path / "index"
    )
    assert (code, err) == (0, "") and read_description(tmp_path / "index") == config
    printed += out
    for folder in folders:
        for secret in secrets_of(folder):
            assert secret.hex() not in printed and secret.hex() not in path.read_text()
        assert stat.S_IMODE(os.stat(folder / "tls.key").st_mode) == 0o600


def test_a_registrar_of_its_own(mipp_command, servers, tmp_path, monkeypatch):
    monkeypatch.setenv("MIPP_PASSPHRASE", "open sesame")
    key, path = tmp_path / "registrar.key", tmp_path / "d.json"
    code, out, _ = mipp_command("registrar", "create", key, "--passphrase")
    public, secret = load_key_file(key, "registrar", "open sesame")
    assert code == 0 and public["sign_key"] in out and secret["sign"].hex() not in out
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and "open sesame" not in out
    cards = [part for folder in servers for part in ("--card", folder)]
    for given in (key, public["sign_key"]):
        code, _, err = mipp_command(
            "deployment", "assemble", *cards, "--descriptor", "csd64", "--registrar", given, "-o", path
        )
        assert code == 0, err
        config = read_description(path)
        assert config.registrar.hex() == public["sign_key"] and config.descriptor == "csd64"
        args = ("invite", "--user", "ulla", "--deployment", path, "--expires", "12h")
        code, out, err = mipp_command(*args, "--key", key, "--json")
        told = json.loads(out)
        check_invitation(config, Invitation.from_text(told["invitation"]), "user", "ulla", 0.0)
        assert (code, err, told["kind"], told["name"]) == (0, "", "user", "ulla")
        code, out, err = mipp_command(*args, "--server", servers[0])
        assert (code, out) == (1, "") and "not the key of the deployment's registrar" in err
        path.unlink()
    monkeypatch.setenv("MIPP_PASSPHRASE", "wrong")
    code, out, err = mipp_command(*args[:4], servers[0], "--key", key)
    assert code == 1 and "open sesame" not in err + out
    code, _, err = mipp_command("registrar", "create", key)
    assert code == 1 and "never overwritten" in err


def test_invitations_at_the_commands_of_parties(mipp_command, tmp_path, monkeypatch):
    """In an embedded deployment, whose registrar is put into its description."""
    assert mipp_command("init", "--vectors", 4)[0] == 0
    assert mipp_command("registrar", "create", tmp_path / "r.key")[0] == 0
    public = load_key_file(tmp_path / "r.key", "registrar")[0]["sign_key"]
    path = tmp_path / "d" / "deployment.json"
    data = json.loads(path.read_text())
    data |= {"version": 3, "addresses": {}, "registrar": public, "description_version": 1}
    path.write_text(json.dumps(data))
    invite = ("invite", "--key", tmp_path / "r.key", "--deployment", tmp_path / "d")
    anna, ulla = (mipp_command(*invite, f"--{kind}", name)[1] for kind, name in (("owner", "anna"), ("user", "ulla")))
    code, _, err = mipp_command("owner", "create", "anna")
    assert code == 1 and "by invitation only" in err
    code, _, err = mipp_command("owner", "create", "anna", "--invitation", ulla)
    assert code == 1 and "for user ulla" in err
    assert not list((tmp_path / "d" / "owners").iterdir())
    assert mipp_command("owner", "create", "anna", "--invitation", anna.strip())[0] == 0
    (tmp_path / "ulla.txt").write_text(ulla)
    assert mipp_command("user", "create", "ulla", "--invitation", f"@{tmp_path / 'ulla.txt'}")[0] == 0
    code, _, err = mipp_command("user", "create", "uwe", "--invitation", f"@{tmp_path / 'gone'}")
    assert code == 1 and "cannot read the invitation" in err
    (tmp_path / "large").write_bytes(b"\xff" * 100_000)
    code, _, err = mipp_command("user", "create", "uwe", "--invitation", f"@{tmp_path / 'large'}")
    assert code == 1 and "no invitation" in err
    status = json.loads(mipp_command("status", "--json")[1])
    assert [o["name"] for o in status["owners"]] == ["anna"] and [u["name"] for u in status["users"]] == ["ulla"]


def test_refusals(mipp_command, assembled, tmp_path):
    folders, path, _ = assembled
    cards = [part for folder in folders for part in ("--card", folder)]
    new = tmp_path / "new.json"
    assemble = ("deployment", "assemble", "--vectors", 12, "-o")
    server = ("server", "init", tmp_path / "s", "--role", "cloud", "--name")
    invite = ("invite", "--server", folders[0], "--deployment", path)
    for args, code, said in (
        ((*assemble, path, *cards), 1, "exists"),
        ((*assemble, new, *cards[:4]), 1, "2 or 3 clouds and 1 key centre"),
        ((*assemble, new, *cards, "--scheme", "paillier", "--ranking", "user"), 1, "1 cloud and 1 key centre"),
        ((*assemble, new, *cards[2:], "--preview-size", 512), 1, "one cloud keeps no records"),
        ((*assemble, new, *cards, "--registrar", tmp_path / "gone"), 1, "cannot read"),
        ((*assemble, new, *cards, "--registrar", folders[0] / "server.key"), 1, "kind"),
        ((*assemble, new, "--card", path), 1, "no card"),
        ((*assemble, new, *cards, "--tune"), 2, "need --fit"),
        ((*assemble, new), 2, "--card"),
        ((*server, "a b", "--url", "https://n:1"), 1, "letters"),
        ((*server, "n", "--url", "http://n:1"), 1, "https://"),
        ((*server, "n", "--url", "https://n:1", "--key", path), 1, "both"),
        (("server", "join", folders[0], folders[0] / "card.json"), 1, "no description"),
        (("server", "join", tmp_path, path), 1, "no folder of a server"),
        (invite, 2, "--owner NAME or --user"),
        ((*invite, "--owner", "a", "--user", "b"), 2, "--owner NAME or --user"),
        ((*invite, "--owner", "a", "--key", path), 2, "--key FILE or --server"),
        ((*invite, "--owner", "a b"), 1, "letters"),
        ((*invite, "--user", "a", "--max-rows", "5"), 1, "for owners"),
        ((*invite, "--owner", "a", "--max-rows", "0"), 1, "from 1 on"),
        ((*invite, "--owner", "a", "--max-rows", "1.5"), 1, "whole number"),
        ((*invite, "--owner", "a", "--max-bytes", "ten"), 1, "--max-bytes is a number"),
        ((*invite, "--owner", "a", "--max-bytes", "1e99"), 1, "limits"),
        ((*invite, "--owner", "a", "--expires", "0"), 1, "ends at some time"),
        ((*invite, "--owner", "a", "--expires", "2001-01-01"), 1, "past"),
        (("connect", path, "--fingerprint", "7F3A", "--to", tmp_path / "c"), 1, "32 letters"),
        (("connect", path, "--fingerprint", "0" * 32, "--to", tmp_path / "c"), 1, "another fingerprint"),
    ):
        got, out, err = mipp_command(*args)
        assert (got, out) == (code, "") and said in err, (args, out, err)
    assert not new.exists() and not (tmp_path / "s").exists() and not (tmp_path / "c").exists()


@pytest.mark.parametrize("text, number", [
    ("7", 7), ("1e6", 10**6), ("1.5e3", 1500), ("10GB", 10**10), ("4 GiB", 4 << 30), ("2k", 2000), ("1TiB", 1 << 40),
])  # fmt: skip
def test_numbers(mipp_command, assembled, text, number):
    folders, path, _ = assembled
    out = mipp_command("invite", "--owner", "a", "--max-bytes", text, "--server", folders[0], "--deployment", path)[1]
    assert Invitation.from_text(out).max_bytes == number


def test_rotation(mipp_command, assembled, tmp_path):
    folders, path, told = assembled
    assert mipp_command("server", "rotate", folders[0], "--new-certificate")[0] == 1  # it joined nothing yet
    for folder in folders:
        assert mipp_command("server", "join", folder, path)[0] == 0
    code, out, err = mipp_command("server", "rotate", folders[0], "--new-certificate", "--json")
    data = json.loads(out)
    assert (code, err, data["version"], len(data["certificate_pins"])) == (0, "", 1, 2)
    for secret in secrets_of(folders[0]):
        assert secret.hex() not in out + (folders[0] / "addresses.json").read_text()
    code, out, err = mipp_command("server", "rotate", folders[0], "--url", "https://North.example:7444")
    assert (code, err) == (0, "") and "version 2 now: https://north.example:7444" in out
    assert "still valid beside it" in out and "listen" in out
    code, out, _ = mipp_command("server", "rotate", folders[0], "--finish")
    assert code == 0 and "version 3" in out and "still valid" not in out
    code, out, err = mipp_command("server", "check", folders[0], "--json")
    facts = json.loads(out)["facts"]
    assert "address of version 3: https://north.example:7444" in facts and f"{told['fingerprint']}" in " ".join(facts)
    for args, code, said in (
        ((), 2, "give --new-certificate"),
        (("--finish",), 1, "nothing is to be done"),
        (("--url", "https://north.example:7444"), 1, "nothing is to be done"),
        (("--url", "https://a\x1b[2J:7"), 1, "https://"),
        (("--key", path), 1, "both"),
        (("--key", path, "--certificate", path), 1, "no PEM"),
    ):
        got, out, err = mipp_command("server", "rotate", folders[0], *args)
        assert (got, out) == (code, "") and said in err and "\x1b" not in err, (args, err)
    assert mipp_command("server", "join", folders[0], path)[0] == 0
