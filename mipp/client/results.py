"""Results of searches and fetches: hits, previews, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MippError
from ..io.limits import MAX_PIXELS
from .frames import frame
from .index import Index, LeftOut

__all__ = [
    "FetchedImage",
    "FetchedImages",
    "Hit",
    "Hits",
    "LeftOut",
    "Preview",
    "Previews",
    "SearchResult",
    "hits_among",
]

#: columns of hits as a table
_COLUMNS = ("rank", "owner", "owner_id", "id", "score", "value")
#: and what previews add
_TOLD = ("path", "caption", "metadata")
#: pixels of a thumbnail that a notebook decodes: owners' programs make none with a side of more than 1024
_THUMBNAIL_PIXELS = 1 << 20
#: owners and batches that were left out, as a notebook names them
_NAMED = 5


@dataclass(frozen=True)
class Hit:
    """An image that a search found.

    Parameters
    ----------
    batch : bytes
        Id of the batch that the image was uploaded in, 16 bytes; with ``row`` the image's id. Public.
    row : int
        Row of the image in its batch, from 0. Public.
    owner : bytes
        Id of the owner, 16 bytes.
    owner_name : str
        Name of the owner, as the servers know it.
    score : int or None
        Exact integer score, larger for nearer images; None if the grants give no scores, and in range searches that
        servers answer. Secret of the user.
    value : float or None
        The score in the metric's unit (:meth:`mipp.Encoding.values`): an inner product, a cosine or a distance (squared
        for ``l2``); None where ``score`` is. Secret of the user.

    Examples
    --------
    >>> from mipp import Hit
    >>> hit = Hit(bytes(16), 3, bytes.fromhex("5e" * 16), "anna", 900, 0.9)
    >>> hit.id
    '00000000000000000000000000000000:3'
    """

    batch: bytes
    row: int
    owner: bytes
    owner_name: str
    score: int | None = field(repr=False)
    value: float | None = field(repr=False)

    @property
    def id(self) -> str:
        """The image's id as text: the batch in 32 hex digits, a colon, the row."""
        return f"{self.batch.hex()}:{self.row}"


@dataclass(frozen=True, repr=False)
class Preview:
    """What the record of a row holds. Secret.

    Parameters
    ----------
    batch : bytes
        Id of the row's batch, 16 bytes.
    row : int
        Row in the batch.
    path : str
        Path of the file inside what the owner added, made safe; empty without one.
    metadata : dict or None
        What the owner wrote. Its texts are as the owner wrote them, but for halves of surrogate pairs, which are
        replaced: make them safe before you show them.
    thumbnail : bytes
        A small WebP image, or empty. Open it as a stranger's file (:func:`mipp.io.images.load_image`).
    error : MippError or None
        Why there is no record: the row was deleted meanwhile, or its owner wrote what is no record.

    Examples
    --------
    >>> import mipp
    >>> preview = mipp.Preview(bytes(16), 3, "cats/tom.jpg", {"caption": "a cat"})
    >>> preview.caption, preview.id
    ('a cat', '00000000000000000000000000000000:3')
    """

    batch: bytes
    row: int
    path: str = ""
    metadata: dict[str, Any] | None = None
    thumbnail: bytes = b""
    error: MippError | None = None

    def __repr__(self) -> str:
        """No content: it is secret."""
        return f"Preview({self.id})"

    @property
    def id(self) -> str:
        """The row's id as text: the batch in 32 hex digits, a colon, the row."""
        return f"{self.batch.hex()}:{self.row}"

    @property
    def caption(self) -> str:
        """The field ``caption`` of the metadata, if it is text; else empty."""
        return _caption(self.metadata)


