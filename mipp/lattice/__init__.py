"""Lattice encryption of queries: inner products with rows under Ring-LWE, post-quantum. See this folder's README."""

from .decryption import NoiseReport, decrypt
from .keys import EvaluationKey, SecretKey
from .parameters import Parameters
from .products import answer_words, masks, matvec
from .vectors import EncryptedVector, PreparedQuery, encrypt, prepare

__all__ = [
    "EncryptedVector",
    "EvaluationKey",
    "NoiseReport",
    "Parameters",
    "PreparedQuery",
    "SecretKey",
    "answer_words",
    "decrypt",
    "encrypt",
    "masks",
    "matvec",
    "prepare",
]
