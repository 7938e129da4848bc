"""The disk of one server is full from some step on: callers meet typed errors, nothing acknowledged is lost, no change
is there by half, the server serves what needs no room, and goes on by itself when there is room again.
"""

import contextlib
import ctypes
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from mipp.deployment.backups import back_up_server, restore_server
from mipp.deployment.rotation import rotate_server
from mipp.deployment.transport import Transport
from mipp.errors import MippError
from mipp.rpc import peer_messages as pm
from tests.deployment import hosted
from tests.deployment.hosted import AGREE, PROCESSES, QUERY, Hosted, Steps, found
from tests.deployment.stage import OPERATED, OPERATIONS, Stage, attempt, check, check_backup

pytestmark = pytest.mark.slow

#: seconds in which a caller learns that it failed: clients try again for a while
BOUND = 40.0


@pytest.fixture
def stage(tmp_path):
    with Stage(tmp_path / "net") as made:
        yield made


def serves(stage, rows_before):
    """While the disk is full: the server answers its operator, and a search that is not counted is right.

    Only a change that one server made, and that the full one cannot make, keeps searches off.
    """
    net, server = stage.net, stage.server
    assert not net.ask(server, pm.ServerReportRequest()).reasons
    net.ask(server, pm.SettleRequest())
    try:
        seen = found(stage.uncounted)
    except MippError as error:
        waiting = [net.ask(s, pm.WaitingChangesRequest()).states for s in (1, 2, 3)]
        assert any("accepted" in states for states in waiting), repr(error)
    else:
        assert seen in (stage.plain.scores(QUERY, rows_before), stage.plain.scores(QUERY, stage.coming))


def one_point(stage, what, server, full_at):
    """Full from one step on; what the caller met, and whether that step came."""
    net, stage.server = stage.net, server
    stage.before(what)
    rows_before = dict(stage.plain.rows)
    stage.coming = rows_before
    net.tell(server, "arm", full_at, True)
    begun = time.monotonic()
    error = attempt(stage, what)
    took = time.monotonic() - begun
    came = net.tell(server, "count") >= full_at
    if came and what != "repair":  # whose rows are lost meanwhile
        serves(stage, rows_before)
    net.tell(server, "arm", 0)
    stage.slowest = max(stage.slowest, net.agreed(AGREE))
    check(stage, what, error, rows_before)
    assert took < BOUND, (took, repr(error))
    stage.before(what)
    getattr(stage, what)()  # and now it works
    stage.sync()
    if error is not None:
        print(f"{what} at server {server}, step {full_at}: {took:.1f} s, {type(error).__name__}: {error}")
    return error, came


def run_full(stage, what, points=None, servers=(1, 2, 3)):
    """At so many steps of each server, or at all; how often the caller met an error."""
    errors = 0
    for server in servers:
        full_at, came = 1, True
        while came and (points is None or full_at <= points):
            error, came = one_point(stage, what, server, full_at)
            errors += error is not None
            full_at += 1
    return errors


@pytest.mark.parametrize("what", ["upload", "merge", "backup"])
def test_the_disk_is_full(stage, what):
    assert run_full(stage, what, 2, (1, 3))


@pytest.mark.nightly
@pytest.mark.parametrize("what", (*OPERATIONS, *OPERATED))
def test_the_disk_is_full_at_any_step(stage, what):
    run_full(stage, what)


@pytest.mark.nightly
def test_lost_files_come_back_when_there_is_room(tmp_path):
    """Nobody asks for it; a try on the full disk has failed before."""
    with Stage(tmp_path / "net", functools.partial(Hosted, settings="")) as stage:
        stage.before("repair")
        stage.net.tell(1, "arm", 1, True)
        time.sleep(7)
        assert stage.net.ask(1, pm.VerifyRequest()).problems
        stage.net.tell(1, "arm", 0)
        until = time.monotonic() + 30
        while stage.net.ask(1, pm.VerifyRequest()).problems:
            assert time.monotonic() < until
            time.sleep(0.5)
        assert found(stage.user) == stage.plain.scores(QUERY)


