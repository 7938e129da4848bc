"""``mipp app`` as a person starts and ends it."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import pytest

from mipp.cli import app
from tests.app.talk import Talk


@pytest.fixture
def started(mipp_command, tmp_path):
    assert mipp_command("init", "--descriptor", "cld")[0] == 0
    assert mipp_command("user", "create", "ulla")[0] == 0
    command = [sys.executable, "-m", "mipp", "app", "--no-browser", "--deployment", str(tmp_path / "d")]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    yield process
    process.kill()
    process.wait()


def test_it_prints_a_link_and_ends_with_ctrl_c(started):
    line = started.stdout.readline()
    assert re.fullmatch(r"open this link, once: http://127\.\d+\.\d+\.\d+:\d+/[0-9a-f]{32}/#open=\S+\n", line)
    tab = Talk.opened(line)
    assert [p["name"] for p in json.loads(tab.send("GET", "/api/state")[2])["parties"]] == ["ulla"]
    host, _, port = tab.place.partition(":")
    with socket.create_connection((host, int(port))):  # an open tab keeps nobody waiting
        began = time.monotonic()
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=30)
    assert (started.returncode, out, err) == (0, "closed\n", "")
    assert time.monotonic() - began < 8


def test_the_page_can_end_it(started):
    tab = Talk.opened(started.stdout.readline())
    assert json.loads(tab.send("POST", "/api/close", b"{}")[2]) == {"closed": True}
    out, err = started.communicate(timeout=30)
    assert (started.returncode, out, err) == (0, "closed\n", "")


def test_the_browser_is_led_by_a_file_for_this_person_alone(monkeypatch):
    opened = []

    def browse(url):
        path = Path(url2pathname(urlparse(url).path))
        opened.append((path, path.read_text(), stat.S_IMODE(path.parent.stat().st_mode), os.stat(path).st_uid))

    monkeypatch.setattr(webbrowser, "open", browse)
    with app._browser("http://127.0.0.1:1/#open=secret"):
        ((path, text, mode, owner),) = opened
        assert "#open=secret" in text and "secret" not in str(path)
        assert mode == 0o700 and owner == os.getuid()
    assert not path.exists()


def test_a_missing_extra_and_a_taken_port_are_said_in_a_sentence(mipp_command, monkeypatch):
    mipp_command("init", "--descriptor", "cld")
    with socket.create_server(("", 0)) as taken:
        code, _, err = mipp_command("app", "--no-browser", "--port", taken.getsockname()[1])
        assert code == 1 and "cannot be used" in err and err.count("\n") == 1
    for name in [name for name in sys.modules if name.startswith("mipp.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "waitress.server", None)
    code, _, err = mipp_command("app", "--no-browser")
    assert code == 1 and "pip install 'mipp-retrieval[app]'" in err and "Traceback" not in err
