"""Lines of a server's log."""

import base64
import io
import json
import logging

import pytest

from mipp.crypto.keyfile import load_key_file
from mipp.deployment.logs import begin_log
from tests.conftest import ALL_RANKINGS, vectors
from tests.network import Network


@pytest.fixture
def log(monkeypatch):
    """Lines that servers in this process log."""
    text, logger = io.StringIO(), logging.getLogger("mipp")
    before = list(logger.handlers), logger.propagate, logger.level
    monkeypatch.setattr("sys.stderr", text)
    begin_log("info")
    yield lambda: [json.loads(line) for line in text.getvalue().splitlines()]
    logger.handlers[:], logger.propagate, _ = before
    logger.setLevel(before[2])


def test_requests_are_logged_without_secrets(tmp_path, encoding, log):
    network = Network(tmp_path / "n", encoding).start().ready()
    with network.connect() as client:
        anna, ulla = client.create_owner("anna"), client.create_user("ulla")
        anna.add_vectors(vectors(20), labels="very secret path")
        anna.grant(ulla.id, rankings=ALL_RANKINGS)
        hits = ulla.search(vectors(1)[0], 3, ranking="server").hits
        secrets = [
            secret for kind in ("owner", "user") for path in (client.folder / f"{kind}s").glob("*.key")
            for secret in load_key_file(path, kind)[1].values()
        ]  # fmt: skip
    network.stop()
    lines = log()
    requests = [line for line in lines if line["logger"] == "mipp.requests"]
    assert {"UploadOp", "CommitOp", "Query", "Grant"} <= {line["kind"] for line in requests}
    assert all(line["outcome"] == "ok" and len(line["request"]) == 16 and line["ms"] >= 0 for line in requests)
    text = json.dumps(lines)
    assert "very secret" not in text and not any(f'"{h.score}"' in text or f" {h.score} " in text for h in hits)
    assert len(secrets) >= 4
    assert not any(form in text for s in secrets for form in (s.hex(), base64.b64encode(s).decode()[:40], repr(s)))


def test_an_unexpected_error_is_a_line_without_its_text(log):
    try:
        raise ValueError("a secret value")
    except ValueError:
        logging.getLogger("mipp.server").exception("unexpected error")
    (line,) = log()
    assert line["error"] == "ValueError" and line["where"].startswith("test_logs.py:") and "secret" not in str(line)
