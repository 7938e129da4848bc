"""The ceremony that makes a deployment of real servers: cards, the description, joining; and folders of clients.

Each operator makes a server with :func:`init_server` and hands out its card. Anybody assembles the description from the
cards with :func:`assemble`. Each operator joins with :func:`join_server`, and all compare the description's
fingerprint.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import schemes
from ..crypto import schedule, signing
from ..crypto.certificates import make_tls
from ..encoding import Encoding
from ..encoding.clusters import Clusters
from ..errors import DeploymentError, MippError, ParameterError
from ..io.durable import replace_file, sync_folder
from ..rpc.address_book import AddressBook
from ..rpc.addresses import Address, check_server_name, check_url, require_distinct
from ..rpc.cards import MAX_CARD_BYTES, ROLES, ServerCard, signed_card
from ..rpc.description import MAX_DESCRIPTION_BYTES, DeploymentConfig, ServerKeys, check_fingerprint
from ..rpc.membership import check_next, check_signed, same_but_signatures, signed_by
from ..store.catalog import NAME as CATALOG_NAME
from .given import checked_index
from .servers import CARD_NAME, CONFIG_NAME, ServerSecrets, known_scheme, open_server, own_secrets, server_class
from .settings import SETTINGS_NAME, ServerSettings
from .tls_files import TLS_CERTIFICATE_NAME, TLS_KEY_NAME, check_tls, read_file, read_tls, served_tls

__all__ = [
    "CARD_NAME",
    "assemble",
    "connect_folder",
    "init_server",
    "join_server",
    "new_folder",
    "number_of",
    "read_card",
    "read_description",
    "sign_description",
]

_JOINING = ".joining"
#: what a server signed as a version of the description
_SIGNED = "signed-{}.json"


# --- servers ------------------------------------------------------------------------------------------------------


def init_server(
    folder: Path, role: str, name: str, url: str, certificate: Path | None = None, key: Path | None = None
) -> ServerCard:
    """Make a server's folder: its keys, TLS certificate, settings and card.

    Parameters
    ----------
    folder : Path
        New, or an empty folder; made with mode 0700.
    role : str
        ``cloud`` or ``key-centre``.
    name : str
        Public name of the server, as of :func:`~mipp.rpc.addresses.check_server_name`.
    url : str
        ``https://HOST:PORT`` under which clients and the other servers reach it.
    certificate, key : Path, optional
        The operator's own certificate and TLS key, PEM files; default a new key and a self-signed certificate.

    Returns
    -------
    ServerCard
        The card, which is also in ``card.json``.

    Raises
    ------
    ParameterError
        A value that is not as described, or PEM files that do not fit.
    DeploymentError
        The folder is used, or cannot be written: nothing is left there then.
    """
    if role not in ROLES:
        raise ParameterError(f"a server's role is {ROLES[0]} or {ROLES[1]}")
    name = check_server_name(name)
    url, host, _ = check_url(url)
    if (certificate is None) != (key is None):
        raise ParameterError("give both the certificate and its key, or neither")
    tls = make_tls(name, host) if certificate is None or key is None else read_tls(certificate, key)
    secrets = ServerSecrets.new()
    public = secrets.public()
    card = signed_card(
        role, Address(name, url, tls.certificate), public.box, public.pair, signing.private_key(secrets.sign)
    )
    with new_folder(folder) as made:
        secrets.save(made, {"name": name, "role": role})
        replace_file(made / TLS_KEY_NAME, tls.key)
        replace_file(made / TLS_CERTIFICATE_NAME, tls.chain)
        replace_file(made / SETTINGS_NAME, ServerSettings.template(url).encode())
        replace_file(made / CARD_NAME, card.to_json().encode())
    return card


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which takes its name when all is on disk; DeploymentError if the name is used."""
    folder = Path(os.path.abspath(folder))
    temporary = folder.parent / f".{folder.name}.{schedule.random_bytes(4).hex()}"
    used = DeploymentError(f"{folder} is used; name a new folder, or an empty one")
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise used
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir(mode=0o700)
        try:
            yield temporary
            sync_folder(temporary)
            os.rename(temporary, folder)  # fails if something was put there meanwhile
            try:
                sync_folder(folder.parent)
            except OSError:
                os.rename(folder, temporary)  # and it is removed: who met an error finds nothing
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except FileExistsError:
        raise used from None
    except OSError as error:  # also what the files inside raise
        raise DeploymentError(f"cannot make {folder}: {error.strerror or error}") from None
    except MippError as error:
        if isinstance(error, DeploymentError):
            raise
        raise DeploymentError(f"cannot make {folder}: {error}") from None


