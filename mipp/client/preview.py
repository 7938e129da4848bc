"""What a search will cost, before it is sent."""

from __future__ import annotations

from typing import Any

from ..mpc.cost import threshold_cost, top_k_cost
from ..mpc.query_proof import proof_bytes
from ..rpc.description import DeploymentConfig
from ..server.ranking import public_facts
from .blocks import query_blocks, row_blocks

__all__ = ["search_cost"]

_NOBODY = b"\0" * 32


def search_cost(
    config: DeploymentConfig, images: int, batches: int, k: int, ranking: str, queries: int = 1
) -> dict[str, Any]:
    """Rounds and bytes of a search.

    Parameters
    ----------
    config : of the deployment
    images, batches : that the search covers
    k : number of hits, not used for a threshold
    ranking : ``"user"``, ``"server"`` or ``"threshold"``
    queries : in one batch

    Returns
    -------
    dict
        ``user``: ``rounds``, ``sent`` and ``received`` bytes per server, headers left out, and ``proof``, what each
        cloud gets beside that to check the range of the queries, unless the user ranks; a user that ranks a large
        batch takes one round for some rows at a time, and sends columns and batch ids in each. ``servers``, unless the
        user ranks: ``rounds`` and ``bytes`` that each server sends the others, exact for a threshold, else typical,
        with the ``bound`` that is exceeded in less than one run of a thousand.
    """
    encoding, params = config.encoding, config.params
    word = params.k // 8
    sent = queries * params.padded(encoding.encoded_dim) * word + 16 * batches
    received = {"user": images * word, "server": 8 * k, "threshold": images // 8}[ranking] * queries
    report: dict[str, Any] = {"ranking": ranking, "images": images}
    if ranking == "user":
        parts = [
            (p.stop - p.start, len(list(row_blocks(images, p.stop - p.start, word)))) for p in query_blocks(queries)
        ]
        width = params.padded(encoding.encoded_dim) * word
        report["user"] = {
            "rounds": sum(blocks for _, blocks in parts),
            "sent": sum(blocks * (some * width + 16 * batches) for some, blocks in parts),
            "received": received,
        }
        return report
    report["user"] = {"rounds": 1, "sent": sent, "received": received}
    public = public_facts(config, _NOBODY, _NOBODY, images)
    rule = config.query_rule
    report["user"]["proof"] = proof_bytes(rule, queries, threshold=ranking == "threshold")
    if ranking == "threshold":
        exact = threshold_cost(public, queries, (rule.low, rule.high), rule=rule)
        report["servers"] = {"rounds": exact.rounds, "bytes": exact.bytes}
    else:
        cost = top_k_cost(public, queries, k, rule=rule)
        report["servers"] = {
            "rounds": cost.typical.rounds,
            "bytes": cost.typical.bytes,
            "bound": {"rounds": cost.bound.rounds, "bytes": cost.bound.bytes},
            "comparisons": cost.comparisons,
        }
    return report