# --- a disk that is really full ---------------------------------------------------------------------------------------


def own_disk(folder):
    """In a server's process: its folder is a small file system in memory, and a file there can fill it."""
    spaces, libc, ids = 0x10020000, ctypes.CDLL(None, use_errno=True), (os.getuid(), os.getgid())
    with tempfile.TemporaryDirectory() as saved:
        shutil.copytree(folder, saved, dirs_exist_ok=True, ignore=shutil.ignore_patterns("log"))
        assert not libc.unshare(spaces), os.strerror(ctypes.get_errno())
        for file, text in (("setgroups", "deny"), ("uid_map", f"0 {ids[0]} 1"), ("gid_map", f"0 {ids[1]} 1")):
            Path("/proc/self", file).write_text(text)
        assert not libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=16m"), os.strerror(ctypes.get_errno())
        shutil.copytree(saved, folder, dirs_exist_ok=True)

    def limit(size):
        if size:
            (folder / "ballast").unlink(missing_ok=True)
            return
        with open(folder / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 20)):
                pass

    hosted.limit_files, Steps.late = limit, False


class OwnDisk(Hosted):
    """Server 1 has a disk of its own, which is seen from outside as long as it runs."""

    def start(self, *servers, **options):
        super().start(1, prepare=own_disk, given={"folder": self.home(1)})
        return super().start(2, 3)

    def home(self, server):
        home = super().home(server)
        running = server == 1 and self.processes.get(1)
        return Path(f"/proc/{running.pid}/root{home}") if running else home


@pytest.fixture
def small(tmp_path):
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", tmp_path], check=False).returncode:
        # the kernel or the sandbox decides; nothing of mipp was run yet
        pytest.skip("file systems cannot be mounted here")
    with Stage(tmp_path / "net", OwnDisk) as made:
        yield made


@pytest.mark.parametrize(
    "what", hosted.some(("upload", "delete", "merge", "compact", "grant", "forget", "query"), "upload")
)
def test_a_small_disk_is_full(small, what):
    assert run_full(small, what, 30, (1,)) or what == "query"


# --- an operator's commands -------------------------------------------------------------------------------------------


def operating(pipe, full_at, work, args, options):
    """In an operator's process: what came of a command, and whether the step came from which on the disk is full."""
    steps, error = Steps(), None
    steps.watch()
    steps.arm(full_at, True)
    try:
        work(*args, **options)
    except MippError as met:
        error = f"{type(met).__name__}: {met}"
    came = steps.filled
    steps.arm(0)
    pipe.send((error, came))


def operated(work, *args, **options):
    """Run a command with a disk that is full from its first step on, its second, ...; yields what it met each time."""
    for full_at in itertools.count(1):
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=operating, args=(theirs, full_at, work, args, options))
        process.start()
        theirs.close()
        error, came = ours.recv()
        process.join()
        yield error
        if not came:
            assert error is None
            return


def test_an_operator_s_disk_is_full(stage, tmp_path):
    """Backup, restore and rotation of a server that does not run: done, or nothing is left of it but what was valid."""
    net, target = stage.net, tmp_path / "backup"
    net.stop(1)
    met = []
    for error in operated(back_up_server, net.home(1), target):
        check_backup(target, error)
        met.append(error)
    back_up_server(net.home(1), target)
    for error in operated(restore_server, target, tmp_path / "new"):
        assert (tmp_path / "new").exists() == (error is None), error
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        met.append(error)
    for error in operated(rotate_server, net.home(1), new_certificate=True):
        book = Transport(net.home(1), net.config, 1).book
        assert len(list(net.home(1).glob("tls*"))) == 2 * len(book.certificates(1)), error
        assert not list(net.home(1).glob("*.tmp*"))
        met.append(error)
    print(*dict.fromkeys(map(str, met)), sep="\n")
    assert len(met) - met.count(None) > 20
    net.start(1)
    net.agreed(AGREE)
    assert found(stage.user) == stage.plain.scores(QUERY)