def read_card(path: Path) -> ServerCard:
    """Read a card from its file, or from a server's folder; DeploymentError if it is missing or corrupt."""
    if path.is_dir():
        if not (path / CARD_NAME).is_file():
            raise DeploymentError(f"{path} is no folder of a server; mipp server init makes a new one")
        path = path / CARD_NAME
    return ServerCard.from_json(read_file(path, MAX_CARD_BYTES))


def join_server(folder: Path, description: DeploymentConfig) -> int:
    """Have a server take part in a deployment: check that the description means it, make its empty store.

    Again with the same description changes nothing.

    Parameters
    ----------
    folder : Path
        Made by :func:`init_server`.
    description : DeploymentConfig
        Made by :func:`assemble` with this server's card.

    Returns
    -------
    int
        The server's number in the deployment.

    Raises
    ------
    DeploymentError
        The description does not name this server as its card does, the folder joined another one, or its store is
        missing or cannot be made. Nothing has changed.
    KeyFileError
        The server's key files are damaged.
    """
    with _alone(folder):
        return _join(folder, description)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time joins with a folder; DeploymentError if there is none."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DeploymentError(f"cannot read {folder}: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _take_next(folder: Path, known: DeploymentConfig, description: DeploymentConfig) -> None:
    """Have a folder take the next version of its description, or the same one; DeploymentError for any other."""
    if not same_but_signatures(known, description):
        check_next(known, description)
        replace_file(folder / CONFIG_NAME, description.to_json().encode())


def _join(folder: Path, description: DeploymentConfig) -> int:
    card = read_card(folder)
    check_signed(description)
    known = read_description(folder / CONFIG_NAME) if (folder / CONFIG_NAME).exists() else None
    if known is not None and known.id != description.id:
        raise DeploymentError(
            f"{folder} joined another description, that of deployment {known.id.hex()}; to begin anew, make a new "
            "folder with mipp server init, and hand out its card"
        )
    index = number_of(card, description)
    secrets = own_secrets(folder, description, index)
    params = known_scheme(description).params
    has_store = (folder / CATALOG_NAME).exists()
    if known is not None:
        try:
            _take_next(folder, known, description)
        except DeploymentError as error:
            raise DeploymentError(
                f"{folder} joined another description, or another version of it ({error}); to begin anew, make a "
                "new folder with mipp server init, and hand out its card"
            ) from None
        served_tls(folder, AddressBook(description, folder).certificates(index))
        if not has_store:  # an empty one in its place would forget what this server promised
            raise DeploymentError(f"the store in {folder} is missing; restore it from a backup")
        return index
    book = AddressBook(description, folder)
    if book.version(index):  # with the keys of one that rotated its certificate since it joined
        served_tls(folder, book.certificates(index))
    else:
        check_tls(folder, card.certificate)
    temporary = folder / _JOINING
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that died; nothing refers to it
        if not has_store:
            server_class(params, index)(description, index, temporary, *secrets, create=True).close()
            for path in sorted(temporary.iterdir(), key=lambda p: p.name.startswith(CATALOG_NAME)):  # the catalog last
                os.rename(path, folder / path.name)
            temporary.rmdir()
            sync_folder(folder)
        # refuses a catalog of another deployment, which somebody left without its description
        open_server(folder, description, index).close()
        replace_file(folder / CONFIG_NAME, description.to_json().encode())  # last: a folder without it did not join
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise DeploymentError(f"cannot make the store in {folder}: {error.strerror or error}") from None
    return index


