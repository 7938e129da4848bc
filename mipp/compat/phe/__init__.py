"""A drop-in for the package ``phe`` 1.5 (python-paillier), with batches by native kernels.

``import mipp.compat.phe as phe`` behaves as ``import phe``. Not in phe: :func:`dot`, :func:`from_phe`, :func:`to_phe`,
``PaillierPublicKey.encrypt_batch``, ``PaillierPrivateKey.decrypt_batch``, and numpy numbers and arrays as operands.
Written from the public documentation and behaviour of phe; the README of this folder lists the differences.
"""

from . import encoding, paillier, util
from .batch import dot
from .bridge import from_phe, to_phe
from .encoding import EncodedNumber
from .paillier import (
    EncryptedNumber,
    PaillierPrivateKey,
    PaillierPrivateKeyring,
    PaillierPublicKey,
    generate_paillier_keypair,
)

#: version of ``phe`` whose interface this is
__version__ = "1.5.0"
__title__ = "phe"

__all__ = [
    "EncodedNumber",
    "EncryptedNumber",
    "PaillierPrivateKey",
    "PaillierPrivateKeyring",
    "PaillierPublicKey",
    "dot",
    "encoding",
    "from_phe",
    "generate_paillier_keypair",
    "paillier",
    "to_phe",
    "util",
]
