"""Reports on a deployment for its operator: status, verification, and notes on how it was found. Public facts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..encoding.bounds import ranking_problem
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..rpc.description import DeploymentConfig
from ..rpc.names import known_name
from .results import DeploymentStatus, OwnerStatus, VerifyReport

__all__ = ["ranking_notes", "restored_notes", "status", "uncertified_note", "verify"]


def status(config: DeploymentConfig, operators: Channel, kinds: Mapping[int, str]) -> DeploymentStatus:
    """Owners, users, sizes, and whether all servers agree.

    Parameters
    ----------
    config : DeploymentConfig
        Public description of the deployment.
    operators : Channel
        To the servers' side for operators.
    kinds : mapping of int to str
        Class of each server, by its number.

    Returns
    -------
    DeploymentStatus
        Sizes are those of the first cloud.
    """
    replies = {i: request(operators, i, pm.StatusRequest(b"")) for i in config.servers}
    clouds = [replies[i] for i in config.params.clouds]
    first = clouds[0]
    owners: list[OwnerStatus] = []
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
                "unranked": max(_unranked(r, owner) for r in clouds) if config.certifies else 0,
                "lost": len(set[bytes]().union(*(_lost(r, owner) for r in clouds))),
            }
        )
    facts = [(r.owners, r.forgotten, r.positions, r.views, r.live.tolist()) for r in replies.values()]
    p = config.params
    return {
        "deployment": config.id.hex(),
        "descriptor": config.descriptor,
        "params": {"n": p.n, "t": p.t, "k": p.ring_bits, "scheme": p.scheme, "sharing": p.sharing},
        "encoding": config.encoding.to_dict(),
        "servers": dict(kinds),
        "owners": owners,
        "users": [
            {"name": known_name(n, u), "id": u.hex(), "out_of_range": int(count)}
            for u, n, count in zip(first.users, first.user_names, first.out_of_range, strict=True)
        ],
        "images": sum(o["live"] for o in owners),
        "rankings": list(config.possible),
        "servers_agree": all(f == facts[0] for f in facts),
    }


def _unranked(told: pm.Status, owner: bytes) -> int:
    """Batches of an owner that a server does not rank; servers may hold different ones for a moment."""
    return int(told.unranked[told.batch_owner == told.owners.index(owner)].sum()) if owner in told.owners else 0


def _lost(told: pm.Status, owner: bytes) -> set[bytes]:
    """Batches of an owner that a cloud has no usable file of."""
    if owner not in told.owners or len(told.lost) != len(told.batches):
        return set()
    of = (told.batch_owner == told.owners.index(owner)) & (told.lost > 0)
    return {batch.tobytes() for batch in told.batches[of]}


def verify(config: DeploymentConfig, operators: Channel) -> VerifyReport:
    """Have all servers read their files, and compare their states.

    Parameters
    ----------
    config : DeploymentConfig
        Public description of the deployment.
    operators : Channel
        To the servers' side for operators.

    Returns
    -------
    VerifyReport
        Number of files, and a line for each problem.
    """
    reports = [request(operators, i, pm.VerifyRequest()) for i in config.servers]
    problems = [line for report in reports for line in report.problems]
    if not status(config, operators, {})["servers_agree"]:
        problems.append("the servers do not hold the same batches")
    return {"files": sum(r.files for r in reports), "problems": problems}


# --- notes on how a deployment was found: a sentence each -----------------------------------------------------------


def restored_notes(restored: Sequence[int], servers: int) -> list[str]:
    """Notes on servers that were restored from a backup; none if none was."""
    if not restored:
        return []
    if len(restored) == servers:
        return [
            "all servers were restored from backups: later revocations and counts of queries are lost, so grants are "
            "suspended until their owners grant again"
        ]
    names = ", ".join(map(str, restored))
    return [
        f"server {names} was restored from a backup and took over later changes from the others; batches whose files "
        "it lacks are left out of searches until mipp repair rebuilds them; where no other cloud has them, their owner "
        "deletes them and adds them again: mipp owner delete NAME FILE..., then mipp owner add NAME FILE..."
    ]


def ranking_notes(config: DeploymentConfig) -> list[str]:
    """A note if grants can name a ranking that the encoding does not allow."""
    if set(config.offered) <= {*config.possible, "threshold"}:
        return []
    return [
        f"{ranking_problem(config.encoding)}: servers cannot rank this index, users that are granted it can "
        "(--ranking user)"
    ]


def uncertified_note(count: int) -> str:
    """Note on batches whose rows servers are checking."""
    return (
        f"the servers are checking the range of rows that were uploaded before ({count} batch{'es' * (count > 1)}); "
        "until then searches that servers rank go on without them; `mipp verify` waits for it"
    )
