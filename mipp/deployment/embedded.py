"""All parties in one process and one folder: for demos, tests and benchmarks.

It protects nothing from whoever reads the folder: the keys of all parties lie there. What it keeps is everything else:
roles exchange messages only, every check and every byte on the wire is as in a deployment over a network.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import features, schemes
from ..client.blocklist import changed_blocked, read_blocked, write_blocked
from ..client.choosing import owner_id, owner_refs
from ..client.given import user_id
from ..client.journal import Journal
from ..client.owner import ImageOwner
from ..client.user import User
from ..crypto import box, schedule, signing
from ..crypto.keyfile import change_passphrase, is_protected, load_key_file, read_public, save_key_file
from ..encoding import Encoding
from ..encoding.bounds import ranking_problem
from ..errors import (
    DeploymentError,
    DTypeError,
    KeyFileError,
    MippError,
    NotFoundError,
    ParameterError,
)
from ..io.durable import replace_file
from ..io.window import check_window
from ..paillier import DEFAULT_BITS
from ..params import Params
from ..rpc import peer_messages as pm
from ..rpc.channel import LocalChannel, request
from ..rpc.description import DeploymentConfig, ServerKeys
from ..rpc.names import check_name, known_name
from ..server.admission import Admission
from ..server.cloud import CloudServer
from ..server.key_centre import KeyCentre
from ..server.rendezvous import LocalRendezvous
from ..server.server import Server
from .certifier import Certifier
from .given import checked_rankings, checked_threads, folder_path
from .migrate import migrate, remove_old
from .sessions import OwnerTurn, Session
from .settling import rejoin, settle
from .witness import Witness

__all__ = ["DEFAULT_BITS", "Deployment"]

CONFIG_NAME = "deployment.json"
#: key file of a server's identity, beside its other keys
IDENTITY_NAME = "identity.key"


class Deployment:
    """An embedded deployment. Make one with :meth:`create`, open one with :meth:`open`; use as a context manager.

    Attributes
    ----------
    config : public description
    channel : counts bytes by message kind, and rounds
    servers : the servers of this process by number

    Several processes may have one folder open at once.
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
        self._threads, self._witness = threads, witness
        self.folder, self.config, self.servers = folder, config, servers
        self._session = session
        self.channel = LocalChannel({i: s.handle for i, s in servers.items()})
        #: the servers' side for their operators and for each other; owners and users never reach it
        self.operators = LocalChannel({i: s.operate for i, s in servers.items()})
        self._journals: list[Journal] = []
        #: what a person should know of how the deployment was found: a sentence each
        self.notes: list[str] = []
        self._closed, self._process = False, os.getpid()
        self._certifier = Certifier(self.operators)

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
        scheme: str = "shares",
        window: tuple[float, float] | None = None,
        rankings: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> Deployment:
        """Make a new deployment in ``folder`` (made if missing).

        Parameters
        ----------
        folder : must not hold a deployment
        encoding : fixed for the index's life
        descriptor : spec of the features of images, or empty for vectors; kept with its version, so that features of
            another version are refused later
        scheme : ``"shares"``: two clouds and a key centre (n=3, t=1); ``"paillier"``: one cloud and a key centre,
            queries under each user's own Paillier key, ranked by the user
        window : lowest and highest value of deep gray images that is told apart, see :func:`mipp.io.images.load_image`;
            one for all owners and users
        rankings : what owners may grant, the default first, of ``"server"``, ``"user"``, ``"threshold"``; default all
            that the scheme has. With ``("user",)`` users rank, and grants allow that, unless told otherwise

        Raises
        ------
        DeploymentError
            The folder holds a deployment, or cannot be written.
        ParameterError
            A value out of range, or of another type.
        ScoreRangeError
            ``rankings`` names a ranking that the encoding does not allow. Without ``rankings`` a warning says so, as
            users can rank all the same.
        """
        path = folder_path(folder)
        if not isinstance(encoding, Encoding):
            raise DTypeError(f"an encoding is an mipp.Encoding, not {type(encoding).__name__}")
        if not isinstance(descriptor, str):
            raise DTypeError(f"a descriptor is named by text, not {type(descriptor).__name__}")
        version = 0
        if descriptor:
            found = features.get(descriptor)
            descriptor, version = found.name, found.version
        params = schemes.get(scheme).params(encoding.ring_bits)
        if not encoding.score_range[1]:
            raise ParameterError("the encoding gives every score the value 0")
        made_for, window = checked_rankings(rankings, params, encoding), check_window(window)
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
        keys, public = {}, {}
        for i in range(1, params.n + 1):
            keys[i] = {name: schedule.random_bytes(32) for name in ("box", "pair", "sign")}
            raw = {name: box.box_private(keys[i][name]).public_key().public_bytes_raw() for name in ("box", "pair")}
            public[i] = ServerKeys(raw["box"], raw["pair"], signing.sign_public(keys[i]["sign"]))
        config = DeploymentConfig(
            schedule.random_bytes(16), params, encoding, descriptor, public, window, version, made_for
        )
        for i, secret in keys.items():
            home = path / "servers" / str(i)
            server = _server_class(params, i)(config, i, home, *secret.values(), create=True)
            server.close()
            identity = {"sign": secret.pop("sign")}
            save_key_file(home / "server.key", "server", {"server": str(i)}, secret)
            save_key_file(home / IDENTITY_NAME, "server", {"server": str(i)}, identity)
        replace_file(path / CONFIG_NAME, config.to_json().encode())  # last: a folder without it is no deployment
        return cls.open(path, threads=threads)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, threads: int | None = None, check: bool = True) -> Deployment:
        """Open a deployment and complete or undo what a process that died left half-way.

        Parameters
        ----------
        folder : made by :meth:`create`
        threads : native threads of all parties, default all cores
        check : compare the checksum of each share file when it is first used (reads it once)

        Raises
        ------
        DeploymentError
            No deployment, or of another format.
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
            config = DeploymentConfig.from_json(text)
            witness = Witness(path / "witness", len(config.servers))
            for i in config.servers:
                home = path / "servers" / str(i)
                remove_old(home)  # if a migration was interrupted after it was valid
                _, secret = load_key_file(home / "server.key", "server")
                _, identity = load_key_file(home / IDENTITY_NAME, "server")
                kind = _server_class(config.params, i)
                servers[i] = kind(
                    config, i, home, secret["box"], secret["pair"], identity["sign"], threads=threads, check=check,
                    holder=session.token, alive=session.alive, witness=functools.partial(witness.note, i),
                )  # fmt: skip
            rendezvous, tests = LocalRendezvous(), LocalRendezvous(running=1)
            for i, server in servers.items() if config.params.n == 3 else ():
                server.admission, server.certifying = Admission(i, rendezvous), Admission(i, tests)
            deployment = cls(path, config, servers, session, witness, threads)
            if session.alone:
                restored = rejoin(deployment.operators, servers, {i: witness.noted(i) for i in servers})
                deployment.notes += _restored_notes(restored, len(servers))
            if not set(config.offered) <= {*config.possible, "threshold"}:
                deployment.notes.append(
                    f"{ranking_problem(config.encoding)}: servers cannot rank this index, users that are granted it "
                    "can (--ranking user)"
                )
            deployment._recover()
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

    def close(self) -> None:
        """Close all files. Nothing is lost without it. A forked child closes nothing: it is all its parent's."""
        if not self._closed and os.getpid() == self._process:
            self._closed = True
            self._certifier.stop()
            for server in self.servers.values():
                server.close()
            for journal in self._journals:
                journal.close()
            self._session.close()
            self._witness.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_certifier(self) -> None:
        """Have batches of earlier versions certified, in the background."""
        if self.config.certifies and (count := self._certifier.start()):
            self.notes.append(
                f"the servers are checking the range of rows that were uploaded before ({count} "
                f"batch{'es' * (count > 1)}); until then searches that servers rank go on without them; `mipp verify` "
                "waits for it"
            )

    def wait_certified(self, seconds: float | None = None) -> bool:
        """Wait until the servers have checked what was uploaded before they did that by themselves, or changed since.

        Whether they have, all of it. Searches name the batches that they go on without meanwhile, and those that were
        refused.
        """
        return not self.config.certifies or not self._certifier.start() or self._certifier.wait(seconds)

    def _recover(self) -> None:
        """Settle what is open between the servers: see :func:`~mipp.deployment.settling.settle`."""
        settle(self.operators)

    # --- parties ------------------------------------------------------------------------------------------------

    def create_owner(self, name: str, passphrase: str | None = None) -> ImageOwner:
        """Make an owner: a key file (mode 0600) in ``owners/``, and its registration with all servers.

        Raises
        ------
        KeyFileError, ParameterError
            The name is taken, here or at the servers.
        """
        name = self._free_name("owner", name)
        secrets = {"root": schedule.random_bytes(32), "sign": schedule.random_bytes(32)}
        registration = schedule.random_bytes(16)
        public = {"name": name, "registration": registration.hex(), "deployment": self.config.id.hex()}
        public["id"] = signing.party_id(signing.sign_public(secrets["sign"]), registration).hex()
        path = self._key_path("owners", name)
        save_key_file(path, "owner", public, secrets, passphrase)
        path.with_suffix(".journal").unlink(missing_ok=True)  # of an earlier owner, whose key file was taken away
        return self.owner(name, passphrase)

    def owner(
        self, name: str, passphrase: str | None = None, *, waiting: Callable[[], None] | None = None
    ) -> ImageOwner:
        """The owner of a key file in ``owners/``, registered with all servers if a crash kept it from that.

        ``waiting`` is called when adding has to wait for another process that adds files of this owner.

        Raises
        ------
        NotFoundError, KeyFileError
            No such owner, or it was forgotten; the key file or its passphrase is wrong.
        """
        path = self._party_path("owners", name)
        public, secrets = load_key_file(path, "owner", passphrase)
        self._check_public(path, public, name)
        turn = OwnerTurn(path.with_suffix(".lock"))
        try:
            registration = bytes.fromhex(public["registration"])
            with turn:  # one process at a time makes it, or seals one of an earlier version
                journal = self._journal(path, public, secrets)
            self._journals.append(journal)
            owner = ImageOwner(
                name,
                self.config,
                self.channel,
                secrets["root"],
                secrets["sign"],
                registration,
                threads=self._threads,
                journal=journal,
                turn=turn,
                adding=OwnerTurn(path.with_suffix(".adding"), waiting),
            )
        except (KeyError, ValueError) as error:
            raise KeyFileError(f"key file {path} is corrupt") from (error if isinstance(error, MippError) else None)
        _require_id(path, public, owner.id)
        known = [request(self.operators, i, pm.StatusRequest(owner.id)) for i in self.servers]
        if any(True in status.forgotten for status in known):
            raise NotFoundError(f"owner {name} was forgotten; create one with another name")
        if not all(status.owners for status in known):
            owner.register()
        owner.recover, owner.find_user = self._recover, self.user_id
        with owner.turn:  # not while another process is between its entry and its upload
            journal.settle({b.id: b.live for b in owner.batches()})
        return owner

    def _journal(self, path: Path, public: dict[str, str], secrets: dict[str, bytes]) -> Journal:
        key = schedule.journal_key(secrets["root"], self.config.id, bytes.fromhex(public["registration"]))
        return Journal(path.with_suffix(".journal"), key)

    def create_user(self, name: str, passphrase: str | None = None, *, key_bits: int = DEFAULT_BITS) -> User:
        """Make a user: a key file (mode 0600) in ``users/``, and its registration with all servers.

        Parameters
        ----------
        name : public
        passphrase : protects the key file
        key_bits : of the user's Paillier key in the Paillier scheme: 2048, 3072 or 4096
        """
        name = self._free_name("user", name)
        secrets = {"sign": schedule.random_bytes(32), "box": schedule.random_bytes(32)}
        secrets |= schemes.get(self.config.params.scheme).user_secrets(key_bits)
        public_box = box.box_private(secrets["box"]).public_key().public_bytes_raw()
        public_sign = signing.sign_public(secrets["sign"])
        identity = signing.party_id(public_sign, public_box)
        public = {"name": name, "id": identity.hex(), "deployment": self.config.id.hex()}
        # so that owners compute the id from the keys themselves
        public |= {"sign_key": public_sign.hex(), "box_key": public_box.hex()}
        save_key_file(self._key_path("users", name), "user", public, secrets, passphrase)
        return self.user(name, passphrase)

    def user(self, name: str, passphrase: str | None = None) -> User:
        """The user of a key file in ``users/``."""
        path = self._party_path("users", name)
        public, secrets = load_key_file(path, "user", passphrase)
        self._check_public(path, public, name)
        try:
            user = User(
                name, self.config, self.channel, secrets["sign"], secrets["box"], secrets=secrets,
                threads=self._threads, blocked=read_blocked(self.blocked_path(name)),
            )  # fmt: skip
        except (KeyError, ValueError) as error:
            raise KeyFileError(f"key file {path} is corrupt") from (error if isinstance(error, MippError) else None)
        _require_id(path, public, user.id)
        user.keep_blocked = functools.partial(write_blocked, self.blocked_path(name))
        user.register()
        user.recover = self._recover
        return user

    def change_passphrase(self, kind: str, name: str, old: str | None, new: str | None) -> None:
        """Change, set (``old`` None) or remove (``new`` None) the passphrase of an owner's or user's key file.

        ``kind`` is "owner" or "user". Errors as of :func:`mipp.crypto.keyfile.change_passphrase`; NotFoundError for an
        unknown name.
        """
        path = self._party_path(f"{kind}s", name)
        if kind == "owner" and path.with_suffix(".journal").exists():
            public, secrets = load_key_file(path, kind, old)
            with OwnerTurn(path.with_suffix(".lock")):  # one of an earlier version, in the clear, is sealed first
                self._journal(path, public, secrets).close()
        change_passphrase(path, kind, old, new)

    def has_passphrase(self, kind: str, name: str) -> bool:
        """Whether the key file of an owner or user has a passphrase."""
        return is_protected(self._party_path(f"{kind}s", name), kind)

    def prepare(self, user: Any, queries: int = 1) -> None:
        """Let the servers make the randomness for a user's next queries ahead, in memory.

        Only the Paillier scheme has any; in the other there is nothing to do. ``user``: as for
        :meth:`mipp.ImageOwner.grant`.
        """
        user = user_id(user, self.user_id)
        rows = self.status()["images"]
        for server in self.servers.values():
            server.scheme.prepare(user, rows, queries)

    def user_id(self, name: str) -> bytes:
        """Id of the user called ``name`` here; what owners grant to. Needs no passphrase.

        The id is computed from the public keys of the key file, and all servers must have registered the same keys
        under that name.

        Raises
        ------
        NotFoundError
            No such user here or at the servers.
        KeyFileError
            The key file does not fit its own keys, or those that the servers know.
        """
        path = self._party_path("users", name)
        public = read_public(path, "user")
        self._check_public(path, public)
        identity = bytes.fromhex(public["id"])
        for server in self.servers:
            keys = request(self.operators, server, pm.KeysRequest(identity))
            known = {"sign_key": keys.sign_key.hex(), "box_key": keys.second.hex()}
            # key files of earlier versions hold no keys: the servers' are all there is
            own = {field: public.get(field, value) for field, value in known.items()}
            if (
                own != known
                or signing.party_id(keys.sign_key, keys.second) != identity
                or keys.name != public.get("name")
                or keys.name != check_name(name)
            ):
                raise KeyFileError(f"key file {path} is not that of the user that the servers know as {name!r}")
        return identity

    def blocked_path(self, user: str) -> Path:
        """The file that keeps which owners a user blocks."""
        return self._key_path("users", user).with_suffix(".blocked")

    def change_blocked(self, user: str, owners: Any = (), *, block: bool = True) -> frozenset[bytes]:
        """Block owners for a user, or unblock them; returns all that are blocked then. Needs no passphrase.

        ``owners`` : names, ids or owner objects, one or several; none changes nothing.

        NotFoundError, and nothing changes, for an unknown user or an owner to unblock that is not blocked.
        """
        self._party_path("users", user)
        path = self.blocked_path(user)
        refs = owner_refs(owners)
        names = {bytes.fromhex(o["id"]): o["name"] for o in self.status()["owners"]} if refs else {}
        with OwnerTurn(path.with_suffix(".lock")):  # of two processes at once neither undoes the other's change
            blocked = read_blocked(path)
            changed = changed_blocked(blocked, [owner_id(o, names) for o in refs], block=block)
            if changed != blocked:
                write_blocked(path, changed)
        return changed

    def owners(self) -> list[str]:
        """Names that have a key file here, sorted."""
        return sorted(p.stem for p in (self.folder / "owners").glob("*.key"))

    def users(self) -> list[str]:
        """Names that have a key file here, sorted."""
        return sorted(p.stem for p in (self.folder / "users").glob("*.key"))

    def _free_name(self, kind: str, name: str) -> str:
        """The checked name of a new party; ParameterError if the servers know another by it."""
        name = check_name(name)
        if self._key_path(f"{kind}s", name).exists():
            return name  # saving the key file will say so
        for server in self.servers:
            known = request(self.operators, server, pm.StatusRequest(b""))
            taken = (
                [n for n, gone in zip(known.names, known.forgotten, strict=True) if not gone]
                if kind == "owner"
                else known.user_names
            )
            if name.casefold() in {n.casefold() for n in taken}:
                raise ParameterError(f"the name {name!r} is taken; choose another")
        return name

    def _key_path(self, kind: str, name: str) -> Path:
        return self.folder / kind / f"{check_name(name)}.key"

    def _party_path(self, kind: str, name: str) -> Path:
        path = self._key_path(kind, name)
        if not path.exists():
            raise NotFoundError(f"unknown {kind[:-1]} {name!r}; there is no {path}")
        return path

    def _check_public(self, path: Path, public: dict[str, str], name: str | None = None) -> None:
        if name is not None and public.get("name") != check_name(name):
            raise KeyFileError(f"key file {path} is that of {public.get('name')!r}, not of {name!r}")
        try:
            mine = bytes.fromhex(public["deployment"]) == self.config.id
            bytes.fromhex(public["id"])
        except (KeyError, ValueError, TypeError):
            raise KeyFileError(f"key file {path} is corrupt") from None
        if not mine:
            raise KeyFileError(f"key file {path} belongs to another deployment")

    # --- operation ----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Owners with batches, rows and bytes; users; whether all servers have the same. Public facts.

        ``unranked``: batches of an owner that servers do not rank, since their rows are not checked or out of range;
        ``out_of_range``: queries of a user that were beyond the encoding's bounds.
        """
        replies = {i: request(self.operators, i, pm.StatusRequest(b"")) for i in self.servers}
        clouds = [replies[i] for i in self.config.params.clouds]
        first = clouds[0]
        owners = []
        for number, (owner, name, gone) in enumerate(zip(first.owners, first.names, first.forgotten, strict=True)):
            of = first.batch_owner == number
            owners.append(
                {
                    "name": known_name(name, owner),
                    "id": owner.hex(),
                    "forgotten": gone,
                    "batches": int(of.sum()),
                    "rows": int(first.rows[of].sum()),
                    "live": int(first.live[of].sum()),
                    "share_bytes": int(first.sizes[of].sum()),
                    "image_bytes": int(first.image_bytes[number]),
                    "unranked": max(int(r.unranked[of].sum()) for r in clouds) if self.config.certifies else 0,
                }
            )
        facts = [(r.owners, r.forgotten, r.positions, r.views, r.live.tolist()) for r in replies.values()]
        p = self.config.params
        return {
            "deployment": self.config.id.hex(),
            "descriptor": self.config.descriptor,
            "params": {"n": p.n, "t": p.t, "k": p.ring_bits, "scheme": p.scheme},
            "encoding": self.config.encoding.to_dict(),
            "servers": {i: type(s).__name__ for i, s in self.servers.items()},
            "owners": owners,
            "users": [
                {"name": known_name(n, u), "id": u.hex(), "out_of_range": int(count)}
                for u, n, count in zip(first.users, first.user_names, first.out_of_range, strict=True)
            ],
            "images": sum(o["live"] for o in owners),
            "rankings": list(self.config.possible),
            "servers_agree": all(f == facts[0] for f in facts),
        }

    def verify(self) -> dict[str, Any]:
        """Read all files of all servers: ``files``, and ``problems``, a line each, naming the file.

        Waits for the check of the range of rows that were uploaded before.
        """
        self.wait_certified()
        reports = {i: request(self.operators, i, pm.VerifyRequest()) for i in self.servers}
        problems = [line for report in reports.values() for line in report.problems]
        if not self.status()["servers_agree"]:
            problems.append("the servers do not hold the same batches")
        return {"files": sum(r.files for r in reports.values()), "problems": problems}


def _restored_notes(restored: list[int], servers: int) -> list[str]:
    if not restored:
        return []
    if len(restored) == servers:
        return [
            "all servers were restored from backups: what was revoked or counted since is not known, so grants are "
            "suspended until their owners grant again"
        ]
    names = ", ".join(map(str, restored))
    return [
        f"server {names} was restored from a backup and took over from the others what it lacked; batches whose files "
        "it lacks are left out of searches until their owner compacts them or adds them again"
    ]


def _description(path: Path) -> str:
    try:
        return (path / CONFIG_NAME).read_text()
    except (OSError, UnicodeDecodeError):
        raise DeploymentError(f"{path} is no deployment; make one with: mipp init --deployment {path}") from None


def _require_id(path: Path, public: dict[str, str], identity: bytes) -> None:
    """KeyFileError unless a key file's public part names the id of its secret keys."""
    if public["id"] != identity.hex():
        raise KeyFileError(f"the id in key file {path} is not that of its keys")


def _server_class(params: Params, index: int) -> type[Server]:
    return CloudServer if index in params.clouds else KeyCentre
