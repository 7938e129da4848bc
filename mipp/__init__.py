"""mipp: search over encrypted image features of many owners, at the speed of a plaintext search.

Owners share their features between two clouds and a key centre under their own keys. An authorised user searches by
example. No server learns an image, a feature, a query or a similarity. The README says whom you must trust.

>>> import tempfile, numpy as np, mipp
>>> with tempfile.TemporaryDirectory() as folder:
...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
...         ids = anna.add_vectors(np.eye(4))
...         anna.grant(ulla)
...         hits = ulla.search(np.array([0.1, 0.2, 0.9, 0.3]), k=2).hits
>>> [(hit.owner_name, hit.row) for hit in hits]
[('anna', 2), ('anna', 3)]
"""

import logging
from pathlib import Path

from . import cpu, errors, lattice, paillier, pir, ring, sharing
from .client.owner import ImageOwner
from .client.results import Hit, Preview, SearchResult
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
    "Preview",
    "SearchResult",
    "User",
    "__version__",
    "cpu",
    "errors",
    "get_include",
    "lattice",
    "paillier",
    "pir",
    "ring",
    "sharing",
]


def get_include() -> str:
    """Folder for a C or C++ compiler's include path, for native code that calls mipp's kernels.

    ``#include <mipp/mipp.h>`` declares them. The header says how a program finds them at run time (it links nothing)
    and what they promise.

    Returns
    -------
    str
        The folder, an absolute path.

    Examples
    --------
    >>> import mipp
    >>> from pathlib import Path
    >>> (Path(mipp.get_include()) / "mipp" / "mipp.h").is_file()
    True
    """
    return str(Path(__file__).resolve().parent / "include")
