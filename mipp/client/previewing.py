"""Private fetch: names, captions and thumbnails of hits, and their images, which no server learns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .. import pir
from ..crypto import box
from ..errors import AuthenticationError, LimitError, MessageError, MippError, NotFoundError, VerificationError
from ..rpc.limits import FETCH_RECORDS, ORIGINAL_BLOCK, ORIGINAL_BLOCKS, ORIGINAL_CLASS, size_class
from .fetching import Place, failed_image
from .given import whole_number
from .image_file import parse_image
from .image_ids import several_images
from .records import ORIGINAL_BYTES, Original, encodable, parse_record
from .results import FetchedImage, FetchedImages, Preview, Previews, hits_among
from .retrieval import RetrievalClient

__all__ = ["PreviewClient"]

#: called with bytes that came since the last call, and all that will come
Progress = Callable[[int, int], None]

#: records are fetched in multiples of this number: a fetch shows it, and not how many of them mean something
PAGE = 10
#: most bytes of an image file that is fetched privately, unless the caller says otherwise: owners name sizes
LARGEST = 64 << 20
#: a row that is not there
_NOWHERE = bytes(16), bytes(16), 0
_WRONG = "a record does not open: a cloud answered wrongly, or an owner stored what it cannot open. Nothing was used"


class PreviewClient(RetrievalClient):
    """The part of :class:`~mipp.client.user.User` that fetches records and images privately."""

    def preview(self, hits: Any, *, pad: int = 0, identify: bool = False) -> Previews:
        """Fetch the records of rows: name, metadata and thumbnail, without telling any server which rows these are.

        Two clouds learn that this user fetches, when, and how many records in multiples of ten. Each gets a key of
        private retrieval for every record, over all rows that the user may search, and reads all of their records.
        Both clouds together would learn the rows. The key centre is asked for key parts of albums alone, of all owners.

        Parameters
        ----------
        hits : SearchResult, sequence of Hit, (bytes, int) or str
            Hits of a search, or ids of rows; one or several.
        pad : int
            Least number of records that are fetched, whatever ``hits`` holds: after a range search a number of your own
            choice, or the number fetched shows how many were found.
        identify : bool
            If a record does not open and there is a third cloud: ask the other pairs of clouds, too, to find out which
            one answers wrongly. The clouds see that; a cloud that works with the owner of a row learns by it whether
            that row was among those fetched.

        Returns
        -------
        Previews
            A list with one :class:`Preview` for each hit, in order. A row that is not there any more has an ``error``;
            it is fetched in appearance. ``suspects``: with ``identify``, the clouds that all pairs which failed have in
            common, if another pair answered rightly then.

        Raises
        ------
        ParameterError
            This deployment keeps no records; one cloud alone, or more colluding servers than one
            (t > 1): there records cannot be fetched privately.
        AccessDeniedError
            No grant, or the records that a grant lets this user fetch are used up
            (:func:`mipp.rpc.limits.fetch_limit`).
        VerificationError
            A record does not open: the same error for every row. With ``identify``: at no pair of clouds; its
            ``suspects`` are those that all pairs have in common.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4), preview_size=512) as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         ids = anna.add_vectors(np.eye(4), metadata=[{"caption": f"vector {i}"} for i in range(4)])
        ...         anna.grant(ulla)
        ...         result = ulla.search(np.array([0.1, 0.2, 0.9, 0.3]), k=2)
        ...         captions = [preview.caption for preview in ulla.preview(result)]
        >>> captions
        ['vector 2', 'vector 3']
        """
        self._require_private()
        places, found = self._places(given := several_images(hits)), Previews()
        found.asked = hits_among(given)
        plains, found.suspects = self._plains(places, identify, whole_number(pad, "pad"))
        for (_, batch, row), plain in zip(places, plains, strict=True):
            if isinstance(plain, MippError):
                found.append(Preview(batch, row, error=plain))
                continue
            try:
                record = parse_record(plain[:-ORIGINAL_BYTES])
                found.append(Preview(batch, row, record.path, encodable(record.metadata), record.thumbnail))
            except MessageError as error:  # authentic, so its owner wrote it
                found.append(Preview(batch, row, error=error))
        return found

    def fetch(
        self, hits: Any, *, strict: bool = False, private: bool = False, largest: int = LARGEST,
        progress: Progress | None = None,
    ) -> FetchedImages:  # fmt: skip
        """Fetch and decrypt images, openly or privately.

        Openly, clouds and the key centre learn which images are fetched; images that a search found resemble each
        other. They do not learn the ranking, as images are asked for in row order. Large fetches are split into several
        requests.

        Privately (``private=True``), no server learns which images these are. Clouds learn how many, and of each the
        class of its size: files are padded to 16 KiB times a power of two. Each cloud reads all image files of that
        class that the user may fetch, for every image; both send the padded file. It begins with :meth:`preview`.

        Parameters
        ----------
        hits : SearchResult, sequence of Hit, (bytes, int) or str
            Hits of a search, or ids of images; one or several.
        strict : bool
            Raise the first error of an image instead of returning it as :attr:`FetchedImage.error`.
        private : bool
            Whether no server shall learn which images are fetched. Needs a deployment that keeps records
            (``preview_size``).
        largest : int
            Of a private fetch: most bytes of a file, padded, default 64 MiB. An image that its record says is larger
            has an ``error``; it is not fetched.
        progress : callable, optional
            Of a private fetch: called with bytes that came since the last call, and all that will come.

        Returns
        -------
        FetchedImages
            A list with one :class:`~mipp.client.results.FetchedImage` for each hit, in the order of ``hits``; each with
            its own ``error`` if it could not be fetched.

        Raises
        ------
        AccessDeniedError
            No owner grants this user anything. With ``strict`` also: the image's owner does not, or not any more.
        NotFoundError
            With ``strict``: an image that was deleted, or a row that was stored without one.
        IntegrityError, StoreError
            With ``strict``: the stored file is damaged or cannot be read.
        AuthenticationError, MessageError
            With ``strict``: a file that was tampered with, or whose owner wrote a malformed header.
        ParameterError, VerificationError
            Of a private fetch: as :meth:`preview`. Whole images count as records, each part of 4 MiB as one more.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 2), preview_size=512) as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         ids = anna.add_vectors(np.eye(2), [("a.png", b"...", {"taken": 2020}), None])
        ...         anna.grant(ulla)
        ...         first, second = ulla.fetch(ids, private=True)
        >>> first.name, first.content, first.metadata, second.error is None
        ('a.png', b'...', {'taken': 2020}, False)
        """
        fetched, given = FetchedImages(), several_images(hits)
        fetched.asked = hits_among(given)
        if not private:
            fetched += self._fetch_openly(given, strict)
            return fetched
        self._require_private()
        places = self._places(given)
        plains, _ = self._plains(places)
        places = [self._owned(place) for place in places]
        images: list[FetchedImage | None] = [None] * len(places)
        classes: dict[int, list[tuple[int, Original]]] = {}
        for n, (place, plain) in enumerate(zip(places, plains, strict=True)):
            original = None if isinstance(plain, MippError) else Original.parse(plain)
            if original is None:
                why = plain if isinstance(plain, MippError) else NotFoundError("this row was stored without an image")
                images[n] = failed_image(place, why)
            elif (size := size_class(original.size)) > ORIGINAL_CLASS or ORIGINAL_BLOCK << size > largest:
                images[n] = failed_image(place, LimitError(f"the image has more than {largest} bytes, padded"))
            else:
                classes.setdefault(size, []).append((n, original))
        if classes:  # as many files as hits, whatever became of some: any file of a class stands for them
            smallest = classes[min(classes)]
            smallest += [(-1, smallest[0][1])] * (len(places) - sum(map(len, classes.values())))
        total = sum(len(some) * ORIGINAL_BLOCK << size for size, some in classes.items())
        told = (lambda count: None) if progress is None else (lambda count: progress(count, total))
        for size, some in sorted(classes.items()):
            step = max(1, min(FETCH_RECORDS, ORIGINAL_BLOCKS >> min(size, 8)))
            for first in range(0, len(some), step):
                part = some[first : first + step]
                files = self._files([places[n] if n >= 0 else _NOWHERE for n, _ in part], size, told)
                for (n, original), file in zip(part, files, strict=True):
                    if n >= 0:
                        images[n] = self._image(places[n], original, file, plains[n])
        if None in images:  # after all were fetched, whichever does not open
            raise VerificationError(_WRONG)
        fetched += [image for image in images if image is not None]
        for image in fetched:
            if strict and image.error is not None:
                raise image.error
        return fetched

    def preview_cost(self, count: int) -> dict[str, int]:
        """What :meth:`preview` of ``count`` rows costs, of all that this user may search now.

        Parameters
        ----------
        count : int
            Number of rows.

        Returns
        -------
        dict of str to int
            ``records`` that are fetched; ``sent`` and ``received``: bytes of keys to each of two clouds, and of records
            from each; ``read``: bytes of records that each cloud reads, once for 64 records.
        """
        self._require_private()
        index, size = self.index(), self.config.record_bytes
        records = -(-whole_number(count, "count") // PAGE) * PAGE
        key = len(pir.generate_keys(0, max(1, index.original_total))[0])
        passes = -(-records // (FETCH_RECORDS // PAGE * PAGE))
        return {
            "records": records, "sent": records * key, "received": records * size, "read": passes * index.total * size
        }  # fmt: skip

    def _image(self, place: Place, original: Original, file: bytes | MippError, plain: Any) -> FetchedImage | None:
        """Open an image file; None if it does not open."""
        if isinstance(file, MippError):
            return failed_image(place, file)
        parts = original.key_centre, original.cloud
        try:
            opened = box.open_image(*parts, self.config.id, place[0], original.image, file[: original.size])
        except AuthenticationError:
            return None
        try:
            name, _, content = parse_image(opened)
            metadata = parse_record(plain[:-ORIGINAL_BYTES]).metadata  # what was annotated since counts
        except MessageError as error:
            return failed_image(place, error)
        return FetchedImage(*place[1:], name, content, metadata=metadata)

    # --- retrieval ----------------------------------------------------------------------------------------------

    def _plains(
        self, places: Sequence[Place], identify: bool = False, least: int = 0
    ) -> tuple[list[bytes | MippError], tuple[int, ...]]:  # fmt: skip
        """Plaintexts of the records of rows, or why there is none, and suspected clouds.

        At least ``least`` records are fetched.
        """
        found: list[bytes | MippError] = []
        named = set[int]()
        step = FETCH_RECORDS // PAGE * PAGE
        failed: VerificationError | None = None
        for start in range(0, max(len(places), least), step):
            count = min(max(len(places), least) - start, step)
            try:
                plains, suspects = self._page(places[start : start + step], count, identify)
                found += plains
                named |= suspects
            except VerificationError as error:  # after all pages: when it ends shows no server which one failed
                failed = failed or error
        if failed is not None:
            raise failed
        return found, tuple(sorted(named))

    def _page(
        self, places: Sequence[Place], least: int, identify: bool
    ) -> tuple[list[bytes | MippError], set[int]]:  # fmt: skip
        """Plaintexts from one pair of clouds; with ``identify`` all pairs are asked once one failed.

        Also the clouds that are suspected: those that all failing pairs have in common.
        """
        if not identify or not self.sets.several:
            return self.sets.run(lambda servers: self._opened(servers, places, least)).result, set()
        failing: list[set[int]] = []
        found: list[bytes | MippError] | None = None
        for servers in self.sets.order():
            try:
                found = self._opened(servers, places, least)
                if not failing:
                    return found, set()
            except VerificationError:
                failing.append(set(self._pair(servers)))
        suspects = set[int].intersection(*failing)
        if found is not None:
            return found, suspects
        error = VerificationError(_WRONG)
        error.suspects = tuple(sorted(suspects))
        raise error

    def _opened(self, servers: tuple[int, ...], places: Sequence[Place], least: int) -> list[bytes | MippError]:
        """Plaintexts of records, from the clouds of a set of servers; all are opened before one that fails counts."""
        count = -(-least // PAGE) * PAGE
        index, wanted, there, records = self._at_clouds(servers, places, count, -1, lambda count: None)
        keys = self._album_keys(index, servers)
        opened = [self._open(index, keys, row, record) for row, record in zip(wanted, records, strict=True)]
        if any(there) and any(plain is None for plain in opened):
            error, names = VerificationError(_WRONG), {o.owner: o.name for o in index.owners}
            bad = [row for row, plain in zip(wanted, opened, strict=True) if plain is None]
            error.owners = tuple(sorted({names[index.place_of_original(row)[0]] for row in bad}))
            raise error
        return [
            plain if here and plain else self._missing(place)
            for place, here, plain in zip(places, there, opened, strict=False)
        ]

    def _files(self, places: Sequence[Place], size: int, told: Callable[[int], None]) -> list[bytes | MippError]:
        """Padded image files of one class of size; an error for a row that went meanwhile."""
        run = functools.partial(self._at_clouds, places=places, count=len(places), size=size, told=told)
        _, _, there, files = self.sets.run(lambda servers: run(servers)).result
        return [
            file.tobytes() if here else self._missing(place)
            for place, here, file in zip(places, there, files, strict=True)
        ]
