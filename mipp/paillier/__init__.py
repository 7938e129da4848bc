"""Paillier encryption of arrays: keys, encrypted arrays, packing. See the README of this folder."""

from . import _deprecated  # noqa: F401  (attaches the old methods of keys)
from .array import EncryptedArray, concatenate, decrypt, encrypt
from .files import array_from_bytes, array_to_bytes, load_array, save_array
from .keys import DEFAULT_BITS, PrivateKey, PublicKey, generate_keypair
from .packing import PackedArray, encrypt_packed, pack
from .pool import RandomnessPool

__all__ = [
    "DEFAULT_BITS",
    "EncryptedArray",
    "PackedArray",
    "PrivateKey",
    "PublicKey",
    "RandomnessPool",
    "array_from_bytes",
    "array_to_bytes",
    "concatenate",
    "decrypt",
    "encrypt",
    "encrypt_packed",
    "generate_keypair",
    "load_array",
    "pack",
    "save_array",
]
