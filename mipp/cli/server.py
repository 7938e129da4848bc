"""``mipp server``."""

from __future__ import annotations

from pathlib import Path

import click

from ..deployment.ceremony import CARD_NAME, init_server, join_server, read_description, sign_description
from ..deployment.rotation import rotate_server
from ..io.durable import replace_file
from ..rpc.cards import ROLES
from ..rpc.description import check_fingerprint
from .common import json_option, show

__all__ = ["folder_argument", "server_group"]

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
folder_argument = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@click.group("server")
def server_group() -> None:
    """Commands of an operator, for a server on a machine of its own."""


@server_group.command("init")
@folder_argument
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the server does in the deployment.")
@click.option("--name", required=True, help="Name of the server, unique in the deployment; public.")
@click.option(
    "--url", required=True, metavar="URL", help="https://HOST:PORT under which clients and other servers reach it."
)
@click.option("--certificate", type=FILE, help="PEM file of your own TLS certificate; default: self-signed.")
@click.option("--key", type=FILE, help="PEM file of the certificate's key, without a passphrase.")
@json_option
def init_command(
    folder: Path, role: str, name: str, url: str, certificate: Path | None, key: Path | None, as_json: bool
) -> None:
    """Make a server's keys, TLS certificate, settings and card in FOLDER, which is new or empty.

    The card is public: give it to whoever assembles the deployment.
    """
    card = init_server(folder, role, name, url, certificate, key)
    path = folder / CARD_NAME
    data = {
        "folder": str(folder.resolve()), "role": card.role, "name": card.name, "url": card.url, "card": str(path),
        "certificate_pin": card.pin.hex(),
    }  # fmt: skip
    show(data, as_json, lambda: [
        f"{card.role} {card.name} at {card.url}: {folder}",
        f"card to hand out: {path}",
        f"public key of its certificate (SHA-256): {card.pin.hex()}",
        "whoever reads the key files in this folder is this server (mode 0600)",
    ])  # fmt: skip


@server_group.command("join")
@folder_argument
@click.argument("description", type=FILE)
@json_option
def join_command(folder: Path, description: Path, as_json: bool) -> None:
    """Take part in the deployment of DESCRIPTION (deployment.json), with an empty store; or take its next version.

    Refuses a description that names another server than the card in FOLDER. Compare the fingerprint that it prints
    with the other operators, by voice.
    """
    config = read_description(description)
    index = join_server(folder, config)
    data = {"server": index, "deployment": config.id.hex(), "fingerprint": config.fingerprint}
    show(data, as_json, lambda: [
        f"joined deployment {config.id.hex()} as server {index}",
        *([f"version {config.version} of the description; restart it if it runs"] if config.version > 1 else []),
        f"fingerprint to compare with the other operators by voice: {config.fingerprint}",
    ])  # fmt: skip


@server_group.command("sign")
@folder_argument
@click.argument("description", type=FILE)
@click.option("--fingerprint", help="The description's, when you have compared it. Without it nothing is signed.")
@json_option
def sign_command(folder: Path, description: Path, fingerprint: str | None, as_json: bool) -> None:
    """Sign DESCRIPTION, the next version of the deployment of the server in FOLDER, in which a cloud joins.

    Without --fingerprint it shows whom the description names, and what to compare with the other operators. The
    signature is written into the file. A server signs one description of a version, ever.
    """
    config = read_description(description)
    if fingerprint is not None:
        check_fingerprint(config, fingerprint)
        config = sign_description(folder, config)
        replace_file(description, config.to_json().encode())
    signed = sorted(config.signatures)
    data = {
        "description": str(description), "version": config.version, "fingerprint": config.fingerprint,
        "signatures": signed,
    }  # fmt: skip
    show(data, as_json, lambda: [
        f"version {config.version} of deployment {config.id.hex()}; signatures of servers: "
        f"{', '.join(map(str, signed)) or 'none'}",
        *(f"server {i}: {a.name} at {a.url}" for i, a in config.addresses.items()),
        f"fingerprint to compare with the other operators by voice: {config.fingerprint}",
        *([] if fingerprint else ["not signed: do that with --fingerprint, when it is the same everywhere"]),
    ])  # fmt: skip


@server_group.command("rotate")
@folder_argument
@click.option("--new-certificate", is_flag=True, help="Make a new TLS key and a self-signed certificate.")
@click.option("--certificate", type=FILE, help="Instead: PEM file of your own new TLS certificate.")
@click.option("--key", type=FILE, help="PEM file of that certificate's key, without a passphrase.")
@click.option("--new-keys", is_flag=True, help="Make new box and pair keys, of the next epoch.")
@click.option("--url", metavar="URL", help="New https://HOST:PORT of the server.")
@click.option(
    "--finish",
    is_flag=True,
    help="The newest certificate and keys alone are valid from now on; with new ones, these at once.",
)
@json_option
def rotate_command(
    folder: Path, new_certificate: bool, certificate: Path | None, key: Path | None, new_keys: bool, url: str | None,
    finish: bool, as_json: bool,
) -> None:  # fmt: skip
    """Give the server in FOLDER a new TLS certificate, keys or URL, while the others and the clients go on.

    What was valid before stays valid until --finish. A server that runs takes the new ones by itself, and tells the
    others; for another port restart it. The description and its fingerprint stay the same.
    """
    if not (new_certificate or certificate or key or new_keys or url or finish):
        raise click.UsageError("give --new-certificate, --certificate and --key, --new-keys, --url or --finish")
    done = rotate_server(
        folder, url=url, new_certificate=new_certificate, certificate=certificate, key=key, new_keys=new_keys,
        finish=finish,
    )  # fmt: skip
    data = {
        "server": done.server, "version": done.version, "url": done.url,
        "certificate_pins": [pin.hex() for pin in done.pins], "key_epochs": list(done.epochs),
        "owners_to_seal_anew": done.lost,
    }  # fmt: skip
    show(data, as_json, lambda: [
        f"address of server {done.server} is of version {done.version} now: {done.url}",
        f"public key of its certificate (SHA-256): {done.pins[0].hex()}",
        *(f"still valid beside it: {pin.hex()}; end it with: mipp server rotate {folder} --finish"
          for pin in done.pins[1:]),
        *([f"box and pair keys of epoch {done.epochs[0]}"] if done.epochs != (0,) else []),
        *(f"still valid beside them: the keys of epoch {epoch}; end them with: mipp server rotate {folder} --finish"
          for epoch in done.epochs[1:]),
        *([f"no key here opens the secrets of these owners; each must run mipp owner reseal: {', '.join(done.lost)}"]
          if done.lost else []),
        *(["to listen on another port: change listen in server.toml, if it is set, and start the server again"]
          if url else []),
    ])  # fmt: skip
