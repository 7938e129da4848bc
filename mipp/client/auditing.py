"""An owner's audits: each cloud proves that it still holds what the owner uploaded; tags that were lost are made anew.

``../sharing/audits.py`` has the mathematics, ``tags.py`` the files of tags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import ConflictError, IntegrityError, MessageError, MippError, ParameterError, StoreError
from ..rpc import messages as m
from ..rpc.limits import MAX_AUDIT_DRAWS
from ..sharing.audits import MODULUS, Coefficients, combine_tags, weighted_sum
from .given import fraction
from .merging import MergingOwner, audit_groups, deleted_of
from .reading import StoredBatch
from .retry import retry_conflicts
from .row_checks import OwnerTags, check_same_rows, own_ids
from .tags import IMAGE_IDS

__all__ = ["AuditReport", "AuditingOwner", "CloudAudit"]

#: rows whose coefficients are made at a time
_PIECE = 1 << 20
#: states of a change that may still become visible
_OPEN = ("prepared", "accepted", "reserved")
_Found = tuple[m.Head, dict[bytes, StoredBatch]]


@dataclass(frozen=True)
class CloudAudit:
    """What an audit found out about one cloud.

    Parameters
    ----------
    server : int
        Number of the cloud.
    rows : int
        Live rows that were checked.
    batches : int
        Batches that were checked; of a sample, those that its rows were drawn from.
    differing : tuple of bytes
        Ids of the batches that are not what was uploaded.
    lost : tuple of bytes
        Ids of the batches that the cloud itself says are damaged or missing.
    not_audited : dict of bytes to str
        Batches that this folder has no tags of for this cloud, and why.
    problem : str
        Why the cloud could not be audited, or what else is wrong with it; empty if nothing is.
    """

    server: int
    rows: int = 0
    batches: int = 0
    differing: tuple[bytes, ...] = ()
    lost: tuple[bytes, ...] = ()
    not_audited: dict[bytes, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether rows were checked, all were right, and no batch was left out."""
        return bool(self.rows) and not (self.differing or self.lost or self.not_audited or self.problem)


@dataclass(frozen=True)
class AuditReport:
    """Report on an audit (:meth:`mipp.ImageOwner.audit`).

    Parameters
    ----------
    clouds : tuple of CloudAudit
        What was found out about each cloud.
    sample : float
        The part of the rows that was checked, at most 1.
    live : int
        The owner's live rows, as the first server that could be reached says.
    """

    clouds: tuple[CloudAudit, ...]
    sample: float
    live: int

    @property
    def ok(self) -> bool:
        """Whether every cloud was audited in full, or in the sample, and is right; never where nothing was checked."""
        return bool(self.clouds) and all(cloud.ok for cloud in self.clouds)


@dataclass
class _Part:
    """Batches that one request names, their rows as uploaded, and their tags at one cloud."""

    batches: list[bytes]
    rows: list[int]
    tags: dict[bytes, np.ndarray]


