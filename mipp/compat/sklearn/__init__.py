"""An estimator for scikit-learn (extra ``sklearn``): ``from mipp.compat.sklearn import EncryptedNeighbors``."""

from ...errors import missing_extra

try:
    import sklearn as _installed  # noqa: F401
except ImportError:
    raise missing_extra("the estimator needs scikit-learn", "sklearn") from None

from .neighbors import METRICS, EncryptedNeighbors

__all__ = ["METRICS", "EncryptedNeighbors"]
