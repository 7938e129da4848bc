"""Arrays of residues: rings, samplers keyed by labels, and residues packed for the wire. For this room only.

Residue arrays are uint64 (..., L, N), below their primes. Every (key, kind, place, index) has a keystream of its own.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence

import numpy as np

from .._native import _core
from ..errors import MessageError
from .parameters import Parameters

__all__ = [
    "PLACE_OF_SEED",
    "add_modulo",
    "key_ring",
    "multiply",
    "pack",
    "packed_words",
    "residues_below",
    "ring",
    "schedules",
    "unpack",
]

#: kinds of keystream
UNIFORM_QUERY, UNIFORM_ZERO, UNIFORM_SWITCH = b"a", b"z", b"k"
SECRET, QUERY_ERROR, ZERO_ERROR, SWITCH_ERROR = b"s", b"e", b"f", b"g"
SERVER_TERNARY, SERVER_ERROR, SERVER_FLOOD, MASK = b"v", b"w", b"u", b"m"
#: seeds are for one purpose each: there is no place to tell apart
PLACE_OF_SEED = bytes(32)


@functools.lru_cache(maxsize=32)
def _ring(degree: int, primes: tuple[int, ...]) -> _core.LatticeRing:
    return _core.LatticeRing(degree, list(primes))


def ring(parameters: Parameters) -> _core.LatticeRing:
    """Tables of ciphertexts' ring, made once."""
    return _ring(parameters.degree, parameters.primes)


def key_ring(parameters: Parameters) -> _core.LatticeRing:
    """Tables of the ring of secret keys and of keys that switch keys: with the special prime."""
    return _ring(parameters.degree, parameters.moduli)


def schedules(
    key: bytes, kind: bytes, parameters: Parameters, place: bytes, indices: range, threads: int | None
) -> _core.KeySchedules:
    """Keystreams of one kind: label, kind, hash of the parameters, place (32 bytes), index (8 bytes, big-endian)."""
    prefix = b"mipp v1 lattice " + kind + parameters.hash + place
    infos = np.empty((len(indices), len(prefix) + 8), np.uint8)
    infos[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    infos[:, len(prefix) :] = np.arange(indices.start, indices.stop, dtype=">u8")[:, None].view(np.uint8)
    return _core.KeySchedules(key, infos, threads)


def multiply(of: _core.LatticeRing, a: np.ndarray, b: np.ndarray, threads: int | None) -> np.ndarray:
    """Pointwise product; b has the shape of a, or is one polynomial for all."""
    out = np.empty_like(a)
    _core.lattice_multiply(of, a, b, out, threads)
    return out


def add_modulo(a: np.ndarray, b: np.ndarray, primes: np.ndarray) -> None:
    """a += b for residues in any layout, without branches; primes broadcast."""
    a += b
    a -= primes * (a >= primes)


def primes_of(moduli: Sequence[int]) -> np.ndarray:
    """Primes as a column, beside residues (..., L, N)."""
    return np.array(moduli, np.uint64)[:, None]


def packed_words(parameters: Parameters, polynomials: int) -> int:
    """64-bit words of this many packed polynomials of one prime: a whole number, as degrees are multiples of 64."""
    return polynomials * (parameters.degree // 64) * parameters.residue_bits


def pack(parameters: Parameters, residues: np.ndarray, threads: int | None) -> np.ndarray:
    """Pack residues, in their order."""
    flat = residues.reshape(-1)
    out = np.empty(packed_words(parameters, flat.size // parameters.degree), np.uint64)
    _core.pack_words(flat, parameters.residue_bits, out, threads)
    return out


def unpack(
    parameters: Parameters, packed: np.ndarray, moduli: Sequence[int], shape: tuple[int, ...], what: str,
    threads: int | None,
) -> np.ndarray:  # fmt: skip
    """Unpack residues of a stranger, whose number the caller has checked; refuse those not below their primes."""
    out = np.empty((*shape, len(moduli), parameters.degree), np.uint64)
    if out.size:
        _core.unpack_words(packed, parameters.residue_bits, out.reshape(-1), threads)
    if not residues_below(out, moduli):
        raise MessageError(f"{what}: a residue is not below its prime")
    return out


def residues_below(residues: np.ndarray, moduli: Sequence[int]) -> bool:
    """Whether all residues are below their primes."""
    if not residues.size:
        return True
    largest = residues.max(axis=-1).reshape(-1, len(moduli)).max(axis=0)
    return all(int(x) < p for x, p in zip(largest, moduli, strict=True))


def header_words(magic: bytes, parameters: Parameters, coordinates: int, seed: bytes) -> np.ndarray:
    """Header of a message: 8 bytes of kind and version, coordinates, hash of the parameters, seed; as uint64."""
    return np.frombuffer(struct.pack("<8sQ32s32s", magic, coordinates, parameters.hash, seed), "<u8").astype(np.uint64)


HEADER_WORDS = 10


def read_header(header: np.ndarray, magic: bytes, parameters: Parameters, what: str) -> tuple[int, bytes]:
    """Coordinates and seed of a header; MessageError for another kind, version or parameters."""
    kind, coordinates, parameter_hash, seed = struct.unpack("<8sQ32s32s", header.astype("<u8").tobytes())
    if kind != magic:
        raise MessageError(f"not {what} of this format version")
    if parameter_hash != parameters.hash:
        raise MessageError(f"{what} has other parameters than {parameters.name} with {parameters.plain_bits} bits")
    if not 1 <= coordinates <= parameters.max_coordinates:
        raise MessageError(f"{what} has no valid number of coordinates")
    return int(coordinates), seed