class Previews(list[Preview]):
    """A list of :class:`Preview`, one for each row that was asked for.

    In a notebook it shows as a grid of thumbnails with owners, names and captions. **The notebook's file then keeps
    what it shows**, in the clear. ``repr`` shows ids alone.

    Attributes
    ----------
    suspects : tuple of int
        Numbers of clouds of which one answered wrongly, if others answered rightly then.
    asked : tuple of Hit or None
        The hits that were asked for, in the same order; None for a row that was given by its id.
    """

    suspects: tuple[int, ...] = ()
    asked: tuple[Hit | None, ...] = ()

    def to_rows(self) -> list[dict[str, Any]]:
        """Give the previews as plain values, for a table or a file.

        Returns
        -------
        list of dict
            Of each preview ``rank`` (its place among the hits that were asked for, from 1), ``owner``, ``owner_id``,
            ``id``, ``score`` and ``value`` as :meth:`Hits.to_rows` gives them, ``path``, ``caption`` and ``metadata``
            as the owner wrote them, and ``error``: why there is no record, else None. Of a row that was given by its id
            nothing is known of the hit: those values are None. Secret.
        """
        return [
            {
                **(dict.fromkeys(_COLUMNS) if hit is None else _hit_row(rank, hit)),
                "id": preview.id,
                **_told(preview),
                "error": None if preview.error is None else str(preview.error),
            }
            for rank, (preview, hit) in enumerate(zip(self, _asked(self.asked, len(self)), strict=True), 1)
        ]

    def to_pandas(self) -> Any:
        """Make a pandas data frame of :meth:`to_rows` (extra ``notebook``).

        Returns
        -------
        pandas.DataFrame
            One line for each preview. Secret; texts are as the owners wrote them.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        return frame(self.to_rows(), (*_COLUMNS, *_TOLD, "error"))

    def _repr_html_(self) -> str:
        """A grid of pictures: a notebook asked for the content, and keeps it."""
        from .display import Card, grid

        cards = []
        for rank, (preview, hit) in enumerate(zip(self, _asked(self.asked, len(self)), strict=True), 1):
            why = "" if preview.error is None else f"no record: {preview.error}"
            lines = [_headline(rank, hit), preview.path, preview.caption, why]
            cards.append(Card(preview.thumbnail, lines, _THUMBNAIL_PIXELS))
        notes = [f"One of the clouds {', '.join(map(str, self.suspects))} answered wrongly."] if self.suspects else []
        return grid(cards, notes)


class Hits(list[Hit]):
    """A list of :class:`Hit`, best first; of a range search by the servers in row order.

    In a notebook it shows as a table, with scores and values where the grants give them; **the notebook's file then
    keeps them**. Pictures come with :meth:`mipp.User.preview`.

    Attributes
    ----------
    left_out : tuple of LeftOut
        Batches and owners that the search went on without, and why.
    searched : int
        Number of rows that were searched.
    unverified : str
        Of a range search: why the servers' answers were not checked; empty if they were, and passed.
    """

    left_out: tuple[LeftOut, ...] = ()
    searched: int = 0
    unverified: str = ""

    @classmethod
    def at(
        cls, index: Index, rows: np.ndarray, scores: np.ndarray | None = None, values: np.ndarray | None = None
    ) -> Hits:
        """Make hits of rows of an index.

        Parameters
        ----------
        index : Index
            The state that was searched.
        rows : ndarray of int64, (n,)
            Row numbers of ``index``.
        scores, values : ndarray, (n,) or more, optional
            Score and value of each row, in the same order.

        Returns
        -------
        Hits
            One for each row, in the same order.
        """
        hits = cls()
        hits.left_out, hits.searched = index.left_out, index.total
        for i, (b, row) in enumerate(zip(*index.locate(rows), strict=True)):
            owner = index.owners[int(index.owner_of_batch[b])]
            score = None if scores is None else int(scores[i])
            value = None if values is None else float(values[i])
            hits.append(Hit(index.batches[b].tobytes(), int(row), owner.owner, owner.name, score, value))
        return hits

    def to_rows(self, previews: Sequence[Preview] | None = None) -> list[dict[str, Any]]:
        """Give the hits as plain values, for a table or a file.

        Parameters
        ----------
        previews : sequence of Preview, optional
            Of each hit, from :meth:`mipp.User.preview`.

        Returns
        -------
        list of dict
            Of each hit ``rank`` (from 1), ``owner`` (name), ``owner_id`` (hex), ``id`` (``batchhex:row``), ``score``
            and ``value`` (None where the grants give no scores). With previews also ``path``, ``caption`` and
            ``metadata`` (a dict, or None), as the owner wrote them: make texts safe before you show them.
        """
        rows = [_hit_row(rank, hit) for rank, hit in enumerate(self, 1)]
        for row, preview in zip(rows, previews, strict=True) if previews is not None else ():
            row |= _told(preview)
        return rows

    def to_pandas(self, previews: Sequence[Preview] | None = None) -> Any:
        """Make a pandas data frame of :meth:`to_rows` (extra ``notebook``).

        Parameters
        ----------
        previews : sequence of Preview, optional
            As for :meth:`to_rows`.

        Returns
        -------
        pandas.DataFrame
            One line for each hit.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        return frame(self.to_rows(previews), _COLUMNS if previews is None else (*_COLUMNS, *_TOLD))

    def _repr_html_(self) -> str:
        """A table: a notebook asked for the content, and keeps it."""
        return _hits_table(self, [])


