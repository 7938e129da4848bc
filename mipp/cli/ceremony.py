"""``mipp deployment``, ``registrar``, ``invite``, ``connect``: from cards to a deployment that parties can join."""

from __future__ import annotations

import decimal
import re
from pathlib import Path
from typing import Any

import click

from ..client.given import expiry_seconds
from ..crypto import schedule, signing
from ..crypto.keyfile import load_key_file, read_public, save_key_file
from ..deployment.ceremony import assemble, connect_folder, read_card, read_description
from ..deployment.servers import ServerSecrets
from ..errors import DeploymentError, KeyFileError, ParameterError
from ..io.durable import replace_file
from ..rpc.grants import time_text
from ..rpc.invitations import Invitation, invite
from ..rpc.membership import proposed
from ..rpc.names import check_name
from .common import json_option, new_passphrase, show, unprotected, with_passphrase
from .init import chosen_index, index_facts, index_lines, index_options
from .outputs import warn
from .passphrases import passphrase_option
from .server import FILE

__all__ = ["connect_command", "deployment_group", "invite_command", "registrar_group"]

_KIND = "registrar"
_UNITS = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12}


# --- the description ------------------------------------------------------------------------------------------------


@click.group("deployment")
def deployment_group() -> None:
    """What a deployment is; and making the description of one whose servers are on machines of their own."""


@deployment_group.command("assemble")
@click.option(
    "--card",
    "cards",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    help="Card of a server (card.json); once for each server. Clouds are numbered in this order.",
)
@index_options
@click.option(
    "--registrar",
    metavar="KEY",
    help="Who signs invitations: key file of mipp registrar create, or its public key as 64 hex digits. Default: the "
    "server of the first card.",
)
@click.option(
    "-o", "--out", "out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write, new."
)
@json_option
@click.pass_context
def assemble_command(
    context: click.Context, /, cards: tuple[Path, ...], registrar: str | None, out: Path, as_json: bool, **options: Any
) -> None:
    """Make the description of a new deployment from the cards of its servers. It is public.

    Give it to the operators, who join with it, and compare its fingerprint with them.
    """
    if out.exists():
        raise DeploymentError(f"{out} exists; name a new file")
    read = [read_card(path) for path in cards]
    public = None if registrar is None else _registrar_key(registrar)
    clouds = sum(card.role == "cloud" for card in read)
    with chosen_index(context, clouds=clouds, **options) as chosen:
        config = assemble(read, chosen.encoding, registrar=public, **chosen.arguments)
    replace_file(out, config.to_json().encode())
    servers = {str(i): {"name": a.name, "url": a.url} for i, a in config.addresses.items()}
    data = {
        "description": str(out), "id": config.id.hex(), "fingerprint": config.fingerprint, "servers": servers,
        "registrar": config.registrar.hex(), **index_facts(chosen, config),
    }  # fmt: skip
    show(data, as_json, lambda: [
        f"deployment {config.id.hex()}: {out}",
        *(f"server {i}: {a.name} at {a.url}" for i, a in config.addresses.items()),
        *index_lines(data),
        f"registrar: {config.registrar.hex()}",
        f"fingerprint: {config.fingerprint}",
    ])  # fmt: skip


@deployment_group.command("add-cloud")
@click.argument("description", type=FILE)
@click.option(
    "--card", type=click.Path(path_type=Path, exists=True), required=True, help="Card of the new cloud (card.json)."
)
@click.option(
    "-o", "--out", "out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write, new."
)
@json_option
def add_cloud_command(description: Path, card: Path, out: Path, as_json: bool) -> None:
    """Make the next version of DESCRIPTION (deployment.json), with a third cloud, for the operators to sign.

    They sign with mipp server sign and take it with mipp server join; the new cloud joins, clients take it with mipp
    connect, and owners consent with mipp owner reseal.
    """
    if out.exists():
        raise DeploymentError(f"{out} exists; name a new file")
    config = proposed(read_description(description), read_card(card))
    replace_file(out, config.to_json().encode())
    number = max(config.addresses)  # the newest one
    address, before = config.addresses[number], config.params.n - 1
    data = {
        "description": str(out), "id": config.id.hex(), "version": config.version, "fingerprint": config.fingerprint,
        "cloud": {"number": number, "name": address.name, "url": address.url, "certificate_pin": address.pin.hex()},
        "signatures_needed": before - config.params.t,
    }  # fmt: skip
    show(data, as_json, lambda: [
        f"version {config.version} of deployment {config.id.hex()}: {out}",
        f"cloud {number}: {address.name} at {address.url}",
        f"public key of its certificate (SHA-256): {address.pin.hex()}",
        f"to be signed by {data['signatures_needed']} of {before} servers: mipp server sign FOLDER {out}",
        f"fingerprint: {config.fingerprint}",
    ])  # fmt: skip


def _registrar_key(given: str) -> bytes:
    """Public key of a registrar, as hex or from its key file."""
    text = given if re.fullmatch(r"[0-9a-fA-F]{64}", given) else read_public(Path(given), _KIND).get("sign_key", "")
    try:
        public = bytes.fromhex(text)
    except (ValueError, TypeError):
        public = b""
    if len(public) != 32:
        raise KeyFileError(f"key file {given} is corrupt")
    return public


