"""Figures over time: ``python -m benchmarks.history [FOLDER] [--plot FILE.png] [-k PART]``.

FOLDER holds runs as pytest-benchmark stores them (``.benchmarks``): those of :mod:`benchmarks.compare`, and those of
``pytest --benchmark-autosave``. Each machine has a line of its own, by fingerprint, and so have other sizes, threads
and tiers. ``head/base`` was measured in turn in one run; ``since last`` compares two days of one machine and only
hints. Files and figures that cannot be read are named and left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plots
from benchmarks.tracking import storage

Lines = dict[tuple[str, str, str], list[storage.Point]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.history", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=storage.DEFAULT)
    parser.add_argument("-k", metavar="PART", action="append", default=[], help="only names that hold PART")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    asked = parser.parse_args(arguments)
    points = storage.read(asked.folder, lambda text: print(text, file=sys.stderr))
    points = [p for p in points if not asked.k or any(part in p.name for part in asked.k)]
    if not points:
        print(f"no runs in {asked.folder}", file=sys.stderr)
        return 2
    found = storage.lines(points)
    print(table(found))
    if asked.plot:
        plot(found, asked.plot)
    return 0


def table(found: Lines) -> str:
    """One block for each machine, one for each name and setting in it, one line for each run."""
    made = []
    for fingerprint in dict.fromkeys(key[1] for key in found):
        mine = {(name, setting): line for (name, of, setting), line in found.items() if of == fingerprint}
        made.append(next(iter(mine.values()))[-1].machine)
        for (name, setting), line in mine.items():
            made.append(f"  {name}" + (f" ({setting})" if setting else ""))
            before = None
            for point in line:
                text = f"    {point.when:%Y-%m-%dT%H:%M} {point.commit[:12]:12} {1e3 * point.seconds:10.4f} ms"
                if before is None:
                    text += "  first on this machine"
                else:  # a clock too coarse for the work gives zeros
                    text += f"  since last {point.seconds / before:6.3f}" if before else "  since last unknown (was 0)"
                ratio, counts = point.found.get("ratio"), point.found.get("instructions")
                if "verdict" in point.found:
                    text += f"  head/base {ratio:.3f}" if isinstance(ratio, int | float) else "  head/base unknown"
                    text += f" {point.found['verdict']}"
                for tier, count in counts.items() if isinstance(counts, dict) else ():
                    text += f"  {tier} {count:,}" if isinstance(count, int | float) else f"  {tier} {count}"
                made.append(text)
                before = point.seconds
    return "\n".join(made)


def plot(found: Lines, path: Path) -> None:
    """A panel for each name and setting: milliseconds, one line for each machine."""
    names = list(dict.fromkeys((name, setting) for name, _, setting in found))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    made, axes = plots.figure(columns, rows, figsize=(5 * columns, 2.8 * rows))
    for axis, name in zip(axes.flat, names, strict=False):
        for (of, fingerprint, setting), line in found.items():
            if (of, setting) == name:
                at = range(len(line))
                axis.plot(at, [1e3 * p.seconds for p in line], marker="o", label=f"machine {fingerprint}")
                slow = [i for i, p in enumerate(line) if p.found.get("verdict") == "slower"]
                axis.plot(slow, [1e3 * line[i].seconds for i in slow], "rv", markersize=10)
        axis.set_title("\n".join(filter(None, (name[0].rsplit("/", 1)[-1], name[1]))), fontsize=8)
        axis.set_ylabel("ms")
        axis.set_xlabel("run on that machine")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=6)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    plots.save(made, path)


if __name__ == "__main__":
    sys.exit(main())
