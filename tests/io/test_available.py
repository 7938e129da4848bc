"""Memory that is available: of the machine and of control groups of both versions, as the system tells it."""

import math

import pytest

from mipp.io import available
from mipp.io.available import available_bytes, memory_bytes

MIB = 1 << 20


class Machine:
    """A /proc of one process, and mounts of control groups."""

    def __init__(self, folder, meminfo="MemTotal: 9 kB\nMemAvailable:    8388608 kB\n"):
        self.folder, self.proc = folder, folder / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text(meminfo)

    def groups(self, named, mounts):
        (self.proc / "self/cgroup").write_text(named)
        lines = [f"31 24 0:27 {root} {self.folder / top} rw,nosuid - {kind}\n" for root, top, kind in mounts]
        (self.proc / "self/mountinfo").write_text("22 1 254:0 / / rw - ext4 /dev/vda rw\nbroken\n" + "".join(lines))

    def group(self, path, **files):
        folder = self.folder / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(available, "_machine", lambda: 16384.0 * MIB)
    return Machine(tmp_path)


def both(machine):
    return memory_bytes(machine.proc) / MIB, available_bytes(machine.proc) / MIB


def test_without_groups_it_is_the_machines(machine):
    assert both(machine) == (16384, 8192)
    machine.groups("0::/\n", [])
    assert both(machine) == (16384, 8192)
    (machine.proc / "meminfo").write_text("MemTotal: 1 kB\n")  # of an old kernel
    assert both(machine) == (16384, 16384)


def test_the_tightest_group_of_version_2_counts(machine):
    machine.groups("0::/a/b\n", [("/", "cg", "cgroup2 cgroup2 rw,memory_recursiveprot")])
    machine.group("cg/a/b", max="max", current=900 * MIB, stat="anon 1\ninactive_file 0\nactive_file 0")
    assert both(machine) == (16384, 8192)
    stat = f"anon 7\ninactive_file {100 * MIB}\nactive_file {50 * MIB}\nfile {400 * MIB}"
    machine.group("cg/a", max=2048 * MIB, high="max", current=1000 * MIB, stat=stat)
    assert both(machine) == (2048, 2048 - 1000 + 150)
    # a group above memory.high is slowed down; it can have more
    machine.group("cg/a/b", max=1000 * MIB, high=700 * MIB, current=600 * MIB, stat="inactive_file 0")
    assert both(machine) == (1000, 100)
    machine.group("cg/a/b", current=800 * MIB)
    assert both(machine) == (1000, 0)
    machine.group("cg/a/b", max="max")
    assert both(machine) == (2048, 0)


def test_groups_of_version_1_and_of_containers(machine):
    stat = f"inactive_file 5\ntotal_inactive_file {30 * MIB}\ntotal_active_file {10 * MIB}"
    machine.groups(
        "4:memory:/docker/one\n3:cpuset:/\n0::/docker/one\n",
        [("/docker/one", "mem ory".replace(" ", "\\040"), "cgroup cgroup rw,memory"),
         ("/", "cpu", "cgroup cgroup rw,cpuset"), ("/", "unified", "cgroup2 cgroup2 rw")],
    )  # fmt: skip
    machine.group("mem ory", limit_in_bytes=512 * MIB, usage_in_bytes=400 * MIB, stat=stat)
    machine.group("cpu", limit_in_bytes=1, usage_in_bytes=1, stat="")
    assert both(machine) == (512, 152)
    # seen from within its own name space, where the group's name does not begin with the mount's root
    machine.groups("4:memory:/\n", [("/docker/one", "mem\\040ory", "cgroup cgroup rw,memory")])
    assert both(machine) == (512, 152)
    machine.group("mem ory", limit_in_bytes=9223372036854771712)  # no limit
    assert both(machine) == (16384, 8192)


def test_what_cannot_be_read_limits_nothing(machine, tmp_path, monkeypatch):
    machine.groups("4:memory:/x\n::\n0::/../../y\n", [("/", "m", "cgroup c memory"), ("/", "u", "cgroup2 c rw")])
    machine.group("m/x", limit_in_bytes="many", usage_in_bytes=1, stat="")
    assert both(machine) == (16384, 8192)
    # a limit counts also where nothing tells what is used
    machine.group("m/x", limit_in_bytes=5 * MIB, usage_in_bytes="", stat="\xff\n\n total_active_file")
    assert both(machine) == (5, 5)
    for odd in ("²", "٣", "-1", "1e9", "0x10", ""):
        machine.group("m/x", limit_in_bytes=odd, usage_in_bytes=odd, stat=f"total_active_file {odd}")
        assert both(machine) == (16384, 8192)
    machine.groups("4:memory:/x\n", [("/", "m\\000", "cgroup c memory"), ("/", "u\\000x", "cgroup2 c rw")])
    assert both(machine) == (16384, 8192)
    monkeypatch.setattr(available, "_machine", lambda: math.inf)
    assert both(Machine(tmp_path / "other", meminfo="")) == (math.inf, math.inf)


def test_this_machine_has_some():
    assert 1 << 20 < available_bytes() <= memory_bytes() < math.inf
