"""Builds mipp._native._core (one static library per processor tier, and an extension that links them) and _native._mpz.

A source named ``csrc/<family>/*_<tier>.cpp`` belongs to that tier's library and is compiled with its flags; every
other source under ``csrc`` is compiled for the oldest supported processor. ``MIPP_SANITIZE=1`` builds with address and
undefined-behaviour checks, into its own build folder; ``MIPP_BUILD_JOBS`` sets the number of compiler processes.

``python setup.py build_ext --inplace`` is the fast way to rebuild: it compiles a source only when the source itself, a
header that it includes (also through other headers) or this file is newer than its object, and always links. ``pip
install`` works in a temporary folder and compiles everything.

Supported compilers: gcc 11 and clang 12, or later: the first that know ``-march=x86-64-v2``. An older one is refused
before anything is compiled.
"""

import functools
import os
import platform
import re
import subprocess
from pathlib import Path

import gmpy2
import pybind11
from Cython.Build import cythonize
from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

os.chdir(Path(__file__).resolve().parent)

X86 = platform.machine().lower() in ("x86_64", "amd64")
SANITIZE = os.environ.get("MIPP_SANITIZE", "0") not in ("", "0")

# each tier's compiler flags; tile instructions are written as assembly, which needs no flag
# fused multiply-add is written where it is meant: the compiler must not round differently by itself
AVX2 = ["-mavx2", "-mbmi2", "-maes", "-mpclmul", "-mfma", "-ffp-contract=off"]
AVX512 = [
    *AVX2,
    *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni", "ifma", "vbmi")),
    "-mvaes",
    "-mvpclmulqdq",
    "-mprefer-vector-width=512",
    # gcc 12 warns about its own <avx512fintrin.h> (bug 105593)
    "-Wno-uninitialized",
    "-Wno-maybe-uninitialized",
]
TIERS = {"portable": [], "avx2": AVX2, "avx512": AVX512, "amx": AVX512}
# of this processor family
TIER_FLAGS = TIERS if X86 else {"portable": TIERS["portable"]}

FLAGS = ["-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
LINK_FLAGS = ["-pthread"]
if X86:
    FLAGS += ["-march=x86-64-v2", "-DMIPP_X86=1"]
if SANITIZE:
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # -fwrapv, which Python's own flags bring in, would hide signed overflow
    FLAGS += [*sanitizers, "-fno-wrapv", "-fno-omit-frame-pointer", "-O1", "-g"]
    LINK_FLAGS += sanitizers
else:
    FLAGS += ["-O3", "-g0"]
C_FLAGS = [flag for flag in FLAGS if flag != "-std=c++17"]
# no exceptions, no run-time types: nothing in a tier's objects that the linker could merge with another's
LIBRARY_FLAGS = ["-fPIC", "-fno-exceptions", "-fno-rtti"]

SOURCES = sorted(str(p) for p in Path("csrc").glob("*/*.cpp"))
TIER_SOURCES = {t: [s for s in SOURCES if s.endswith(f"_{t}.cpp")] for t in TIERS}
COMMON_SOURCES = [s for s in SOURCES if not any(s in sources for sources in TIER_SOURCES.values())]


INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE)


@functools.cache
def included(path):
    """Files that a file of the project includes by its own ``#include "..."`` lines, whatever surrounds them."""
    folder = os.path.dirname(path)
    return [os.path.normpath(os.path.join(folder, name)) for name in INCLUDE.findall(Path(path).read_text())]


def headers_of(source):
    """All headers of the project that a source includes, directly and through other headers, sorted."""
    found, left = set(), [os.path.normpath(source)]
    while left:
        path = left.pop()
        # generated sources include headers of other projects only
        if path.startswith("build" + os.sep) or not os.path.exists(path):
            continue
        new = set(included(path)) - found
        found |= new
        left += new
    return sorted(found)


def stale(obj, source):
    """Whether an object file is older than its source, a header that this includes, or this file."""
    needed = [source, "setup.py", *headers_of(source)]
    if not all(os.path.exists(path) for path in [obj, *needed]):
        return True  # the compiler names a header that is gone
    return os.path.getmtime(obj) <= max(map(os.path.getmtime, needed))


#: an error directive that each compiler answers for itself, whatever it calls itself
PROBE = """
#if defined(__clang__)
#if __clang_major__ < 12
#error mipp: too old
#endif
#elif defined(__GNUC__) && __GNUC__ < 11
#error mipp: too old
#endif
int main() { return 0; }
"""


def check_compiler(compiler):
    """CompileError, one sentence, unless the compiler is new enough and takes the flags of all tiers."""
    command = getattr(compiler, "compiler_so_cxx", None) or compiler.compiler_so
    tiers = [flag for flags in TIER_FLAGS.values() for flag in flags]
    flags = [*FLAGS, *LIBRARY_FLAGS, *dict.fromkeys(tiers)]
    try:
        found = subprocess.run(
            [*command, *flags, "-fsyntax-only", "-x", "c++", "-"], input=PROBE, capture_output=True, text=True
        )
        version = subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        raise CompileError(
            f"mipp needs a C++ compiler, gcc 11 or clang 12 or later; {command[0]}: {error.strerror}"
        ) from None
    if found.returncode:
        name = (version.splitlines() or [command[0]])[0]
        why = "" if "too old" in found.stderr else f" ({(found.stderr.splitlines() or ['it failed'])[0]})"
        raise CompileError(
            f"mipp needs gcc 11 or clang 12, or later; this is {name}{why}: name another one, for example CC=gcc-11 "
            "CXX=g++-11"
        )


class BuildLibraries(build_clib):
    """Builds next to build_ext. Archives are made each time: else they would keep objects whose sources are gone."""

    def finalize_options(self):
        super().finalize_options()
        self.build_clib = self.build_temp = self.get_finalized_command("build_ext").build_temp

    def build_libraries(self, libraries):
        check_compiler(self.compiler)
        for name, info in libraries:
            objects = self.compiler.compile(
                info["sources"], output_dir=self.build_temp, extra_postargs=info["cflags"]
            )  # only the stale ones
            Path(self.build_clib, f"lib{name}.a").unlink(missing_ok=True)
            self.compiler.create_static_lib(objects, name, output_dir=self.build_clib)


class BuildExtension(build_ext):
    """Builds the static libraries first, also in place, and always links; only stale objects are compiled."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True
        if SANITIZE:
            self.build_temp += "-sanitize"

    def run(self):
        self.run_command("build_clib")
        super().run()


ParallelCompile("MIPP_BUILD_JOBS", default=0, needs_recompile=stale).install()

setup(
    cmdclass={"build_clib": BuildLibraries, "build_ext": BuildExtension},
    libraries=[
        (f"mipp_{tier}", {"sources": TIER_SOURCES[tier], "cflags": [*FLAGS, *LIBRARY_FLAGS, *flags]})
        for tier, flags in TIER_FLAGS.items()
    ],
    ext_modules=[
        Extension(
            "mipp._native._core",
            sources=COMMON_SOURCES,
            include_dirs=[pybind11.get_include()],
            extra_compile_args=FLAGS,
            extra_link_args=LINK_FLAGS,
            language="c++",
        ),
        # reads the limbs of gmpy2's numbers through the headers that its wheel brings; links nothing of it
        *cythonize(
            Extension(
                "mipp._native._mpz",
                sources=["csrc/bindings/mpz.pyx"],
                include_dirs=[str(Path(gmpy2.__file__).parent)],
                extra_compile_args=C_FLAGS,
                extra_link_args=LINK_FLAGS,
            ),
            build_dir="build/cython",
        ),
    ],
)
