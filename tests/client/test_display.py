"""Results in notebooks: grids, tables and data frames, of honest and of hostile owners."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

import mipp
from mipp.client import display
from mipp.client.results import FetchedImage, FetchedImages, Hit, Hits, LeftOut, Preview, Previews
from mipp.errors import MissingExtraError, NotFoundError

HOSTILE = [
    "<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "\u202egnp.exe", "</bdi></figure><h1>",
    "x" * 10_000, "&lt;b&gt;", "\ud800", "a\0b", "javascript:alert(1)", "https://example.org/x.png",
]  # fmt: skip
ALLOWED = {
    "div", "p", "bdi", "figure", "figcaption", "img", "i", "br", "table", "tr", "th", "td"
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """Tags, attributes, pictures and text of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.pictures, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert tag in ALLOWED, tag
        for name, value in attributes:
            if name == "class":
                assert value == "mathjax_ignore tex2jax_ignore"
                continue
            assert name in ("style", "src", "alt"), name
            if name == "src":
                kind, data = re.fullmatch(r"data:(image/jpeg);base64,([A-Za-z0-9+/=]+)", value).groups()
                self.pictures.append(base64.b64decode(data))
                assert Image.open(io.BytesIO(self.pictures[-1])).get_format_mimetype() == kind

    def handle_data(self, data):
        self.text.append(data)


def page(result):
    text = result._repr_html_()
    text.encode()  # no half of a surrogate pair
    return Page(text)


def photo(colour="red", side=40, form="PNG"):
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, form)
    return out.getvalue()


def hit(row, score=900, value=0.93751, owner="anna"):
    return Hit(bytes(16), row, bytes(16), owner, score, value)


