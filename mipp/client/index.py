"""Index of a user: the rows that it may search at one moment, and those that are left out. Public facts."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..encoding.clusters import Clusters
from ..mpc.probed import PROBE, ProbedRows
from ..rpc import messages as m
from ..rpc.chain import snapshot_hash

__all__ = ["Index", "LeftOut", "cut"]


@dataclass(frozen=True)
class LeftOut:
    """Rows that a search went on without, and why.

    Parameters
    ----------
    owner : bytes
        Id of the owner, 16 bytes.
    owner_name : str
        Name of the owner.
    batch : bytes
        Id of the batch, 16 bytes; empty if all batches of the owner are left out.
    server : int
        Number of the server where the reason lies; 0 if it lies with all servers together.
    reason : str
        One sentence.
    """

    owner: bytes
    owner_name: str
    batch: bytes
    server: int
    reason: str

    def __str__(self) -> str:
        rows = f"batch {self.batch.hex()} of owner {self.owner_name}" if self.batch else f"owner {self.owner_name}"
        return f"{rows}: {self.reason}" + (f" (server {self.server})" if self.server else "")


def _live(o: m.OwnerSnapshot) -> int:
    return int(o.rows.sum()) - len(o.dead_row)


def _covered(o: m.OwnerSnapshot, ranking: str, clusters: Clusters | None) -> int:
    """Live rows of an owner that a query covers, whatever clusters it chooses."""
    if ranking != PROBE or clusters is None:
        return _live(o)
    starts = np.concatenate([[0], np.cumsum(o.rows)])
    return ProbedRows(clusters, o.rows.tolist(), np.unique(starts[o.dead_batch] + o.dead_row)).least_live


def _uncovered(o: m.OwnerSnapshot, ranking: str, k: int, queries: int, clusters: Clusters | None) -> str:
    """The reason why an owner's grant does not cover a query; empty if it does."""
    if ranking not in o.rankings:
        wanted = " ".join(f"--ranking {name}" for name in dict.fromkeys([*o.rankings, ranking]))
        return f"its grant does not allow ranking {ranking!r}; the owner allows it with mipp owner grant ... {wanted}"
    if o.max_k and k > o.max_k:
        return f"its grant allows k up to {o.max_k}"
    if 0 <= o.left < queries:
        return (
            "the quota of queries of its grant is used up"
            if not o.left
            else f"its grant allows {o.left} more queries, and verified answers count as one more"
        )
    if o.min_rows and _covered(o, ranking, clusters) < o.min_rows:
        return f"its grant requires at least {o.min_rows} of its rows"
    return ""


