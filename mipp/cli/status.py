"""``mipp status``: lines that scripts read; on a terminal, tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..deployment import Deployment, is_connected
from ..deployment.connected import ServerState
from .common import deployment_option, json_option, opened_embedded, show
from .tables import print_table

__all__ = ["status_command"]


@click.command("status")
@deployment_option
@json_option
def status_command(folder: Path, as_json: bool) -> None:
    """Owners, batches, sizes of a deployment; of one over a network, whether its servers are ready."""
    if is_connected(folder):
        _show_connected(folder, as_json)
        return
    with opened_embedded(folder, "mipp server status") as deployment:
        data: Any = deployment.status()
    if not as_json and sys.stdout.isatty():
        _print_tables(data)
        return
    show(
        data,
        as_json,
        lambda: [
            _heading(data),
            *(
                f"owner {o['name']}: "
                + (
                    "forgotten"
                    if o["forgotten"]
                    else f"{o['live']} images in {o['batches']} batches, {o['share_bytes']:,} share bytes and "
                    f"{o['image_bytes']:,} image bytes a cloud"
                    + (f"; servers do not rank {o['unranked']} of the batches" if o["unranked"] else "")
                    + (f"; A CLOUD LACKS THE FILES of {o['lost']} of the batches: mipp repair" if o["lost"] else "")
                )
                for o in data["owners"]
            ),
            *(
                f"user {u['name']}: {u['id']}"
                + (f"; {u['out_of_range']} queries out of range" if u["out_of_range"] else "")
                for u in data["users"]
            ),
            _agreement(data),
        ],
    )


def _heading(data: Any) -> str:
    return (
        f"deployment {data['deployment']}: {data['images']} images, {data['descriptor'] or 'vectors'}, "
        f"{data['params']['scheme']} scheme"
    )


def _agreement(data: Any) -> str:
    return f"servers agree: {'yes' if data['servers_agree'] else 'NO'}"


def _print_tables(data: Any) -> None:
    """Owners and users of an embedded deployment, for a person."""
    click.echo(_heading(data))
    owners = [
        [o["name"], "forgotten"]
        if o["forgotten"]
        else [
            o["name"],
            o["live"],
            o["batches"],
            f"{o['share_bytes']:,}",
            f"{o['image_bytes']:,}",
            o["unranked"] or None,
            o["lost"] or None,
        ]
        for o in data["owners"]
    ]
    columns = [
        "owner", "images", "batches", "share bytes a cloud", "image bytes a cloud", "batches not ranked",
        "batches with lost files",
    ]  # fmt: skip
    print_table(columns, [row + [None] * (len(columns) - len(row)) for row in owners])
    print_table(
        ["user", "id", "queries out of range"], [[u["name"], u["id"], u["out_of_range"] or None] for u in data["users"]]
    )
    click.echo(_agreement(data))


def _said(state: ServerState) -> str:
    if not state["ready"]:
        return f"NOT READY: {'; '.join(state['reasons'])}"
    said = "ready" if state["takes_changes"] else "ready, takes no changes yet"
    lost = state["lost_batches"]
    return said + (f", LACKS THE FILES of {lost} batches with live rows, which searches leave out" if lost else "")


def _show_connected(folder: Path, as_json: bool) -> None:
    with Deployment.connect(folder) as deployment:
        states = deployment.server_states()
        p, config = deployment.config.params, deployment.config
        data = {
            "deployment": config.id.hex(), "descriptor": config.descriptor, "fingerprint": config.fingerprint,
            "params": {"n": p.n, "t": p.t, "k": p.ring_bits, "scheme": p.scheme},
            "servers": {str(i): state for i, state in states.items()},
            "owners": deployment.owners(), "users": deployment.users(),
        }  # fmt: skip
    if not as_json and sys.stdout.isatty():
        click.echo(f"deployment {data['deployment']}: {data['descriptor'] or 'vectors'}, {p.scheme} scheme")
        print_table(["server", "name", "url", "state"], [[i, s["name"], s["url"], _said(s)] for i, s in states.items()])
        parties = [["owner", name] for name in deployment.owners()] + [["user", name] for name in deployment.users()]
        print_table(["party", "key file here"], parties)
        return
    show(data, as_json, lambda: [
        f"deployment {data['deployment']}: {data['descriptor'] or 'vectors'}, {p.scheme} scheme",
        *(
            f"server {i} {s['name']} at {s['url']}: {_said(s)}"
            for i, s in states.items()
        ),
        *(f"owner {name}: key file here" for name in deployment.owners()),
        *(f"user {name}: key file here" for name in deployment.users()),
    ])  # fmt: skip
