"""Names of :mod:`mipp.params` that moved to this package; one release keeps them where they were."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import params as params_module
from ..params import Params
from . import constants, galois

__all__: list[str] = []


def _moved(old: str, new: str) -> None:
    warnings.warn(f"{old} becomes mipp.sharing.{new}", DeprecationWarning, stacklevel=3)


def _ring(self: Params) -> galois.GaloisRing:
    """Deprecated: use :func:`mipp.sharing.constants.galois_ring`."""
    _moved("Params.ring", "constants.galois_ring(params)")
    return constants.galois_ring(self)


def _method(old: str, new: str) -> Callable[[Params], np.ndarray]:
    def method(self: Params) -> np.ndarray:
        _moved(f"Params.{old}()", f"constants.{new}(params)")
        constant: np.ndarray = getattr(constants, new)(self)
        return constant

    method.__doc__ = f"""Deprecated: use :func:`mipp.sharing.constants.{new}`.

    Returns
    -------
    ndarray
        The constants.
    """
    return method


def _column_matrices(self: Params, servers: Sequence[int]) -> np.ndarray:
    """Deprecated: use :func:`mipp.sharing.constants.query_matrices`.

    Parameters
    ----------
    servers : sequence of int
        All key centres and t+1 clouds.

    Returns
    -------
    ndarray
        The constants.
    """
    _moved("Params.column_matrices(servers)", "constants.query_matrices(params, servers)")
    return constants.query_matrices(self, servers)


def _getattr(name: str) -> Any:
    if name in ("GaloisRing", "solve_mod_2k"):
        warnings.warn(f"mipp.params.{name} becomes mipp.sharing.galois.{name}", DeprecationWarning, stacklevel=2)
        return getattr(galois, name)
    raise AttributeError(f"module 'mipp.params' has no attribute {name!r}")


def _attach() -> None:
    setattr(Params, "ring", property(_ring))  # noqa: B010  (declared for type checkers in the class)
    setattr(Params, "column_matrices", _column_matrices)  # noqa: B010
    for old, new in (
        ("row_matrices", "row_matrices"),
        ("row_weights", "row_weights"),
        ("row_degree_matrices", "row_degree_matrices"),
        ("column_degree_matrices", "query_degree_matrices"),
    ):
        setattr(Params, old, _method(old, new))
    setattr(params_module, "__getattr__", _getattr)  # noqa: B010


_attach()
