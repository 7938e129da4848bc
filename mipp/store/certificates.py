"""Range certificates: of which batches the servers found, on shares, that all rows keep the encoding's bounds.

Not to be confused with the votes that commit a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgpack
import numpy as np

from ..errors import ConflictError, NotFoundError
from ..params import Params
from . import changes as rules
from .catalog import Catalog
from .files import FileInfo, ShareFile
from .views import CERTIFICATE_BYTES, BatchView

__all__ = ["Certificates"]

_NO_ROWS = np.empty(0, np.int64)


class Certificates:
    """Certificates of one store: of prepared changes in their record, of visible batches in the catalog."""

    def __init__(self, catalog: Catalog, folder: Path, params: Params, params_hash: bytes) -> None:
        self._catalog, self._folder, self._params, self._hash = catalog, folder, params, params_hash

    def prepared(self, owner: bytes, op: bytes) -> BatchView:
        """The rows of a change that is prepared here, and its certificate if it has one.

        NotFoundError if nothing is prepared under this name, or no rows are.
        """
        row = self._catalog.one("SELECT record FROM changes WHERE owner=? AND op=? AND state='prepared'", owner, op)
        record = msgpack.unpackb(row[0], strict_map_key=False) if row is not None else {}
        if "rows" not in record:
            raise NotFoundError("no rows are prepared under this id; upload them first")
        rows, dim, share = record["rows"], record["dim"], record.get("share")
        words = None
        if share:
            width = self._params.padded(dim)
            info = FileInfo(self._hash, owner, op, self._params.ring_bits, dim, width, 0, rows, rows)
            words = ShareFile(self._folder / share["file"], info, share["size"], share["digest"], check=False).words
        return BatchView(op, 0, rows, dim, 0, _NO_ROWS, words, 0, None, "", record.get("certificate", b""))

    def tested(self, owner: bytes, op: bytes) -> list[int]:
        """The servers among which the rows of a prepared change were tested; empty if they were not."""
        row = self._catalog.one("SELECT record FROM changes WHERE owner=? AND op=? AND state='prepared'", owner, op)
        return [] if row is None else list(msgpack.unpackb(row[0], strict_map_key=False).get("tested", []))

    def note_prepared(self, owner: bytes, op: bytes, certificate: bytes, *, tested: Sequence[int] = ()) -> None:
        """Write a certificate (32 bytes) into the record of a prepared change; ConflictError if it went on.

        ``tested``: the servers among which the rows were tested, empty for all.
        """
        with self._catalog.transaction() as db:
            row = db.execute(
                "SELECT record FROM changes WHERE owner=? AND op=? AND state=?", (owner, op, rules.PREPARED)
            ).fetchone()
            if row is None:
                raise ConflictError("the change was committed or refused while its rows were checked")
            record = msgpack.unpackb(row[0], strict_map_key=False) | {
                "certificate": certificate, "tested": list(tested),
            }  # fmt: skip
            db.execute("UPDATE changes SET record=? WHERE owner=? AND op=?", (msgpack.packb(record), owner, op))

    def note_visible(self, owner: bytes, tested: BatchView, certificate: bytes = b"", refusal: str = "") -> None:
        """Write the certificate of a visible batch (32 bytes), or why it is refused, as it was ``tested``.

        Nothing if the batch is gone, or if rows were deleted since: then it is tested again.
        """
        value = certificate or bytes(CERTIFICATE_BYTES + 1) + refusal.encode()
        with self._catalog.transaction() as db:
            db.execute(
                "UPDATE batches SET certificate=? WHERE owner=? AND id=? AND tombstones=?",
                (value, owner, tested.id, tested.tombstones.astype("<i8").tobytes()),
            )
            db.execute("UPDATE owners SET revision=revision+1 WHERE id=?", (owner,))

    def missing(self) -> list[tuple[bytes, bytes]]:
        """Owner and id of visible batches without a certificate, those that were refused left out."""
        rows = self._catalog.all(
            "SELECT b.owner, b.id FROM batches b JOIN owners o ON o.id = b.owner "
            "WHERE b.certificate=x'' AND o.forget IS NULL ORDER BY b.owner, b.position"
        )
        return [(owner, batch) for owner, batch in rows]
