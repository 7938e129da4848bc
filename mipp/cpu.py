"""The processor: its features, and the level of kernels in force.

Levels are ``portable < avx2 < avx512 < amx``. Each kernel family takes its highest tier at or below the level in
force, which is the machine's best unless the environment variable ``MIPP_CPU`` or :func:`force` lowers it. Asking for
what the machine lacks is an error. ``MIPP_NUM_THREADS`` sets the default number of threads of all kernels.
"""

from __future__ import annotations

import types

from ._native import _core

__all__ = ["active", "features", "force", "level", "levels", "threads"]


def features() -> tuple[str, ...]:
    """Processor features that levels are made of and that this machine has, e.g. ``("ssse3", ..., "amx_int8")``."""
    return _core.cpu_features()


def levels() -> tuple[str, ...]:
    """Levels that this machine offers, lowest first."""
    return _core.cpu_levels()


def level() -> str:
    """The level in force. CpuError if ``MIPP_CPU`` names none that this machine has."""
    _core.cpu_check_environment()
    return _core.cpu_level()


def active() -> dict[str, str]:
    """The tier that each kernel family uses now, by family: at most :func:`level`."""
    _core.cpu_check_environment()
    return _core.cpu_active()


class _Forced:
    """Restores the level that was in force before, when used as a context manager."""

    def __init__(self, before: str) -> None:
        self._before = before

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        _core.cpu_set_level(self._before)


def force(name: str) -> _Forced:
    """Puts a level in force for the whole process, at once; as a context manager, until the block ends.

    Parameters
    ----------
    name : str
        One of :func:`levels`.

    Raises
    ------
    CpuError
        An unknown level, or one that this machine or build lacks. The level in force stays.
    DTypeError
        ``name`` is no str.

    Examples
    --------
    >>> from mipp import cpu
    >>> with cpu.force("portable"):
    ...     cpu.active()["ring"]
    'portable'
    """
    before = _core.cpu_level()
    _core.cpu_set_level(name)
    return _Forced(before)


def threads() -> int:
    """Default number of threads: ``MIPP_NUM_THREADS``, else the processors that this process may use.

    These are the processors that it may run on, or fewer where a control group (a container) has a CPU quota, rounded
    up to whole processors.

    Raises
    ------
    ParameterError
        ``MIPP_NUM_THREADS`` is set to something else than an integer from 1 to 1024.
    """
    return _core.default_threads()
