"""What init makes serves the default search, or init says so: never the first search after everything was uploaded."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from mipp.cli import common


def sample(tmp_path, dim, rows=300):
    x = np.random.default_rng(dim).gamma(1.0, 9.0, (rows, dim)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[7])
    return tmp_path / "x.npy"


def searched(mipp_command, tmp_path):
    """Rows that the default search finds in an index that was just made."""
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    assert mipp_command("owner", "add", "o", "--vectors", tmp_path / "x.npy")[0] == 0
    assert mipp_command("owner", "grant", "o", "u")[0] == 0
    code, out, err = mipp_command("search", "u", "--vector", tmp_path / "q.npy", "--json")
    assert code == 0, err
    return [int(hit["id"].split(":")[1]) for hit in json.loads(out)["hits"]]


@pytest.mark.parametrize(
    "options",
    [
        ["--metric", "l2", "--tune"], ["--project", 12, "--ring", 16], ["--ring", 16, "--tune"],
        ["--ring", 64, "--tune"],
        ["--metric", "l2", "--ring", 64, "--tune"], ["--metric", "ip", "--ring", 16, "--tune"], ["--metric", "l2"],
        ["--metric", "hellinger", "--ring", 64, "--tune"], ["--ring", 16, "--bits", 6, "--query-bits", 6],
    ],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_an_index_that_init_fits_serves_the_default_search(mipp_command, tmp_path, options):
    code, out, err = mipp_command("init", "--vectors", 24, "--fit", sample(tmp_path, 24), *options, "--json")
    made = json.loads(out)
    assert code == 0, err
    assert made["rankings"] == ["server", "user", "threshold"] and 0 < made["recall"] <= 1 and made["bits"] >= 4
    found = searched(mipp_command, tmp_path)
    assert len(found) == 10 and (7 in found or "ip" in options)  # long rows have the largest products


def test_images_in_a_ring_of_16_bits_serve_the_default_search(mipp_command, pictures):
    assert mipp_command("init", "--ring", 16)[0] == 0
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    mipp_command("owner", "add", "o", *pictures)
    mipp_command("owner", "grant", "o", "u")
    code, out, _ = mipp_command("search", "u", pictures[3], "--json")
    hits = json.loads(out)["hits"]
    assert code == 0 and hits[0]["id"].endswith(":3") and len(hits) == len(pictures)


@pytest.mark.parametrize(
    "options",
    [
        ["--vectors", 512, "--ring", 16], ["--vectors", 24, "--ring", 16, "--fit"],
        ["--vectors", 24, "--metric", "ip", "--bits", 16, "--query-bits", 16],
        ["--vectors", 24, "--metric", "l1", "--levels", 1400, "--ring", 16],
    ],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_what_the_default_search_refuses_is_refused_at_init(mipp_command, tmp_path, options):
    given = [sample(tmp_path, 24) if o == "--fit" else o for o in options]
    given = [*given[:-1], "--fit", given[-1]] if "--fit" in options else given
    code, _, err = mipp_command("init", *given)
    assert code == 1 and len(err.splitlines()) == 1 and "--ranking user" in err
    assert not (tmp_path / "d" / "deployment.json").exists()


def test_an_index_that_users_rank_says_so_and_is_ranked_by_users(mipp_command, tmp_path):
    x = sample(tmp_path, 24)
    code, out, _ = mipp_command("init", "--vectors", 24, "--fit", x, "--ring", 16, "--tune", "--ranking", "user")
    assert code == 0 and "ranking: user (default)" in out and "recall at 10 on the sample: 0." in out
    assert searched(mipp_command, tmp_path)[0] == 7
    for ranking in ("server", "threshold"):
        code, _, err = mipp_command("owner", "grant", "o", "u", "--ranking", ranking)
        assert code == 1 and ranking in err
    code, _, err = mipp_command("search", "u", "--vector", tmp_path / "q.npy", "--threshold", 0.5)
    assert code == 1 and "without thresholds" in err


@pytest.mark.parametrize(
    "options",
    [
        ["--tune"], ["--fit", "x.npy", "--tune", "--bits", 9], ["--fit", "x.npy", "--project", 3, "--query-bits", 9],
        ["--metric", "l2"], ["--vectors", 4, "--descriptor", "cld"], ["--vectors", 4, "--levels", 3],
        ["--scheme", "paillier", "--ranking", "server"], ["--clouds", 1, "--ranking", "server"],
    ],
    ids=lambda options: " ".join(map(str, options)),
)  # fmt: skip
def test_options_that_would_mean_nothing_are_wrong_usage(mipp_command, tmp_path, monkeypatch, options):
    sample(tmp_path, 24)
    monkeypatch.chdir(tmp_path)
    code, _, err = mipp_command("init", *options)
    assert code == 2 and "Error" in err and not (tmp_path / "d" / "deployment.json").exists()


def test_a_demo_in_a_ring_of_16_bits_is_ranked_by_servers(mipp_command, pictures, tmp_path):
    code, out, err = mipp_command(
        "demo", "--images", pictures[0].parent, "--owners", 2, "--k", 3, "--ring", 16, "--out", tmp_path / "o", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["ranking"] == "server" and json.loads(out)["exact_match"]


# --- what is said, and how -----------------------------------------------------------------------------------------


@pytest.fixture
def index(mipp_command, pictures):
    """Eight images of one owner, all granted to one user."""
    mipp_command("init", "--descriptor", "cld+lbp")
    mipp_command("owner", "create", "o")
    mipp_command("user", "create", "u")
    mipp_command("owner", "add", "o", *pictures)
    mipp_command("owner", "grant", "o", "u", "--ranking", "server", "--ranking", "threshold")
    return mipp_command


def test_a_threshold_without_meaning_is_refused_and_one_that_all_or_none_reach_is_said(index, pictures):
    for value in (-1, -1e-9, 1e9, "nan", "inf"):
        code, _, err = index("search", "u", pictures[0], "--threshold", value)
        assert code == 1 and "threshold" in err and len(err.splitlines()) == 1, value
    furthest = json.loads(index("search", "u", pictures[0], "--json")[1])["hits"][-1]["value"]
    code, out, err = index("search", "u", pictures[0], "--threshold", furthest + 1, "--json")
    found = json.loads(out)
    assert code == 0 and len(found["hits"]) == found["searched"] == 8 and "all of the 8 images" in err
    code, out, err = index("search", "u", pictures[0], "--threshold", furthest / 2)
    assert code == 0 and 0 < len(out.splitlines()) < 8 and not err
    (pictures[0].parent / "other.png").write_bytes(pictures[7].read_bytes())
    index("owner", "delete", "o", json.loads(index("search", "u", pictures[0], "--json")[1])["hits"][0]["id"])
    code, out, err = index("search", "u", pictures[0], "--threshold", 0)
    assert code == 0 and not out and "none of the 7 images" in err


def test_a_search_gives_what_there_is_unless_it_asks_for_more(index, pictures):
    assert len(index("search", "u", pictures[0])[1].splitlines()) == 8
    assert json.loads(index("search", "u", "--explain-cost", "--json")[1])["images"] == 8
    code, _, err = index("search", "u", pictures[0], "-k", 9)
    assert code == 1 and "8 images" in err
    assert index("search", "u", pictures[0], "-k", 3, "--threshold", 1)[0] == 2


@pytest.mark.parametrize("text", ["30d", "12h", "2w", "90m", "2090-01-31", "2090-01-31T12:00+01:00", "4102444800", "0"])
def test_expiries_as_people_write_them(index, text):
    code, out, _ = index("owner", "grant", "o", "u", "--expiry", text)
    assert code == 0 and (" until 2" in out) == (text != "0")


@pytest.mark.parametrize("text", ["1", "-5", "2001-01-01", "0d", "soon", "", "30 days", "1e9"])
def test_expiries_that_are_past_or_no_times(index, text):
    code, _, err = index("owner", "grant", "o", "u", "--expiry", text)
    assert code == 1 and "expir" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("", 1), (KeyboardInterrupt, 130)])
def test_a_no_at_a_prompt_changes_nothing_and_is_no_interruption(index, monkeypatch, answer, code):
    def asked(*_):
        if answer is KeyboardInterrupt:
            raise KeyboardInterrupt
        if not answer:
            raise EOFError
        return answer.strip()

    monkeypatch.setattr("click.termui.visible_prompt_func", asked)
    found, _, err = index("owner", "forget", "o")
    assert found == code and ("nothing was changed" in err) == (code == 1)
    assert "forgotten" not in index("status")[1]


def test_a_files_name_is_said_once(index, pictures):
    broken = pictures[0].parent / "broken.png"
    broken.write_bytes(b"\x89PNG no picture")
    code, out, _ = index("owner", "add", "o", broken)
    line = next(line for line in out.splitlines() if line.startswith("left out"))
    assert code == 1 and line.count("broken.png") == 1


def test_an_image_beyond_the_limit_is_said_once(index, pictures):
    large = pictures[0].parent / "large.png"
    Image.new("L", (10_000, 9_500)).save(large)
    code, out, err = index("owner", "add", "o", large)
    assert code == 1 and "large.png: 10000 x 9500 pixels" in out and not err


def test_warnings_of_libraries_become_one_line(index, monkeypatch):
    def warned(*_, **__):
        for text in ("PatientName=X", "overflow", "overflow again"):
            warnings.warn(text, RuntimeWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    monkeypatch.setattr("mipp.cpu.threads", lambda: warned() or 1)
    monkeypatch.setattr(common.sys, "warnoptions", [])
    code, _, err = index("info")
    assert code == 0 and len(err.splitlines()) == 1 and "RuntimeWarning" in err and "PatientName" not in err
