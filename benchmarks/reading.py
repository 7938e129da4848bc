"""One read of memory, for kernels that should take as long: the sum of its words, by numpy and by a small C loop.

The loop asks for memory 2 KiB ahead, the best distance on the machines that we measured. It is compiled when it is
first used, for this machine; without a compiler only numpy's sum is left.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SOURCE = """
#include <stddef.h>
#include <stdint.h>
uint64_t sum_words(const uint64_t *words, size_t count) {
    uint64_t sums[8] = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __builtin_prefetch(words + i + 256, 0, 2);
        for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
    }
    for (; i < count; ++i) sums[0] += words[i];
    for (int j = 1; j < 8; ++j) sums[0] += sums[j];
    return sums[0];
}
"""


@functools.cache
def _compiled():
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "sum.c"), Path(folder, "sum.so")
        source.write_text(SOURCE)
        # the baseline is as fast as this very machine can be; it is built here and stays here
        command = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        found = ctypes.CDLL(str(library)).sum_words
    found.argtypes, found.restype = (ctypes.c_void_p, ctypes.c_size_t), ctypes.c_uint64
    return found


def numpy_sum(array: np.ndarray) -> int:
    """Sum of an array's words of 64 bits modulo 2^64, by numpy."""
    return int(array.reshape(-1).view(np.uint64).sum())


def prefetched_sum(array: np.ndarray) -> int:
    """The same by the loop, or by numpy without a compiler."""
    loop = _compiled()
    words = array.reshape(-1).view(np.uint64)
    return numpy_sum(array) if loop is None else loop(words.ctypes.data, words.size)
