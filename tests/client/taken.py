"""Memory of searches ranked by the user, in a process of their own: ``python -m tests.client.taken FOLDER ROWS...``.

Prints a JSON object a line: for an index of so many rows, and so many queries, the most that the process took beyond
what it had before (not pages of files), the most that one request took at a server, and what ``User.cost`` states.
"""

import ctypes
import gc
import json
import sys
import threading
from pathlib import Path

import numpy as np

import mipp
from tests.conftest import ALL_RANKINGS

DIM = 16


def own(process="self"):
    """Resident bytes of a process beside pages of files."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("the system does not tell")


class Taken:
    """The most that a process took since the beginning, looked at every half millisecond."""

    def __init__(self, process="self"):
        self.process = process

    def __enter__(self):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self.before = self.most = own(self.process)
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.end.wait(0.0005):
            self.most = max(self.most, own(self.process))

    def __exit__(self, *error):
        self.end.set()
        self.thread.join()
        self.bytes = self.most - self.before


def searches(user, channel, queries):
    """Bytes of a search as a whole, and of the largest request at a server."""
    user.nearest(queries, 10, ranking="user")
    with Taken() as whole:
        user.nearest(queries, 10, ranking="user")
    real, requests = channel._request, []

    def request(server, frames):
        with Taken() as one:
            reply = real(server, frames)
        requests.append(one.bytes)
        return reply

    channel._request = request
    user.nearest(queries, 10, ranking="user")
    del channel._request
    return whole.bytes, max(requests)


def main(folder, sizes):
    rng = np.random.default_rng(1)
    with mipp.Deployment.create(Path(folder) / "d", mipp.Encoding("cosine", DIM), threads=2) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        rows = 0
        for size in sizes:
            owner.add_vectors(rng.standard_normal((size - rows, DIM), np.float32))
            rows = size
            for count in (1, 300):
                queries = rng.standard_normal((count, DIM), np.float32)
                for quota in (None, 10**6):  # with one, the servers keep check columns until they are folded
                    owner.grant(user, rankings=ALL_RANKINGS, quota=quota)
                    whole, request = searches(user, deployment.channel, queries)
                    cost = user.cost(10, ranking="user", queries=count)["memory"]
                    checks = user.scheme.checks if quota else 0
                    print(json.dumps({
                        "rows": rows, "queries": count, "kept": 4 * checks * rows, "whole": whole, "request": request,
                        "stated": cost,
                    }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], [int(size) for size in sys.argv[2:]])
