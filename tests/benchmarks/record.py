"""Records real timings for the tests: ``python -m tests.benchmarks.record`` (compilers needed; minutes).

Two builds of the same code, and one whose ring_matmul does a tenth of its rows twice, as in ``benchmarks.proof``.
"""

import json
from pathlib import Path

from benchmarks import machine, proof
from benchmarks.tracking import builds, sampling

FOLDER = Path(__file__).parent / "recorded"
EQUAL = ["ring_u32", "ring_u16_256_queries", "ring_u32_from_memory", "keystream_u32", "slice_bits"]
SLOWER = ["ring_u32", "ring_u16", "ring_u32_16_queries", "ring_u16_256_queries"]
LAUNCHES = 24


def record(base, head, names):
    found = {name: [] for name in names}
    for _ in range(LAUNCHES):
        pairs = sampling.launch([base, head], names, sampling.Plan(), sampling.WORKLOADS, "mipp")
        for name in names:
            # in nanoseconds: short in the file
            found[name].append([[round(1e9 * a), round(1e9 * b)] for a, b in pairs[name]])
    return found


def main():
    cache = builds.default_cache()
    edits = (None, proof.change_nothing, proof.slow_down)
    base, same, slow = (builds.build(builds.ROOT, builds.WORKING_TREE, cache, edit) for edit in edits)
    for name, head, names in (("equal", same, EQUAL), ("slower", slow, SLOWER)):
        content = {"machine": machine.facts(), "nanoseconds": record(base, head, names)}
        (FOLDER / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