class AuditingOwner(MergingOwner):
    """The part of :class:`~mipp.client.owner.ImageOwner` that audits clouds."""

    def audit(self, sample: float = 1.0) -> AuditReport:
        """Have every cloud prove that it holds this owner's rows as they were uploaded; nothing is downloaded.

        Each cloud combines its words by coefficients of a new seed, modulo 2^61 - 1, and answers one word of 8 bytes
        for each 4 bytes of a row; the tags in this folder say what is right. An answer that is not right passes with
        probability below 2^-59 (:mod:`mipp.sharing.audits`). A cloud that fails is asked batch by batch, in full.
        Which rows are deleted is what another server says, too.

        A sample draws as many rows, with replacement. A cloud that changed m rows passes with probability
        (1 - m/N)^n for n draws of N rows: with 1% it is seen with 0.99 from 460 changed rows on, whatever N is.

        A passed audit says that the cloud could compute the combination at that moment. It does not say that it answers
        searches honestly, nor anything about image files.

        Parameters
        ----------
        sample : float
            Part of the rows that is checked, above 0; 1 for all.

        Returns
        -------
        AuditReport
            What was found out about each cloud. A cloud that cannot be reached, and batches without tags in this
            folder, are named, and the report is not ok.

        Raises
        ------
        ParameterError
            A sample that is no part; an owner without a folder of tags.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 8)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         ids = anna.add_vectors(np.eye(8))
        ...         report = anna.audit()
        >>> report.ok, [(cloud.server, cloud.rows) for cloud in report.clouds]
        (True, [(1, 8), (2, 8)])
        """
        part = fraction(sample, "sample")
        tags = self._own_tags()
        with self.turn:
            try:
                return retry_conflicts(lambda: self._audited(part, tags))
            except ConflictError:  # one server alone may say so, for ever: it is named, and the others are audited
                return self._audited(part, tags, last=True)

    def renew_tags(self, *, everything: bool = False) -> list[bytes]:
        """Make the tags of batches that this folder has none of, or that do not open, from what the clouds hold.

        Each batch is fetched from all clouds, and the owner's keys turn one cloud's words into the other's: tags are
        made only if they agree, and agree with what tags there are. Two clouds would have to change a row together, and
        to know the owner's keystream, to pass. With one cloud there is nothing to compare: the
        tags say what it holds now.

        Parameters
        ----------
        everything : bool
            Make the tags of all batches anew, also where there are some.

        Returns
        -------
        list of bytes
            Ids of the batches whose tags were made.

        Raises
        ------
        VerificationError
            Clouds differ, or differ from the tags; the text names them. One of two clouds is wrong.
        StoreError
            A cloud cannot give a batch back, or the tags cannot be written. Batches before it have their tags.
        ConflictError
            The owner's batches kept changing.
        MippError
            A server cannot be reached.

        Examples
        --------
        >>> import shutil, tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 8)) as deployment:
        ...         anna = deployment.create_owner("anna")
        ...         ids = anna.add_vectors(np.eye(8))
        ...         shutil.rmtree(f"{folder}/owners/anna.tags")
        ...         before, renewed, after = anna.audit().ok, anna.renew_tags(), anna.audit().ok
        >>> before, renewed == [ids[0][0]], after
        (False, True, True)
        """
        tags = self._own_tags()
        with self.turn:
            return retry_conflicts(lambda: self._renewed(tags, everything))

    def _own_tags(self) -> OwnerTags:
        if self.tags is None:
            raise ParameterError("this owner has no folder of tags, so it cannot know what it uploaded")
        return self.tags

    @property
    def _clouds(self) -> list[int]:
        """The clouds that store this owner's rows: not one that joined while this owner has not consented."""
        return [s for s in self.config.params.clouds if s not in self.away.left_out]

    # --- the state of all servers -------------------------------------------------------------------------------

    def _audited(self, sample: float, tags: OwnerTags, *, last: bool = False) -> AuditReport:
        states = self._states()
        servers = [s for s in (*self.config.params.key_centres, *self.config.params.clouds) if s in states]
        reached = [(s, state) for s in servers if not isinstance(state := states[s], str)]
        clouds, live = [], 0
        if reached:
            first, (head, batches) = reached[0]
            live = sum(b.live for b in batches.values())
            self._sweep(tags, states)
        for cloud in self._clouds:
            state = states[cloud]
            if isinstance(state, str):
                clouds.append(CloudAudit(cloud, problem=state))
            elif not _same_state(state, (head, batches)):
                text = f"it knows other batches or deletions of this owner than server {first}: one of the two is wrong"
                clouds.append(CloudAudit(cloud, problem=text))
            else:
                witnesses = [s for s, _ in reached if s != cloud]
                clouds.append(_CloudCheck(self, cloud, tags, head, batches, witnesses).run(sample, last))
        return AuditReport(tuple(clouds), sample, live)

    def _states(self) -> dict[int, _Found | str]:
        """Each server's word on this owner's batches; why there is none. Open changes are settled if servers differ."""

        def all_states() -> dict[int, _Found | str]:
            out: dict[int, _Found | str] = {}
            for server in sorted(self.config.servers.keys() - self.away.left_out):
                try:
                    head, batches = self._state(server)
                    out[server] = head, {b.id: b for b in batches}
                except MippError as error:
                    out[server] = str(error)
            return out

        states = all_states()
        found = [state for state in states.values() if not isinstance(state, str)]
        if self.recover is not None and any(not _same_state(state, found[0]) for state in found):
            self.recover()
            states = all_states()
        return states

    def _sweep(self, tags: OwnerTags, states: Mapping[int, _Found | str]) -> None:
        """Remove tags of batches that no server has nor will have: of uploads that failed, and of merged batches."""
        found = [state for state in states.values() if not isinstance(state, str)]
        if len(found) < len(states):  # the one that is away may know more
            return
        listed = {batch for _, batches in found for batch in batches}
        for batch in tags.store.batches() - listed:
            try:
                outcomes = self.ask_all(m.OutcomeRequest(batch)).values()
            except MippError:
                return
            if not any(o.state in _OPEN for o in outcomes):
                tags.store.remove(batch)

    # --- tags anew ----------------------------------------------------------------------------------------------

    def _renewed(self, tags: OwnerTags, everything: bool) -> list[bytes]:
        witness = self.config.params.key_centres[-1]
        head, batches = self._state(witness)
        lacking = {b.id: self._lacking(tags, b) for b in batches if b.live}
        wanted = [b for b in batches if b.live and (everything or lacking[b.id])]
        deletions = self.deletions([b.id for b in wanted], head)
        done = []
        for b in wanted:
            got = {cloud: self._fetch(cloud, b.id) for cloud in self._clouds}
            for cloud, given in got.items():
                deletions.check(b.id, cloud, given)
            for cloud in self._clouds:
                if cloud not in lacking[b.id]:
                    tags.check(cloud, b.id, got[cloud])
            check_same_rows(b.id, got, self.keys, self.threads)
            one = got[self._clouds[0]]
            ids = None if own_ids(b.id, one).all() else (one.origin_batch, one.origin_row)
            shares = {cloud: given.share for cloud, given in got.items()}
            ordinals = one.ordinals if len(one.ordinals) < b.rows else None
            tags.keep(b.id, tags.of_shares(shares), ids, rows=b.rows, ordinals=ordinals)
            done.append(b.id)
        return done

    def _lacking(self, tags: OwnerTags, batch: StoredBatch) -> list[int]:
        """Clouds that this folder has no tags of for a batch, or none that open."""
        store, lacking = tags.store, []
        try:
            if IMAGE_IDS in store.sections(batch.id):
                store.read(batch.id, IMAGE_IDS, batch.rows)
        except (IntegrityError, StoreError):
            return self._clouds
        for cloud in self._clouds:
            try:
                store.read(batch.id, cloud, batch.rows)
            except (IntegrityError, StoreError):
                lacking.append(cloud)
        return lacking


