"""``mipp user grants``, ``mipp deployment info``, tables on a terminal, and names that a shell completes."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import click
import numpy as np
import pytest
from click.shell_completion import get_completion_class

import mipp
from mipp.cli.found import print_hits
from mipp.cli.main import cli


@pytest.fixture
def vectors(mipp_command, tmp_path):
    assert mipp_command("init", "--vectors", 4, "--preview-size", 512)[0] == 0
    np.save(tmp_path / "v.npy", np.eye(4))
    for name in ("anna", "berta", "carla"):
        assert mipp_command("owner", "create", name)[0] == 0
    assert mipp_command("owner", "add", "anna", "--vectors", tmp_path / "v.npy")[0] == 0
    assert mipp_command("user", "create", "ulla")[0] == 0
    return tmp_path / "v.npy"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Call something with a terminal, as wide as a screen, as standard output: what it printed there."""

    def call(function, *args):
        with monkeypatch.context() as patched:
            patched.setenv("COLUMNS", "200")
            patched.setattr(sys, "stdout", Terminal())
            function(*args)
            return sys.stdout.getvalue()

    return call


def test_grants_of_a_user(mipp_command, vectors, monkeypatch):
    code, out, _ = mipp_command("user", "grants", "ulla")
    assert code == 0 and out == "no owner has granted ulla anything\n"
    assert json.loads(mipp_command("user", "grants", "ulla", "--json")[1])["grants"] == []
    mipp_command("owner", "grant", "anna", "ulla", "--quota", 10, "--max-k", 2, "--expiry", "30d", "--min-rows", 2)
    mipp_command("owner", "grant", "berta", "ulla")
    mipp_command("owner", "grant", "carla", "ulla")
    mipp_command("owner", "revoke", "carla", "ulla")
    assert mipp_command("user", "block", "ulla", "berta")[0] == 0
    assert mipp_command("search", "ulla", "--vectors", vectors, "-k", 1, "--json")[0] == 0
    code, out, _ = mipp_command("user", "grants", "ulla", "--json")
    anna, berta, carla = json.loads(out)["grants"]
    assert code == 0 and (anna["owner"], anna["state"], anna["rows"], anna["quota"], anna["left"], anna["max_k"]) == (
        "anna", "in force", 4, 10, 6, 2
    )  # fmt: skip
    assert len(anna["id"]) == 32 and anna["rankings"] == ["server"] and anna["scores"] and anna["expiry"] > 0
    assert berta["blocked"] and berta["left"] is None and carla["state"] == "revoked" and carla["rows"] is None
    code, out, _ = mipp_command("user", "grants", "ulla", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and [r["state"] for r in rows] == ["in force", "in force", "revoked"]
    assert (rows[0]["left"], rows[1]["left"], rows[1]["blocked"], rows[0]["id"]) == ("6", "", "True", anna["id"])
    code, out, _ = mipp_command("user", "grants", "ulla")
    heading, first, second, third = out.splitlines()
    assert heading.split()[:3] == ["owner", "state", "rows"] and first.startswith("anna ") and "UTC" in first
    assert "never" in second and "any" in second and "yes" in second and "any" not in third
    assert mipp_command("user", "grants", "ulla", "--csv", "--json")[0] == 2
    code, _, err = mipp_command("user", "grants", "nobody")
    assert code == 1 and "unknown user" in err and "Traceback" not in err


def test_info_of_a_deployment(mipp_command, vectors, tmp_path):
    code, out, _ = mipp_command("deployment", "info", "--json")
    info = json.loads(out)
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        config = deployment.config
    assert code == 0 and info["fingerprint"] == config.fingerprint and info["id"] == config.id.hex()
    assert (info["kind"], info["scheme"], info["clouds"], info["dim"], info["metric"]) == (
        "embedded", "shares", 2, 4, "cosine"
    )  # fmt: skip
    assert info["ring_bits"] == config.encoding.ring_bits and info["record_bytes"] == 512
    assert (
        info["rankings"][0] == "server" and info["owners"] == ["anna", "berta", "carla"] and info["users"] == ["ulla"]
    )
    assert [s["role"] for s in info["servers"].values()] == ["cloud", "cloud", "key centre"]
    assert info["mipp"] == mipp.__version__
    code, out, _ = mipp_command("deployment", "info")
    assert code == 0 and config.fingerprint in out and "anna, berta, carla" in out and "512 bytes a row" in out
    code, _, err = mipp_command("deployment", "info", "--deployment", tmp_path / "none")
    assert code == 1 and "no deployment" in err


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_info_with_one_cloud_and_images(mipp_command, tmp_path, scheme):
    assert mipp_command("init", "--scheme", scheme, "--descriptor", "cld")[0] == 0
    code, out, _ = mipp_command("deployment", "info")
    assert code == 0 and f"{scheme}, 1 cloud and a key centre" in out and "cld of version" in out
    info = json.loads(mipp_command("deployment", "info", "--json")[1])
    assert [s["role"] for s in info["servers"].values()] == ["cloud", "key centre"] and info["owners"] == []


@pytest.mark.parametrize(("bits", "name"), [(8, "n4096"), (12, "n8192")])
def test_info_tells_what_messages_of_the_lattice_scheme_take(mipp_command, tmp_path, bits, name):
    assert mipp_command("init", "--clouds", 1, "--vectors", 64, "--bits", bits, "--query-bits", bits)[0] == 0
    told = json.loads(mipp_command("deployment", "info", "--json")[1])["scheme_facts"]
    assert mipp_command("owner", "create", "anna")[0] == mipp_command("user", "create", "ulla")[0] == 0
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(8192, 64)))
    assert mipp_command("owner", "add", "anna", "--vectors", tmp_path / "v.npy")[0] == 0
    assert mipp_command("owner", "grant", "anna", "ulla")[0] == 0
    cost = json.loads(mipp_command("search", "ulla", "--explain-cost", "--json")[1])["user"]
    assert told["parameters"] == name and told["evaluation_key_bytes"] == cost.get("once", 0)
    assert 0 <= cost["sent"] - told["query_bytes"] <= 64 and cost["received"] == 8192 * told["answer_bytes_a_row"]
    out = mipp_command("deployment", "info")[1]
    assert f"parameters {name}, query bytes {told['query_bytes']:,}, answer bytes a row " in out


