"""Is HEAD slower than BASE? ``python -m benchmarks.compare BASE [HEAD]``: both built, measured in turn, here and now.

BASE and HEAD are git revisions (HEAD's default: the working tree), or folders filled by ``pip install --target``.
Exit code 1: a workload is slower, or has more instructions, beyond the threshold; 2: it could not be measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, proof
from benchmarks.tracking import builds, instructions, sampling, stats, storage


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    made.add_argument("base", nargs="?", help="revision or folder")
    made.add_argument("head", nargs="?", default=builds.WORKING_TREE, help="revision or folder; default: working tree")
    made.add_argument("-k", metavar="PART", action="append", default=[], help="only workloads whose name holds PART")
    made.add_argument("--threshold", type=float, default=100 * stats.THRESHOLD, metavar="PERCENT", help="slowdown")
    made.add_argument("--confidence", type=float, default=100 * stats.CONFIDENCE, metavar="PERCENT")
    made.add_argument("--launches", type=int, default=sampling.Plan.launches, help="pairs of processes (at least 2)")
    made.add_argument("--pairs", type=int, default=sampling.Plan.pairs, help="pairs of samples a launch")
    made.add_argument("--sample-ms", type=float, default=sampling.Plan.sample_ms)
    made.add_argument("--instructions", action="store_true", help="count instructions, too: needs valgrind")
    made.add_argument(
        "--instructions-threshold", type=float, default=100 * instructions.THRESHOLD, metavar="PERCENT", help="growth"
    )
    made.add_argument("--workloads", type=Path, default=sampling.WORKLOADS, help="another file of bench_ functions")
    made.add_argument("--repository", type=Path, default=builds.ROOT, help="another project's git repository")
    made.add_argument("--package", default="mipp", help="the package that must come from the build")
    made.add_argument(
        "--builds", type=Path, default=None, help="folder of builds (default: MIPP_BENCH_BUILDS, a cache)"
    )
    made.add_argument("--objects", type=Path, help="a checkout built by the same compiler and flags: less to compile")
    made.add_argument("--storage", type=Path, default=storage.DEFAULT, help="folder that the run is appended to")
    made.add_argument("--no-save", action="store_true")
    made.add_argument("--self-test", type=int, metavar="N", help="as benchmarks.proof: planted slowdowns, N times")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser()
    asked = p.parse_args(arguments)
    if asked.self_test:
        return proof.main(["--runs", str(asked.self_test)])
    if not asked.base:
        p.error("BASE is missing")
    if asked.launches < 2 or asked.pairs < 1 or asked.sample_ms <= 0 or asked.threshold <= 0:
        p.error("at least 2 launches of 1 pair, and a positive sample and threshold")
    if not 0 < asked.confidence < 100:
        p.error("confidence lies between 0 and 100")
    try:
        return run(asked)
    except (builds.BuildError, sampling.WorkerError, instructions.CountError) as error:
        print(error, file=sys.stderr)
        return 2


def run(asked: argparse.Namespace) -> int:
    cache = asked.builds or builds.default_cache()
    workloads = asked.workloads.resolve()
    pair = [
        builds.build(asked.repository, revision, cache, objects=asked.objects) for revision in (asked.base, asked.head)
    ]
    if pair[0].key == pair[1].key:
        print("both are one build: differences are noise")
    known = sampling.names_of(pair, workloads, asked.package)
    names = [n for n in known["names"] if not asked.k or any(part in n for part in asked.k)]
    if not names:
        print(f"no workload of {workloads} matches", file=sys.stderr)
        return 2
    facts = machine.facts() | {"level": known["level"]}
    print(machine.line(facts))
    plan = sampling.Plan(
        asked.launches, 3 * asked.launches, asked.pairs, asked.sample_ms, asked.threshold / 100, asked.confidence / 100
    )
    # counts first: they need no quiet machine, and say what lacks at once
    tiers = [t for t in instructions.TIERS if t in known["levels"]] or ["portable"]
    counted = [n for n in names if n in known["counted"]] if asked.instructions else []
    counts = count(pair, counted, tiers, asked) if counted else {}
    results = sampling.measure(pair, names, plan, workloads=workloads, package=asked.package, say=progress)
    print(table(results))
    grown = report_counts(counts, asked.instructions_threshold / 100)
    if not asked.no_save and any(not r.error for r in results):
        print("appended to", storage.save(asked.storage, results, pair, counts, facts, asked.repository))
    slower = [r.name for r in results if r.verdict == stats.SLOWER]
    if slower:
        print(f"SLOWER by more than {asked.threshold:g} %: {', '.join(slower)}")
    if grown:
        print(f"MORE INSTRUCTIONS by more than {asked.instructions_threshold:g} %: {', '.join(grown)}")
    if slower or grown:
        return 1
    if broken := [r.name for r in results if r.error and r.error.startswith("head")]:
        print(f"head fails in {', '.join(broken)}", file=sys.stderr)
        return 2
    return 0


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(results: Sequence[sampling.Result]) -> str:
    """Times of the head, ratios head / base with their interval, verdicts."""
    width = max(len(r.name) for r in results)
    made = [f"{'workload':{width}} {'head':>11} {'head/base':>10} {'interval':>16} verdict"]
    for r in results:
        if r.error:
            made.append(f"{r.name:{width}} left out: {r.error}")
            continue
        seconds = sorted(head for launch in r.launches for _, head in launch)
        found = r.interval
        made.append(
            f"{r.name:{width}} {1e3 * seconds[len(seconds) // 2]:8.3f} ms {found.ratio:10.3f} "
            f"[{found.low:6.3f}, {found.high:6.3f}] {r.verdict}"
        )
    return "\n".join(made)


def count(
    pair: Sequence[builds.Build], names: list[str], tiers: list[str], asked: argparse.Namespace
) -> dict[str, dict[str, tuple[int, int]]]:
    """Instructions of (base, head) by workload and tier; one build is counted once."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for tier in tiers:
        progress(f"counting instructions: {tier}")
        sides = {}
        for build in pair:
            if build.key not in sides:
                sides[build.key] = instructions.count(
                    build, tier, names, workloads=asked.workloads.resolve(), package=asked.package
                )
        base, head = (sides[build.key] for build in pair)
        for name in names:
            if name in base and name in head:
                found.setdefault(name, {})[tier] = base[name], head[name]
    return found


def report_counts(counts: dict[str, dict[str, tuple[int, int]]], threshold: float) -> list[str]:
    """Prints them; those that grew beyond the threshold."""
    grown = []
    for name, tiers in counts.items():
        for tier, (base, head) in tiers.items():
            print(f"{name}, {tier}: {head:,} instructions, head/base {head / base:.4f}")
            if head / base > 1 + threshold:
                grown.append(f"{name} ({tier})")
    return grown


if __name__ == "__main__":
    sys.exit(main())