class Index:
    """The rows that a user may search at one moment, numbered 0 .. total-1. Public facts.

    Rows are ordered by owner (by id), then by batch (in order of upload), then by number; deleted rows are not counted.

    Parameters
    ----------
    hashes : dict of int to bytes
        Hash of each server's state; another one says that the state changed.
    owners : sequence of OwnerSnapshot
        Owners with their batches and grants.
    left_out : sequence of LeftOut
        Batches and owners that the servers cannot search now.
    grants : bytes
        Hash of all grants of the user.
    behind : frozenset of bytes
        Owners of whom a server is ahead of another: there is a newer state, which not all of these servers can answer.
    unranked : sequence of LeftOut
        Batches in ``owners`` that servers do not rank; users can.
    told_rows : mapping of bytes to int
        Rows of each owner as a server listed them, with those of batches that are left out.

    Attributes
    ----------
    total : int
        Number of live rows.
    batches : ndarray of uint8, (batches, 16)
        Ids of the batches, in row order.
    newest : bytes
        If not empty, the first server refuses a query when it knows a newer state (:class:`mipp.rpc.messages.Query`).
    """

    newest = b""
    #: the servers that answered, and those that are suspected of wrong answers before; empty before a search
    servers: tuple[int, ...] = ()
    suspects: tuple[int, ...] = ()

    def __init__(
        self,
        hashes: dict[int, bytes],
        owners: Sequence[m.OwnerSnapshot],
        left_out: Sequence[LeftOut] = (),
        grants: bytes = b"",
        behind: frozenset[bytes] = frozenset(),
        unranked: Sequence[LeftOut] = (),
        told_rows: Mapping[bytes, int] | None = None,
    ) -> None:
        self.unranked, self.told_rows = tuple(unranked), dict(told_rows or {})
        self.grants, self.behind = grants, behind
        self.hashes, self.owners, self.left_out = hashes, list(owners), tuple(left_out)
        self.snapshot = snapshot_hash([(o.owner, o.position, o.view) for o in owners])
        self.batches = np.concatenate([o.batches for o in owners]) if owners else np.empty((0, 16), np.uint8)
        #: whether the grants of all owners give scores
        self.gives_scores = all(o.scores for o in owners)
        self.owner_of_batch = np.repeat(np.arange(len(owners)), [len(o.batches) for o in owners])
        rows = np.concatenate([o.rows for o in owners]) if owners else np.empty(0, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(rows)])
        alive = None
        batch_base = 0
        #: original numbers of deleted rows, by owner; and what a search of chosen clusters covers, once it is known
        self._dead = [np.empty(0, np.int64)]
        self._probed: ProbedRows | None = None
        for o in owners:
            if len(o.dead_row):
                alive = np.ones(int(self._starts[-1]), bool) if alive is None else alive
                self._dead.append(self._starts[batch_base + o.dead_batch] + o.dead_row)
                alive[self._dead[-1]] = False
            batch_base += len(o.batches)
        self._live = None if alive is None else np.flatnonzero(alive)
        self.total = int(self._starts[-1]) if self._live is None else len(self._live)

    def covering(self, ranking: str, k: int, queries: int, clusters: Clusters | None = None) -> Index:
        """This index without the owners whose grants do not cover such a query; unchanged if these are all or none.

        A grant limits the use of its owner's images, not of others'.
        """
        refused = {o.owner: _uncovered(o, ranking, k, queries, clusters) for o in self.owners}
        chosen = [o for o in self.owners if not refused[o.owner]]
        if not chosen or len(chosen) == len(self.owners):
            return self
        left_out = [LeftOut(o.owner, o.name, b"", 0, refused[o.owner]) for o in self.owners if refused[o.owner]]
        return self._of(chosen, left_out)

    def refusal(self, ranking: str, k: int, queries: int, clusters: Clusters | None = None) -> str:
        """The first owner whose grant does not cover such a query, and why not; empty if all do."""
        reasons = ((o.name, _uncovered(o, ranking, k, queries, clusters)) for o in self.owners)
        return next((f"owner {name}: {reason}" for name, reason in reasons if reason), "")

    def _of(self, owners: list[m.OwnerSnapshot], left_out: list[LeftOut]) -> Index:
        """This index with these owners, and further reasons in ``left_out``."""
        more = (*self.left_out, *left_out)
        found = Index(self.hashes, owners, more, self.grants, self.behind, self.unranked, self.told_rows)
        return found.asking(self.newest)

    def ranked_by(self, ranking: str) -> Index:
        """This index without the batches that servers do not rank; unchanged if the user ranks."""
        chosen = {o.owner for o in self.owners}
        left_out = [] if ranking == "user" else [one for one in self.unranked if one.owner in chosen]
        if not left_out:
            return self
        gone: dict[bytes, set[bytes]] = {owner: set() for owner in chosen}
        for one in left_out:
            gone[one.owner].add(one.batch)
        owners = [cut(o, o.position, o.view, gone[o.owner]) for o in self.owners]
        return self._of([o for o in owners if len(o.batches)], left_out)

    @property
    def newest_rows(self) -> int:
        """Number of live rows of owners whose newest state this is."""
        return sum(_live(o) for o in self.owners if o.owner not in self.behind)

    @property
    def certified(self) -> bool:
        """Whether no server has told of a batch that servers do not rank: where they rank, all rows are in range."""
        unranked = self._unranked()
        return not unranked or not any(batch.tobytes() in unranked for batch in self.batches)

    def _unranked(self) -> set[bytes]:
        """Ids of the batches that a server told of as not ranked by servers."""
        return {one.batch for one in self.unranked}

    @property
    def counted(self) -> bool:
        """Whether a grant has a quota of queries."""
        return any(owner.left >= 0 for owner in self.owners)

    def untested(self, rows: np.ndarray) -> bool:
        """Whether all these rows are of batches that a server names as not tested for range."""
        unranked = self._unranked()
        batches, _ = self.locate(rows)
        return all(self.batches[number].tobytes() in unranked for number in np.unique(batches))

    def within(self, most: int) -> Index:
        """This index without its largest owners, so that at most ``most`` rows or one owner are left."""
        owners, left_out = list(self.owners), []
        while len(owners) > 1 and sum(_live(o) for o in owners) > most:
            largest = max(owners, key=_live)
            owners.remove(largest)
            reason = f"servers compare {most} rows of this encoding at most; search it by name, or rank as the user"
            left_out.append(LeftOut(largest.owner, largest.name, b"", 0, reason))
        return self._of(owners, left_out) if left_out else self

    def asking(self, newest: bytes) -> Index:
        """This index with another ``newest``."""
        other = copy.copy(self)
        other.newest = newest
        return other

    def answered(self, servers: tuple[int, ...], suspects: tuple[int, ...]) -> Index:
        """This index, with the servers that answered and those that are suspected."""
        other = copy.copy(self)
        other.servers, other.suspects = servers, suspects
        return other

    def dropping(self, rows: np.ndarray) -> Index:
        """This index; ``left_out`` also names the batches of these live rows, each given once, as out of range."""
        if not len(rows):
            return self
        left_out = []
        for b, count in zip(*np.unique(self.locate(rows)[0], return_counts=True), strict=True):
            owner = self.owners[int(self.owner_of_batch[b])]
            rows_are, were = ("row is", "was") if count == 1 else ("rows are", "were")
            reason = f"{count} {rows_are} out of the encoding's range and {were} left out"
            left_out.append(LeftOut(owner.owner, owner.name, self.batches[b].tobytes(), 0, reason))
        other = copy.copy(self)
        other.left_out = (*self.left_out, *left_out)
        return other

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the batch and the row in it of live rows.

        Parameters
        ----------
        positions : ndarray of int, (n,)
            Numbers of live rows.

        Returns
        -------
        batch, row : ndarray of int64, (n,)
            Numbers of batches, into ``batches``, and rows in them.
        """
        original = positions if self._live is None else self._live[positions]
        batch = np.searchsorted(self._starts, original, side="right") - 1
        return batch, original - self._starts[batch]

    @property
    def original_total(self) -> int:
        """Number of rows with the deleted ones."""
        return int(self._starts[-1])

    def live_original(self, position: int) -> int:
        """Original number of a live row."""
        return position if self._live is None else int(self._live[position])

    def place_of_original(self, row: int) -> tuple[bytes, bytes, int]:
        """Owner, batch, and number in the batch, of a row by its original number."""
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        owner = self.owners[int(self.owner_of_batch[batch])].owner
        return owner, self.batches[batch].tobytes(), row - int(self._starts[batch])

    def originals(self, places: Sequence[tuple[bytes, bytes, int]]) -> list[int]:
        """Original numbers of rows, given as (owner, batch, row); -1 for one that is not live here."""
        numbers = {
            (self.owners[int(owner)].owner, batch.tobytes()): number
            for number, (owner, batch) in enumerate(zip(self.owner_of_batch, self.batches, strict=True))
        }
        found = []
        for owner, batch, row in places:
            number = numbers.get((owner, batch))
            inside = number is not None and 0 <= row < int(self._starts[number + 1] - self._starts[number])
            original = int(self._starts[number]) + row if number is not None and inside else -1
            if original >= 0 and self._live is not None:
                at = int(np.searchsorted(self._live, original))
                original = original if at < len(self._live) and int(self._live[at]) == original else -1
            found.append(original)
        return found

    def probed(self, clusters: Clusters) -> ProbedRows:
        """The scores of a query that looks at chosen clusters only."""
        if self._probed is None:
            self._probed = ProbedRows(clusters, np.diff(self._starts).tolist(), np.unique(np.concatenate(self._dead)))
        return self._probed

    def live_numbers(self, originals: np.ndarray) -> np.ndarray:
        """Numbers of live rows from original numbers, which must be of live rows."""
        return originals if self._live is None else np.searchsorted(self._live, originals)

    def ids(self) -> list[tuple[bytes, int]]:
        """List the ids of all live rows: batch id and row in it, in row order."""
        batch, row = self.locate(np.arange(self.total))
        names = [b.tobytes() for b in self.batches]
        return [(names[b], int(r)) for b, r in zip(batch, row, strict=True)]


def cut(o: m.OwnerSnapshot, position: int, view: bytes, without: set[bytes]) -> m.OwnerSnapshot:
    """An owner's batches up to a position of its chain, without the batches in ``without``."""
    keep = o.positions <= position
    if without:
        keep &= np.array([b.tobytes() not in without for b in o.batches], bool)
    if keep.all():
        return dataclasses.replace(o, position=position, view=view)
    number = np.cumsum(keep) - 1
    dead = keep[o.dead_batch]
    return dataclasses.replace(
        o, position=position, view=view, rows=o.rows[keep], positions=o.positions[keep], batches=o.batches[keep],
        dead_batch=number[o.dead_batch[dead]], dead_row=o.dead_row[dead],
    )  # fmt: skip
