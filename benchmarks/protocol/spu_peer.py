"""Threshold and top-k by SPU (ABY3, three parties simulated in one process): the peer's side of a comparison.

Runs in an environment of its own (Python < 3.12, ``pip install spu==0.9.5``), as ``python spu_peer.py scores.npy k
threshold``. After a first line that says what it is, each line read names a work (``threshold_fm32``, ``top_k_fm64``);
the line written is the JSON of seconds, sharing and opening included (compiled before), and whether it was right.
"""

import json
import sys
import time

import numpy as np
import spu
import spu.utils.simulation as simulation
from jax import lax


def works(scores, k, threshold):
    """Functions of the scores, by name, and checks of their results."""
    for name, field in (("fm32", spu.FieldType.FM32), ("fm64", spu.FieldType.FM64)):
        simulator = simulation.Simulator.simple(3, spu.ProtocolKind.ABY3, field)
        yield (
            f"threshold_{name}",
            simulation.sim_jax(simulator, lambda s: s >= threshold),
            lambda bits: np.array_equal(bits, scores >= threshold),
        )
        yield (
            f"top_k_{name}",
            simulation.sim_jax(simulator, lambda s: lax.top_k(s, k)[1]),
            lambda rows: np.array_equal(np.sort(scores[rows]), np.sort(scores)[-k:]),
        )


def main():
    path, k, threshold = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    scores = np.load(path).astype(np.int32)
    known = {name: (function, check) for name, function, check in works(scores, k, threshold)}
    print(json.dumps({"spu": spu.__version__, "rows": len(scores), "works": list(known)}), flush=True)
    compiled = set()
    for line in sys.stdin:
        function, check = known[line.strip()]
        if line not in compiled:
            function(scores)
            compiled.add(line)
        began = time.perf_counter()
        result = np.asarray(function(scores))
        spent = time.perf_counter() - began
        print(json.dumps({"seconds": spent, "exact": bool(check(result))}), flush=True)


if __name__ == "__main__":
    main()
