"""All parties in one process and one folder: for demos, tests and benchmarks.

Nothing is protected from whoever reads the folder: the keys of all parties lie there. Otherwise the deployment works
as one over a network: roles exchange messages only, with the same checks and the same bytes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..client.given import user_id
from ..client.owner import ImageOwner
from ..client.user import User
from ..crypto import schedule, signing
from ..encoding import Encoding
from ..encoding.clusters import Clusters
from ..errors import DeploymentError, KeyFileError, NotFoundError, ParameterError
from ..io.durable import replace_file
from ..paillier import DEFAULT_BITS
from ..rpc import peer_messages as pm
from ..rpc.channel import LocalChannel, request
from ..rpc.description import DeploymentConfig
from ..rpc.names import known_name
from ..server.admission import Admission
from ..server.rendezvous import LocalRendezvous
from ..server.repair import Repairer
from ..server.server import Server
from ..server.settling import rejoin, settle
from . import reports
from .certifier import Certifier
from .connected import ConnectedDeployment
from .given import checked_index, checked_threads, folder_path
from .migrate import migrate, remove_old
from .parties import Parties
from .results import DeploymentStatus, RepairReport, VerifyReport
from .servers import CARD_NAME, CONFIG_NAME, ServerSecrets, known_scheme, server_class
from .sessions import Session
from .witness import Witness

__all__ = ["DEFAULT_BITS", "Deployment"]


class Deployment(Parties):
    """An embedded deployment: all servers, owners and users in one folder.

    Make one with :meth:`create` and open one with :meth:`open`; both give a context manager. Several processes may have
    one folder open at once. The folder holds the secret keys of all parties, so it protects nothing from its readers.

    Parameters
    ----------
    folder : Path
        The deployment's folder.
    config : DeploymentConfig
        Public description: id, servers' public keys, :class:`mipp.Params`, :class:`mipp.Encoding`, descriptor.
    servers : dict of int to Server
        The servers of this process by number.
    session : Session
        This process's use of the folder.
    witness : Witness
        Counters of the servers, noted outside of their folders.
    threads : int, optional
        Native threads of all parties; default all cores.

    Attributes
    ----------
    config : DeploymentConfig
        As given.
    servers : dict of int to CloudServer or KeyCentre
        As given.
    channel : LocalChannel
        From owners and users to the servers. Counts ``rounds``, and ``bytes_sent`` by kind of message.
    notes : list of str
        Sentences for a person on how the deployment was found, such as a server that was restored from a backup.

    Examples
    --------
    >>> import tempfile, numpy as np, mipp
    >>> vectors = np.eye(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
    ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
    ...         added = anna.add_vectors(vectors)
    ...         anna.grant(ulla)
    ...     with mipp.Deployment.open(folder) as deployment:
    ...         result = deployment.user("ulla").search(vectors[2], k=1)
    ...         status = deployment.status()
    >>> result.hits[0].row, status["images"], status["servers_agree"]
    (2, 4, True)
    """

    def __init__(
        self,
        folder: Path,
        config: DeploymentConfig,
        servers: dict[int, Server],
        session: Session,
        witness: Witness,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, config, LocalChannel({i: s.handle for i, s in servers.items()}), threads)
        self.servers = servers
        #: the servers' side for their operators and for each other; owners and users never reach it
        self.operators = LocalChannel({i: s.operate for i, s in servers.items()})
        self._session, self._witness = session, witness
        #: sentences for a person on how the deployment was found
        self.notes: list[str] = []
        self._closed, self._process = False, os.getpid()
        self._certifier = Certifier(self.operators, config.params)

    def __repr__(self) -> str:
        return f"Deployment({str(self.folder)!r})"

    # --- making, opening, closing -------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        encoding: Encoding,
        *,
        descriptor: str = "",
        scheme: str | None = None,
        clouds: int | None = None,
        window: tuple[float, float] | None = None,
        rankings: Sequence[str] | None = None,
        preview_size: int = 0,
        clusters: Clusters | None = None,
        threads: int | None = None,
    ) -> Deployment:
        """Make a new deployment in a folder, with new keys for its servers, and open it.

        Parameters
        ----------
        folder : str or path
            Made if missing; must not hold a deployment.
        encoding : Encoding
            How features become integers, fixed for the index's life; public.
        descriptor : str
            Name of the features of images (:mod:`mipp.features`), or empty for an index of vectors. Its version is
            kept, so that features of another version are refused later.
        scheme : str, optional
            ``shares`` (default): two or three clouds and a key centre (t=1). With one cloud and a key centre, each user
            encrypts its queries under a key of its own and ranks all scores: ``lattice`` (default with one cloud), for
            scores of at most 32 bits and rows of at most 1,024 words, or ``paillier``, slower, for any.
        clouds : int, optional
            1, 2 (default) or 3, as the scheme has them. With three, a query goes to the key centre and two of
            them: one that is away is passed over, and one that answers wrongly is found out
            (:attr:`mipp.SearchResult.suspects`). No two servers may collude, which are six pairs then instead of three.
        window : pair of float, optional
            Lowest and highest value that is told apart in images of more than 8 bits a channel, see
            :func:`mipp.io.images.load_image`; the same for all owners and users.
        rankings : sequence of str, optional
            Rankings that owners may grant, the default first, of ``server``, ``user`` and ``threshold``; default all
            that the scheme has. With ``("user",)`` users rank, and grants allow that unless they say otherwise.
        preview_size : int
            Bytes of each row's record, which holds metadata and a thumbnail: 0 (none), or 256 to 65,536 in steps of 64.
            0 with one cloud: users fetch records from two.
        clusters : Clusters, optional
            Public clusters that large batches are laid out in (:class:`mipp.encoding.clusters.Clusters`), so that a
            search may look at some of them (``probe=True``). A row's place in its batch names its cluster.
        threads : int, optional
            Native threads of all parties; default all cores.

        Returns
        -------
        Deployment
            The deployment, open.

        Raises
        ------
        DeploymentError
            The folder holds a deployment, or cannot be written.
        ParameterError, DTypeError
            A value out of range, or of another type.
        ScoreRangeError
            ``rankings`` names a ranking that the encoding does not allow. Without ``rankings`` this is a warning only,
            as users can rank all the same.

        Examples
        --------
        >>> import tempfile, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("l2", 16, bits=6)) as deployment:
        ...         servers = deployment.status()["servers"]
        >>> servers
        {1: 'CloudServer', 2: 'CloudServer', 3: 'KeyCentre'}
        """
        path = folder_path(folder)
        index = checked_index(
            encoding, descriptor=descriptor, scheme=scheme, clouds=clouds, window=window, rankings=rankings,
            preview_size=preview_size, clusters=clusters,
        )  # fmt: skip
        params = index.params
        checked_threads(threads)
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if (path / CONFIG_NAME).exists():
                raise DeploymentError(f"{path} already holds a deployment")
            if (path / "servers").exists():
                raise DeploymentError(
                    f"{path}/servers is left from a deployment that was not finished; remove it first"
                )
            for name in ("servers", "owners", "users"):
                (path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise DeploymentError(f"cannot make a deployment in {path}: {error.strerror}") from None
        keys = {i: ServerSecrets.new() for i in range(1, params.n + 1)}
        public = {i: secret.public() for i, secret in keys.items()}
        config = DeploymentConfig(
            schedule.random_bytes(16), params, encoding, index.descriptor, public, index.window,
            index.descriptor_version, index.rankings, record_bytes=index.record_bytes, clusters=index.clusters,
        )  # fmt: skip
        for i, secret in keys.items():
            home = path / "servers" / str(i)
            server_class(params, i)(config, i, home, *secret, create=True).close()
            secret.save(home, {"server": str(i)})
        replace_file(path / CONFIG_NAME, config.to_json().encode())  # last: a folder without it is no deployment
        return cls.open(path, threads=threads)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, threads: int | None = None, check: bool = True) -> Deployment:
        """Open a deployment; completes or undoes changes that a process left half-way when it died.

        Parameters
        ----------
        folder : str or path
            Made by :meth:`create`.
        threads : int, optional
            Native threads of all parties; default all cores.
        check : bool
            Compare the checksum of each share file when it is first used, which reads the file once.

        Returns
        -------
        Deployment
            The deployment. One of an earlier format is brought to this one first, if no other process uses it.

        Raises
        ------
        DeploymentError
            The folder holds no deployment, or one of another format.
        KeyFileError, StoreError
            The files of a server are damaged.

        Examples
        --------
        >>> import tempfile, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mipp.Deployment.create(folder, mipp.Encoding("cosine", 8)).close()
        ...     with mipp.Deployment.open(folder, threads=1) as deployment:
        ...         print(deployment.owners(), deployment.config.encoding.metric)
        [] cosine
        """
        path, threads = folder_path(folder), checked_threads(threads)
        text = _description(path)
        session = Session(path / "sessions")
        servers: dict[int, Server] = {}
        witness: Witness | None = None
        try:
            if '"version": 1,' in text:
                migrate(path, text, alone=session.alone)
                text = _description(path)
            config = known_scheme(DeploymentConfig.from_json(text))
            if config.addresses:
                raise DeploymentError(_elsewhere(path))
            witness = Witness(path / "witness", len(config.servers))
            for i in config.servers:
                home = path / "servers" / str(i)
                remove_old(home)  # if a migration was interrupted after it was valid
                servers[i] = server_class(config.params, i)(
                    config, i, home, *ServerSecrets.load(home), threads=threads, check=check,
                    holder=session.token, alive=session.alive, witness=functools.partial(witness.note, i),
                )  # fmt: skip
            rendezvous = LocalRendezvous(servers=config.servers)
            tests = LocalRendezvous(running=1, servers=config.servers)
            for i, server in servers.items() if config.params.compares else ():
                server.admission, server.certifying = Admission(i, rendezvous), Admission(i, tests)
            deployment = cls(path, config, servers, session, witness, threads)
            if session.alone:
                restored = rejoin(deployment.operators, servers, {i: witness.noted(i) for i in servers})
                deployment.notes += reports.restored_notes(restored, len(servers))
            deployment.notes += reports.ranking_notes(config)
            settle(deployment.operators)
            if session.alone and session.crashed:
                for server in servers.values():
                    server.store.sweep()
            session.ready()
            deployment._start_certifier()
        except BaseException:
            for server in servers.values():
                server.close()
            session.close()
            if witness is not None:
                witness.close()
            raise
        return deployment

    @staticmethod
    def connect(folder: str | os.PathLike[str], *, threads: int | None = None) -> ConnectedDeployment:
        """Open a deployment whose servers are reached over a network, from a folder that ``mipp connect`` made.

        Parameters
        ----------
        folder : str or path
            Holds the public description, and keys of owners and users.
        threads : int, optional
            Native threads of owners and users; default all cores.

        Returns
        -------
        ConnectedDeployment
            The deployment; a context manager. Connects when something is asked.

        Raises
        ------
        DeploymentError
            The folder holds no description of servers with addresses.

        Examples
        --------
        >>> import tempfile, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         mipp.Deployment.connect(folder)
        ...     except mipp.errors.DeploymentError as error:
        ...         print("mipp connect" in str(error))
        True
        """
        return ConnectedDeployment.open(folder, threads=threads)

    def close(self) -> None:
        """Close all files; nothing is lost without it. Does nothing in a forked child: the files are its parent's."""
        if not self._closed and os.getpid() == self._process:
            self._closed = True
            self._certifier.stop()
            for server in self.servers.values():
                server.close()
            for journal in self._journals:
                journal.close()
            self._session.close()
            self._witness.close()

    # --- parties ------------------------------------------------------------------------------------------------

    def _require_free(self, kind: str, name: str) -> None:
        if self._key_path(f"{kind}s", name).exists():
            return
        for server in self.servers:
            known = request(self.operators, server, pm.StatusRequest(b""))
            taken = (
                [n for n, gone in zip(known.names, known.forgotten, strict=True) if not gone]
                if kind == "owner"
                else known.user_names
            )
            if name.casefold() in {n.casefold() for n in taken}:
                raise ParameterError(f"the name {name!r} is taken; choose another")

    def _register(self, party: ImageOwner | User, path: Path) -> None:
        if isinstance(party, ImageOwner):
            known = [request(self.operators, i, pm.StatusRequest(party.id)) for i in self.servers]
            if any(True in status.forgotten for status in known):
                raise NotFoundError(f"owner {party.name} was forgotten; create one with another name")
            if all(status.owners for status in known):
                return
        party.register()

    def _check_known(self, path: Path, public: dict[str, str], identity: bytes) -> None:
        for server in self.servers:
            keys = request(self.operators, server, pm.KeysRequest(identity))
            known = {"sign_key": keys.sign_key.hex(), "box_key": keys.second.hex()}
            # key files of earlier versions hold no public keys; then the servers' are used
            own = {field: public.get(field, value) for field, value in known.items()}
            if (
                own != known
                or signing.party_id(keys.sign_key, keys.second) != identity
                or keys.name != public.get("name")
            ):
                raise KeyFileError(f"key file {path} is not that of the user that the servers know as {path.stem!r}")

    def _find_user(self, owner: ImageOwner, name: str) -> bytes:
        return self.user_id(name)

    def owner_names(self, user: str, passphrase: str | None = None) -> dict[bytes, str]:
        known = request(self.operators, self.config.params.clouds[0], pm.StatusRequest(b""))
        return {owner: known_name(name, owner) for owner, name in zip(known.owners, known.names, strict=True)}

    def _settler(self, party: ImageOwner | User) -> Callable[[], None]:
        return functools.partial(settle, self.operators)

    # --- operation ----------------------------------------------------------------------------------------------

    def _start_certifier(self) -> None:
        """Have batches of earlier versions certified, in the background."""
        if self.config.certifies and (count := self._certifier.start()):
            self.notes.append(reports.uncertified_note(count))

    def wait_certified(self, seconds: float | None = None) -> bool:
        """Wait until the servers have checked the range of all rows, those of earlier versions of mipp too.

        Until then searches that servers rank go on without unchecked batches, and name them.

        Parameters
        ----------
        seconds : float, optional
            Time to wait at most; default as long as it takes.

        Returns
        -------
        bool
            Whether all rows were checked; always true where servers do not rank, as nothing is checked there.
        """
        return not self.config.certifies or not self._certifier.start() or self._certifier.wait(seconds)

    def prepare(self, user: Any, queries: int = 1) -> None:
        """Have the servers make randomness for a user's next queries ahead, in memory; speeds these queries up.

        Only the Paillier scheme uses any; in others this does nothing.

        Parameters
        ----------
        user : User, bytes or str
            The user, its id (16 bytes or 32 hex digits), or its name.
        queries : int
            Number of queries to prepare for, over all images that the index has now.

        Raises
        ------
        NotFoundError, ParameterError
            An unknown user; a value that names no user.
        """
        user = user_id(user, self.user_id)
        rows = self.status()["images"]
        for server in self.servers.values():
            server.scheme.prepare(user, rows, queries)

    def read_ahead(self) -> None:
        """Have the clouds open and check their files of records now: the first private fetch need not wait for that."""
        for server in self.servers.values():
            if server.has_shares:
                server.store.records.read_ahead()

    def status(self) -> DeploymentStatus:
        """Report owners, users and sizes, and whether all servers agree. Public facts only.

        Returns
        -------
        DeploymentStatus
            A dict that JSON can hold. Some of its keys: ``images`` (live rows), ``owners`` (a dict each: ``name``,
            ``id``, ``batches``, ``live``, ``share_bytes``, ``unranked``, ..), ``users`` (a dict each: ``name``, ``id``,
            ``out_of_range``), ``servers_agree``.
        """
        kinds = {i: type(server).__name__ for i, server in self.servers.items()}
        return reports.status(self.config, self.operators, kinds)

    def verify(self) -> VerifyReport:
        """Read all files of all servers and compare their checksums.

        Waits first until the servers have checked the range of all rows (:meth:`wait_certified`).

        Returns
        -------
        VerifyReport
            A dict: ``files`` (their number) and ``problems`` (one line each, which names the file).
        """
        self.wait_certified()
        return reports.verify(self.config, self.operators)

    def repair(self) -> RepairReport:
        """Rebuild share files and image packs that a cloud lost, or that are damaged there, from the other servers'.

        No owner takes part; batches and rows keep their ids. A rebuilt share is byte for byte what its owner sent,
        unless the other cloud compacted the batch: then rows that were deleted are not there.

        Returns
        -------
        RepairReport
            A dict: ``files`` (how many were rebuilt) and ``problems`` (a line for each that was not).
        """
        self.wait_certified()
        done = [Repairer(server, self.operators).repair() for server in self.servers.values()]
        return {"files": sum(files for files, _ in done), "problems": [line for _, lines in done for line in lines]}


def _elsewhere(path: Path) -> str:
    if (path / CARD_NAME).exists():
        return f"{path} is a server's folder: mipp server status {path}; owners and users have folders of their own"
    return f"the servers of {path} are elsewhere; open it with Deployment.connect"


def _description(path: Path) -> str:
    try:
        return (path / CONFIG_NAME).read_text()
    except (OSError, UnicodeDecodeError):
        raise DeploymentError(f"{path} is no deployment; make one with: mipp init --deployment {path}") from None