def number_of(card: ServerCard, description: DeploymentConfig) -> int:
    """The number of a card's server in a description that names it exactly so; else DeploymentError."""
    if not description.addresses:
        raise DeploymentError("the description is that of an embedded deployment, whose servers have no addresses")
    found = [i for i, a in description.addresses.items() if a.name == card.name]
    if not found:
        raise DeploymentError(f"the description names no server {card.name}; was it assembled from this card?")
    (index,) = found
    address = description.addresses[index]
    clouds = description.params.clouds
    for what, same in (
        ("role", (index in clouds) == (card.role == ROLES[0])),
        ("public keys", description.servers[index] == _keys(card)),
        ("URL", address.url == card.url),
        ("certificate", address.certificate == card.certificate),
    ):
        if not same:
            raise DeploymentError(f"the description names another {what} of server {card.name} than its card")
    return index


def _keys(card: ServerCard) -> ServerKeys:
    return ServerKeys(card.box, card.pair, card.sign)


# --- the description ------------------------------------------------------------------------------------------------


def assemble(
    cards: Sequence[ServerCard],
    encoding: Encoding,
    *,
    descriptor: str = "",
    scheme: str | None = None,
    registrar: bytes | None = None,
    window: tuple[float, float] | None = None,
    rankings: Sequence[str] | None = None,
    preview_size: int = 0,
    clusters: Clusters | None = None,
) -> DeploymentConfig:
    """Make the description of a new deployment from its servers' cards.

    Parameters
    ----------
    cards : sequence of ServerCard
        Two or three clouds and a key centre, or one cloud and a key centre in the schemes ``lattice`` and ``paillier``.
        Clouds are numbered in this order: 1, 2 and 4, the key centre being 3; one cloud is 1, its key centre 2.
    encoding, descriptor, scheme, window, rankings, preview_size, clusters
        As of :meth:`mipp.Deployment.create`.
    registrar : bytes, optional
        Ed25519 public key that signs invitations, 32 bytes; default the identity of the first card's server. Empty:
        parties register without an invitation.

    Returns
    -------
    DeploymentConfig
        The description, with a new id.

    Raises
    ------
    DeploymentError
        Other roles than the scheme needs; two cards with the same name, URL or key.
    ParameterError, DTypeError, ScoreRangeError
        A value out of range or of another type, as of :meth:`mipp.Deployment.create`.
    """
    clouds, centres = ([card for card in cards if card.role == role] for role in ROLES)
    scheme = schemes.of_clouds(len(clouds) if centres else None) if scheme is None else scheme
    counts = schemes.get(scheme).cloud_counts
    if len(clouds) not in counts or len(centres) != 1:
        raise DeploymentError(
            f"the {scheme} scheme has {' or '.join(map(str, counts))} cloud{'s' * (counts != (1,))} and 1 key centre; "
            f"these are cards of {len(clouds)} and {len(centres)}"
        )
    index = checked_index(
        encoding, descriptor=descriptor, scheme=scheme, clouds=len(clouds), window=window, rankings=rankings,
        preview_size=preview_size, clusters=clusters,
    )  # fmt: skip
    params = index.params
    numbered = dict(zip([*params.clouds, *params.key_centres], [*clouds, *centres], strict=True))
    require_distinct([c.address for c in cards], [key for c in cards for key in (c.box, c.pair, c.sign)])
    registrar = cards[0].sign if registrar is None else registrar
    if len(registrar) not in (0, 32):
        raise ParameterError("a registrar's public key has 32 bytes")
    return DeploymentConfig(
        schedule.random_bytes(16),
        params,
        index.encoding,
        index.descriptor,
        {i: _keys(card) for i, card in sorted(numbered.items())},
        index.window,
        index.descriptor_version,
        index.rankings,
        {i: card.address for i, card in sorted(numbered.items())},
        registrar,
        record_bytes=index.record_bytes,
        clusters=index.clusters,
    )


