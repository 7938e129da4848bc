"""The processor: its features, and the level that selects kernels.

Levels are ``portable < avx2 < avx512 < amx``. Each kernel family uses its highest tier at or below the level in force.
That is the machine's best level, unless the environment variable ``MIPP_CPU`` or :func:`force` lowers it. A level that
the machine lacks is an error. ``MIPP_NUM_THREADS`` sets the default number of threads of all kernels.
"""

from __future__ import annotations

import types

from ._native import _core

__all__ = ["active", "features", "force", "level", "levels", "threads"]


def features() -> tuple[str, ...]:
    """List the processor features of this machine that decide which levels it offers.

    Returns
    -------
    tuple of str
        For example ``("ssse3", ..., "amx_int8")``.

    Examples
    --------
    >>> from mipp import cpu
    >>> all(isinstance(name, str) for name in cpu.features())
    True
    """
    return _core.cpu_features()


def levels() -> tuple[str, ...]:
    """List the levels that this machine offers.

    Returns
    -------
    tuple of str
        Levels, lowest first.

    Examples
    --------
    >>> from mipp import cpu
    >>> cpu.levels()[0]
    'portable'
    """
    return _core.cpu_levels()


def level() -> str:
    """Return the level in force.

    Returns
    -------
    str
        One of :func:`levels`.

    Raises
    ------
    CpuError
        ``MIPP_CPU`` names a level that this machine lacks.

    Examples
    --------
    >>> from mipp import cpu
    >>> cpu.level() in cpu.levels()
    True
    """
    _core.cpu_check_environment()
    return _core.cpu_level()


def active() -> dict[str, str]:
    """Return the tier that each kernel family uses now.

    Returns
    -------
    dict of str to str
        Family to tier, which is at most :func:`level`.

    Raises
    ------
    CpuError
        ``MIPP_CPU`` names a level that this machine lacks.

    Examples
    --------
    >>> from mipp import cpu
    >>> cpu.active()["ring"] in ("portable", "avx2", "avx512", "amx")
    True
    """
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
    """Put a level in force for the whole process, at once.

    Parameters
    ----------
    name : str
        One of :func:`levels`.

    Returns
    -------
    context manager
        When its block ends, the former level is in force again.

    Raises
    ------
    CpuError
        The level is unknown, or this machine or build lacks it. The level in force does not change.
    DTypeError
        ``name`` is not a str.

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
    """Return the default number of threads: ``MIPP_NUM_THREADS``, else the processors this process may use.

    These are the processors that the process may run on; fewer if a control group (a container) has a CPU quota, which
    is rounded up to whole processors.

    Returns
    -------
    int
        1 to 1024.

    Raises
    ------
    ParameterError
        ``MIPP_NUM_THREADS`` is not an integer from 1 to 1024.

    Examples
    --------
    >>> from mipp import cpu
    >>> 1 <= cpu.threads() <= 1024
    True
    """
    return _core.default_threads()
