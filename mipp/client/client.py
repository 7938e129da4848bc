"""Base of owners and users: an identity, signed requests, a channel to the servers."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from ..crypto import schedule, signing
from ..errors import AuthenticationError, MessageError, MippError, RegistrationError, UnreachableError
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.key_sets import KeySet
from ..rpc.names import check_name
from ..rpc.wire import Frames, HashedFrames, encode, frame_hashes, joined_hash
from .away import Away

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """Base of :class:`~mipp.client.owner.ImageOwner` and :class:`~mipp.client.user.User`; holds secret keys.

    Parameters
    ----------
    name : str
        Public.
    config : DeploymentConfig
        Public description of the deployment.
    channel : Channel
        To the servers.
    sign_seed : bytes
        Seed of the Ed25519 identity, 32 bytes. Secret.
    """

    id: bytes

    def __init__(self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes) -> None:
        self.name, self.config, self.channel = check_name(name), config, channel
        #: whether another cloud can stand in for one that is away
        self.spare = config.params.spare_clouds > 0
        #: the clouds that are away
        self.away = Away(config.params)
        self._seed = sign_seed
        self._key = signing.private_key(sign_seed)
        #: completes on all servers the changes that some have committed; set by the deployment
        self.recover: Callable[[], None] | None = None
        #: seconds by which a server's clock is ahead of this machine's; set by the deployment
        self.ahead: Callable[[int], float] = lambda server: 0.0
        #: the servers' newest keys; set by the deployment where they change
        self.key_set: Callable[[], KeySet] = functools.partial(KeySet.first, config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, id={self.id.hex()})"

    def __reduce__(self) -> str:
        raise TypeError("owners and users hold secret keys and do not pickle")

    def signed(
        self, msg: Any, receiver: int = m.ALL_SERVERS, known: Mapping[int, bytes] | None = None
    ) -> tuple[Frames, list[bytes], bytes]:
        """Sign a request for one server; messages that servers pass on to each other are signed for all.

        A request for one server bears the time of that server's clock, which compares it: no other server takes it.

        Parameters
        ----------
        msg : message
            The request, of :mod:`mipp.rpc.messages`.
        receiver : int
            Number of the server.
        known : mapping of int to bytes, optional
            Hashes of frames of the request that were made before, by number.

        Returns
        -------
        frames : list of bytes
            The signed message, as it is sent.
        hashes : list of bytes
            Hash of each frame of the request, 32 bytes each.
        whole : bytes
            Hash of the request, 32 bytes.
        """
        frames = encode(msg)
        hashes = frame_hashes(frames, known)
        whole = joined_hash(frames, hashes)
        if isinstance(msg, m.FOR_ALL):
            receiver = m.ALL_SERVERS
        ahead = 0.0 if receiver == m.ALL_SERVERS else self.ahead(receiver)
        issued, random = int((time.time() + ahead) * 1000), schedule.random_bytes(16)
        statement = signing.Statement(self.config.id, receiver, type(msg).__name__, whole, issued, random)
        content = [np.frombuffer(f, np.uint8) for f in frames]
        signature = signing.sign(self._key, statement)
        envelope = encode(m.Signed(self.config.id, self.id, receiver, issued, random, signature, content))
        return HashedFrames(envelope, hashes), hashes, whole

    def sign(self, msg: Any, receiver: int = m.ALL_SERVERS) -> Frames:
        """Sign a request for one server: the frames of :meth:`signed` alone.

        Parameters
        ----------
        msg : message
            The request.
        receiver : int
            Number of the server.

        Returns
        -------
        list of bytes
            The signed message, as it is sent.
        """
        return self.signed(msg, receiver)[0]

    def ask(
        self, messages: Mapping[int, Any], *, together: bool = False, spare: bool = False,
        refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        """Sign a request for each server and send them, in one round.

        Parameters
        ----------
        messages : mapping of int to message
            The request for each server, by its number.
        together : bool
            Whether the servers talk to each other to answer, so that all must have their request before one replies.
        spare : bool
            Whether another server can be asked in place of one, so that none is waited for much longer than the others.
        refusals : tuple of type
            Errors that are returned in place of replies: what the other servers replied is not lost.

        Returns
        -------
        dict of int to message
            The replies, by server.

        Raises
        ------
        MippError
            The first refusal of a server.
        MessageError
            A server's reply is of another kind than is due, or missing.
        """
        kinds = {server: type(msg) for server, msg in messages.items()}
        clocks = {server: self.ahead(server) for server in messages}
        try:
            return self._signed_and_sent(messages, kinds, together=together, spare=spare, refusals=refusals)
        except AuthenticationError:
            # a server whose clock was set since its last reply has told the new time in its refusal
            changed = any(abs(self.ahead(server) - clock) > 1 for server, clock in clocks.items())
            if not changed or any(kind in m.ONCE for kind in kinds.values()):
                raise
        return self._signed_and_sent(messages, kinds, together=together, spare=spare, refusals=refusals)

    def _signed_and_sent(
        self, messages: Mapping[int, Any], kinds: Mapping[int, type], *, together: bool, spare: bool,
        refusals: tuple[type[MippError], ...],
    ) -> dict[int, Any]:  # fmt: skip
        requests = {server: self.sign(msg, server) for server, msg in messages.items()}
        return self.send(requests, kinds, together=together, spare=spare, refusals=refusals)

    def send(
        self, requests: Mapping[int, Frames], kinds: Mapping[int, type], *, together: bool = False,
        spare: bool = False, refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        """Send signed requests of these kinds, in one round; errors as of :meth:`ask`.

        Parameters
        ----------
        requests : mapping of int to Frames
            The signed request for each server, by its number.
        kinds : mapping of int to type
            The kind of each server's request.
        together, spare, refusals
            As for :meth:`ask`.

        Returns
        -------
        dict of int to message
            The replies, by server.
        """
        asked = {"refusals": refusals} if refusals else {}
        replies = self.channel.gather(requests, together=together, spare=spare, **asked)
        for server, kind in kinds.items():
            if together and server not in replies:
                continue  # the others say why
            if not isinstance(replies.get(server), (*m.REPLIES[kind], *refusals)):
                raise MessageError(f"server {server} sent no reply, or one of another kind, to a {kind.__name__}")
        return {server: replies[server] for server in requests if server in replies}

    def register_with_all(self, msg: Any) -> None:
        """Register with the key centre, and when it has agreed with the other servers.

        Parameters
        ----------
        msg : message
            The registration.

        Raises
        ------
        RegistrationError
            The key centre agreed, another server did not. The servers pass the registration on to each other.
        MippError
            The key centre cannot be reached or refuses; nobody registered anything.
        """
        first = self.config.params.key_centres[-1]
        others = [s for s in sorted(self.config.servers) if s != first]
        frames = self.sign(msg)  # once: what the servers keep is the same, so none passes its own on to the others
        self.send({first: frames}, {first: type(msg)})
        try:
            self.present(lambda to: self.send(dict.fromkeys(to, frames), dict.fromkeys(to, type(msg))), others)
        except MippError as error:
            raise RegistrationError(
                f"the key centre registered {self.name}, another server did not: {error}"
            ) from error

    def present(
        self, ask: Callable[[list[int]], T], servers: Iterable[int] | None = None, *,
        refusals: tuple[type[MippError], ...] = (),
    ) -> T:  # fmt: skip
        """Ask all servers that are there: where others can stand in for a cloud, one that is away is left out.

        Parameters
        ----------
        ask : callable
            Asks the servers with these numbers.
        servers : iterable of int, optional
            Numbers of the servers; default all.
        refusals : tuple of type
            Errors of a cloud that count as its being away, too.

        Returns
        -------
        T
            What ``ask`` returned.

        Raises
        ------
        UnreachableError
            A server is away for which no other can stand in.
        """
        wanted = sorted(self.config.servers) if servers is None else list(servers)
        failed = set[int]()
        while True:
            to = [s for s in wanted if s not in self.away.now() | failed]
            try:
                return ask(to)
            except MippError as error:
                if not isinstance(error, UnreachableError) and type(error) not in refusals:
                    raise
                failed.add(error.server)
                if not self.away.note(error) or len(failed) > self.config.params.spare_clouds:
                    raise

    def clouds_in_turn(self) -> list[int]:
        """List the clouds in the order in which one of them is asked: those that were silent lately last.

        Returns
        -------
        list of int
            Their numbers.
        """
        away = self.away.now()
        return sorted(self.config.params.clouds, key=lambda server: (server in away, server))

    def ask_present(self, msg: Any, servers: Iterable[int] | None = None, *, together: bool = False) -> dict[int, Any]:
        """:meth:`ask_all` of the servers that are there, as of :meth:`present`.

        Parameters
        ----------
        msg, servers, together
            As for :meth:`ask_all`.

        Returns
        -------
        dict of int to message
            The replies, by server.
        """
        return self.present(lambda to: self.ask_all(msg, to, together=together, spare=self.spare), servers)

    def ask_all(
        self, msg: Any, servers: Iterable[int] | None = None, *, together: bool = False, spare: bool = False
    ) -> dict[int, Any]:
        """Send the same request to all servers, or to those named, as :meth:`ask` does.

        Parameters
        ----------
        msg : message
            The request.
        servers : iterable of int, optional
            Numbers of the servers; default all.
        together, spare : bool
            As for :meth:`ask`.

        Returns
        -------
        dict of int to message
            The replies, by server.
        """
        to = list(servers) if servers is not None else sorted(self.config.servers)
        if isinstance(msg, m.FOR_ALL):
            requests, kinds = dict.fromkeys(to, self.sign(msg)), dict.fromkeys(to, type(msg))
            return self.send(requests, kinds, together=together, spare=spare)
        return self.ask(dict.fromkeys(to, msg), together=together, spare=spare)
