"""Results of searches and fetches: hits, the same as arrays, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MippError, MissingExtraError
from .index import Index, LeftOut

__all__ = ["FetchedImage", "Hit", "Hits", "LeftOut", "Nearest", "Preview", "Previews", "SearchResult"]


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
    score: int | None
    value: float | None

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
        What the owner wrote. Its texts are as the owner wrote them: make them safe before you show them.
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
        caption = (self.metadata or {}).get("caption", "")
        return caption if isinstance(caption, str) else ""


class Previews(list[Preview]):
    """A list of :class:`Preview`, one for each row that was asked for.

    Attributes
    ----------
    suspects : tuple of int
        Numbers of clouds of which one answered wrongly, if others answered rightly then.
    """

    suspects: tuple[int, ...] = ()


class Hits(list[Hit]):
    """A list of :class:`Hit`, best first; of a range search in row order.

    Attributes
    ----------
    left_out : tuple of LeftOut
        Batches and owners that the search went on without, and why.
    searched : int
        Number of rows that were searched.
    """

    left_out: tuple[LeftOut, ...] = ()
    searched: int = 0

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
        rows: list[dict[str, Any]] = [
            {
                "rank": rank,
                "owner": hit.owner_name,
                "owner_id": hit.owner.hex(),
                "id": hit.id,
                "score": hit.score,
                "value": hit.value,
            }
            for rank, hit in enumerate(self, 1)
        ]
        for row, preview in zip(rows, previews, strict=True) if previews is not None else ():
            row |= {"path": preview.path, "caption": preview.caption, "metadata": preview.metadata}
        return rows

    def to_pandas(self) -> Any:
        """Make a pandas data frame of :meth:`to_rows`.

        Returns
        -------
        pandas.DataFrame
            One row for each hit.

        Raises
        ------
        MissingExtraError
            pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("a data frame needs pandas: pip install pandas") from None
        columns = ["rank", "owner", "owner_id", "id", "score", "value"]
        return pandas.DataFrame(self.to_rows(), columns=columns)


@dataclass(frozen=True)
class SearchResult:
    """The result of one query.

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


@dataclass(frozen=True)
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
    content: bytes = field(repr=False)
    error: MippError | None = None
    metadata: dict[str, Any] | None = field(default=None, repr=False, hash=False)


@dataclass(frozen=True)
class Nearest:
    """The k nearest of B queries as arrays, best first.

    Where the user ranks and fewer than k rows have scores that the encoding allows, the last places are empty: their
    row is -1, their score one less than the encoding's least, their value that of this score.

    Parameters
    ----------
    index : Index
        The state that was searched; ``index.locate(rows)`` gives batches and rows in them.
    rows : ndarray of int64, (B, k)
        Row numbers of ``index``.
    scores : ndarray of int64, (B, k), or None
        Exact scores; None if the grants give none.
    values : ndarray of float64, (B, k), or None
        Scores in the metric's unit.
    seconds : dict of str to float
        As in :class:`SearchResult`, for all queries.
    unverified : str
        Why the servers' answers were not checked; empty if they were, and passed.
    """

    index: Index
    rows: np.ndarray
    scores: np.ndarray | None
    values: np.ndarray | None
    seconds: dict[str, float]
    unverified: str = ""

    @property
    def verified(self) -> bool:
        """Whether the servers' answers were checked, and passed."""
        return not self.unverified

    @property
    def suspects(self) -> tuple[int, ...]:
        """Servers of which one answered wrongly before others' answers passed (:attr:`SearchResult.suspects`)."""
        return self.index.suspects

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Batches and owners that the search went on without, and why."""
        return self.index.left_out
