"""Documents as records of rows, and back: texts are captions, so other programs show them, too."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from langchain_core.documents import Document

from ...client.records import encodable, fits, record_room
from ...client.results import Preview
from ...errors import DTypeError, ParameterError

__all__ = ["document_of", "id_in", "is_row_id", "names_of", "positive", "records_of", "texts_of"]

#: most characters of a document's id
_MOST_ID = 200
_ROW_ID = re.compile(r"[0-9a-f]{32}:[0-9]{1,18}")
#: field of a record's metadata that says that a store wrote it
_FIELD = "document"


def is_row_id(text: str) -> bool:
    """Whether an id names a row, as :attr:`mipp.Hit.id` does."""
    return _ROW_ID.fullmatch(text) is not None


def texts_of(ids: Any) -> list[str]:
    """Ids that a caller gave; DTypeError for anything but several texts."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise DTypeError("ids are a list of text")
    found = list(ids)
    if not all(isinstance(one, str) for one in found):
        raise DTypeError("ids are a list of text")
    return found


def positive(value: Any, name: str) -> int:
    """A positive integer that a caller gave; ParameterError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ParameterError(f"{name} must be a positive integer, not {value!r}")
    return int(value)


def names_of(documents: Sequence[Document], ids: Any) -> tuple[list[str], bool]:
    """The id of each document, random where none was given, and whether one was; DTypeError, ParameterError."""
    if not all(isinstance(document, Document) for document in documents):
        raise DTypeError("documents are a list of Document")
    if ids is not None and (isinstance(ids, str) or len(ids) != len(documents)):
        raise ParameterError(f"{len(documents)} documents need as many ids, in a list")
    given = [document.id for document in documents] if ids is None else list(ids)
    names = [str(uuid.uuid4()) if name is None else _checked_id(name) for name in given]
    return names, any(name is not None for name in given)


def _checked_id(text: Any) -> str:
    if not isinstance(text, str):
        raise DTypeError(f"the id of a document is text, not {type(text).__name__}")
    if not 1 <= len(text) <= _MOST_ID:
        raise ParameterError(f"the id of a document has 1 to {_MOST_ID} characters, not {len(text)}")
    if encodable(text) != text:
        raise ParameterError("the id of a document has half of a surrogate pair, which is no character")
    if is_row_id(text):
        raise ParameterError("the id of a document is not the id of a row: 32 hex digits, a colon and a number")
    return text


def records_of(documents: Sequence[Document], names: Sequence[str], record_bytes: int) -> list[dict[str, Any]]:
    """Metadata of the records of documents; ParameterError for one that does not fit, which names the limit."""
    room, records = record_room(record_bytes), []
    for number, (document, name) in enumerate(zip(documents, names, strict=True)):
        fields = {"caption": document.page_content, _FIELD: {"id": name, "metadata": document.metadata}}
        try:
            fits(fields, "", room)
        except ParameterError as error:
            told = str(error).replace("path and metadata of an image", "its text, id and metadata")
            raise ParameterError(
                f"document {number} cannot be stored: {told}; records of this deployment have {record_bytes} bytes "
                "(preview_size): split long texts, or make a deployment with larger ones"
            ) from None
        records.append(fields)
    return records


def id_in(metadata: Mapping[str, Any] | None) -> str | None:
    """The id of the document that a record holds, None for a record of another program. Owners may be hostile."""
    found = (metadata or {}).get(_FIELD)
    if not isinstance(found, dict) or found.keys() != {"id", "metadata"} or not isinstance(found["metadata"], dict):
        return None
    name = found["id"]
    good = isinstance(name, str) and 1 <= len(name) <= _MOST_ID and not is_row_id(name)
    return name if good and isinstance((metadata or {}).get("caption"), str) else None


def document_of(preview: Preview) -> Document:
    """The document of a row; of a record that no store wrote its caption, other metadata and path, and the row's id."""
    fields = dict(preview.metadata or {})
    name = id_in(fields)
    if name is not None:
        return Document(id=name, page_content=fields["caption"], metadata=fields[_FIELD]["metadata"])
    if preview.caption:
        del fields["caption"]
    if preview.path:
        fields.setdefault("path", preview.path)
    return Document(id=preview.id, page_content=preview.caption, metadata=fields)
