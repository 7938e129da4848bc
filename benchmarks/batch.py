"""What writing costs in a search of many queries: ``python -m benchmarks.batch [--quick]``.

``mipp search --vectors FILE --out HITS`` against :meth:`mipp.User.nearest` alone, in one process and in turns (A B B
A): an index of 100,000 vectors of 128 numbers by formula, two owners, cosine, k = 10, ranked by the user.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np

import mipp
from benchmarks import machine
from benchmarks.common import in_turns, seconds
from mipp.cli.batch_outputs import SUFFIXES
from mipp.cli.search_batch import BatchOptions, search_many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small; the figures mean nothing")
    quick = parser.parse_args().quick
    rows, queries, rounds = (2_000, 20, 2) if quick else (100_000, 1_000, 6)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 128)).astype(np.float32)
    q = rng.normal(size=(queries, 128)).astype(np.float32)
    print(machine.line(machine.facts()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mipp.Deployment.create(folder / "index", mipp.Encoding.fit("cosine", x[:1000])) as deployment:
            user = deployment.create_user("ulla")
            for owner, some in (("anna", x[: rows // 2]), ("berta", x[rows // 2 :])):
                made = deployment.create_owner(owner)
                made.add_vectors(some)
                made.grant(user, rankings=["server", "user"])
            deployment.wait_certified()
            options = BatchOptions(10, None, "user", False, True, False)

            def alone() -> float:
                return seconds(lambda: user.nearest(q, 10, ranking="user"))

            alone()
            for suffix in SUFFIXES:
                out = folder / f"hits{suffix}"

                def command(out: Path = out) -> float:
                    with contextlib.redirect_stdout(io.StringIO()):
                        return seconds(lambda: search_many(deployment, user, [], q, ((), None), options, out, False))

                pairs = in_turns(command, alone, rounds)
                ours, theirs = pairs.medians(1e3, 0)
                print(f"{queries} queries, {rows} rows, {suffix:6}: {ours:.0f} / {theirs:.0f} ms, ratio {pairs.ratio}")


if __name__ == "__main__":
    main()
