from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Words = npt.NDArray[np.unsignedinteger]

# cpu

def cpu_features() -> tuple[str, ...]: ...
def cpu_levels() -> tuple[str, ...]: ...
def cpu_level() -> str: ...
def cpu_set_level(name: str) -> None: ...
def cpu_check_environment() -> None: ...
def cpu_active() -> dict[str, str]: ...
def default_threads() -> int: ...
def throw_status(status: int) -> None: ...

# ring

def ring_matmul(rows: _Words, columns: _Words, out: _Words | None = None, threads: int | None = None) -> _Words: ...

# prf

class KeySchedules:
    """AES-256 round keys of HKDF-SHA256(key, no salt, info) for each row of infos; wiped when freed."""

    def __init__(self, key: bytes, infos: npt.NDArray[np.uint8], threads: int | None = None) -> None: ...
    def __len__(self) -> int: ...

def hkdf_expand_batch(
    key: bytes, infos: npt.NDArray[np.uint8], threads: int | None = None
) -> npt.NDArray[np.uint8]: ...
def keystream_words(schedules: KeySchedules, segment: int, first_block: int, out: _Words) -> None: ...
def keystream_matmul(
    schedules: KeySchedules,
    index: npt.NDArray[np.int64],
    first_row: npt.NDArray[np.int64],
    row_count: npt.NDArray[np.int64],
    columns: _Words,
    out: _Words,
    threads: int | None = None,
) -> None: ...
def zero_share_add(
    out: _Words,
    key: bytes,
    infos: npt.NDArray[np.uint8],
    lengths: npt.NDArray[np.int64],
    negate: bool,
    threads: int | None = None,
) -> None: ...

# galois

def share_rows(
    rows: _Words,
    schedules: Sequence[KeySchedules],
    segment: Sequence[int],
    first_row: int,
    matrices: _Words,
    outs: Sequence[_Words],
    threads: int | None = None,
) -> None: ...
def combine(inputs: Sequence[_Words], matrices: _Words, outs: Sequence[_Words], threads: int | None = None) -> None: ...
def reconstruct(answers: Sequence[_Words], out: npt.NDArray[np.int64], threads: int | None = None) -> None: ...
def reconstruct_top_k_var(
    answers: Sequence[_Words], k: int, threads: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
def top_k_var(
    scores: npt.NDArray[np.int64], k: int, threads: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
