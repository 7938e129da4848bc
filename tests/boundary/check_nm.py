"""Symbols of the tier libraries: ``python -m tests.boundary.check_nm [BUILD_FOLDER]``.

An inline function with external linkage that lands in an AVX-512 object can replace the portable copy at link time and
stop the program on an older machine. So a tier's library may define only names that end in ``_<tier>``, none weak.

Each such name must also be written out in the sources, so that a search finds the kernel that a profiler names.
"""

import re
import subprocess
import sys
from pathlib import Path

PREFIX = "libmipp_"
SOURCES = Path(__file__).resolve().parents[2] / "csrc"


def symbols(listing):
    """Kinds and names in ``nm --defined-only`` output, without member headers and blank lines."""
    return [parts[1:] for parts in map(str.split, listing.splitlines()) if len(parts) == 3]


def problems(listing, tier):
    """What is wrong with ``nm --defined-only`` output of one library, as a list of lines."""
    found = []
    for kind, name in symbols(listing):
        if kind in "WVu":
            found.append(f"{tier}: weak or unique symbol {name}")
        elif kind.isupper() and not name.endswith(f"_{tier}"):
            found.append(f"{tier}: global symbol {name} does not end in _{tier}")
    return found


def libraries(folder):
    """Plain builds only: sanitizers add symbols of their own."""
    return [p for p in sorted(Path(folder).rglob(f"{PREFIX}*.a")) if "sanitize" not in str(p.relative_to(folder))]


def unwritten(listing):
    """Lines for the global symbols that no .cpp file writes out."""
    written = set()
    for path in SOURCES.glob("*/*.cpp"):
        written.update(re.findall(r"\w+", path.read_text()))
    names = [name for kind, name in symbols(listing) if kind == "T"]
    return [f"{name} is not written out under csrc/" for name in names if name not in written]


def check(library):
    listing = subprocess.run(["nm", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return problems(listing, library.stem.removeprefix(PREFIX)) + unwritten(listing)


def main(folder="build"):
    found = libraries(folder)
    if not found:
        print(f"no tier libraries under {folder}: build first", file=sys.stderr)
        return 2
    wrong = [line for library in found for line in check(library)]
    print(
        "\n".join(wrong)
        or f"{len(found)} tier libraries define only their own kernels, by names that the sources write out"
    )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
