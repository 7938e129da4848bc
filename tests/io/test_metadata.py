"""Metadata files: CSV and JSON lines, and what is wrong with them, by file and line."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipp.errors import DTypeError, NotFoundError, ParameterError
from mipp.io import metadata
from mipp.io.metadata import read_metadata
from mipp.io.strict import strict_loads


def write(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_good(tmp_path, encoding, end):
    lines = ["caption,path, place ", '"a ""big"" cat, ñ",a.png,', "", '"two\nlines","sub/b, c.png",Rome', " ,c, "]
    got = read_metadata(str(write(tmp_path, "a.CSV", end.join(lines), encoding)))
    assert got == {
        "a.png": {"caption": 'a "big" cat, ñ'},
        "sub/b, c.png": {"caption": "two\nlines", "place": "Rome"},
        "c": {},
    }
    assert list(got) == ["a.png", "sub/b, c.png", "c"]
    lines = ['{"path": "b.png", "n": [1, {"x": null}]}', " ", '{"a": "ñ", "path": "a.png"}', '{"path": "c"}']
    got = read_metadata(write(tmp_path, "a.jsonl", end.join(lines), encoding))
    assert got == {"b.png": {"n": [1, {"x": None}]}, "a.png": {"a": "ñ"}, "c": {}}


@pytest.mark.parametrize(("text", "message"), [
    ("", r"a\.csv, line 1: no column 'path'"), ("name,label\n", r"a\.csv, line 1: no column 'path'"),
    ("path,b\n", r"a\.csv: no rows"), ("path,b,b\n", "line 1: several columns are called 'b'"),
    ("path,path\n", "line 1: several columns are called 'path'"), ("path,,b\na,b,c\n", "line 1: a column has no name"),
    ("path,b\na,1\n\nb\n", "line 4: 1 cells, the header has 2"), ("path,b\na,1,2\n", "line 2: 3 cells"),
    ("path,b\n,1\n", "line 2: no path"), ("path,b\n  ,1\n", "line 2: no path"),
    ("path,b\na,1\nb,2\na,3\n", "line 4: image a is on line 2 already"),
    ("path,b\nx/a,1\n./x//a,2\n", "line 3: image x/a is on line 2 already"),
    ("path,b\na,1\nb,x\0y\n", "line 3: a NUL"), ('path,b\na,"1\n', "line 2: not readable as CSV"),
    ('path,b\na,"1"2\n', "line 2: not readable as CSV"), ("path,b\ra,1\r", "line 1: not readable as CSV"),
    (b"path,b\na,1\nb,\xff\n", "line 3: not UTF-8 text"), ("path,b\na,1\n".encode("utf-16"), "line 1: not UTF-8"),
])  # fmt: skip
def test_bad_csv(tmp_path, text, message):
    with pytest.raises(ParameterError, match=message):
        read_metadata(write(tmp_path, "a.csv", text))


@pytest.mark.parametrize(("line", "message"), [
    ("[]", "line 2: no JSON object"), ("{", "line 2: no JSON object"), ('"a"', "line 2: no JSON object"),
    ('{"path": "a", "n": NaN}', "line 2: no JSON object"), ('{"path": "a", "n": 1e999}', "line 2: no JSON object"),
    ('{"path": "a", "path": "b"}', "line 2: no JSON object"), ('{"path": "a"} {"path": "b"}', "line 2: no JSON object"),
    ("[" * 100_000, "line 2: no JSON object"), ('{"path": "a", "n": ' + "1" * 5000 + "}", "line 2: no JSON object"),
    ("{}", "line 2: no path"), ('{"path": 1}', "line 2: no path"), ('{"path": " "}', "line 2: no path"),
    ('{"path": "a\\u0000"}', "line 2: no path"), ('{"path": "z"}', "line 2: image z is on line 1 already"),
    ('{"path": "a"}\0', "line 2: a NUL"), (b"\xff", "line 2: not UTF-8 text"), ("\ufeff{}", "line 2: no JSON object"),
])  # fmt: skip
def test_bad_json_lines(tmp_path, line, message):
    raw = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(ParameterError, match=rf"a\.jsonl, {message}"):
        read_metadata(write(tmp_path, "a.jsonl", b'{"path": "z"}\n' + raw + b"\n"))


def test_not_such_files(tmp_path):
    with pytest.raises(NotFoundError):
        read_metadata(tmp_path / "none.csv")
    for name in ("a.txt", "a", "a.json", "csv"):
        with pytest.raises(ParameterError, match=r"called \.csv or \.jsonl"):
            read_metadata(write(tmp_path, name, "path\na\n"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ParameterError, match="folder"):
        read_metadata(tmp_path / "folder.csv")
    with pytest.raises(ParameterError, match="no rows"):
        read_metadata(write(tmp_path, "a.jsonl", "\n\n"))
    with pytest.raises(DTypeError):
        read_metadata(3)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_limits(tmp_path, monkeypatch, ending):
    rows = [f"{i}.png" for i in range(9)]
    text = (
        "".join(f"{r}\n" for r in ["path", *rows]) if ending == "csv" else "".join(f'{{"path":"{r}"}}\n' for r in rows)
    )
    path, lines = write(tmp_path, f"a.{ending}", text), text.count("\n")
    monkeypatch.setattr(metadata, "MAX_LINES", lines)
    monkeypatch.setattr(metadata, "MAX_BYTES", len(text))
    monkeypatch.setattr(metadata, "LINE_BYTES", max(map(len, text.splitlines())) + 1)
    assert list(read_metadata(path)) == rows
    for name, message in (
        ("MAX_LINES", f"more than {lines - 1} lines"), ("MAX_BYTES", f"{len(text)} bytes are more than"),
        ("LINE_BYTES", "line .*: more than"),
    ):  # fmt: skip
        with monkeypatch.context() as lower, pytest.raises(ParameterError, match=message):
            lower.setattr(metadata, name, getattr(metadata, name) - 1)
            read_metadata(path)


def test_a_long_line_is_not_read_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as file:
        file.truncate(200 << 20)  # a hole: one line of NULs
    with pytest.raises(ParameterError, match=f"line 1: more than {metadata.LINE_BYTES} bytes"):
        read_metadata(path)


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
NAMES = WORDS.map(lambda name: "f" + name.strip()).filter(lambda name: name != "path")


@given(columns=st.lists(NAMES, unique=True, max_size=4), rows=st.data())
def test_round_trip_of_csv(tmp_path_factory, columns, rows):
    cells = rows.draw(st.lists(st.lists(WORDS | st.just('a"\n,b'), min_size=len(columns), max_size=len(columns))))
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([["path", *columns], *([f"{i}.png", *row] for i, row in enumerate(cells))])
    path = write(tmp_path_factory.mktemp("csv"), "a.csv", out.getvalue())
    if not cells:
        with pytest.raises(ParameterError, match="no rows"):
            read_metadata(path)
        return
    assert read_metadata(path) == {
        f"{i}.png": {name: cell for name, cell in zip(columns, row, strict=True) if cell.strip()}
        for i, row in enumerate(cells)
    }


@given(st.lists(st.dictionaries(NAMES, st.none() | st.integers() | WORDS | st.lists(WORDS, max_size=3)), min_size=1))
def test_round_trip_of_json_lines(tmp_path_factory, rows):
    text = "\n".join(json.dumps({**row, "path": f"{i}"}, ensure_ascii=i % 2 == 0) for i, row in enumerate(rows))
    path = write(tmp_path_factory.mktemp("jsonl"), "a.jsonl", text)
    assert read_metadata(path) == {str(i): row for i, row in enumerate(rows)}


@given(st.binary(max_size=200), st.sampled_from(["csv", "jsonl"]), st.booleans())
def test_any_bytes(tmp_path_factory, data, ending, begun):
    start = {"csv": b"path,b\n", "jsonl": b'{"path":"a"}\n'}[ending] if begun else b""
    path = write(tmp_path_factory.mktemp("any"), f"a.{ending}", start + data)
    try:
        got = read_metadata(path)
    except ParameterError as error:
        assert f"a.{ending}" in str(error)
        return
    assert got and all(name and "path" not in fields for name, fields in got.items())


def test_strict_json():
    assert strict_loads(b'{"a": [1.5, true, null]}') == {"a": [1.5, True, None]}
    for wrong in ('{"a": 1, "a": 1}', "NaN", "-Infinity", "1e400", "", "[" * 100_000, b"\xff", "{'a': 1}"):
        with pytest.raises(ValueError):
            strict_loads(wrong)
