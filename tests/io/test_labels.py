"""Label files."""

from __future__ import annotations

import pytest

from mipp.errors import NotFoundError, ParameterError
from mipp.io.labels import load_labels, load_row_labels


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b, c.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder, text, encoding="utf-8"):
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_good(folder):
    text = 'label,note,path\r\nbus,1,a.png\r\nñandú,,"sub/b, c.png"\r\n'
    for encoding in ("utf-8", "utf-8-sig"):
        got = load_labels(str(write(folder, text, encoding)))
        assert got == [(folder / "a.png", "bus"), (folder / "sub" / "b, c.png", "ñandú")]
        assert all(path.is_file() for path, _ in got)


@pytest.mark.parametrize(("text", "message"), [
    ("", "line 1: no column 'path'"), ("path\na.png\n", "line 1: no column 'label'"), ("path,label\n", "no rows"),
    ("path,label\na.png\n", "line 2: no label"), ("path,label\n,bus\n", "line 2: no path"),
    ("path,label\na.png,x\nsub/../a.png,y\n", "line 3: .* on line 2"),
])  # fmt: skip
def test_bad(folder, text, message):
    with pytest.raises(ParameterError, match=message):
        load_labels(write(folder, text))


def test_missing(folder):
    with pytest.raises(NotFoundError, match=r"line 3: no image z\.png"):
        load_labels(write(folder, "path,label\na.png,x\nz.png,y\n"))
    with pytest.raises(NotFoundError):
        load_labels(folder / "nothing.csv")
    with pytest.raises(ParameterError, match="UTF-8"):
        load_labels(write(folder, "path,label\na.png,\xe9\n", "latin-1"))


def test_row_labels(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,label\n1, a \n2,b\n3,a\n")
    assert load_row_labels(path) == ["a", "b", "a"]
    for text, error in (("id\n1\n", ParameterError), ("label\n", ParameterError), ("id,label\n1,\n", ParameterError)):
        path.write_text(text)
        with pytest.raises(error):
            load_row_labels(path)
    path.write_bytes(b"label\n\xff\n")
    with pytest.raises(ParameterError, match="UTF-8"):
        load_row_labels(path)
    with pytest.raises(NotFoundError):
        load_row_labels(tmp_path / "none.csv")