def _same_state(one: _Found | str, other: _Found) -> bool:
    if isinstance(one, str):
        return False
    facts = [{b.id: (b.rows, b.live) for b in state[1].values()} for state in (one, other)]
    return (one[0].position, one[0].view) == (other[0].position, other[0].view) and facts[0] == facts[1]


class _CloudCheck:
    """The audit of one cloud, at one state of the owner's chain."""

    def __init__(
        self, owner: AuditingOwner, cloud: int, tags: OwnerTags, head: m.Head, batches: Mapping[bytes, StoredBatch],
        witnesses: Sequence[int],
    ) -> None:  # fmt: skip
        self._owner, self._cloud, self._tags, self._head = owner, cloud, tags, head
        #: other servers, in the order in which they are believed
        self._witnesses = list(witnesses)
        self._batches = {i: b for i, b in batches.items() if b.live}
        self._not_audited: dict[bytes, str] = {}
        self._rows, self._right = 0, set[bytes]()
        self._lost, self._differing = list[bytes](), list[bytes]()

    def run(self, sample: float, last: bool) -> CloudAudit:
        """Audit it. ``last``: a cloud at another state is a problem, not a reason to begin anew."""
        usable, problem = self._usable(), ""
        try:
            dead = self._confirmed(usable)
            for group in audit_groups(usable, [self._batches[i].rows for i in usable], self._owner.row_bytes):
                part = self._part(group)
                if not part.batches:
                    continue
                draws = math.ceil(sample * sum(part.rows))
                draws = 0 if draws >= sum(part.rows) or draws > MAX_AUDIT_DRAWS else draws
                if not self._asked(part, draws, dead):
                    found = self._name(part, dead) if len(part.batches) > 1 else part.batches
                    self._differing += found
                    problem = problem or ("" if found else "it answered wrongly once, and rightly when asked again")
        except MippError as error:
            if isinstance(error, ConflictError) and not last:
                raise
            problem = str(error)
        done = len(self._right.difference(self._lost))
        return CloudAudit(
            self._cloud, self._rows, done, tuple(self._differing), tuple(self._lost), self._not_audited, problem
        )

    def _usable(self) -> list[bytes]:
        """Batches that this folder has tags of for the cloud."""
        out = []
        for batch in self._batches:
            try:
                if self._cloud in self._tags.store.sections(batch):
                    out.append(batch)
                else:
                    self._not_audited[batch] = "this folder has no tags of it; renew them"
            except (IntegrityError, StoreError) as error:
                self._not_audited[batch] = str(error)
        return out

    def _part(self, batches: Sequence[bytes]) -> _Part:
        part = _Part([], [], {})
        for batch in batches:
            rows = self._batches[batch].rows
            try:
                part.tags[batch] = self._tags.store.read(batch, self._cloud, rows)
            except (IntegrityError, StoreError) as error:
                self._not_audited[batch] = str(error)
                continue
            part.batches.append(batch)
            part.rows.append(rows)
        return part

    def _confirmed(self, usable: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """Deleted rows, as another server says."""
        some = [i for i in usable if self._batches[i].live < self._batches[i].rows]
        if not some:
            return {}
        error: MippError = MessageError("no other server can be reached, which would say which rows were deleted")
        for witness in list(self._witnesses):
            try:
                return self._owner.known_deletions(witness, some, self._head)[1]
            except ConflictError:
                raise
            except MippError as failed:
                error = failed
                self._witnesses.remove(witness)
        raise error

    def _asked(self, part: _Part, draws: int, dead: Mapping[bytes, np.ndarray]) -> bool:
        """Whether the cloud's combination of some batches is right; if so, its rows are counted."""
        seed, answer = self._owner.ask_audit(self._cloud, part.batches, part.rows, draws)
        if (answer.position, answer.view) != (self._head.position, self._head.view):
            raise ConflictError("this owner's batches changed while they were audited")
        told = deleted_of(part.batches, answer)
        for batch in part.batches:
            if not np.array_equal(told.get(batch, ()), dead.get(batch, ())):
                raise MessageError(
                    f"it says that other rows of batch {batch.hex()} are deleted than server {self._witnesses[0]} "
                    "does: one of the two is wrong" if self._witnesses else f"it deleted rows of batch {batch.hex()}"
                )  # fmt: skip
        lost = {batch for batch, gone in zip(part.batches, answer.lost, strict=True) if gone}
        self._lost += [batch for batch in part.batches if batch in lost and batch not in self._lost]
        expected, rows = _expected(Coefficients(seed, part.batches, part.rows), part, draws, dead, lost)
        right = weighted_sum(answer.sums, self._tags.weights(self._cloud)) == expected
        if right:
            self._rows += rows
            self._right.update(part.batches)
        return right

    def _name(self, part: _Part, dead: Mapping[bytes, np.ndarray]) -> list[bytes]:
        """The batches that differ, of several that do together: halves are asked in full, down to single batches."""
        out: list[bytes] = []
        middle = len(part.batches) // 2
        for some in (slice(middle), slice(middle, None)):
            half = _Part(part.batches[some], part.rows[some], part.tags)
            if not self._asked(half, 0, dead):
                out += self._name(half, dead) if len(half.batches) > 1 else half.batches
        return out


def _expected(
    made: Coefficients, part: _Part, draws: int, dead: Mapping[bytes, np.ndarray], lost: set[bytes]
) -> tuple[int, int]:
    """The combination of the tags, and the number of different rows in it."""
    total = count = 0
    gone = [dead.get(batch, np.empty(0, np.int64)) for batch in part.batches]
    for number, rows, factors in made.live_draws(draws, gone) if draws else ():
        batch = part.batches[number]
        if batch not in lost:
            total += combine_tags(part.tags[batch][rows], factors)
            count += len(np.unique(rows))
    for number, batch in enumerate(part.batches if not draws else ()):
        if batch in lost:
            continue
        tags = part.tags[batch]
        for start in range(0, len(tags), _PIECE):
            stop = min(start + _PIECE, len(tags))
            total += combine_tags(tags[start:stop], made.of(number, start, stop, gone[number]))
        count += len(tags) - len(gone[number])
    return total % MODULUS, count
