"""An estimator for scikit-learn (extra ``sklearn``): ``from mipp.compat.sklearn import EncryptedNeighbors``."""

from ...errors import MissingExtraError

try:
    import sklearn as _installed  # noqa: F401
except ImportError:
    raise MissingExtraError("the estimator needs scikit-learn: pip install 'mipp[sklearn]'") from None

from .neighbors import METRICS, EncryptedNeighbors

__all__ = ["METRICS", "EncryptedNeighbors"]
