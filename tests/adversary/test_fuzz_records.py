"""Readers of records and of metadata files: whatever comes, only the errors that they promise."""

from hypothesis import strategies as st

from mipp.client.records import Record, pack_record, parse_record, safe_path
from mipp.errors import MessageError, ParameterError
from mipp.io.metadata import read_metadata
from tests.adversary.fuzz import Reading, changed, changed_json, fuzz, modes

HEAD = {"path": "cats/a.png", "thumbnail": 3, "metadata": {"caption": "a cat", "taken": [2020, {"month": 1}]}}


@modes
def test_records(times):
    reading = Reading(MessageError)
    packed = [pack_record(Record("cats/a.png", HEAD["metadata"], b"xyz"), 300), pack_record(Record("a", None, b""), 80)]
    heads = changed_json([HEAD]).map(lambda raw: len(raw).to_bytes(4, "big") + raw + b"xyz" + bytes(40))

    def check(data):
        record = reading(parse_record, data)
        if record is not None:
            # a record need not have a path
            assert record.path == (safe_path(record.path) if record.path else "") and record.path.isprintable()
            assert parse_record(pack_record(record, len(data) + 4000)) == record

    fuzz(st.one_of(changed(packed), heads), check, 1000 * times)
    assert 0.1 * reading.calls < reading.refused < reading.calls


@modes
def test_metadata_files(times, tmp_path):
    reading = Reading(ParameterError)
    table = changed([b'path,caption\r\na.png,a cat\r\nb.png,"two\nlines"\r\n', b"\xef\xbb\xbfb,path\n1,x/y.png\n"])
    lines = changed_json([{"path": "a.png", "n": [1, {}]}]).map(lambda raw: b'{"path":"b"}\n' + raw + b"\n")

    def check(found):
        ending, data = found
        path = tmp_path / f"a.{ending}"
        path.write_bytes(data)
        got = reading(read_metadata, path)
        assert got is None or (got and all("path" not in fields for fields in got.values()))

    both = st.one_of(st.tuples(st.just("csv"), table), st.tuples(st.just("jsonl"), lines))
    fuzz(both, check, 600 * times)
    assert 0.1 * reading.calls < reading.refused < reading.calls
