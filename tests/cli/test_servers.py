"""Commands of operators and clients on three servers that are processes of their own, as people call them."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mipp.demo.render import render_collection
from mipp.demo.run import DemoImage, run_demo
from mipp.demo.servers import free_ports


def invite(mipp_command, tmp_path, kind, name):
    code, out, _ = mipp_command("invite", f"--{kind}", name, "--server", tmp_path / "north")
    assert code == 0
    (tmp_path / f"{name}.txt").write_text(out)
    return f"@{tmp_path / name}.txt"


@pytest.fixture
def servers(mipp_command, tmp_path):
    """Processes by name, all ready; a client's folder at ``index``."""
    names = {"north": "cloud", "south": "cloud", "mid": "key-centre"}
    for (name, role), port in zip(names.items(), free_ports(3), strict=True):
        url = f"https://127.0.0.1:{port}"
        assert mipp_command("server", "init", tmp_path / name, "--role", role, "--name", name, "--url", url)[0] == 0
        (tmp_path / name / "server.toml").write_text(f'listen = "127.0.0.1:{port}"\ndrain_seconds = 5\n')
    cards = [part for name in names for part in ("--card", tmp_path / name)]
    described = tmp_path / "deployment.json"
    code, out, _ = mipp_command("deployment", "assemble", *cards, "--vectors", 12, "-o", described, "--json")
    assert code == 0
    for name in names:
        assert mipp_command("server", "join", tmp_path / name, described)[0] == 0
    found = json.loads(out)["fingerprint"]
    code, _, _ = mipp_command("connect", described, "--fingerprint", found, "--to", tmp_path / "index")
    assert code == 0
    processes = {name: start(tmp_path / name) for name in names}
    until = time.monotonic() + 30
    while mipp_command("server", "check", tmp_path / "north")[0]:
        assert time.monotonic() < until
        time.sleep(0.1)
    for name in names:
        wait_for(mipp_command, tmp_path / name, lambda s: s["ready"] and s["votes"])
    yield processes
    for process in processes.values():
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "mipp", "server", "run", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(mipp_command, folder, good, seconds=20):
    until = time.monotonic() + seconds
    while True:
        code, out, _ = mipp_command("server", "status", folder, "--json")
        if code == 0 and good(json.loads(out)):
            return json.loads(out)
        assert time.monotonic() < until, out
        time.sleep(0.1)