def test_tables_on_a_terminal(mipp_command, vectors, on_terminal, monkeypatch):
    mipp_command("owner", "grant", "anna", "ulla")
    for args, texts in (
        (["search", "ulla", "--vectors", vectors, "-k", "1"], ["query", "rank", "cosine", "anna"]),
        (["status"], ["images", "batches", "share bytes a cloud", "servers agree: yes"]),
        (["user", "grants", "ulla"], ["rankings", "in force"]),
        (["deployment", "info"], ["fingerprint", "key centre"]),
    ):
        text = on_terminal(lambda given=args: cli.main([str(a) for a in given], standalone_mode=False))
        assert all(part in text for part in texts) and "owner anna:" not in text, (args, text)


def test_texts_of_owners_are_no_markup_of_a_terminal(on_terminal):
    hits = [{"id": "00:1", "owner": "anna", "score": 3, "value": 0.5, "name": "[red]x\x1b[31m", "caption": ""}]
    shown = on_terminal(print_hits, hits, "cosine")
    assert "[red]x\\x1b[31m" in shown and "caption" not in shown and "rank" in shown


# --- completion ---------------------------------------------------------------------------------------------------


def completed(folder, words, monkeypatch, shell="bash"):
    """What a shell is offered for the last word of a command line, as the values that it reads."""
    monkeypatch.setenv("MIPP_DEPLOYMENT", str(folder))
    *args, last = words.split(" ")[1:]
    completion = get_completion_class(shell)(cli, {}, "mipp", "_MIPP_COMPLETE")
    return [item.value for item in completion.get_completions(args, last) if item.type == "plain"]


@pytest.fixture
def names(tmp_path):
    """A folder of key files that nothing can open: completion needs their names only."""
    folder = tmp_path / "d"
    for kind, parties in (("owners", ("anna", "bèrta", "bob")), ("users", ("ulla",))):
        (folder / kind).mkdir(parents=True)
        for party in parties:
            (folder / kind / f"{party}.key").write_text("no key file")
    (folder / "owners" / "a\nb.key").write_text("")
    return folder


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("mipp owner revo", ["revoke"]),
        ("mipp sea", ["search"]),
        ("mipp owner add ", ["anna", "bob", "bèrta"]),
        ("mipp owner grant b", ["bob", "bèrta"]),
        ("mipp owner grant anna ", ["ulla"]),
        ("mipp search u", ["ulla"]),
        ("mipp search ulla --owner a", ["anna"]),
        ("mipp search ulla --id 00:1 --of b", ["bob", "bèrta"]),
        ("mipp user block ulla anna b", ["bob", "bèrta"]),
        ("mipp user grants ", ["ulla"]),
        ("mipp owner create a", []),
        ("mipp user grants --deployment /nowhere ", []),
    ],
)
def test_a_shell_completes_commands_and_names(names, words, offered, monkeypatch):
    assert completed(names, words, monkeypatch) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete_names(names, shell, monkeypatch):
    assert completed(names, "mipp search u", monkeypatch, shell) == ["ulla"]


@pytest.mark.parametrize("folder", ["~nosuch/x", "~nosuch", "/dev/null", "x" * 5000, "a\nb"])
def test_a_folder_that_is_none_completes_nothing(folder, monkeypatch):
    assert completed(folder, "mipp user grants ", monkeypatch) == []


def test_the_folder_that_is_typed_counts(names, tmp_path, monkeypatch):
    assert completed(tmp_path / "none", f"mipp search --deployment {names} u", monkeypatch) == ["ulla"]


def test_every_command_that_takes_a_name_completes_it(names, monkeypatch):
    """Also those that come later: names are found by the parameter, not listed by command."""
    for group, kind in (("owner", "anna"), ("user", "ulla")):
        for name, command in cli.commands[group].commands.items():
            first = next(p for p in command.params if isinstance(p, click.Argument))
            if name == "create":
                continue
            assert kind in completed(names, f"mipp {group} {name} ", monkeypatch), (group, name, first.name)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_bash_works_in_bash(names, tmp_path):
    program = tmp_path / "bin" / "mipp"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom mipp.cli import main\nmain()\n")
    program.chmod(0o700)
    script = (
        'eval "$(_MIPP_COMPLETE=bash_source mipp)"; COMP_WORDS=(mipp search u); COMP_CWORD=2\n'
        '_mipp_completion mipp; echo "${COMPREPLY[@]}"; complete -p mipp'
    )
    path = f"{program.parent}:{os.environ['PATH']}"
    given = {**os.environ, "MIPP_DEPLOYMENT": str(names), "PATH": path}
    done = subprocess.run(["bash", "-c", script], env=given, capture_output=True, text=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first == "ulla" and "_mipp_completion mipp" in second, done.stderr
