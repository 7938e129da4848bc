"""Images from Python: added from folders, listed, searched by an example, with metadata that only users read."""

import json

import numpy as np
import pytest
from PIL import Image

import mipp
from mipp.client.image_file import METADATA_BYTES, pack_image, parse_image
from mipp.errors import DTypeError, ImageError, MessageError, MissingExtraError, NotFoundError, ParameterError
from mipp.features.encoding import descriptor_encoding


def picture(path, seed):
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(0, 256, (4, 4, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def index(tmp_path):
    with mipp.Deployment.create(
        tmp_path / "index", descriptor_encoding("csd64", server_ranking=True), descriptor="csd64", threads=1
    ) as deployment:
        yield deployment


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in range(6):
        picture(folder / ("more" if number > 3 else ".") / f"{number}.png", number)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_from_a_folder_to_a_fetched_image(index, photos):
    owner, user = index.create_owner("anna"), index.create_user("ulla")
    note = {"caption": "a cat", "taken": [2020, 1]}
    report = owner.add_images(photos, metadata={photos / "2.png": note})
    assert len(report.added) == 6 and not report.errors
    assert [image.path.name for image in owner.images()] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]
    assert owner.add_images(str(photos)).skipped == 6
    owner.grant(user)
    result = user.search_image(photos / "2.png", k=2)
    assert result.hits[0].id == owner.images()[2].id
    first, second = user.fetch(result.hits)
    assert (first.name, first.metadata, first.content) == ("2.png", note, (photos / "2.png").read_bytes())
    assert second.metadata is None and second.error is None


def test_any_form_of_a_query_image_is_the_same_query(index, photos):
    owner, user = index.create_owner("anna"), index.create_user("ulla")
    owner.add_images(photos)
    owner.grant(user, rankings=["user"])
    path = photos / "more" / "4.png"
    with Image.open(path) as opened:
        forms = [path, str(path), path.read_bytes(), np.asarray(opened), opened.copy(), opened.convert("CMYK")]
        found = [[h.score for h in user.search_image(f, 6, ranking="user").hits] for f in forms[:5]]
        assert all(f == found[0] for f in found)
        assert len(user.search_image(forms[5], ranking="user").hits) == 6
    for wrong, error in ((b"no image", ImageError), (photos / "gone.png", NotFoundError), (7, DTypeError)):
        with pytest.raises(error):
            user.search_image(wrong)


def test_hits_as_rows(index, photos):
    owner, user = index.create_owner("anna"), index.create_user("ulla")
    owner.add_images([photos / "0.png", photos / "1.png"])
    owner.grant(user)
    hits = user.search_image(photos / "0.png", k=2).hits
    rows = hits.to_rows()
    assert [row["rank"] for row in rows] == [1, 2] and rows[0]["id"] == hits[0].id and rows[0]["owner"] == "anna"
    assert json.loads(json.dumps(rows)) == rows
    try:
        import pandas
    except ImportError:
        with pytest.raises(MissingExtraError):
            hits.to_pandas()
    else:
        assert isinstance(hits.to_pandas(), pandas.DataFrame) and len(hits.to_pandas()) == 2


def test_metadata_that_is_none_is_refused_before_anything_is_sent(index, photos):
    owner = index.create_owner("anna")
    path = photos / "0.png"
    recursive = {}
    recursive["itself"] = recursive
    for wrong in ("text", ["a"], {"a": object()}, {"a": float("nan")}, {"big": "x" * METADATA_BYTES}, recursive):
        with pytest.raises(ParameterError, match="metadata"):
            owner.add_images(photos, metadata={path: wrong})
    with pytest.raises(ParameterError, match="not among the files"):
        owner.add_images(photos, metadata={photos / "other.png": {}})
    with pytest.raises(ParameterError, match="largest field is 'long'"):
        owner.add_images(path, metadata={path: {"short": 1, "long": "é" * METADATA_BYTES}})
    assert not owner.batches() and not owner.images()


def test_wrong_types_are_said(index, photos):
    owner = index.create_owner("anna")
    for wrong in (None, 3, np.zeros((4, 4, 3)), [None]):
        with pytest.raises(DTypeError):
            owner.add_images(wrong)
    for wrong in ("x", [("0.png", {})]):
        with pytest.raises(DTypeError, match="mapping"):
            owner.add_images(photos, metadata=wrong)
    with pytest.raises(DTypeError):
        owner.add_images(photos, metadata={3: {}})
    with pytest.raises(ParameterError, match="encoding is for"):
        mipp.Deployment.create(index.folder / "other", descriptor_encoding("cld"), descriptor="csd64")


def test_metadata_of_what_is_there_already_is_not_dropped_silently(index, photos):
    owner = index.create_owner("anna")
    owner.add_images(photos)
    report = owner.add_images(photos, metadata={photos / "1.png": {"late": True}})
    assert report.skipped == 6 and [path for path, _ in report.errors] == [str(photos / "1.png")]
    assert "metadata was not changed" in report.errors[0][1]


def test_a_fetched_image_is_hashable_and_metadata_is_shallow(index, photos):
    owner, user = index.create_owner("anna"), index.create_user("ulla")
    owner.add_images(photos / "0.png", metadata={photos / "0.png": {"a": [1]}})
    owner.grant(user)
    assert len(set(user.fetch(user.search_image(photos / "0.png", 1).hits))) == 1
    deep = {}
    for _ in range(40):
        deep = {"inner": [deep]}
    for wrong, why in ((deep, "nested"), ({1: "a"}, "named by text")):
        with pytest.raises(ParameterError, match=why):
            owner.add_images(photos / "1.png", metadata={photos / "1.png": wrong})
    head = b'{"name": "a", "metadata": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}"
    with pytest.raises(MessageError, match="metadata"):
        parse_image(len(head).to_bytes(4, "big") + head)


def test_contents_are_not_shown(index, photos):
    owner, user = index.create_owner("anna"), index.create_user("ulla")
    owner.add_images(photos / "0.png", metadata={photos / "0.png": {"caption": "private"}})
    owner.grant(user)
    (image,) = user.fetch(user.search_image(photos / "0.png", 1).hits)
    assert image.metadata == {"caption": "private"}
    assert len(repr(image)) < 300 and "private" not in repr(image)


def test_deleted_and_merged_images_are_listed_as_they_are(index, photos):
    owner, user = index.create_owner("anna"), index.create_user("ulla")
    for number in range(4):
        owner.add_images(photos / f"{number}.png", metadata={photos / f"{number}.png": {"number": number}})
    owner.delete([owner.images()[1].id])
    owner.compact()
    listed = owner.images()
    assert [image.path.name for image in listed] == ["0.png", "2.png", "3.png"]
    owner.grant(user)
    assert [f.metadata for f in user.fetch([image.id for image in listed])] == [{"number": n} for n in (0, 2, 3)]


def test_images_of_a_lost_journal_are_listed_without_paths(index, photos):
    owner = index.create_owner("anna")
    owner.add_images([photos / "0.png", photos / "1.png"])
    ids = [image.id for image in owner.images()]
    owner.journal.close()
    (index.folder / "owners" / "anna.journal").unlink()
    again = index.owner("anna")
    assert [(image.path, image.id) for image in again.images()] == [(None, i) for i in ids]


def test_a_hostile_owners_metadata_is_an_object_or_the_image_fails_alone():
    assert parse_image(pack_image(("a.png", b"x", {"a": 1}))) == ("a.png", {"a": 1}, b"x")
    for metadata in ("[]", '"text"', "7", "true"):
        head = f'{{"name": "a", "metadata": {metadata}}}'.encode()
        with pytest.raises(MessageError, match="metadata"):
            parse_image(len(head).to_bytes(4, "big") + head + b"x")
    head = b'{"name": "a"}'  # of an earlier version
    assert parse_image(len(head).to_bytes(4, "big") + head + b"x") == ("a", None, b"x")
