"""What owners wrote, shown in notebooks and given as documents: whatever it is, it stays text and pictures."""

import io

import pytest
from hypothesis import strategies as st
from PIL import Image

from mipp.client.records import parse_record
from mipp.client.results import Preview, Previews
from mipp.errors import MessageError
from mipp.io.display import picture, shown
from tests.adversary.fuzz import changed, changed_json, fuzz, modes
from tests.client.test_display import page, photo

METADATA = {"caption": "a <b>cat</b>", "document": {"id": "1", "metadata": {"page": [1, {"of": 2}]}}}


@modes
def test_texts(times):
    def check(text):
        got = shown(text)
        assert len(got) <= 200 and all(c.isprintable() or c in "\u200c\u200d" for c in got)
        preview = Preview(bytes(16), 0, text, {"caption": text})
        assert page(Previews([preview])).tags.count("figure") == 1

    wild = st.text(st.characters(), max_size=300) | st.text("<>&\"'/=script onerror\u202e\ud800", max_size=300)
    fuzz(wild, check, 500 * times)


@modes
def test_pictures(times):
    decoded = []

    def check(data):
        made = picture(data, 24)
        if made is not None:
            decoded.append(1)
            assert max(Image.open(io.BytesIO(made)).size) <= 24

    fuzz(changed([photo(side=20, form=form) for form in ("PNG", "WEBP", "GIF", "BMP")]), check, 250 * times)
    assert decoded


@modes
def test_documents(times):
    pytest.importorskip("langchain_core", reason="langchain-core (extra langchain) is not installed")
    from mipp.compat.langchain.documents import document_of, id_in, is_row_id

    named = []

    def check(raw):
        head = b'{"path":"","thumbnail":0,"metadata":' + raw + b"}"
        try:
            fields = parse_record(len(head).to_bytes(4, "big") + head).metadata
        except MessageError:
            return
        if fields is not None:
            preview = Preview(bytes(16), 3, "", fields)
            document, name = document_of(preview), id_in(fields)
            assert document.id == (preview.id if name is None else name) and isinstance(document.metadata, dict)
            assert name is None or not is_row_id(name)
            named.append(name)

    fuzz(changed_json([METADATA]), check, 500 * times)
    assert None in named and "1" in named
