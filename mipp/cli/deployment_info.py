"""``mipp deployment info``: what a deployment is, from its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .. import __version__, schemes
from ..deployment import ConnectedDeployment
from .common import deployment_option, json_option, opened, show
from .tables import print_table

__all__ = ["info_command"]


@click.command("info")
@deployment_option
@json_option
def info_command(folder: Path, as_json: bool) -> None:
    """Describe a deployment: scheme, servers, encoding, rankings, fingerprint, and whose key files are here.

    No server is asked and no passphrase is needed. mipp status has sizes and the state of servers.
    """
    with opened(folder) as deployment:
        config = deployment.config
        encoding, params = config.encoding, config.params
        servers: dict[str, dict[str, Any]] = {}
        for number in sorted(config.servers):
            role = "cloud" if number in params.clouds else "key centre"
            servers[str(number)] = {"role": role, "name": None, "url": None}
            if isinstance(deployment, ConnectedDeployment):  # the newest addresses that this folder knows
                address = deployment.channel.book.address(number)
                servers[str(number)] |= {"name": address.name, "url": address.url}
        facts: dict[str, Any] = {
            "id": config.id.hex(),
            "folder": str(folder.resolve()),
            "kind": "connected" if isinstance(deployment, ConnectedDeployment) else "embedded",
            "scheme": params.scheme,
            "clouds": len(params.clouds),
            "scheme_facts": schemes.get(params.scheme).facts(config),
            "descriptor": config.descriptor,
            "descriptor_version": config.descriptor_version,
            "dim": encoding.dim,
            "metric": encoding.metric,
            "ring_bits": encoding.ring_bits,
            "bits": encoding.bits,
            "query_bits": encoding.query_bits,
            "rankings": list(config.possible),
            "clusters": None if config.clusters is None else config.clusters.count,
            "groups": None if config.clusters is None else config.clusters.groups,
            "record_bytes": config.record_bytes,
            "invitations": bool(config.registrar),
            "description_version": config.version,
            "fingerprint": config.fingerprint,
            "mipp": __version__,
        }
        data = {**facts, "servers": servers, "owners": deployment.owners(), "users": deployment.users()}
    if as_json:
        show(data, True, list)
        return
    print_table(["deployment", facts["id"]], _rows(facts, data))
    click.echo()
    print_table(
        ["server", "role", "name", "address"], [[n, s["role"], s["name"], s["url"]] for n, s in servers.items()]
    )


def _messages(told: dict[str, Any]) -> str:
    """Facts of a scheme in words; those that are 0 are left out."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else f'{value:,}'}"
        for name, value in told.items()
        if value
    )


def _rows(facts: dict[str, Any], data: dict[str, Any]) -> list[list[Any]]:
    """Facts in words."""
    features = f"{facts['descriptor']} of version {facts['descriptor_version']}" if facts["descriptor"] else "vectors"
    first, *others = facts["rankings"] or ["none"]
    encoding = f"{facts['bits']} bits a stored feature, {facts['query_bits']} a query feature"
    exact = facts["metric"] in ("l1", "hamming")  # their features are integers already
    return [
        ["folder", f"{facts['folder']} ({facts['kind']})"],
        ["scheme", f"{facts['scheme']}, {facts['clouds']} cloud{'s' * (facts['clouds'] != 1)} and a key centre"],
        *([["messages", _messages(facts["scheme_facts"])]] if facts["scheme_facts"] else []),
        ["features", f"{features}, {facts['dim']} values, metric {facts['metric']}"],
        ["ring", f"{facts['ring_bits']} bits"],
        ["encoding", "exact" if exact else encoding],
        ["rankings", ", ".join([f"{first} (default)", *others])],
        ["clusters", f"{facts['clusters']} in {facts['groups']} groups" if facts["clusters"] else "none"],
        ["records", f"{facts['record_bytes']:,} bytes a row" if facts["record_bytes"] else "none"],
        ["invitations", "needed" if facts["invitations"] else "not needed"],
        ["fingerprint", facts["fingerprint"]],
        ["mipp here", facts["mipp"]],
        ["owners here", ", ".join(data["owners"]) or "none"],
        ["users here", ", ".join(data["users"]) or "none"],
    ]
