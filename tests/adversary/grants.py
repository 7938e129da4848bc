"""Grants that no client of today sends: as hostile owners sign them, and as old stores hold them."""

import dataclasses

from mipp.rpc import messages as m
from mipp.rpc.wire import decode, encode, frames_hash, pack_frames


def raw_grant(world, owner, **changes):
    """A grant message with any content, of the version after the one in force."""
    epoch, version = owner._next_version(world.user.id)
    grant = m.Grant(owner.id, world.user.id, epoch, version, 0, ["user"], 0, True, 0, 0, False)
    return dataclasses.replace(grant, **changes)


def store_old_grant(world, owner, **changes):
    """Put a signed grant into every server's store as servers before these rules did."""
    grant = raw_grant(world, owner, **changes)
    signed = owner.sign(grant)
    digest = frames_hash([f.data for f in decode(signed, m.Signed).frames])
    for server in world.deployment.servers.values():
        packed = pack_frames(encode(decode(signed, m.Signed)))
        order = (grant.epoch, grant.version, grant.revoked)
        server.store.put_grant(owner.id, grant.user, order, m.grant_id(digest), packed)