def previews(texts, owner="anna"):
    found = Previews(Preview(bytes(16), n, t, {"caption": t}, photo()) for n, t in enumerate(texts))
    found.asked = tuple(hit(n, owner=owner) for n in range(len(texts)))
    return found


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Two owners with two pictures each and captions; a user."""
    folder = tmp_path_factory.mktemp("display")
    with mipp.Deployment.create(folder / "d", mipp.Encoding("cosine", 4), preview_size=4096) as deployment:
        user = deployment.create_user("ulla")
        for n, name in enumerate(("anna", "berta")):
            owner = deployment.create_owner(name)
            images = [(f"{name}{i}.png", photo(c), {"caption": f"{c} <{i}>"}) for i, c in enumerate(("red", "blue"))]
            owner.add_vectors(np.eye(4)[2 * n : 2 * n + 2], images)
            owner.grant(user, rankings=["server", "user"])
        yield deployment


def test_a_search_its_previews_and_its_images_show_themselves(index):
    user = index.user("ulla")
    result = user.search(np.array([0.5, 0.1, 0.9, 0.2]), k=3)
    table, grid, images = page(result), page(user.preview(result)), page(user.fetch(result))
    private = page(user.fetch(result.hits, private=True))
    assert table.tags.count("tr") == 4 and not table.pictures
    assert "The answers were not verified" in "".join(table.text)
    assert "The answers were verified." in page(user.search(np.eye(4)[0], k=1, ranking="user")).text
    for shown in (grid, images, private):
        text = "".join(shown.text)
        assert len(shown.pictures) == 3
        assert re.search(r"1\. berta, value 0\.8.*red <0>.*2\. anna.*red <0>.*3\. berta.*blue <1>", text)
    assert "berta0.png" in grid.text and "berta0.png" in images.text
    # ids, and previews that are fetched themselves: no rank and no value is known
    by_id = page(user.preview([result.hits[0].id]))
    assert "berta0.png" in by_id.text and "value" not in "".join(by_id.text)
    assert len(page(user.fetch(user.preview(result))).pictures) == 3


def test_reprs_hold_nothing_secret(index):
    user = index.user("ulla")
    result = user.search(np.array([0.5, 0.1, 0.9, 0.2]), k=3, ranking="user")
    best, nearest = result.hits[0], user.nearest(np.eye(4), 2, ranking="user")
    told = "".join(map(repr, (result, user.preview(result), user.fetch(result), nearest)))
    for secret in (str(best.score), str(best.value), "red", "berta0.png", "array"):
        assert secret not in told
    assert best.id in repr(user.fetch(result))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_text(text):
    shown = page(previews([text], owner=text))
    assert shown.tags.count("figure") == 1 and len(shown.pictures) == 1
    assert max(map(len, shown.text)) <= 230 and "\u202e" not in "".join(shown.text)
    failed = FetchedImages([FetchedImage(bytes(16), 0, text, b"", NotFoundError(text), {"caption": text})])
    assert page(failed).tags.count("figure") == 1
    hits = Hits([hit(0, owner=text)])
    hits.left_out = (LeftOut(bytes(16), text, b"", 0, text),) * 9
    assert "4 more were left out." in page(hits).text


def test_an_owners_bytes_never_reach_the_page():
    content = photo() + b"<script>trailing</script>"
    found = Previews([Preview(bytes(16), 0, "a", None, content), Preview(bytes(16), 1, "b", None, b"<svg onload=x>")])
    shown = page(found)
    assert len(shown.pictures) == 1 and b"script" not in shown.pictures[0] and "no picture" in shown.text


def test_at_most_fifty_are_shown_and_decoded(monkeypatch):
    decoded, picture = [], display.picture
    monkeypatch.setattr(display, "picture", lambda *a, **b: decoded.append(1) or picture(*a, **b))
    shown = page(previews([f"p{n}" for n in range(73)]))
    assert len(shown.pictures) == len(decoded) == 50 and "23 more are not shown." in shown.text
    assert "25 more are not shown." in page(Hits(hit(n) for n in range(75))).text
    assert not [t for t in page(Hits(hit(n) for n in range(50))).text if "not shown" in t]


def test_texts_of_owners_are_not_typeset():
    for result in (previews(["$\\kern 900em$"]), Hits([hit(1, owner="$$x$$")])):
        assert re.match(r'<div class="mathjax_ignore tex2jax_ignore">', result._repr_html_())


def test_empty_results_and_changed_lists():
    assert "0 rows." in page(Hits()).text and not page(Previews()).pictures and not page(FetchedImages()).pictures
    found = previews(["a", "b"])
    del found[0]  # whose hit is whose is not known any more
    assert "b" in page(found).text and "anna" not in "".join(page(found).text)
    assert found.to_rows()[0]["owner"] is None


def test_a_preview_that_failed_says_why():
    found = Previews([Preview(bytes(16), 0, error=NotFoundError("it was <deleted>"))])
    found.suspects = (1, 2)
    shown = page(found)
    assert "no record: it was <deleted>" in shown.text and "One of the clouds 1, 2 answered wrongly." in shown.text


def test_data_frames(index):
    pandas = pytest.importorskip("pandas")
    user = index.user("ulla")
    queries = np.array([[0.5, 0.1, 0.9, 0.2], [0.0, 1.0, 0.1, 0.2]])
    result = user.search(queries[0], k=3, ranking="user")
    told = user.preview(result)
    for table in (result.to_pandas(told), result.hits.to_pandas(told), told.to_pandas()):
        assert isinstance(table, pandas.DataFrame)
        assert table["rank"].tolist() == [1, 2, 3] and table["id"].tolist() == [h.id for h in result.hits]
        assert table["caption"].tolist() == ["red <0>", "red <0>", "blue <1>"]
        assert table["score"].tolist() == [h.score for h in result.hits]
    assert list(told.to_pandas().columns)[-1] == "error" and list(result.to_pandas().columns) == [
        "rank", "owner", "owner_id", "id", "score", "value"
    ]  # fmt: skip
    by_id = user.preview([result.hits[1].id]).to_pandas()
    assert by_id["id"].tolist() == [result.hits[1].id] and by_id["rank"].isna().all()

    nearest = user.nearest(queries, 3, ranking="user")
    table = nearest.to_pandas()
    assert list(table.columns) == ["query", "rank", "id", "owner", "score", "value"] and len(table) == 6
    for q, one in enumerate(user.search_batch(queries, 3, ranking="user")):
        part = table[table["query"] == q]
        assert part["id"].tolist() == [h.id for h in one.hits] and part["rank"].tolist() == [1, 2, 3]
        assert part["owner"].tolist() == [h.owner_name for h in one.hits]
        assert part["score"].tolist() == [h.score for h in one.hits]
        assert part["value"].tolist() == [h.value for h in one.hits]
    nearest.rows[0, 2] = -1  # an empty place
    assert len(nearest.to_pandas()) == 5
    none = mipp.client.nearest.Nearest(nearest.index, nearest.rows[:0], None, None, {})
    assert list(none.to_pandas().columns) == list(table.columns) and len(none.to_pandas()) == 0
    for empty in (Hits(), Previews()):
        assert len(empty.to_pandas()) == 0 and "score" in empty.to_pandas().columns


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    result = mipp.SearchResult(Hits([hit(0)]))
    for table in (result, result.hits, Previews()):
        with pytest.raises(MissingExtraError, match=r"\[notebook\]"):
            table.to_pandas()
