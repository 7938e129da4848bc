"""mipp: search over encrypted image features of many owners, at the speed of a plaintext search.

Owners share their features between two clouds and a key centre under their own keys; an authorised user searches by
example; no server learns an image, a feature, a query or a similarity. See the README for whom you must trust.
"""

import logging
from pathlib import Path

from . import cpu, errors, paillier, ring, sharing
from .client.owner import ImageOwner
from .client.results import Hit, SearchResult
from .client.user import User
from .deployment import Deployment
from .encoding import Encoding
from .params import Params
from .server.cloud import CloudServer
from .server.key_centre import KeyCentre

__version__ = "0.1.0"

# programs that use the library decide where its logs go
logging.getLogger("mipp").addHandler(logging.NullHandler())

__all__ = [
    "CloudServer",
    "Deployment",
    "Encoding",
    "Hit",
    "ImageOwner",
    "KeyCentre",
    "Params",
    "SearchResult",
    "User",
    "__version__",
    "cpu",
    "errors",
    "get_include",
    "paillier",
    "ring",
    "sharing",
]


def get_include() -> str:
    """Folder for a C or C++ compiler's include path: ``#include <mipp/mipp.h>`` declares the kernels for native code.

    The header says how they are got at run time (nothing is linked) and what they promise.
    """
    return str(Path(__file__).resolve().parent / "include")
