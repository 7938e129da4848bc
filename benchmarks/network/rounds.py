"""Small rounds between servers beside large messages: ``python -m benchmarks.network.rounds [--quick]``.

Two servers' meshes, joined by lines of one rate (``relay.py``). One session sends 100 bytes there and back; meanwhile
another one sends 16 MB each way, one message after the other. Exit code 1 if a small round takes over 2 ms longer
beside the large messages than alone, in the median, at 1 Gb/s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.common import seconds
from benchmarks.network.relay import Lines
from mipp.crypto.certificates import make_tls
from mipp.demo.servers import free_ports
from mipp.mpc.link import Frame, Header
from mipp.mpc.mesh import Mesh
from mipp.mpc.outgoing import Peer
from mipp.rpc import tls
from mipp.rpc.http_server import HttpServer

LARGE, SMALL, LIMIT = 16 << 20, 100, 2e-3


class Two:
    """Servers 1 and 2, each dialling the other through a relay; a context manager."""

    def __init__(self, folder: Path) -> None:
        listen, dialled = (dict(zip((1, 2), free_ports(2), strict=True)) for _ in range(2))
        self.lines = Lines({dialled[i]: listen[i] for i in (1, 2)})
        made = {i: make_tls(f"s{i}", "127.0.0.1") for i in (1, 2)}
        self.meshes: dict[int, Mesh] = {}
        self.https: dict[int, HttpServer] = {}
        for i, other in ((1, 2), (2, 1)):
            pem, key = folder / f"{i}.pem", folder / f"{i}.key"
            pem.write_bytes(made[i].chain)
            key.write_bytes(made[i].key)
            der = made[other].certificate
            peer = Peer("127.0.0.1", dialled[other], [der], f"server {other}", tls.mesh_context(pem, key, [der], i))
            mesh = Mesh(i, b"d" * 16, {other: peer}, lambda _, frames: frames, lambda *_: None, lambda *_: None)
            context = tls.server_context(pem, key, {other: [der]})
            self.https[i] = HttpServer("127.0.0.1", listen[i], lambda context=context: context, None, mesh.accept)  # type: ignore[misc,arg-type]
            self.meshes[i] = mesh

    def __enter__(self) -> Two:
        self.lines.__enter__()
        for i in (1, 2):
            self.https[i].start()
            self.meshes[i].start()
        while not (self.meshes[1].there(2) and self.meshes[2].there(1)):
            time.sleep(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        for i in (1, 2):
            self.https[i].stop()
            self.meshes[i].close()
        self.lines.__exit__(*error)


class Talk:
    """One session: messages of one size, in turns of numbered steps."""

    def __init__(self, two: Two, name: bytes, size: int) -> None:
        self.name, self.data = name, np.random.default_rng(0).integers(0, 256, size, np.uint8)
        self.links = {i: two.meshes[i].open(name) for i in (1, 2)}
        self.step = 0

    def send(self, sender: int) -> None:
        receiver = 3 - sender
        head = Header("and", sender, receiver, self.step, self.name, len(self.data)).pack()
        self.links[sender].send(receiver, Frame(head, [memoryview(self.data.data)]))

    def receive(self, receiver: int) -> None:
        self.links[receiver].receive(3 - receiver, len(self.data), 60)

    def round(self) -> None:
        """There and back."""
        for sender in (1, 2):
            self.send(sender)
            self.receive(3 - sender)
        self.step += 1

    def both(self, until: threading.Event) -> None:
        """Both ways at once, again and again."""
        while not until.is_set():
            for sender in (1, 2):
                self.send(sender)
            for receiver in (1, 2):
                self.receive(receiver)
            self.step += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="Show that it runs; the figures mean nothing.")
    given = parser.parse_args()
    count, missed = (20, False) if given.quick else (given.rounds, False)
    with tempfile.TemporaryDirectory() as folder, Two(Path(folder)) as two:
        print("  Gb/s   alone ms (p99)   beside 16 MB both ways ms (p99)   later, one way ms")
        for number, rate in enumerate((1e9, 1e10)):
            two.lines.set(0.0, rate)
            small = Talk(two, b"s" * 15 + bytes([number]), SMALL)
            large = Talk(two, b"l" * 15 + bytes([number]), LARGE)
            figures = []
            for beside in (False, True):
                stop, thread = threading.Event(), threading.Thread()
                if beside:
                    thread = threading.Thread(target=large.both, args=(stop,))
                    thread.start()
                    time.sleep(0.3)
                taken = [seconds(small.round) for _ in range(count)]
                figures += [statistics.median(taken), float(np.quantile(taken, 0.99))]
                stop.set()
                if beside:
                    thread.join()
            alone, alone_p99, busy, busy_p99 = figures
            later = (busy - alone) / 2
            missed |= later > LIMIT and rate == 1e9
            sides = [
                f"{1e3 * middle:8.2f} ({1e3 * high:.2f})" for middle, high in ((alone, alone_p99), (busy, busy_p99))
            ]
            print(f"{rate / 1e9:6.0f} {sides[0]:>16s} {sides[1]:>33s} {1e3 * later:17.2f}", flush=True)
    if missed and not given.quick:
        sys.exit(1)


if __name__ == "__main__":
    main()
