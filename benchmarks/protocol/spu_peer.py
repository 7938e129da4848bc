"""Threshold and top-k by SPU (ABY3, three parties simulated in one process): the peer's side of a comparison.

Runs in an environment of its own (Python < 3.12, ``pip install spu==0.9.5``), as
``python spu_peer.py scores.npy k threshold repeats``; prints one JSON object: seconds per call (compiled, sharing and
opening included), and whether the results were right.
"""

import json
import sys
import time

import numpy as np
import spu
import spu.utils.simulation as simulation
from jax import lax


def times(function, scores, repeats):
    function(scores)  # compiles
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = function(scores)
        spent.append(time.perf_counter() - began)
    return spent, np.asarray(result)


def main():
    path, k, threshold, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    scores = np.load(path).astype(np.int32)
    out = {"spu": spu.__version__, "rows": len(scores)}
    for name, field in (("fm32", spu.FieldType.FM32), ("fm64", spu.FieldType.FM64)):
        simulator = simulation.Simulator.simple(3, spu.ProtocolKind.ABY3, field)
        try:
            spent, bits = times(simulation.sim_jax(simulator, lambda s: s >= threshold), scores, repeats)
            out[f"threshold_{name}"] = spent
            out[f"threshold_{name}_exact"] = bool(np.array_equal(bits, scores >= threshold))
            spent, rows = times(simulation.sim_jax(simulator, lambda s: lax.top_k(s, k)[1]), scores, repeats)
            out[f"top_k_{name}"] = spent
            out[f"top_k_{name}_exact"] = bool(np.array_equal(np.sort(scores[rows]), np.sort(scores)[-k:]))
        except Exception as error:
            out[f"{name}_error"] = f"{type(error).__name__}: {error}"[:200]
    print(json.dumps(out))


if __name__ == "__main__":
    main()
