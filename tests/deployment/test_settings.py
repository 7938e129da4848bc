"""``server.toml``: the template is the defaults; unknown settings and values out of range are named."""

import contextlib
import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipp.deployment.settings import ServerSettings
from mipp.deployment.tables import TABLES
from mipp.errors import DeploymentError
from mipp.rpc.limits import Card

URL = "https://north.example:7443"


@pytest.mark.parametrize("url, host", [(URL, "0.0.0.0"), ("https://[::1]:7443", "::")])
def test_the_template_is_the_defaults(url, host, tmp_path):
    text = ServerSettings.template(url)
    assert tomllib.loads(text) == {table.name: {} for table in TABLES}
    settings = ServerSettings.from_toml(text, url)
    assert settings == ServerSettings.from_toml("", url) == ServerSettings.load(tmp_path, url)
    assert (settings.host, settings.port, settings.threads, settings.card) == (host, 7443, None, Card())
    spelled = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in text.splitlines())
    found = tomllib.loads(spelled)
    names = {"listen", "threads", "log_level", "drain_seconds", "repair"}
    assert set(found) == names | {table.name for table in TABLES}
    for table in TABLES:  # each setting is there, with a line that says what it limits
        assert list(found[table.name]) == [setting.name for setting in table.settings]
        assert {s.field or s.name for s in table.settings} == {f.name for f in dataclasses.fields(table.limits)}
        assert all(f"# {s.says}" in text for s in table.settings)
    assert ServerSettings.from_toml(spelled, "https://other:1" if host == "0.0.0.0" else url) == settings


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_limits(table):
    """Each at the ends of its range and beyond; each sets its own field and no other."""
    default = table.limits()
    for setting in table.settings:
        field = setting.field or setting.name
        value = getattr(default, field)
        assert setting.low <= (value or 0) <= setting.high and setting.unlimited == (value is None)
        for good in (setting.low, setting.high):
            settings = ServerSettings.from_toml(f"[{table.name}]\n{setting.name} = {good}", URL)
            expected = dataclasses.replace(default, **{field: None if setting.unlimited and not good else good})
            assert settings == dataclasses.replace(ServerSettings.from_toml("", URL), **{table.field: expected})
        for bad in (setting.low - 1, setting.high + 1, "1.5", "true", '"1"', "[]", "1e3", "2024-01-01"):
            with pytest.raises(DeploymentError, match=rf"{table.name}\.{setting.name} is a whole number from"):
                ServerSettings.from_toml(f"[{table.name}]\n{setting.name} = {bad}", URL)
    with pytest.raises(DeploymentError, match=rf"unknown setting '{table.name}\.x'"):
        ServerSettings.from_toml(f"[{table.name}]\nx = 1", URL)


def test_every_setting(tmp_path):
    (tmp_path / "server.toml").write_text(
        'listen = "[2001:db8::1]:80"\nthreads = 3\nlog_level = "debug"\ndrain_seconds = 0\nrepair = false\n'
        "[party]\nrows = 5\nbytes = 6\nrequests_per_minute = 7\nconcurrent = 8\n"
    )
    settings = ServerSettings.load(tmp_path, URL)
    assert settings == ServerSettings("[2001:db8::1]:80", 3, "debug", 0, False, Card(5, 6, 8, 7))
    assert (settings.host, settings.port) == ("2001:db8::1", 80)


@pytest.mark.parametrize("text, said", [
    ("x = 1", "unknown setting 'x'"), ("[party]\nx = 1", "unknown setting 'party.x'"), ("[more]", "unknown setting"),
    ("party = 3", "table"), ("peers = []", "table"),
    ("threads = -1", "threads"), ("threads = 1.5", "threads"), ("threads = true", "threads"),
    ("drain_seconds = 100000", "drain_seconds"), ('log_level = "loud"', "log_level"), ("log_level = []", "log_level"),
    ("repair = 1", "repair"), ("repair = \"no\"", "repair"), ("listen = 7443", "listen"),
    ('listen = "7443"', "listen"), ('listen = "localhost:7443"', "listen"),
    ('listen = "0.0.0.0:0"', "listen"), ('listen = "::1:7443"', "listen"), ('listen = "0.0.0.0:7443 "', "listen"),
    ("[party]\nconcurrent = 0", "concurrent"), ("[party]\nrows = -1", "rows"), ("card = 1", "unknown"),
    ("x", "no TOML"), ('"\\u001b[2J" = 1', "unknown"), ("#" * 70_000, "more than"), ("a = " + "[" * 5000, "no TOML"),
    ("threads = " + "9" * 5000, "no TOML"),
])  # fmt: skip
def test_refusals(text, said):
    with pytest.raises(DeploymentError, match=said) as error:
        ServerSettings.from_toml(text, URL)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "server.toml").write_bytes(b"\xff")
    with pytest.raises(DeploymentError, match="UTF-8"):
        ServerSettings.load(tmp_path, URL)
    (tmp_path / "server.toml").unlink()
    (tmp_path / "server.toml").mkdir()
    with pytest.raises(DeploymentError, match="cannot read"):
        ServerSettings.load(tmp_path, URL)


@given(st.text(max_size=80))
def test_any_text(text):
    with contextlib.suppress(DeploymentError):
        ServerSettings.from_toml(text, URL)
