"""Oracles of the PRF kernels: HKDF-SHA256 and AES-256 in plain integers, and what is made of their keystream.

AES is written from FIPS 197 (S-box from its definition, not pasted); it is slow and not constant-time. Longer
keystream comes from the `cryptography` package, an independent implementation that these agree with.
"""

import hashlib
import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def hkdf(key, info):
    """RFC 5869 with an empty salt, 32 bytes."""
    prk = hmac.new(b"\0" * 32, key, hashlib.sha256).digest()
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def _times(a, b):
    """Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    total = 0
    while b:
        total ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return total


def _substitute(a):
    """The S-box: inverse, then the affine map (FIPS 197, 5.1.1)."""
    inverse = next((b for b in range(256) if _times(a, b) == 1), 0)
    turned = (inverse << i | inverse >> (8 - i) for i in range(5))
    total = 0x63
    for t in turned:
        total ^= t & 0xFF
    return total


SBOX = [_substitute(a) for a in range(256)]


def aes256_schedule(key):
    """The 15 round keys, 240 bytes."""
    words = [list(key[i : i + 4]) for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 60):
        word = list(words[-1])
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = _times(rcon, 2)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[-8], word, strict=True)])
    return bytes(b for word in words for b in word)


def aes256_block(key, block):
    """FIPS 197 Cipher(); byte 4c+r of the state is row r, column c."""
    schedule = aes256_schedule(key)
    state = [a ^ b for a, b in zip(block, schedule[:16], strict=True)]
    for r in range(1, 15):
        state = [SBOX[b] for b in state]
        state = [state[4 * ((c + row) % 4) + row] for c in range(4) for row in range(4)]
        if r < 14:
            columns = [state[4 * c : 4 * c + 4] for c in range(4)]
            state = [
                _times(col[i], 2) ^ _times(col[(i + 1) % 4], 3) ^ col[(i + 2) % 4] ^ col[(i + 3) % 4]
                for col in columns
                for i in range(4)
            ]
        state = [a ^ b for a, b in zip(state, schedule[16 * r : 16 * r + 16], strict=True)]
    return bytes(state)


def keystream(key, dtype, count, first_block=0):
    """`count` little-endian words of AES-256-CTR from a 128-bit big-endian block number on."""
    dtype = np.dtype(dtype)
    cipher = Cipher(algorithms.AES(key), modes.CTR(first_block.to_bytes(16, "big"))).encryptor()
    return np.frombuffer(cipher.update(bytes(count * dtype.itemsize)), dtype.newbyteorder("<")).astype(dtype)


def keystream_rows(key, dtype, width, first_row, rows):
    """Rows of `width` words; row j starts at block j * width * k / 128."""
    blocks = width * np.dtype(dtype).itemsize // 16
    return keystream(key, dtype, rows * width, first_row * blocks).reshape(rows, width)


def zero_share_add(out, key, infos, lengths, negate):
    """In plain integers, word by word."""
    result, mask = [[int(v) for v in row] for row in out], int(np.iinfo(out.dtype).max)
    for b, row in enumerate(result):
        at = 0
        for s, length in enumerate(lengths):
            derived = hkdf(key, bytes(infos[b * len(lengths) + s]))
            for i, word in enumerate(keystream(derived, out.dtype, int(length))):
                row[at + i] = (row[at + i] + (-int(word) if negate else int(word))) & mask
            at += int(length)
    return np.array(result, out.dtype).reshape(out.shape)