def sign_description(folder: Path, description: DeploymentConfig) -> DeploymentConfig:
    """Sign the next version of a server's description, with its identity.

    Parameters
    ----------
    folder : Path
        The server's.
    description : DeploymentConfig
        Made by :func:`mipp.rpc.membership.proposed`, perhaps with others' signatures.

    Returns
    -------
    DeploymentConfig
        The same, with this server's signature.

    Raises
    ------
    DeploymentError
        It is not the next version of the one in the folder, or this server signed another one of this version.
    KeyFileError
        The server's key files are damaged.
    """
    with _alone(folder):
        if not (folder / CONFIG_NAME).exists():
            raise DeploymentError(f"{folder} joined no deployment yet, so it has no version that this one could follow")
        known = read_description(folder)
        if same_but_signatures(known, description):
            raise DeploymentError(
                f"the server in {folder} has this version already; servers that have the version before sign it, "
                "a cloud that joins does not"
            )
        check_next(known, description, signatures=0)
        index = number_of(read_card(folder), known)
        seed = own_secrets(folder, known, index).sign
        path, name = folder / _SIGNED.format(description.version), description.unsigned
        try:
            before = path.read_bytes() if path.exists() else None
            if before is None:
                replace_file(path, name)  # before the signature leaves: another one of this version never does
        except OSError as error:
            raise DeploymentError(f"cannot write {path}: {error.strerror}") from None
        if before not in (None, name):
            raise DeploymentError(
                f"this server signed another description of version {description.version}; nobody can use two"
            )
        return signed_by(description, index, signing.private_key(seed))


def read_description(path: Path) -> DeploymentConfig:
    """Read a description from its file, or from a folder of a server or client.

    DeploymentError if it cannot be read or is corrupt.
    """
    path = path / CONFIG_NAME if path.is_dir() else path
    return DeploymentConfig.from_json(read_file(path, MAX_DESCRIPTION_BYTES))


# --- clients ------------------------------------------------------------------------------------------------------


def connect_folder(folder: Path, description: DeploymentConfig, fingerprint: str | None) -> None:
    """Make a client's folder for a deployment of real servers: its description, and no owners and users yet.

    Again with the same description changes nothing. A folder takes the next version of its description if servers
    signed it (:func:`mipp.rpc.membership.check_next`).

    Parameters
    ----------
    folder : Path
        Made if missing, mode 0700.
    description : DeploymentConfig
        From anybody.
    fingerprint : str or None
        The description's, from somebody whom the client trusts; see
        :func:`~mipp.rpc.description.check_fingerprint`. None for the next version of the one in the folder.

    Raises
    ------
    DeploymentError
        Another fingerprint; a folder of another deployment; a folder that cannot be written.
    """
    if not description.addresses:
        raise DeploymentError("the description is that of an embedded deployment; clients open its folder")
    if fingerprint is not None:
        check_fingerprint(description, fingerprint)
    check_signed(description)
    known_scheme(description)
    try:
        if (folder / CARD_NAME).exists():
            raise DeploymentError(f"{folder} is a server's folder; name a new folder for owners and users")
        if (folder / CONFIG_NAME).exists():
            known = read_description(folder / CONFIG_NAME)
            try:
                _take_next(folder, known, description)
            except DeploymentError as error:
                text = f"{folder} belongs to another deployment, or another version of it ({error})"
                raise DeploymentError(text) from None
        elif fingerprint is None:
            raise DeploymentError("a new folder needs the fingerprint of the description, from an operator")
        elif any(any((folder / name).glob("*")) for name in ("owners", "users")):
            raise DeploymentError(f"{folder} holds owners or users of another deployment; name a new folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("owners", "users"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        if not (folder / CONFIG_NAME).exists():
            replace_file(folder / CONFIG_NAME, description.to_json().encode())  # last: without it, it is no deployment
    except OSError as error:
        raise DeploymentError(f"cannot make {folder}: {error.strerror or error}") from None
