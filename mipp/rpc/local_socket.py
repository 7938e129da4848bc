"""A Unix socket in a server's folder, for its operator: whoever may open the folder may ask, nobody else.

A request and its reply are bodies as over HTTP, each after its length (u64, little-endian). One request at a time on a
connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DeploymentError, MessageError, MippError, UnreachableError
from .bodies import body_parts, frames_of
from .channel import accepted, reply_or
from .sockets import fill
from .wire import Frames, decode

__all__ = ["SOCKET_NAME", "WAIT", "OperatorChannel", "OperatorSocket"]

SOCKET_NAME = "operator.sock"
_LENGTH = struct.Struct("<Q")
#: bytes of a request, and of a reply
REQUEST_BYTES, REPLY_BYTES = 1 << 20, 1 << 30
#: seconds for a request to come, and for a reply
READ, WAIT = 30.0, 3600.0


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A short path of the socket: the system allows some 100 characters."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


def _read(sock: socket.socket, most: int) -> memoryview:
    """One body; EOFError at the end."""
    head = bytearray(_LENGTH.size)
    fill(sock, memoryview(head))
    (size,) = _LENGTH.unpack(head)
    if size > most:
        raise MessageError("a message that is too long")
    body = memoryview(bytearray(size))
    fill(sock, body)
    return body


def _write(sock: socket.socket, frames: Frames) -> None:
    parts = body_parts(frames)
    sock.sendall(_LENGTH.pack(sum(memoryview(p).nbytes for p in parts)))
    for part in parts:
        sock.sendall(part)


class OperatorSocket:
    """Answers the operator's requests until :meth:`close`.

    Parameters
    ----------
    folder : Path
        The server's folder; the socket there is replaced, mode 0600.
    serve : callable
        Answers one request: frames in, frames out.
    """

    def __init__(self, folder: Path, serve: Callable[[Frames], Frames]) -> None:
        self._folder, self._serve = folder, serve
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _address(folder) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            before = os.umask(0o177)
            try:
                self._listener.bind(path)
            finally:
                os.umask(before)
        self._listener.listen(8)
        threading.Thread(target=self._accept, name="mipp operator", daemon=True).start()

    def close(self) -> None:
        """Answer no more, and remove the socket."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._folder / SOCKET_NAME)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(sock,), name="mipp operator", daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, EOFError, MessageError):
            sock.settimeout(READ)
            while True:
                _write(sock, self._serve(frames_of(_read(sock, REQUEST_BYTES))))


class OperatorChannel:
    """An operator's requests to its own server, over the socket in its folder; see :class:`~mipp.rpc.channel.Channel`.

    Parameters
    ----------
    folder : Path
        The server's folder.
    server : int
        The server's number.
    wait : float
        Seconds for a reply; some requests read all files.
    """

    remote = False

    def __init__(self, folder: Path, server: int, wait: float = WAIT) -> None:
        self._folder, self._server, self._wait = folder, server, wait

    @property
    def servers(self) -> tuple[int, ...]:
        return (self._server,)

    def gather(
        self, requests: Mapping[int, Frames], *, together: bool = False, spare: bool = False,
        refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        return {server: reply_or(refusals, self._request, frames) for server, frames in requests.items()}

    def _request(self, frames: Frames) -> Any:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with sock:
            try:
                with _address(self._folder) as path:
                    sock.settimeout(min(READ, self._wait))
                    sock.connect(path)
                sock.settimeout(self._wait)
                _write(sock, frames)
                body = _read(sock, REPLY_BYTES)
            except FileNotFoundError:
                raise DeploymentError(
                    f"no server runs in {self._folder}; start it with: mipp server run {self._folder}"
                ) from None
            except ConnectionRefusedError:
                raise DeploymentError(
                    f"no server runs in {self._folder} now; start it with: mipp server run {self._folder}"
                ) from None
            except OSError as error:
                why = "it says nothing" if isinstance(error, TimeoutError) else error.strerror
                raise UnreachableError(f"the server in {self._folder} did not answer: {why}") from None
            except EOFError:
                raise UnreachableError(f"the server in {self._folder} ended before it answered") from None
        return accepted(decode(frames_of(body)))