# --- invitations ----------------------------------------------------------------------------------------------------


@click.group("registrar")
def registrar_group() -> None:
    """Commands of the registrar, who decides which owners and users take part. It can read nothing of theirs."""


@registrar_group.command("create")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--passphrase", is_flag=True, help="Protect the key file; asks, or takes MIPP_PASSPHRASE.")
@passphrase_option
@json_option
def create_command(file: Path, passphrase: bool, as_json: bool) -> None:
    """Make a registrar's key in FILE, and print its public key."""
    given = new_passphrase(passphrase)
    seed = schedule.random_bytes(32)
    public = signing.sign_public(seed).hex()
    save_key_file(file, _KIND, {"sign_key": public}, {"sign": seed}, given)
    show({"key_file": str(file), "registrar": public}, as_json, lambda: [
        f"registrar {public}: {file}", *unprotected(given, "the right to invite owners and users"),
    ])  # fmt: skip


@click.command("invite")
@click.option("--owner", metavar="NAME", help="Invite an owner with this name.")
@click.option("--user", metavar="NAME", help="Invite a user with this name.")
@click.option(
    "--max-rows", metavar="N", help="Rows that the owner may store, such as 1e6. Default: each server's limit."
)
@click.option("--max-bytes", metavar="SIZE", help="Bytes that it may store at a server, such as 10GB; likewise.")
@click.option("--requests", metavar="N", help="Requests a minute that each server answers; likewise.")
@click.option(
    "--expires", default="7d", show_default=True, metavar="TIME", help="When it ends: a span, a date, Unix seconds."
)
@click.option("--key", type=FILE, help="The registrar's key file.")
@click.option(
    "--server",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Instead of --key: folder of the server that is the registrar.",
)
@click.option(
    "--deployment",
    "description",
    type=click.Path(path_type=Path, exists=True),
    help="The description (deployment.json), or a folder that has it; default the one of --server, else the current "
    "folder.",
)
@passphrase_option
@json_option
def invite_command(
    owner: str | None,
    user: str | None,
    max_rows: str | None,
    max_bytes: str | None,
    requests: str | None,
    expires: str,
    key: Path | None,
    server: Path | None,
    description: Path | None,
    as_json: bool,
) -> None:
    """Sign an invitation for an owner or a user; prints it as one line.

    It is used once, with the name that it is for. Until then whoever has it can register under that name.
    """
    if (owner is None) == (user is None):
        raise click.UsageError("give either --owner NAME or --user NAME")
    if (key is None) == (server is None):
        raise click.UsageError("give either --key FILE or --server FOLDER")
    config = read_description(description or server or Path())
    kind, name = ("owner", owner) if owner is not None else ("user", user)
    until = expiry_seconds(expires)
    made = Invitation(
        config.id, kind, check_name(name or ""), until,
        _number(max_rows, "--max-rows"), _number(max_bytes, "--max-bytes"), _number(requests, "--requests"),
    )  # fmt: skip
    if key is not None:
        seed = with_passphrase(lambda passphrase: load_key_file(key, _KIND, passphrase))[1].get("sign", b"")
    else:
        seed = ServerSecrets.load(server or Path()).sign
    if len(seed) != 32 or signing.sign_public(seed) != config.registrar:
        raise KeyFileError(f"this is not the key of the deployment's registrar, {config.registrar.hex() or 'nobody'}")
    text = invite(made, signing.private_key(seed)).to_text()
    data = {"invitation": text, "kind": kind, "name": made.name, "expiry": until, "id": made.id.hex()}
    show(data, as_json, lambda: [text])
    if not as_json:
        warn(f"for {kind} {made.name} until {time_text(until)}; whoever has it can register under that name, once")


def _number(given: str | None, option: str) -> int | None:
    """A whole number as people write it: 1000000, 1e6, 10GB, 4GiB."""
    if given is None:
        return None
    found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?(?:e\d{1,2})?) ?([kmgt]?)(i?)(b?)", given.strip(), re.ASCII | re.I)
    if found is None or (found[3] and not found[2]):
        raise ParameterError(f"{option} is a number such as 1000000, 1e6, 10GB or 4GiB, not {given[:40]!r}")
    power = _UNITS[found[2].lower()]
    value = decimal.Decimal(found[1]) * (1024 ** (power // 3) if found[3] else 10**power)
    if value != value.to_integral_value():
        raise ParameterError(f"{option} is a whole number")
    return int(value)


# --- clients --------------------------------------------------------------------------------------------------------


@click.command("connect")
@click.argument("description", type=FILE)
@click.option(
    "--fingerprint",
    help="The description's, from an operator whom you trust. Not needed for the next version of one that is there.",
)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to make, for this machine's owners and users.",
)
@json_option
def connect_command(description: Path, fingerprint: str | None, folder: Path, as_json: bool) -> None:
    """Make a folder for owners and users of a deployment of servers, from its DESCRIPTION (deployment.json).

    Or have such a folder take the next version of its description, which the servers signed.
    """
    config = read_description(description)
    connect_folder(folder, config, fingerprint)
    data = {"deployment": str(folder.resolve()), "id": config.id.hex(), "fingerprint": config.fingerprint}
    show(data, as_json, lambda: [f"deployment {config.id.hex()} in {data['deployment']}"])
