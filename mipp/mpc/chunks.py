"""What goes over a connection between two servers: first who sends, then chunks of messages of several kinds.

A chunk: kind (u8), whether it is the last of its message (u8), 2 bytes 0, length (u32), stream (16 bytes), payload of
at most 64 KiB. The first is a hello: magic, the least and the newest version of this protocol that the sender speaks,
deployment, sender, receiver, name of the sending process. Both then speak the newest version that both know, so servers
are upgraded one after the other.
"""

from __future__ import annotations

import struct

__all__ = [
    "BEAT",
    "BOOT_BYTES",
    "CALL",
    "CALL_BYTES",
    "CHUNK",
    "HEAD",
    "HELLO",
    "MAGIC",
    "NOTE",
    "NO_STREAM",
    "REPLY",
    "SESSION",
    "VERSIONS",
    "WHO",
    "common_version",
    "hello",
    "whole",
]

#: the least and the newest version that this program speaks
VERSIONS = (1, 1)
MAGIC = b"mippmesh"
#: kinds of chunks: who connects; a sign of life; part of a session's frame, of a call, of a reply; a note
HELLO, BEAT, SESSION, CALL, REPLY, NOTE = 1, 2, 3, 4, 5, 6
#: bytes of a chunk's payload
CHUNK = 64 << 10
#: bytes of a call or reply
CALL_BYTES = 256 << 20
#: bytes of a process's name
BOOT_BYTES = 16
#: the stream of what belongs to none
NO_STREAM = bytes(16)

HEAD = struct.Struct("<BBHI16s")
WHO = struct.Struct("<8sBB16sBB16s")


def whole(kind: int, stream: bytes, data: bytes) -> bytes:
    """A message that is one chunk."""
    return HEAD.pack(kind, 1, 0, len(data), stream) + data


def hello(deployment: bytes, sender: int, receiver: int, boot: bytes) -> bytes:
    """The first chunk of a connection."""
    return whole(HELLO, NO_STREAM, WHO.pack(MAGIC, *VERSIONS, deployment, sender, receiver, boot))


def common_version(least: int, newest: int) -> int:
    """The version that is spoken with a peer that speaks these; 0 if there is none."""
    found = min(newest, VERSIONS[1])
    return found if found >= max(least, VERSIONS[0]) else 0
