"""How a query is hidden, answered and opened: one file a scheme. The interface is in ``base.py``.

A new scheme is a new file here, and its name in the table below; nothing else in the package asks which scheme it is.
"""

from __future__ import annotations

from ..errors import ParameterError
from ..params import scheme_name
from .base import Hidden, RowPlan, Scheme, ServerScheme, UserScheme
from .paillier import PaillierScheme
from .shares import SharesScheme

__all__ = ["NAMES", "Hidden", "RowPlan", "Scheme", "ServerScheme", "UserScheme", "get"]

_SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (SharesScheme(), PaillierScheme())}
#: names of all schemes, the default first
NAMES: tuple[str, ...] = tuple(_SCHEMES)


def get(name: str) -> Scheme:
    """The scheme of a name. ParameterError for an unknown one.

    ``homomorphic``, the earlier name of ``paillier``, works with a DeprecationWarning.
    """
    name = scheme_name(name)
    if name not in _SCHEMES:
        raise ParameterError(f"scheme must be one of {', '.join(NAMES)}, not {name!r}")
    return _SCHEMES[name]
