"""How a query is hidden, answered and opened: one file a scheme. The interface is in ``base.py``.

A new scheme is a new file here, and its name in the table below; nothing else in the package asks which scheme it is.
"""

from __future__ import annotations

from ..errors import ParameterError
from ..params import scheme_name
from .base import Hidden, RowPlan, Scheme, ServerScheme, UserScheme
from .lattice import LatticeScheme
from .paillier import PaillierScheme
from .shares import SharesScheme

__all__ = ["CLOUD_COUNTS", "NAMES", "Hidden", "RowPlan", "Scheme", "ServerScheme", "UserScheme", "get", "of_clouds"]

_SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (SharesScheme(), LatticeScheme(), PaillierScheme())}
#: names of all schemes, the default first
NAMES: tuple[str, ...] = tuple(_SCHEMES)
#: numbers of clouds that some scheme has, in order
CLOUD_COUNTS: tuple[int, ...] = tuple(sorted({count for scheme in _SCHEMES.values() for count in scheme.cloud_counts}))


def of_clouds(clouds: int | None) -> str:
    """Name of the scheme of deployments that name none: the first one with so many clouds, or the first of all."""
    return next((name for name, scheme in _SCHEMES.items() if clouds in scheme.cloud_counts), NAMES[0])


def get(name: str) -> Scheme:
    """The scheme of a name. ParameterError for an unknown one.

    ``homomorphic``, the earlier name of ``paillier``, works with a DeprecationWarning.
    """
    name = scheme_name(name)
    if name not in _SCHEMES:
        raise ParameterError(f"scheme must be one of {', '.join(NAMES)}, not {name!r}")
    return _SCHEMES[name]
