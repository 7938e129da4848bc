"""Private retrieval by two servers, one bit and one row at a time: AES of the `cryptography` package, plain integers.

The distributed point function of Boyle, Gilboa and Ishai (CCS 2016, figure 1, with the early termination of section
3.2.1): leaves of 128 rows, and AES with three fixed keys for the generator.
"""

import hashlib
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

LEAF_ROWS = 128


def fixed_key(name):
    return hashlib.sha256(b"mipp.pir 1 " + name).digest()[:16]


_AES = {n: Cipher(algorithms.AES(fixed_key(n)), modes.ECB()).encryptor() for n in (b"left", b"right", b"leaf")}


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def hashed(name, seed):
    """Matyas, Meyer and Oseas: AES(seed) xor seed."""
    assert not seed[0] & 1
    return xor(_AES[name].update(seed), seed)


def parts(block):
    """Seed and control bit of a block."""
    return bytes([block[0] & 0xFE]) + block[1:], block[0] & 1


def depth_of(rows):
    depth = 0
    while LEAF_ROWS << depth < rows:
        depth += 1
    return depth


def packed(rows, party, seed, corrections, controls, leaf_correction):
    """The bytes of a key. controls: pairs of bits."""
    bits = sum(bit << i for i, bit in enumerate(b for pair in controls for b in pair))
    header = struct.pack("<4sBBHQ", b"MPIR", 1, party, 0, rows)
    controls = bits.to_bytes((2 * len(corrections) + 7) // 8, "little")
    return header + seed + b"".join(corrections) + controls + leaf_correction


def unpacked(key):
    """Rows, party, seed, corrections, controls and leaf correction of a key that is well-formed."""
    magic, version, party, reserved, rows = struct.unpack_from("<4sBBHQ", key)
    assert (magic, version, reserved) == (b"MPIR", 1, 0)
    depth = depth_of(rows)
    seed, at = key[16:32], 32
    corrections = [key[at + 16 * i : at + 16 * i + 16] for i in range(depth)]
    at += 16 * depth
    bits = int.from_bytes(key[at : at + (2 * depth + 7) // 8], "little")
    controls = [(bits >> 2 * i & 1, bits >> 2 * i + 1 & 1) for i in range(depth)]
    assert len(key) == at + (2 * depth + 7) // 8 + 16
    return rows, party, seed, corrections, controls, key[-16:]


def generate(row, rows, random):
    """Both keys of a row, from 32 bytes."""
    depth = depth_of(rows)
    roots = [parts(random[:16])[0], parts(random[16:])[0]]
    nodes = [(roots[0], 0), (roots[1], 1)]
    corrections, controls = [], []
    for level in range(depth):
        way = row // LEAF_ROWS >> (depth - 1 - level) & 1
        children = [[parts(hashed(side, seed)) for side in (b"left", b"right")] for seed, _ in nodes]
        correction = xor(children[0][1 - way][0], children[1][1 - way][0])
        control = [children[0][side][1] ^ children[1][side][1] ^ (side == way) for side in (0, 1)]
        nodes = [
            (xor(kept, correction) if on else kept, bit ^ (on & control[way]))
            for (kept, bit), on in ((children[p][way], nodes[p][1]) for p in (0, 1))
        ]
        corrections.append(correction)
        controls.append(control)
    point = (1 << row % LEAF_ROWS).to_bytes(16, "little")
    leaf_correction = xor(xor(hashed(b"leaf", nodes[0][0]), hashed(b"leaf", nodes[1][0])), point)
    return tuple(packed(rows, p, roots[p], corrections, controls, leaf_correction) for p in (0, 1))


def expand(key):
    """The selection of a key: one bit for each row."""
    rows, party, root, corrections, controls, leaf_correction = unpacked(key)
    nodes = [(root, party)]
    for correction, control in zip(corrections, controls, strict=True):
        below = []
        for seed, on in nodes:
            for side, name in enumerate((b"left", b"right")):
                child, bit = parts(hashed(name, seed))
                below.append((xor(child, correction), bit ^ control[side]) if on else (child, bit))
        nodes = below[: 2 * len(nodes)]
    bits = []
    for seed, on in nodes:
        leaf = hashed(b"leaf", seed)
        number = int.from_bytes(xor(leaf, leaf_correction) if on else leaf, "little")
        bits += [number >> i & 1 for i in range(LEAF_ROWS)]
    return bits[:rows]


def words_of(bits):
    """A selection as the kernels have it: bit r of word r // 64, whole leaves."""
    bits = bits + [0] * (-len(bits) % LEAF_ROWS)
    return [sum(b << i for i, b in enumerate(bits[w : w + 64])) for w in range(0, len(bits), 64)]


def scanned(records, selections, first_row):
    """XOR of the records that each selection has."""
    out = []
    for words in selections.tolist():
        total = [0] * records.shape[1]
        for i, record in enumerate(records.tolist()):
            if words[(first_row + i) // 64] >> (first_row + i) % 64 & 1:
                total = [a ^ b for a, b in zip(total, record, strict=True)]
        out.append(total)
    return out


def gathered(selections, ordinals):
    """The bits at some places, packed."""
    out = []
    for words in selections.tolist():
        bits = [words[at // 64] >> at % 64 & 1 for at in ordinals]
        out.append([sum(b << i for i, b in enumerate(bits[w : w + 64])) for w in range(0, len(bits), 64)])
    return out