def test_operators_and_clients(mipp_command, servers, tmp_path):
    index, data = tmp_path / "index", np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    np.save(tmp_path / "rows.npy", data)
    np.save(tmp_path / "query.npy", data[7])
    for kind, name in (("owner", "anna"), ("user", "ulla")):
        token = invite(mipp_command, tmp_path, kind, name)
        code, _, err = mipp_command(kind, "create", name, "--invitation", token, "--deployment", index)
        assert code == 0, err
    code, _, err = mipp_command("owner", "create", "berta", "--deployment", index)
    assert code == 1 and "invitation" in err and not (index / "owners" / "berta.key").exists()
    # by somebody else's folder: the same invitation again, and a name that is taken
    code, _, err = mipp_command(
        "owner", "create", "anna", "--invitation", f"@{tmp_path}/anna.txt", "--deployment", index
    )
    assert code == 1
    assert mipp_command("owner", "add", "anna", "--vectors", tmp_path / "rows.npy", "--deployment", index)[0] == 0
    assert mipp_command("owner", "grant", "anna", "ulla", "--deployment", index)[0] == 0
    code, _, err = mipp_command("owner", "grant", "anna", "nobody", "--deployment", index)
    assert code == 1 and "no user called" in err
    code, out, err = mipp_command(
        "search", "ulla", "--vector", tmp_path / "query.npy", "-k", 3, "--json", "--deployment", index
    )
    assert code == 0, err
    assert json.loads(out)["hits"][0]["id"].endswith(":7")
    assert mipp_command("user", "block", "ulla", "anna", "--deployment", index)[0] == 0
    assert "anna" in mipp_command("user", "blocked", "ulla", "--deployment", index)[1]
    assert mipp_command("user", "unblock", "ulla", "anna", "--deployment", index)[0] == 0
    code, out, _ = mipp_command("status", "--deployment", index, "--json")
    assert code == 0 and all(s["ready"] for s in json.loads(out)["servers"].values())
    code, _, err = mipp_command("verify", "--deployment", index)
    assert code == 1 and "mipp server verify" in err

    # the operators' side
    told = wait_for(mipp_command, tmp_path / "north", lambda s: s["owners"])
    assert (told["owners"][0]["name"], told["owners"][0]["rows"]) == ("anna", 40) and set(told["peers"]) == {"2", "3"}
    assert mipp_command("server", "changes", tmp_path / "mid")[:2] == (0, "nothing is open\n")
    code, out, _ = mipp_command("server", "verify", tmp_path / "south", "--json")
    assert code == 0 and json.loads(out)["problems"] == []
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    code, _, err = mipp_command("server", "run", tmp_path / "north")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert code == 1 and "another process runs the server" in err

    # backup while it runs; a lost file comes back
    code, out, err = mipp_command("server", "backup", tmp_path / "north", "--to", tmp_path / "copy", "--json")
    assert code == 0 and json.loads(out) == {"folder": str(tmp_path / "copy"), "files": 1, "missing": []}, err
    (share,) = (tmp_path / "north" / "shares").glob("*/*")
    (copied,) = (tmp_path / "copy" / "shares").glob("*/*")
    assert share.samefile(copied)
    share.unlink()
    code, out, err = mipp_command("server", "repair", tmp_path / "north")
    assert code == 0 and "that were not: 0" in out, err
    (again,) = (tmp_path / "north" / "shares").glob("*/*")
    assert again.read_bytes() == copied.read_bytes()
    code, out, err = mipp_command("server", "restore", tmp_path / "restored", "--from", tmp_path / "copy")
    assert code == 0 and "is as the backup" in out, err
    for command, option in (("restore", "--from"), ("replace", "--keys")):
        code, _, err = mipp_command("server", command, tmp_path / "new", option, tmp_path / "north")
        assert code == 1 and "runs; stop it first" in err and not (tmp_path / "new").exists()
    assert mipp_command("server", "replace", tmp_path / "new", "--keys", tmp_path / "copy")[0] == 0
    assert mipp_command("server", "check", tmp_path / "new")[0] == 1  # its port is the running one's

    # one stops: exit code 0; clients hear which, at once; it comes back by itself
    servers["south"].send_signal(signal.SIGTERM)
    out, err = servers["south"].communicate(timeout=20)
    assert servers["south"].returncode == 0 and b"listens on" in out
    assert all(json.loads(line)["level"] in ("info", "warning") for line in err.splitlines())
    code, _, err = mipp_command("search", "ulla", "--vector", tmp_path / "query.npy", "--deployment", index)
    assert code == 1 and "server 2 (south) cannot be reached" in err
    code, _, err = mipp_command("server", "status", tmp_path / "south")
    assert code == 1 and "no server runs" in err
    servers["south"] = start(tmp_path / "south")
    wait_for(mipp_command, tmp_path / "south", lambda s: s["ready"] and s["votes"])
    assert mipp_command("search", "ulla", "--vector", tmp_path / "query.npy", "--deployment", index)[0] == 0


def test_the_demo_with_servers(tmp_path):
    images = []
    for name, label, pixels in render_collection(3, 4, (64, 48)):
        from PIL import Image

        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        images.append(DemoImage(tmp_path / f"{name}.png", label))
    told = run_demo(images, tmp_path / "out", owners=2, queries=4, k=3, servers=True)
    assert told["exact_match"] and told["images"] == 12 and any("server run" in line for line in told["commands"])


@pytest.mark.slow
def test_rotation_of_servers_that_run(mipp_command, servers, tmp_path):
    """Commands alone: a new certificate, then the end of the earlier one; a user's folder learns both."""
    index = tmp_path / "index"
    token = invite(mipp_command, tmp_path, "user", "ulla")
    assert mipp_command("user", "create", "ulla", "--invitation", token, "--deployment", index)[0] == 0
    for version, option in ((1, "--new-certificate"), (2, "--finish")):
        assert mipp_command("server", "rotate", tmp_path / "south", option)[0] == 0
        for name in servers:
            told = wait_for(
                mipp_command, tmp_path / name, lambda s, v=version: s["addresses"]["2"]["version"] == v and s["votes"]
            )
            assert told["addresses"]["2"]["certificates"] == 3 - version and not told["conflicts"]
    until = time.monotonic() + 20
    while True:
        code, out, _ = mipp_command("server", "check", tmp_path / "south")
        if out.count("knows version 2 of this server's address") == 2 and not code:
            break
        assert time.monotonic() < until, out
        time.sleep(0.1)
    code, out, _ = mipp_command("status", "--deployment", index, "--json")
    state = json.loads(out)["servers"]["2"]
    assert code == 0 and state["ready"] and state["address_version"] == 2
    assert (index / "addresses.json").exists()
    assert "is at https://127.0.0.1:" in mipp_command("server", "status", tmp_path / "north")[1]
