"""``mipp server run``, and what an operator asks of a server that runs."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Any

import click

from ..deployment.backends import BACKENDS, BackendChoice
from ..deployment.checks import check_server
from ..deployment.logs import begin_log
from ..deployment.serving import ServerProcess, own_number
from ..rpc import peer_messages as pm
from ..rpc.address_book import AddressBook
from ..rpc.channel import request
from ..rpc.local_socket import WAIT, OperatorChannel
from ..rpc.names import known_name
from .common import json_option, show, signals
from .server import folder_argument, server_group

__all__ = ["asked", "server_group"]


@server_group.command("run")
@folder_argument
@click.option("--backend", type=click.Choice(BACKENDS), default="cpu", show_default=True, help="Where products run.")
@click.option("--workers", type=click.IntRange(1, 1024), help="With dask: so many worker processes on this machine.")
@click.option(
    "--scheduler",
    metavar="tls://HOST:PORT",
    help="With dask: your cluster; uses FOLDER/cluster.",
)
def run_command(folder: Path, backend: str, workers: int | None, scheduler: str | None) -> None:
    """Run the server in FOLDER until it is told to stop (SIGTERM, or Ctrl-C).

    Its log is JSON lines on standard error. It then takes in nothing new, and waits for requests under way
    (drain_seconds in server.toml); a second signal ends it at once.

    With --backend dask (extra dask) products of rows and queries run on workers, bit for bit the same. A cluster must
    be of this server's operator alone: whoever has a certificate of it runs code there. FOLDER/cluster holds ca.pem,
    cert.pem and key.pem for it.
    """
    choice = BackendChoice(backend, workers or 0, scheduler or "")
    # before workers start: a signal in between must not leave their processes or semaphores behind
    stopping = threading.Event()
    with signals(lambda *_: sys.exit(1) if stopping.is_set() else stopping.set()):
        _run(folder, choice, stopping)


def _run(folder: Path, choice: BackendChoice, stopping: threading.Event) -> None:
    if choice.workers:
        click.echo(f"starting {choice.workers} {'worker' if choice.workers == 1 else 'workers'}")
    process = ServerProcess(folder, choice)
    begin_log(process.settings.log_level)
    process.start()
    if not stopping.is_set():
        click.echo(
            f"server {process.index} ({process.config.addresses[process.index].name}) of deployment "
            f"{process.config.id.hex()} listens on {process.settings.listen}"
        )
    while not stopping.wait(0.5):
        pass
    with contextlib.suppress(OSError):  # whoever read the output may be gone; the server still ends in order
        click.echo("stopping")
    if not process.stop(process.settings.drain_seconds):
        sys.exit(1)


@server_group.command("check")
@folder_argument
@json_option
def check_command(folder: Path, as_json: bool) -> None:
    """Check a server's folder and settings before it runs: keys, description, store, port, clocks, disk, peers."""
    problems, facts = check_server(folder)
    show({"problems": problems, "facts": facts}, as_json, lambda: [*facts, *(f"PROBLEM {p}" for p in problems)])
    if problems:
        sys.exit(1)


#: seconds for what a server answers without reading files
_SOON = 15.0


def asked(folder: Path, msg: Any, wait: float = WAIT) -> Any:
    _, index = own_number(folder)
    return request(OperatorChannel(folder, index, wait), index, msg)


@server_group.command("status")
@folder_argument
@json_option
def status_command(folder: Path, as_json: bool) -> None:
    """Owners, users and sizes of the server that runs in FOLDER, and whether the others are there."""
    config, _ = own_number(folder)
    book = AddressBook(config, folder, keep=False)
    told: pm.Status = asked(folder, pm.StatusRequest(b""), _SOON)
    state: pm.ServerReport = asked(folder, pm.ServerReportRequest(), _SOON)
    owners = [
        {
            "name": known_name(name, owner), "id": owner.hex(), "forgotten": bool(gone),
            "batches": int((told.batch_owner == n).sum()), "rows": int(told.live[told.batch_owner == n].sum()),
            "share_bytes": int(told.sizes[told.batch_owner == n].sum()), "image_bytes": int(told.image_bytes[n]),
            "lost": int(told.lost[told.batch_owner == n].sum()) if len(told.lost) == len(told.batch_owner) else 0,
        }
        for n, (owner, name, gone) in enumerate(zip(told.owners, told.names, told.forgotten, strict=True))
    ]  # fmt: skip
    users = [{"name": known_name(n, u), "id": u.hex()} for u, n in zip(told.users, told.user_names, strict=True)]
    data = {
        "ready": not state.reasons, "reasons": state.reasons, "votes": state.votes,
        "peers": dict(zip(map(str, state.peers), state.problems, strict=True)), "owners": owners, "users": users,
        "addresses": {
            str(i): {"url": book.address(i).url, "version": v, "certificates": len(book.certificates(i))}
            for i, v in book.versions.items()
        },
        "conflicts": book.conflicts,
    }  # fmt: skip
    show(data, as_json, lambda: [
        "ready" if not state.reasons else "NOT READY: " + "; ".join(state.reasons),
        "takes part in changes" if state.votes else "takes no part in changes yet: it waits for the other servers",
        *(problem or f"server {i} is there" for i, problem in zip(state.peers, state.problems, strict=True)),
        *(f"server {i} is at {book.address(i).url}, address of version {v}" for i, v in book.versions.items() if v),
        *book.conflicts,
        *(
            f"owner {o['name']}: " + ("forgotten" if o["forgotten"] else f"{o['rows']} rows in {o['batches']} batches, "
            f"{o['share_bytes']:,} share bytes and {o['image_bytes']:,} image bytes"
            + (f"; LACKS THE FILES of {o['lost']} of them, which searches leave out: see mipp server repair"
               if o["lost"] else ""))
            for o in owners
        ),
        *(f"user {u['name']}: {u['id']}" for u in users),
    ])  # fmt: skip


@server_group.command("verify")
@folder_argument
@json_option
def verify_command(folder: Path, as_json: bool) -> None:
    """Have the server that runs in FOLDER read all its files and compare their checksums."""
    told: pm.VerifyReport = asked(folder, pm.VerifyRequest())
    data = {"files": told.files, "problems": told.problems}
    show(data, as_json, lambda: [*told.problems, f"{told.files} files, {len(told.problems)} problems"])
    if told.problems:
        sys.exit(1)


@server_group.command("changes")
@folder_argument
@json_option
def changes_command(folder: Path, as_json: bool) -> None:
    """List the changes that are not decided at the server that runs in FOLDER, and whom each waits for."""
    told: pm.WaitingChanges = asked(folder, pm.WaitingChangesRequest(), _SOON)
    changes = [
        {"owner": owner.hex(), "change": op.hex(), "state": state, "waits_for": waits, "seconds": seconds}
        for owner, op, state, waits, seconds in zip(
            told.owners, told.ops, told.states, told.waits, told.seconds, strict=True
        )
    ]
    show({"changes": changes}, as_json, lambda: [
        f"{c['change']} of owner {c['owner']}: {c['state']}, waits for {c['waits_for']}, {c['seconds']} s"
        for c in changes
    ] or ["nothing is open"])  # fmt: skip