@dataclass(frozen=True)
class SearchResult:
    """The result of one query.

    In a notebook it shows as :class:`Hits` do, and says whether the answers were verified.

    Parameters
    ----------
    hits : Hits
        The nearest images, best first. Secret of the user.
    seconds : dict of str to float
        Seconds spent: ``score`` until the servers had answered, ``rank`` in the user's program. In a batch each query
        has an equal part.
    left_out : tuple of LeftOut
        Batches and owners that the search went on without, and why.
    verified : bool
        Whether the servers' answers were checked, and passed.
    unverified : str
        Why they were not checked; empty if they were.
    suspects : tuple of int
        Numbers of servers of which one answered wrongly, if other servers' answers passed then: the hits are theirs.
    clustered : int or None
        Of a search with ``probe``: rows in clusters, deleted ones too. With 0 all rows were ranked. None of others.

    Examples
    --------
    >>> from mipp import Hit, SearchResult
    >>> from mipp.client.results import Hits
    >>> result = SearchResult(Hits([Hit(bytes(16), 3, bytes(16), "anna", 900, 0.9)]))
    >>> [(hit.owner_name, hit.value) for hit in result.hits], result.left_out
    ([('anna', 0.9)], ())
    """

    hits: Hits
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    verified: bool = False
    unverified: str = ""
    suspects: tuple[int, ...] = ()
    clustered: int | None = field(default=None, repr=False)

    def to_pandas(self, previews: Sequence[Preview] | None = None) -> Any:
        """Make a pandas data frame of the hits (:meth:`Hits.to_pandas`).

        Parameters
        ----------
        previews : sequence of Preview, optional
            Of each hit, from :meth:`mipp.User.preview`.

        Returns
        -------
        pandas.DataFrame
            One line for each hit.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        return self.hits.to_pandas(previews)

    def _repr_html_(self) -> str:
        """A table: a notebook asked for the content, and keeps it."""
        told = "The answers were verified." if self.verified else f"The answers were not verified: {self.unverified}."
        suspected = ", ".join(map(str, self.suspects))
        notes = [told if self.verified or self.unverified else "", f"One of the servers {suspected} answered wrongly."]
        return _hits_table(self.hits, [note for note in notes[: 1 + bool(self.suspects)] if note], self.left_out)


@dataclass(frozen=True, repr=False)
class FetchedImage:
    """One fetched image, or the reason why it could not be fetched.

    Parameters
    ----------
    batch : bytes
        Id of the image's batch, 16 bytes.
    row : int
        Row of the image in its batch.
    name : str
        The owner's file name made safe (:func:`mipp.rpc.names.safe_name`): one path component, printable.
    content : bytes
        The file as the owner added it; empty with an ``error``. Secret.
    error : MippError or None
        Why the image could not be fetched.
    metadata : dict or None
        The metadata that the owner added with the image. Its texts are the owner's: make them safe before you show
        them. Secret.
    """

    batch: bytes
    row: int
    name: str
    content: bytes
    error: MippError | None = None
    metadata: dict[str, Any] | None = field(default=None, hash=False)

    def __repr__(self) -> str:
        """No content and no name: they are secret."""
        return f"FetchedImage({self.id})"

    @property
    def id(self) -> str:
        """The image's id as text: the batch in 32 hex digits, a colon, the row."""
        return f"{self.batch.hex()}:{self.row}"


