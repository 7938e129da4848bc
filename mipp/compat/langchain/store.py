"""The vector store: owners add documents, users search those of all owners that admit them."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from ...client.choosing import Owners
from ...client.owner import ImageOwner
from ...client.results import Hit
from ...client.user import User
from ...deployment import Deployment
from ...encoding import Encoding
from ...errors import AccessDeniedError, DTypeError, ParameterError, ShapeError
from .catalogue import OwnerCatalogue, UserCatalogue
from .documents import document_of, id_in, is_row_id, names_of, positive, records_of, texts_of

__all__ = ["EncryptedVectorStore"]

_log = logging.getLogger(__name__)

#: documents of an upload
_BATCH = 1000
#: records of the deployments that are made here
_RECORD_BYTES = 8192


class EncryptedVectorStore(VectorStore):  # type: ignore[misc]
    """A vector store whose documents are encrypted under keys of their owners, at servers that nobody trusts.

    An owner adds and deletes documents. A user searches the documents of all owners that granted it a search. No server
    learns a query, a score, a document or which documents were found. A store has one side or both. A document is a
    row: its embedding is the vector, its text the caption of the row's record, beside its id and metadata. Rows of
    other programs, such as images with captions, are documents, too.

    Parameters
    ----------
    embedding : Embeddings
        Turns texts into vectors of the deployment's dimension. It sees texts and queries in the clear: an embedding
        service outside of this machine learns them.
    owner : ImageOwner, optional
        Adds and deletes. Its deployment must keep records (``preview_size``).
    user : User, optional
        Searches. The servers must allow private fetches.
    owners : str, bytes, ImageOwner or sequence of them, optional
        Owners that searches cover; default all that grant something.
    ranking : str, optional
        ``"server"`` or ``"user"``, as for :meth:`mipp.User.search`.
    owner_key : str, optional
        If given, documents that are found have the name of their owner under this key of their metadata.
    most_read : int
        Most records of one owner that :meth:`get_by_ids` fetches to find ids that were not seen before.

    Notes
    -----
    Servers learn when a user searches, over which owners, k, and the number of records fetched in multiples of ten;
    an owner's uploads and deletions, and their sizes. Texts that are found are as their owners wrote them: a hostile
    owner can write instructions for a language model.

    Examples
    --------
    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> from mipp.compat.langchain import EncryptedVectorStore
    >>> texts = ["a cat", "a dog"]
    >>> with EncryptedVectorStore.from_texts(texts, DeterministicFakeEmbedding(size=8), ids=["1", "2"]) as store:
    ...     found = store.similarity_search("a dog", k=1)
    >>> found[0].id, found[0].page_content
    ('2', 'a dog')
    """

    def __init__(
        self, embedding: Embeddings, *, owner: ImageOwner | None = None, user: User | None = None,
        owners: Owners | None = None, ranking: str | None = None, owner_key: str | None = None, most_read: int = 10_000,
    ) -> None:  # fmt: skip
        if not isinstance(embedding, Embeddings):
            raise DTypeError(f"embedding must be an Embeddings of langchain_core, not {type(embedding).__name__}")
        if owner is None and user is None:
            raise ParameterError("a store needs an owner, who adds, or a user, who searches")
        if owner is not None and not owner.config.record_bytes:
            raise ParameterError("documents are records: make the deployment with a preview_size")
        self._embedding, self._owner, self._user = embedding, owner, user
        self._owners, self._ranking, self._owner_key = owners, ranking, owner_key
        self._mine = None if owner is None else OwnerCatalogue(owner)
        self._seen = None if user is None else UserCatalogue(user, most_read)
        # asynchronous calls come from several threads
        self._lock = threading.RLock()
        self._own: tuple[Deployment, tempfile.TemporaryDirectory[str] | None] | None = None

    def __repr__(self) -> str:
        """Names of the parties alone."""
        names = [f"{kind}={party.name!r}" for kind, party in (("owner", self._owner), ("user", self._user)) if party]
        return f"EncryptedVectorStore({', '.join(names)})"

    def __reduce__(self) -> str:
        raise TypeError("a store holds secret keys and does not pickle")

    def close(self) -> None:
        """Close the deployment if the store made it; one in a temporary folder is deleted."""
        with self._lock:
            if self._own is not None:
                deployment, folder = self._own
                self._own = None
                deployment.close()
                if folder is not None:
                    folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def embeddings(self) -> Embeddings:
        """The model that turns texts into vectors."""
        return self._embedding

    # --- the owner's side ---------------------------------------------------------------------------------------

    def add_documents(
        self, documents: list[Document], *, ids: Sequence[str | None] | None = None, batch_size: int = _BATCH,
        **kwargs: Any,
    ) -> list[str]:  # fmt: skip
        """Encrypt documents and upload them; one with the id of an earlier document replaces it.

        New documents are stored before those that they replace are deleted: an interruption leaves both, until the id
        is added or deleted the next time.

        Parameters
        ----------
        documents : list of Document
            The documents. Secret.
        ids : sequence of str, optional
            An id for each, at most 200 characters; default the document's own, else a random one. Secret.
        batch_size : int
            Documents in an upload.
        **kwargs
            None others are known.

        Returns
        -------
        list of str
            Their ids.

        Raises
        ------
        ParameterError
            No owner; another number of ids than of documents; metadata that JSON cannot hold; a document that does not
            fit into a record, with the limit. Nothing was sent.
        DTypeError
            Other types.
        ShapeError
            Vectors of another dimension than the deployment's.
        """
        _refuse(kwargs)
        owner, mine = self._adding()
        documents = list(documents)
        batch_size = positive(batch_size, "batch_size")
        names, given = names_of(documents, ids)
        records = records_of(documents, names, owner.config.record_bytes)
        last = {name: n for n, name in enumerate(names)}  # of documents with one id the last one counts
        kept = sorted(last.values())
        if not kept:
            return []
        vectors = self._vectors([documents[n].page_content for n in kept])
        owner.config.encoding.encode_rows(vectors)  # all are checked before any is sent
        with self._lock, owner.turn:  # no other process of this owner adds the same id meanwhile
            if given:
                mine.follow()
            old = mine.rows([names[n] for n in kept]) if given else []
            for first in range(0, len(kept), batch_size):
                some = kept[first : first + batch_size]
                rows = owner.add_vectors(vectors[first : first + batch_size], metadata=[records[n] for n in some])
                mine.added(rows, [names[n] for n in some])
            if old:
                owner.delete(old)
        return names

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents of this owner; ids that it does not have are passed over.

        Parameters
        ----------
        ids : list of str, optional
            Their ids, or ids of rows; None for all documents that stores added for this owner.
        **kwargs
            None others are known.

        Returns
        -------
        bool
            True.

        Raises
        ------
        ParameterError, DTypeError
            No owner; ids that are no list of text.
        """
        _refuse(kwargs)
        owner, mine = self._adding()
        wanted = None if ids is None else texts_of(ids)
        with self._lock, owner.turn:
            mine.follow()
            rows = mine.rows(wanted)
            if wanted is not None:
                places = {f"{batch.hex()}:{row}": (batch, row) for batch, row in mine.rows(None)}
                rows += [places[name] for name in wanted if name in places]
            if rows:
                owner.delete(rows)
        return True

    # --- the user's side ----------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Fetch documents by their ids, privately.

        An id that was not seen in an earlier search is found by fetching the records of all rows that this store has
        not seen. No server learns the ids; two clouds learn how many records are fetched. If several owners use an id,
        all their documents are given. An owner with more than ``most_read`` such rows is left out then, and a logged
        warning names it: its documents are found by ids of rows, or once a search has seen them.

        Parameters
        ----------
        ids : sequence of str
            Ids of documents, or of rows. Secret.

        Returns
        -------
        list of Document
            Those that are there, in the order of ``ids``. Secret.

        Raises
        ------
        ParameterError, DTypeError
            No user; ids that are no list of text.
        """
        user, seen = self._searching()
        wanted = texts_of(ids)
        named = [name for name in wanted if not is_row_id(name)]
        with self._lock:
            if not wanted or not user.index(self._owners).total:
                return []
            asked: list[Hit | str] = [*(seen.find(named, self._owners) if named else []), *filter(is_row_id, wanted)]
            found: dict[str | None, list[Document]] = {}
            for n, document in self._documents(asked) if asked else ():
                one = asked[n]
                found.setdefault(one if isinstance(one, str) else document.id, []).append(document)
        return [document for name in dict.fromkeys(wanted) for document in found.get(name, ())]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Find the documents nearest to a text.

        Parameters
        ----------
        query : str
            The text; the embedding model sees it, no server does. Secret.
        k : int
            Number of documents; servers learn it.
        **kwargs
            ``owners``: owners to search, default the store's. No filters: they would need other rows than were found.

        Returns
        -------
        list of Document
            Nearest first; fewer than ``k`` if the index has fewer, or a record does not open. Secret.

        Raises
        ------
        ParameterError
            No user; a bad k; another argument.
        AccessDeniedError
            No grant.
        """
        return self.similarity_search_by_vector(self._embedding.embed_query(query), k, **kwargs)

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        """Find the documents nearest to a vector.

        Parameters
        ----------
        embedding : list of float
            The vector. Secret.
        k : int
            Number of documents; servers learn it.
        **kwargs
            As for :meth:`similarity_search`.

        Returns
        -------
        list of Document
            As of :meth:`similarity_search`.
        """
        return [document for document, _ in self._found(embedding, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """Find the documents nearest to a text, with their values.

        Parameters
        ----------
        query, k, **kwargs
            As for :meth:`similarity_search`.

        Returns
        -------
        list of (Document, float)
            Values in the unit of the deployment's metric: cosines or products, larger for nearer documents, or
            distances (squared for ``l2``). Secret.

        Raises
        ------
        AccessDeniedError
            The grants give no scores.
        """
        return self._scored(self._found(self._embedding.embed_query(query), k, **kwargs))

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find documents that are near to a text and differ from each other.

        Stored vectors do not come back with documents: **the model embeds the texts that were found again**, and sees
        them.

        Parameters
        ----------
        query : str
            The text. Secret.
        k : int
            Number of documents.
        fetch_k : int
            Number of nearest documents to choose from; servers learn it.
        lambda_mult : float
            1 for the nearest, 0 for the most different ones.
        **kwargs
            As for :meth:`similarity_search`.

        Returns
        -------
        list of Document
            As chosen, the nearest first. Secret.
        """
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Find documents that are near to a vector and differ from each other.

        Parameters
        ----------
        embedding : list of float
            The vector. Secret.
        k, fetch_k, lambda_mult, **kwargs
            As for :meth:`max_marginal_relevance_search`.

        Returns
        -------
        list of Document
            As of :meth:`max_marginal_relevance_search`.
        """
        found = [document for document, _ in self._found(embedding, max(k, fetch_k), **kwargs)]
        if not found:
            return []
        vectors = self._vectors([document.page_content for document in found])
        chosen = maximal_marginal_relevance(np.array(embedding), list(vectors), lambda_mult=lambda_mult, k=k)
        return [found[n] for n in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """How values become scores from 0 to 1."""
        user, _ = self._searching()
        if user.config.encoding.metric in ("cosine", "hellinger", "ip"):
            return lambda value: min(max(value, 0.0), 1.0)
        root = 2 if user.config.encoding.metric == "l2" else 1
        return lambda value: 1 / (1 + max(value, 0.0) ** (1 / root))

    # --- deployments that a store makes -------------------------------------------------------------------------

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: Embeddings, metadatas: list[dict[str, Any]] | None = None, *,
        ids: list[str] | None = None, owner: ImageOwner | None = None, user: User | None = None,
        folder: str | Path | None = None, preview_size: int = _RECORD_BYTES, **kwargs: Any,
    ) -> Self:  # fmt: skip
        """Make a store of texts, by default with an embedded deployment: all servers and keys in one folder.

        Parameters
        ----------
        texts : list of str
            The texts. Secret.
        embedding : Embeddings
            The model.
        metadatas : list of dict, optional
            Metadata of each text. Secret.
        ids : list of str, optional
            Id of each text.
        owner : ImageOwner, optional
            The owner to add with; without it a deployment is made, with an owner and a user.
        user : User, optional
            The user, beside ``owner``.
        folder : str or path, optional
            Folder of the new deployment; default a temporary one, which :meth:`close` deletes.
        preview_size : int
            Bytes of a record there, which limit a document.
        **kwargs
            As for the class.

        Returns
        -------
        EncryptedVectorStore
            The store. It protects nothing from whoever reads the folder.
        """
        if owner is not None or user is not None:
            store = cls(embedding, owner=owner, user=user, **kwargs)
        else:
            dimension = len(embedding.embed_documents(list(texts[:1]) or ["a"])[0])
            temporary = tempfile.TemporaryDirectory(prefix="mipp-store-") if folder is None else None
            place = Path(temporary.name) / "deployment" if temporary is not None else Path(folder or "")
            deployment = Deployment.create(place, Encoding("cosine", dimension), preview_size=preview_size)
            owner, user = deployment.create_owner("owner"), deployment.create_user("user")
            owner.grant(user, rankings=["server", "user"])
            store = cls(embedding, owner=owner, user=user, **kwargs)
            store._own = deployment, temporary
        try:
            store.add_texts(texts, metadatas, ids=ids)
        except BaseException:
            store.close()
            raise
        return store

    # --- inside -------------------------------------------------------------------------------------------------

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """Vectors of texts, of one length; ShapeError for anything else that the model gives."""
        try:
            vectors = np.array(self._embedding.embed_documents(texts), np.float64)
        except (ValueError, TypeError):
            raise ShapeError("the embedding model gave no vectors of one length") from None
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ShapeError(f"the embedding model gave vectors of shape {vectors.shape} for {len(texts)} texts")
        return vectors

    def _adding(self) -> tuple[ImageOwner, OwnerCatalogue]:
        if self._owner is None or self._mine is None:
            raise ParameterError("this store has no owner; only an owner adds and deletes documents")
        return self._owner, self._mine

    def _searching(self) -> tuple[User, UserCatalogue]:
        if self._user is None or self._seen is None:
            raise ParameterError("this store has no user; only a user searches")
        return self._user, self._seen

    def _found(
        self, vector: Sequence[float], k: int, *, owners: Owners | None = None, **kwargs: Any
    ) -> list[tuple[Document, float | None]]:
        """The nearest documents, and their values if the grants give them."""
        _refuse(kwargs)
        user, _ = self._searching()
        owners = self._owners if owners is None else owners
        k = positive(k, "k")
        with self._lock:
            total = user.index(owners).total
            if not total:
                return []
            hits = user.search(np.array(vector), min(k, total), owners=owners, ranking=self._ranking).hits
            return [(document, hits[n].value) for n, document in self._documents(hits)] if hits else []

    def _documents(self, asked: Sequence[Hit | str]) -> list[tuple[int, Document]]:
        """Places in ``asked``, and the documents of the rows that have one."""
        user, seen = self._searching()
        previews, found = user.preview(list(asked)), []
        for n, (preview, hit) in enumerate(zip(previews, previews.asked, strict=True)):
            if preview.error is not None:
                continue
            document = document_of(preview)
            if hit is not None:
                seen.note(hit, id_in(preview.metadata))
                if self._owner_key is not None:
                    document.metadata[self._owner_key] = hit.owner_name
            found.append((n, document))
        if len(found) < len(previews):
            _log.warning("%d of %d rows gave no document", len(previews) - len(found), len(previews))
        return found

    @staticmethod
    def _scored(found: Sequence[tuple[Document, float | None]]) -> list[tuple[Document, float]]:
        scored = [(document, value) for document, value in found if value is not None]
        if len(scored) < len(found):
            raise AccessDeniedError("the grants of these owners give no scores")
        return scored


def _refuse(kwargs: dict[str, Any]) -> None:
    """An argument that did nothing would be a wrong result."""
    if kwargs:
        raise ParameterError(f"the store knows no argument {next(iter(kwargs))!r}")
