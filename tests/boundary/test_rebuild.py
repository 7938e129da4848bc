"""What ``setup.py build_ext --inplace`` compiles again: exactly the sources that include what changed."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "g++")

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not in a checkout"),
    pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler"),
]

SMALL = {
    "csrc/one/deep.h": "#pragma once\nconstexpr int deep = 1;\n",
    "csrc/one/one.h": '#pragma once\n#include "deep.h"\n',
    "csrc/one/unused.h": "#pragma once\n",
    "csrc/one/one_portable.cpp": '#include "one.h"\nextern "C" int one_portable() { return deep; }\n',
    "csrc/one/other_portable.cpp": 'extern "C" int other_portable() { return 7; }\n',
    "csrc/bindings/module.cpp": """#include <Python.h>
extern "C" int one_portable();
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_core", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
PyMODINIT_FUNC PyInit__core() {
    PyObject* m = PyModule_Create(&module);
    PyModule_AddIntConstant(m, "one", one_portable());
    return m;
}
""",
    "csrc/bindings/mpz.pyx": "one = 1\n",
    "mipp/__init__.py": "",
    "mipp/_native/__init__.py": "",
}


class Project:
    """A small project with this one's setup.py."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in SMALL.items():
            self.write(name, text)
        shutil.copy(ROOT / "setup.py", folder)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def objects(self):
        return {p.stem: p.stat().st_mtime_ns for p in self.folder.glob("build/temp*/csrc/*/*.o")}

    def build(self, check=True):
        """Names of the sources that were compiled."""
        before = self.objects()
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MIPP_SANITIZE")}
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        self.done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert self.done.returncode == 0 or not check, self.done.stderr
        return {name for name, made in self.objects().items() if made != before.get(name)}

    def value(self):
        command = [sys.executable, "-c", "from mipp._native import _core; print(_core.one)"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout.strip()

    def archived(self):
        [archive] = self.folder.glob("build/temp*/libmipp_portable.a")
        return set(subprocess.run(["ar", "t", archive], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.slow
def test_only_what_includes_a_changed_header_is_compiled_and_all_is_linked(tmp_path):
    pytest.importorskip("Cython")
    pytest.importorskip("pybind11")
    pytest.importorskip("setuptools")
    project = Project(tmp_path)
    assert project.build() >= {"module", "one_portable", "other_portable"}
    assert project.value() == "1"
    assert project.build() == set()
    # a header that is included only through another one
    project.write("csrc/one/deep.h", "#pragma once\nconstexpr int deep = 2;\n")
    assert project.build() == {"one_portable"}
    assert project.value() == "2", "linked again"
    project.write("csrc/one/unused.h", "#pragma once\n// changed\n")
    assert project.build() == set()
    # an archive never keeps the object of a source that is gone
    (tmp_path / "csrc/one/other_portable.cpp").unlink()
    assert project.build() == set()
    assert project.archived() == {"one_portable.o"}
    # a header that is gone is an error, not an old object
    (tmp_path / "csrc/one/deep.h").unlink()
    project.build(check=False)
    assert project.done.returncode and "deep.h" in project.done.stderr


READ = """
import setuptools, sys
setuptools.setup = lambda **given: None
import runpy
build = runpy.run_path("setup.py")
for source in build["SOURCES"]:
    print(source, *build["headers_of"](source))
"""


def test_the_headers_of_every_source_are_those_that_the_compiler_reads():
    pytest.importorskip("Cython")
    pybind11 = pytest.importorskip("pybind11")
    done = subprocess.run([sys.executable, "-c", READ], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("csrc")]
    found = {source: set(headers) for source, *headers in lines}
    assert found["csrc/bindings/c_api.cpp"] >= {"mipp/include/mipp/mipp.h", "csrc/common/status.h"}
    include = [f"-I{p}" for p in (pybind11.get_include(), sysconfig.get_path("include"))]
    for source, headers in found.items():
        # -MG: a processor's own headers may be absent on another one
        text = subprocess.run(
            [COMPILER, "-std=c++17", "-MM", "-MG", *include, source],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        read = {os.path.normpath(p) for p in text.partition(":")[2].replace("\\\n", " ").split()}
        read = {p for p in read if p.startswith(("csrc/", "mipp/"))} - {source}
        assert read == headers, source