class FetchedImages(list[FetchedImage]):
    """A list of :class:`FetchedImage`, one for each image that was asked for.

    In a notebook it shows as a grid of small pictures with owners, names and captions. **The notebook's file then keeps
    what it shows**, in the clear. ``repr`` shows ids alone.

    Attributes
    ----------
    asked : tuple of Hit or None
        The hits that were asked for, in the same order; None for an image that was given by its id.
    """

    asked: tuple[Hit | None, ...] = ()

    def _repr_html_(self) -> str:
        """A grid of pictures: a notebook asked for the content, and keeps it."""
        from .display import Card, grid

        cards = []
        for rank, (image, hit) in enumerate(zip(self, _asked(self.asked, len(self)), strict=True), 1):
            why = "" if image.error is None else f"not fetched: {image.error}"
            lines = [_headline(rank, hit), image.name, _caption(image.metadata), why]
            cards.append(Card(image.content, lines, MAX_PIXELS))
        return grid(cards)


def hits_among(given: Sequence[Any]) -> tuple[Hit | None, ...]:
    """Keep the hits among ids of images that a caller gave; None in the places of the others."""
    return tuple(one if isinstance(one, Hit) else None for one in given)


def _caption(metadata: dict[str, Any] | None) -> str:
    caption = (metadata or {}).get("caption", "")
    return caption if isinstance(caption, str) else ""


def _hit_row(rank: int, hit: Hit) -> dict[str, Any]:
    values = rank, hit.owner_name, hit.owner.hex(), hit.id, hit.score, hit.value
    return dict(zip(_COLUMNS, values, strict=True))


def _told(preview: Preview) -> dict[str, Any]:
    return dict(zip(_TOLD, (preview.path, preview.caption, preview.metadata), strict=True))


def _asked(asked: tuple[Hit | None, ...], count: int) -> tuple[Hit | None, ...]:
    """Hits beside a list of their number; none where the list was changed since."""
    return asked if len(asked) == count else (None,) * count


def _headline(rank: int, hit: Hit | None) -> str:
    """What a picture's first line says about the hit."""
    if hit is None:
        return ""
    from .display import number

    return f"{rank}. {hit.owner_name}" + ("" if hit.value is None else f", value {number(hit.value)}")


def _hits_table(hits: Hits, notes: list[str], left_out: Sequence[LeftOut] = ()) -> str:
    from .display import number, table

    left_out = left_out or hits.left_out
    notes = [f"{len(hits)} of {hits.searched} rows." if hits.searched else f"{len(hits)} rows.", *notes]
    notes += [f"Left out: {one}." for one in left_out[:_NAMED]]
    if len(left_out) > _NAMED:
        notes.append(f"{len(left_out) - _NAMED} more were left out.")
    rows = [
        (str(rank), hit.owner_name, hit.id, number(hit.score), number(hit.value)) for rank, hit in enumerate(hits, 1)
    ]
    return table(("rank", "owner", "id", "score", "value"), rows, notes)
