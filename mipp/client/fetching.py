"""Fetching and decrypting images: requests of a size that servers take, one result or error for each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..crypto import box
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
    StoreError,
    UnreachableError,
)
from ..rpc import messages as m
from ..rpc.associated_data import image_seal_info
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.failures import error_from_wire
from ..rpc.limits import FETCH_IMAGES
from .image_file import parse_image
from .image_ids import image_rows, several_images
from .received import ReceivingClient
from .results import FetchedImage, Hit

__all__ = ["NOBODY", "FetchClient", "Place", "failed_image"]

#: owner, batch and row
Place = tuple[bytes, bytes, int]
#: errors of one cloud that another may not have
_ELSEWHERE = (IntegrityError, StoreError, NotFoundError, AuthenticationError, UnreachableError)
#: stand for an owner in ids of images: nobody has the batch, or several do
NOBODY, _SEVERAL = bytes(16), b"several owners.."
#: what an owner without the image is answered with
_NOT_THERE = (NotFoundError, AccessDeniedError)


def _any_unknown(places: Sequence[Place]) -> bool:
    return any(owner == NOBODY for owner, _, _ in places)


class FetchClient(ReceivingClient):
    """The part of :class:`~mipp.client.user.User` that fetches and decrypts images.

    Its parameters are those of :class:`~mipp.client.user.User`.
    """

    def __init__(
        self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes, box_key: bytes,
        blocked: Iterable[bytes] = (), servers: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, config, channel, sign_seed, blocked, servers)
        self._box_key = box_key

    def _fetch_openly(self, hits: Sequence[Hit | tuple[bytes, int] | str], strict: bool) -> list[FetchedImage]:
        """Images by name (:meth:`mipp.User.fetch`): in row order, so that nothing shows the order of a ranking."""
        named = self._places(hits)
        # an id of a batch that nobody has any more: whoever had it merged still has its images under that id
        owners = sorted({o for some in self.owners_of_batches().values() for o in some}) if _any_unknown(named) else []
        wanted = sorted(
            {p for p in named if p[0] != _SEVERAL} | {(o, *p[1:]) for p in named if p[0] == NOBODY for o in owners}
        )
        found: dict[Place, FetchedImage] = {}
        # clouds in the order of the sets that are tried next: one that was silent comes last
        clouds = list(
            dict.fromkeys(s for servers in self.sets.order() for s in servers if s in self.config.params.clouds)
        )
        for cloud in clouds:  # images that are damaged or missing at one are asked for at the next
            left = [p for p in wanted if p not in found or isinstance(found[p].error, _ELSEWHERE)]
            if left:
                found |= self._from(cloud, left, alone=cloud == clouds[-1])
        images = []
        for place in named:
            if place[0] == NOBODY:
                had = [one for o in owners if not isinstance((one := found[o, *place[1:]]).error, _NOT_THERE)]
                place = (_SEVERAL, *place[1:]) if len(had) > 1 else place
                found |= {place: had[0]} if len(had) == 1 else {}
            if place not in found:
                why = ParameterError(
                    f"several owners have a batch {place[1].hex()}; fetch a hit of a search, which names its owner"
                )
                found[place] = failed_image(place, why)
            images.append(found[place])
        for image in images:
            if strict and image.error is not None:
                raise image.error
        return images

    def _places(self, hits: Sequence[Hit | tuple[bytes, int] | str]) -> list[Place]:
        """(owner, batch, row) of hits and ids.

        An id that no known owner has is sent without an owner, so that servers refuse it. An id that several owners
        have is not sent.
        """
        owners: dict[bytes, list[bytes]] | None = None
        found = []
        for hit in several_images(hits):
            ((batch, row),) = image_rows([hit])
            if isinstance(hit, Hit):
                found.append((hit.owner, batch, row))
                continue
            if owners is None:
                owners = self.owners_of_batches()
            of = owners.get(batch, [NOBODY])
            found.append((of[0] if len(of) == 1 else _SEVERAL, batch, row))
        return found

    def _from(self, cloud: int, places: Sequence[Place], *, alone: bool) -> dict[Place, FetchedImage]:
        """Images from one cloud and the key centre; a failure is the ``error`` of its image alone.

        ``alone``: no other cloud can be asked instead.

        Raises
        ------
        MippError
            Servers refused every image for one reason, such as a user without any grant.
        """
        key_centre = self.config.params.key_centres[0]
        opener = _Opener(self.config.id, self.id, self._box_key, cloud, key_centre)
        out: dict[Place, FetchedImage] = {}
        refusals: list[MippError] = []
        refused = 0

        def fetch(some: Sequence[Place]) -> None:
            nonlocal refused
            owners = np.frombuffer(b"".join(p[0] for p in some), np.uint8).reshape(-1, 16)
            batches = np.frombuffer(b"".join(p[1] for p in some), np.uint8).reshape(-1, 16)
            request = m.FetchImages(owners, batches, np.array([p[2] for p in some], "<i8"))
            try:
                images = opener.images(some, self.ask_all(request, (cloud, key_centre)))
            except ShapeError as error:
                if len(some) > 1:  # the reply would be too large
                    fetch(some[: len(some) // 2])
                    fetch(some[len(some) // 2 :])
                    return
                images = [failed_image(some[0], error)]
            except MippError as error:
                if isinstance(error, UnreachableError):
                    self.away.note(error)
                refusals.append(error)
                refused += len(some)
                images = [failed_image(pair, error) for pair in some]
            out.update(zip(some, images, strict=True))

        for start in range(0, len(places), FETCH_IMAGES):
            fetch(places[start : start + FETCH_IMAGES])
        if refusals and refused == len(places) and (alone or not _at(refusals[0], cloud)):
            raise refusals[0]
        return out


def _at(error: MippError, cloud: int) -> bool:
    """Whether an error is that this cloud cannot be reached."""
    return isinstance(error, UnreachableError) and error.server == cloud


class _Opener:
    """Decrypts the images of replies for one user."""

    def __init__(self, deployment: bytes, user: bytes, box_key: bytes, cloud: int, key_centre: int) -> None:
        self._deployment, self._user, self._box_key = deployment, user, box_key
        self._cloud, self._key_centre = cloud, key_centre

    def images(self, pairs: Sequence[Place], replies: dict[int, Any]) -> list[FetchedImage]:
        """One result per image; an error for all of them is raised."""
        parts = {s: self._parts(replies[s], s, len(pairs)) for s in (self._cloud, self._key_centre)}
        offsets, files = replies[self._cloud].offsets, replies[self._cloud].files
        if (
            len(offsets) != len(pairs) + 1
            or offsets[0] != 0
            or offsets[-1] != len(files)
            or (offsets[1:] < offsets[:-1]).any()
        ):
            raise MessageError("a server's reply does not hold one file per image")
        out = []
        for i, pair in enumerate(pairs):
            try:
                name, metadata, content = parse_image(self._open(i, pair, parts, replies))
                out.append(FetchedImage(*pair[1:], name, content, metadata=metadata))
            except MippError as error:
                out.append(failed_image(pair, error))
        return out

    def _open(self, i: int, place: Place, parts: dict[int, list[bytes]], replies: dict[int, Any]) -> bytes:
        cloud, key_centre = replies[self._cloud], replies[self._key_centre]
        for reply in (cloud, key_centre):
            if reply.error_names[i]:
                raise error_from_wire(reply.error_names[i], reply.error_texts[i])
        owner, image = cloud.owners[i].tobytes(), cloud.image_ids[i].tobytes()
        if (owner, image) != (key_centre.owners[i].tobytes(), key_centre.image_ids[i].tobytes()):
            raise AuthenticationError("the servers disagree on which image this is")
        if owner != place[0]:
            raise AuthenticationError("a server sent another owner's image")
        blob = cloud.files[int(cloud.offsets[i]) : int(cloud.offsets[i + 1])].tobytes()
        key_parts = parts[self._key_centre][i], parts[self._cloud][i]
        return box.open_image(*key_parts, self._deployment, owner, image, blob)

    def _parts(self, reply: Any, server: int, count: int) -> list[bytes]:
        """A server's parts of the image keys."""
        if (
            not isinstance(reply, m.Images)
            or reply.owners.shape != (count, 16)
            or reply.image_ids.shape != (count, 24)
            or len(reply.error_names) != count
            or len(reply.error_texts) != count
        ):
            raise MessageError("a server's reply does not fit the images that were asked for")
        ids = [i.tobytes() for i in reply.image_ids]
        raw = box.open_sealed(self._box_key, reply.sealed, image_seal_info(self._deployment, self._user, server, ids))
        if len(raw) != 32 * count:
            raise MessageError("a server sent the wrong number of image keys")
        return [raw[i : i + 32] for i in range(0, len(raw), 32)]


def failed_image(pair: Place, error: MippError) -> FetchedImage:
    """The result for an image that could not be fetched; its name is made from its id."""
    return FetchedImage(*pair[1:], f"image-{pair[1].hex()[:8]}-{pair[2]}", b"", error)
