"""Does the comparison work here? ``python -m benchmarks.proof``: a planted slowdown of 10 % must alarm in every run, an
unchanged second build in none.

Three builds of the working tree: as it is; with a comment more; and with ``ring_matmul`` doing a tenth of the rows
twice. The first is compared with each of the others, again and again.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.tracking import builds, sampling, stats

SOURCE = Path("csrc/ring/ring.cpp")


def change_nothing(source: Path) -> None:
    """Nothing but a comment: another build of the same code."""
    path = source / SOURCE
    path.write_text(path.read_text() + "// built again\n")


def slow_down(source: Path) -> None:
    """ring_matmul does the first tenth of its rows twice."""
    path = source / SOURCE
    text = path.read_text()
    found = re.search(r"^Status ring_matmul\(([^)]*)\) \{$", text, re.M)
    end = "}  // namespace mipp\n"
    names = [part.split()[-1].lstrip("*&") for part in found[1].split(",")] if found else []
    if found is None or "row_count" not in names or not text.endswith(end):
        raise builds.BuildError(f"{SOURCE} looks different now: the slowdown cannot be planted")
    once = f"static Status ring_matmul_once({found[1]}) {{"
    again = ", ".join("row_count / 10" if name == "row_count" else name for name in names)
    twice = (
        f"Status ring_matmul({found[1]}) {{\n    const Status done = ring_matmul_once({', '.join(names)});\n"
        f"    return done == Status::ok ? ring_matmul_once({again}) : done;\n}}\n\n"
    )
    path.write_text(text.replace(found[0], once).removesuffix(end) + twice + end)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proof", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument(
        "-k", metavar="PART", action="append", help="workloads of the unchanged build (default: ring_u)"
    )
    parser.add_argument("--builds", type=Path, default=None)
    asked = parser.parse_args(arguments)
    cache = asked.builds or builds.default_cache()
    try:
        base, same, slow = (
            builds.build(builds.ROOT, builds.WORKING_TREE, cache, edit) for edit in (None, change_nothing, slow_down)
        )
    except builds.BuildError as error:
        print(error, file=sys.stderr)
        return 2
    print(machine.line(machine.facts()))
    names = [n for n in sampling.names_of([base])["names"] if any(part in n for part in asked.k or ["ring_u"])]
    slowed = [n for n in names if n.startswith("ring_u") and "memory" not in n] or ["ring_u32"]
    caught, alarms = 0, 0
    for run in range(asked.runs):
        results = sampling.measure([base, slow], slowed, sampling.Plan())
        hit = [r for r in results if r.verdict == stats.SLOWER]
        caught += len(hit) == len(results)
        print(f"run {run + 1}, slower by a tenth: {len(hit)} of {len(results)} alarm: {short(results)}", flush=True)
        results = sampling.measure([base, same], names, sampling.Plan())
        wrong = [r for r in results if r.verdict == stats.SLOWER or r.error]
        alarms += bool(wrong)
        print(f"run {run + 1}, unchanged: {len(wrong)} of {len(results)} alarm: {short(results)}", flush=True)
    print(f"slower by a tenth: caught in {caught} of {asked.runs} runs; unchanged: alarmed in {alarms} of {asked.runs}")
    return int(caught < asked.runs or alarms > 0)


def short(results: Sequence[sampling.Result]) -> str:
    """Names with ratio and interval."""
    return "; ".join(
        f"{r.name} {r.error}"
        if r.error
        else f"{r.name} {r.interval.ratio:.3f} [{r.interval.low:.3f}, {r.interval.high:.3f}]"
        for r in results
    )


if __name__ == "__main__":
    sys.exit(main())
