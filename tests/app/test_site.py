"""What the page's server refuses and gives to a page; without a browser."""

import csv
import dataclasses
import io
import json
import re
import socket
import time
import zipfile
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

import mipp
from mipp.app import AppServer, finding, jobs
from mipp.app.site import make_site
from mipp.client.index import LeftOut
from mipp.encoding import Clusters
from mipp.errors import LimitError, NotFoundError, ParameterError
from mipp.io import display
from mipp.server import snapshots
from tests.app.conftest import HOSTILE, Caller, encoding, filled, raw, served

# --- the page itself ------------------------------------------------------------------------------------------------


def test_the_page_has_no_inline_script_style_or_foreign_address(page):
    _, _, body = Caller(page).send("GET", page._guard.page)
    text = body.decode()
    assert "<style" not in text and " style=" not in text and "javascript:" not in text
    assert text.count("<script") == 1 and " on" not in text.replace(" one", "").split("<body>")[0]
    for name in ("index.html", "main.js", "dom.js", "api.js", "search.js", "owner.js", "app.css"):
        status, _, content = Caller(page).send("GET", page._guard.page + name)
        assert status == 200
        for word in (
            b"innerHTML",
            b"outerHTML",
            b"insertAdjacentHTML",
            b"document.write",
            b"eval(",
            b"//cdn",
            b"https:",
        ):
            assert word not in content, (name, word)


# --- searches -------------------------------------------------------------------------------------------------------


def search(caller, photo, query=""):
    return caller.done(f"/api/user/ulla/search?k=20&named=1{query}", photo.read_bytes())


def test_a_search_gives_hits_with_names_and_pictures(caller, photos):
    number = search(caller, photos["anna"][3])
    found = caller.get(f"/api/searches/{number}")[1]
    best = found["hits"][0]
    assert (found["total"], best["name"], best["owner"], best["value"]) == (20, "anna03.png", "anna", 0)
    assert best["caption"].startswith("صورة") and not found["unnamed"] and not found["left_out"]
    _, _, body = caller.send("GET", f"/api/searches/{number}/pictures?count=20")
    seen = {}
    while body:
        place, length = (int.from_bytes(body[i : i + 4], "big") for i in (0, 4))
        seen[place], body = body[8 : 8 + length], body[8 + length :]
    assert sorted(seen) == list(range(20))
    assert {Image.open(io.BytesIO(content)).format for content in seen.values()} == {"JPEG"}
    assert Image.open(io.BytesIO(caller.send("GET", f"/api/searches/{number}/query")[2])).size == (96, 72)


def test_texts_of_owners_come_without_control_characters(caller, photos):
    number = search(caller, photos["anna"][0])
    hits = {hit["name"]: hit for hit in caller.get(f"/api/searches/{number}")[1]["hits"]}
    assert hits["anna00.png"]["caption"] == HOSTILE["markup"]  # markup is text: the page makes none of it
    turned = hits["anna01.png"]["caption"]
    assert not any(c in turned for c in "\u202e\u202c\u2066\x1b\x00") and "gpj.live" in turned
    assert len(hits["anna02.png"]["caption"]) <= 10_000


@pytest.mark.parametrize(("least", "clustered"), [(1, 20), (64, 0)])
def test_a_search_of_the_nearest_clusters(tmp_path, photos, least, clustered):
    of = encoding()
    centroids = np.random.default_rng(3).uniform(1, 5, (4, of.dim))
    clusters = Clusters.of(of, centroids, 2, least=least)
    with mipp.Deployment.create(tmp_path / "d", of, descriptor="cld", clusters=clusters) as deployment:
        filled(deployment, photos, ("probe",))
        with served(deployment) as page:
            caller = Caller.opened(page).opened_party("user", "ulla")
            assert "probe" in caller.get("/api/state")[1]["rankings"]
            path, photo = "/api/user/ulla/{}?k=4&ranking=probe", photos["anna"][3].read_bytes()
            found = caller.get(f"/api/searches/{caller.done(path.format('search'), photo)}")[1]
            assert found["clustered"] == clustered and len(found["hits"]) == 4
            assert clustered or found["hits"][0]["value"] == 0
            assert caller.done("/api/user/ulla/cost", {"k": 4, "ranking": "probe"})["ranking"] == "server"
            # the grant names searches of clusters alone
            refused = caller.work("/api/user/ulla/search?k=4&ranking=server", photo)
            assert refused["state"] == "failed" and "grant" in refused["text"]


def test_a_search_of_one_owner_and_within_a_threshold(caller, photos):
    owners = {o["name"]: o for o in caller.done("/api/user/ulla/searchable")}
    assert owners["anna"]["rankings"] == ["server", "threshold"]
    assert {name: o["rows"] for name, o in owners.items()} == {"anna": 12, "berta": 8}
    number = search(caller, photos["anna"][0], f"&owners={owners['berta']['id']}")
    assert {hit["owner"] for hit in caller.get(f"/api/searches/{number}")[1]["hits"]} == {"berta"}
    number = search(caller, photos["anna"][0], "&threshold=300")
    found = caller.get(f"/api/searches/{number}")[1]
    assert 0 < found["total"] < 20 and found["hits"][0]["score"] is None and found["page"] == 50
    cost = caller.done("/api/user/ulla/cost", {"threshold": "300"})
    assert cost["records"] == 50 and cost["images"] == 20 and cost["ranking"] == "threshold"
    assert caller.done("/api/user/ulla/cost", {"k": 20})["records"] == 20


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_server_that_names_many_damaged_batches_costs_little(page, caller, photos, monkeypatch, number):
    """Of batches that it makes up nothing is kept, and the page's state tells of no search what was left out."""
    deployment = page.desk.deployment
    real, liar = snapshots.owner_snapshot, deployment.servers[number].store
    anna = deployment.owner("anna")
    true = [batch.id for batch in anna.batches()]
    made_up = [n.to_bytes(16, "big") for n in range(3000)]

    def lie(store, owner, *given, **options):
        told = real(store, owner, *given, **options)
        if store is not liar or owner != anna.id:
            return told
        damaged = [*made_up, *true * 300]
        return dataclasses.replace(told, damaged=damaged, reasons=["lost " + "x" * 100] * len(damaged))

    monkeypatch.setattr(snapshots, "owner_snapshot", lie)
    user, _ = page.desk.user("ulla")
    assert [(one.batch, one.server) for one in user.index().left_out] == [(batch, number) for batch in true]
    told = caller.get(f"/api/searches/{search(caller, photos['berta'][0])}")[1]
    assert {hit["owner"] for hit in told["hits"]} == {"berta"} and len(told["left_out"]) == 1
    assert true[0].hex() in told["left_out"][0] and f"(server {number})" in told["left_out"][0]
    state = caller.send("GET", "/api/state")[2]
    assert len(state) < 20_000 and b"lost" not in state


def test_what_was_left_out_is_told_in_few_lines(page, caller, photos, monkeypatch):
    """Whatever servers say, in a list of any length; one that lists the batches may also invent them."""
    ids = [n.to_bytes(16, "big") for n in range(2000)]
    alike = [LeftOut(b"o" * 16, "anna", one, 2, "lost <b>" + "x" * 5000) for one in ids]
    other = [LeftOut(b"o" * 16, "anna", ids[7], 1, "damaged"), LeftOut(b"p" * 16, "berta", b"", 0, "its grant ended")]
    lines = finding.left_out_lines(alike + other)
    assert lines[0].startswith("2,000 batches of owner anna: lost <b>xxx") and "(server 2)" in lines[0]
    assert lines[0].endswith(", ...") and sum(one.hex() in lines[0] for one in ids) == 3
    assert lines[1:] == [str(one) for one in other]
    each = [LeftOut(b"o" * 16, "anna", one, 2, f"reason {n}") for n, one in enumerate(ids)]
    lines = finding.left_out_lines(each)
    assert len(lines) == finding.MOST_REASONS + 1 and lines[-1] == "1,980 more, for other reasons"
    assert finding.left_out_lines([]) == []

    real = finding.User.search

    def flooded(self, *given, **options):
        result = real(self, *given, **options)
        result.hits.left_out = tuple(alike)
        return dataclasses.replace(result, left_out=tuple(alike))

    monkeypatch.setattr(finding.User, "search", flooded)
    number = search(caller, photos["anna"][0])
    assert len(caller.get(f"/api/searches/{number}")[1]["left_out"]) == 1
    assert not page.desk.search(number).hits.left_out, "not kept"
    assert b"lost" not in caller.send("GET", "/api/state")[2]


def test_one_already_found_is_the_next_query(caller, photos):
    number = search(caller, photos["anna"][0])
    hits = caller.get(f"/api/searches/{number}")[1]["hits"]
    like = caller.done(f"/api/searches/{number}/like", {"hit": 5, "k": 3, "named": True})
    assert caller.get(f"/api/searches/{like}")[1]["hits"][0]["id"] == hits[5]["id"]


def test_queries_wait_until_their_pixels_may_be_opened(caller, photos):
    """Also an image of another owner, which becomes the next query."""
    number = search(caller, photos["anna"][0])
    with display._SMALL_TOGETHER.holding(display._SMALL_TOGETHER.most):
        begun = [
            caller.post("/api/user/ulla/search?k=3", photos["anna"][0].read_bytes())[1],
            caller.post(f"/api/searches/{number}/like", {"hit": 5, "k": 3})[1],
        ]
        time.sleep(0.5)
        assert all(caller.get(f"/api/jobs/{job['id']}")[1]["state"] in ("waiting", "running") for job in begun)
    for job in begun:
        until = time.monotonic() + 20
        while caller.get(f"/api/jobs/{job['id']}")[1]["state"] != "done":
            assert time.monotonic() < until
            time.sleep(0.05)


def test_originals_are_fetched_on_demand_alone(caller, photos):
    number = search(caller, photos["anna"][0])
    assert caller.send("GET", f"/api/searches/{number}/files/0")[0] == 400
    caller.done(f"/api/searches/{number}/originals", {"hits": [0]})
    status, headers, body = caller.send("GET", f"/api/searches/{number}/files/0")
    assert status == 200 and body == photos["anna"][0].read_bytes()
    assert (
        headers["Content-Disposition"].startswith("attachment")
        and headers["Content-Type"] == "application/octet-stream"
    )
    assert Image.open(io.BytesIO(caller.send("GET", f"/api/searches/{number}/originals/0")[2])).format == "JPEG"
    assert caller.work(f"/api/searches/{number}/originals", {"hits": [99]})["state"] == "failed"


def test_one_export_is_kept_until_it_is_fetched_replaced_or_old(page, caller, photos, monkeypatch):
    number = search(caller, photos["anna"][0])

    def exported(kind="zip"):
        return caller.work(f"/api/searches/{number}/export", {"hits": [0, 2], "kind": kind})["id"]

    def fetched(identity):
        status, _, body = caller.send("GET", f"/api/jobs/{identity}/file")
        assert status == 200 or b"not kept any more" in body
        return status

    def kept():
        return [job.id for job in page.desk.jobs._jobs.values() if job.file is not None]

    first = exported()
    assert kept() == [first]
    second = exported("csv")
    assert kept() == [second] and fetched(first) == 404
    assert fetched(second) == 200 and kept() == [] and fetched(second) == 404
    monkeypatch.setattr(jobs, "FILE_SECONDS", 0.3)
    third = exported()
    assert kept() == [third]
    fourth = exported()
    time.sleep(0.6)
    assert kept() == [] and fetched(fourth) == 404
    monkeypatch.setattr(jobs, "FILE_SECONDS", 60)

    # one that fails leaves none, and does not end the next
    monkeypatch.setattr(finding, "MOST_EXPORTED", 100)
    job = caller.work(f"/api/searches/{number}/export", {"hits": [0, 2], "kind": "zip"})
    assert job["state"] == "failed" and "choose fewer hits" in job["text"] and kept() == []
    monkeypatch.undo()
    assert fetched(exported()) == 200

    # another one at the same time is refused, also of another tab
    with page.desk.jobs.making_file(jobs.Job("export")):
        job = caller.work(f"/api/searches/{number}/export", {"hits": [0], "kind": "csv"})
        assert job["state"] == "failed" and "another export is under way" in job["text"]
    exported()
    page.desk.jobs.close(1)
    assert kept() == []


def test_exports_of_a_selection(caller, photos):
    number = search(caller, photos["anna"][0])
    job = caller.work(f"/api/searches/{number}/export", {"hits": [0, 2], "kind": "zip"})
    assert job["state"] == "done" and job["file"] == "hits.zip"
    _, _headers, body = caller.send("GET", f"/api/jobs/{job['id']}/file")
    archive = zipfile.ZipFile(io.BytesIO(body))
    rows = list(csv.DictReader(io.StringIO(archive.read("hits.csv").decode())))
    assert [row["rank"] for row in rows] == ["1", "3"] and set(archive.namelist()) == {
        "hits.csv",
        *(r["file"] for r in rows),
    }
    assert archive.read(rows[0]["file"]) == photos["anna"][0].read_bytes()
    assert caller.send("GET", f"/api/jobs/{job['id']}/file")[0] == 404, "a file is given once, and let go"
    job = caller.work(f"/api/searches/{number}/export", {"hits": [1], "kind": "csv"})
    table = caller.send("GET", f"/api/jobs/{job['id']}/file")[2]
    assert len(list(csv.DictReader(io.StringIO(table.decode())))) == 1
    assert (
        caller.work(f"/api/searches/{number}/export", {"hits": [], "kind": "csv"})["text"] == "choose at least one hit"
    )


def test_images_that_are_kept_are_bounded(caller, photos, monkeypatch):
    number = search(caller, photos["anna"][0])
    monkeypatch.setattr("mipp.app.finding.MOST_ORIGINALS", 1)
    monkeypatch.setattr("mipp.app.finding._AT_ONCE", 2)
    job = caller.work(f"/api/searches/{number}/originals", {"hits": [0, 1, 2, 3]})
    assert job["state"] == "failed" and "forget some searches" in job["text"]
    hits = caller.get(f"/api/searches/{number}")[1]["hits"]
    assert [hit["original"] for hit in hits[:4]] == [True, True, False, False], "those that came are kept"
    assert caller.send("DELETE", f"/api/searches/{number}")[0] == 200
    number = search(caller, photos["anna"][0])
    assert caller.work(f"/api/searches/{number}/originals", {"hits": [0, 1]})["state"] == "done"


def test_a_search_can_be_forgotten(caller, photos):
    number = search(caller, photos["anna"][0])
    assert caller.send("DELETE", f"/api/searches/{number}")[0] == 200
    status, told = caller.get(f"/api/searches/{number}")
    assert status == 404 and "search again" in told["error"]


def test_only_the_newest_searches_are_remembered(page, caller, photos, monkeypatch):
    monkeypatch.setattr("mipp.app.desk.MOST_FOUND", 2)
    numbers = [search(caller, photos["anna"][0]) for _ in range(3)]
    assert list(page.desk.found) == numbers[1:]


@pytest.mark.parametrize(
    ("body", "part"),
    [(b"", "empty"), (b"no image", "not an image"), (b"\x89PNG\r\n\x1a\n" + bytes(100), "image")],
)
def test_what_is_no_image_is_refused_in_a_sentence(caller, body, part):
    status, told = caller.post("/api/user/ulla/search", body)
    while status == 202 and told["state"] in ("waiting", "running"):
        told = caller.get(f"/api/jobs/{told['id']}")[1]
    text = told.get("error") or told["text"]
    assert part in text and "\n" not in text and "Traceback" not in text


@pytest.mark.parametrize(
    "query", ["k=0", "k=99999", "k=x", "k=1.5", "threshold=nan", "threshold=1e999", "ranking=best", "owners=nobody",
              "threshold=x", "named=2"],
)  # fmt: skip
def test_wrong_settings_are_refused(caller, photos, query):
    job = caller.work(f"/api/user/ulla/search?{query}", photos["anna"][0].read_bytes())
    assert job["state"] == "failed" and job["text"] and "program failed" not in job["text"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/open", {"kind": "server", "name": "x"}),
        ("/api/open", {"kind": "user", "name": "../ulla"}),
        ("/api/open", {"kind": "user", "name": 5}),
        ("/api/open", []),
        ("/api/owner/anna/annotate", {"id": "x", "fields": {"a": "b"}}),
        ("/api/owner/anna/annotate", {"id": "00" * 16 + ":0", "fields": {"a": 5}}),
        ("/api/owner/anna/annotate", {"id": "00" * 16 + ":0"}),
        ("/api/owner/anna/delete", {"ids": []}),
        ("/api/owner/anna/delete", {"ids": "all"}),
        ("/api/owner/anna/delete", {"ids": ["x"]}),
        ("/api/owner/anna/grant", {"user": "nobody", "rankings": ["server"]}),
        ("/api/owner/anna/grant", {"user": "ulla", "rankings": ["all"]}),
        ("/api/owner/anna/grant", {"user": "ulla", "rankings": ["server"], "expiry": "yesterday"}),
        ("/api/owner/anna/grant", {"user": "ulla", "rankings": ["server"], "quota": -1}),
        ("/api/owner/anna/revoke", {"user": "nobody"}),
        ("/api/owner/anna/audit", {"sample": 7}),
        ("/api/owner/anna/add", {"folder": "photos"}),
        ("/api/owner/anna/add", {"folder": "/nowhere"}),
        ("/api/owner/anna/add", {"folder": "/\0"}),
        ("/api/owner/nobody/images", {}),
        ("/api/user/nobody/searchable", {}),
        ("/api/folders", {"path": "relative"}),
        ("/api/folders", {"path": "/etc/passwd"}),
        ("/api/folders", {"path": "/\0"}),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_in_a_sentence(caller, path, told):
    status, reply = caller.post(path, told)
    while status == 202 and reply["state"] in ("waiting", "running"):
        status, reply = 202, caller.get(f"/api/jobs/{reply['id']}")[1]
    text = reply.get("error") or reply["text"]
    assert (status in (400, 404) or reply["state"] == "failed") and text
    assert "program failed" not in text and "\n" not in text


STRANGE = [
    b"[" * 100_000, b'{"a":' * 50_000,
    b'{"path": "/\\ud800", "name": "\\ud800", "kind": "user", "fields": {"\\ud800": "x"}}',
    b'{"k": NaN, "threshold": Infinity, "start": 1e999, "hit": -0.0, "sample": NaN}', b'{"hit": %s}' % (b"9" * 5000),
    b'{"start": %s, "hits": [%s], "quota": %s}' % ((b"9" * 4000,) * 3), b'{"a": 1, "a": 2}', b"\xff\xfe", b"null", b"",
    b'{"hits": [[[]]], "ids": [{}], "owners": [null], "fields": {"a": {"b": []}}, "path": [], "id": {}, "kind": {}}',
]  # fmt: skip
PARTS = ("1", "9" * 5000, "-1", "%00", "%ff", "%ed%a0%80", "..%2f..", "\u0663", "a" * 3000, "anna", "ulla")


def test_no_request_makes_the_program_fail(caller, page, photos):
    """Every route but the page's end, with strange bodies and strange parts of its path."""
    search(caller, photos["anna"][0])
    site = make_site(page.desk, page._guard, lambda: None, lambda port: None)
    rules = [rule for rule in site.url_map.iter_rules() if rule.rule != "/api/close"]
    assert len(rules) > 25
    for rule in rules:
        path = re.sub("<[^>]*>", "{}", rule.rule)
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            for n, part in enumerate(PARTS):
                asked = path.format(*[quote(part, safe="%")] * path.count("{}")) + f"?count={PARTS[n - 1]}&start=1"
                asked = quote(asked, safe="%/?&=")
                body = STRANGE[n % len(STRANGE)] if method == "POST" else None
                check_sentence(caller, method, asked, body)
        if rule.methods >= {"POST"}:
            named = path.format("anna" if "owner" in path else "ulla" if "user" in path else "1")
            for body in STRANGE:
                check_sentence(caller, "POST", named, body)


def check_sentence(caller, method, path, body):
    status, _, reply = caller.send(method, path, body, {"Content-Type": "application/json"})
    assert status < 500, (method, path[:200], body, reply)
    if status == 202:
        job = json.loads(reply)
        while job["state"] in ("waiting", "running"):
            job = caller.get(f"/api/jobs/{job['id']}")[1]
        assert "program failed" not in job["text"], (method, path[:200], body and body[:200], job)


# --- owners ---------------------------------------------------------------------------------------------------------


def test_an_owner_adds_lists_annotates_and_deletes(caller, photos):
    folder = photos["new"][0].parent
    inside = caller.post("/api/folders", {"path": str(folder.parent)})[1]
    assert inside["folders"] == ["anna", "berta", "new"]
    report = caller.done("/api/owner/anna/add", {"folder": str(folder)})
    assert (report["added"], report["failed"]) == (3, 0)
    assert caller.done("/api/owner/anna/add", {"folder": str(folder)})["skipped"] == 3
    listed = caller.done("/api/owner/anna/images", {"filter": "NEW0"})
    assert listed["total"] == 3 and all(image["thumbnail"] for image in listed["images"])
    identity = listed["images"][1]["id"]
    caller.done("/api/owner/anna/annotate", {"id": identity, "fields": {"caption": "the second", "year": "1999"}})
    caller.done("/api/owner/anna/annotate", {"id": identity, "fields": {"year": ""}})
    again = caller.done("/api/owner/anna/images", {"filter": "new01"})["images"][0]
    assert again["metadata"] == [["caption", "the second"]]
    ids = [image["id"] for image in caller.done("/api/owner/anna/images", {"filter": "new"})["images"]]
    assert caller.done("/api/owner/anna/delete", {"ids": ids}) == 3
    assert caller.done("/api/owner/anna/images", {"filter": "new"})["total"] == 0


def test_an_owner_grants_and_revokes(caller, page, photos):
    page.desk.deployment.create_user("uwe") if "uwe" not in page.desk.deployment.users() else None
    caller.opened_party("user", "uwe")
    grant = {"user": "uwe", "rankings": ["server"], "expiry": "30d", "quota": 5, "max_k": 10, "scores": True}
    caller.done("/api/owner/anna/grant", grant)
    mine = {g["name"]: g for g in caller.done("/api/owner/anna/grants")}["uwe"]
    assert (mine["quota"], mine["max_k"], mine["revoked"]) == (5, 10, False) and mine["expiry"] > time.time()
    assert [o["name"] for o in caller.done("/api/user/uwe/searchable")] == ["anna"] and mine["used"] == 0
    caller.done("/api/user/uwe/search?k=2", photos["anna"][0].read_bytes())
    assert {g["name"]: g["used"] for g in caller.done("/api/owner/anna/grants")}["uwe"] == 1
    caller.done("/api/owner/anna/revoke", {"user": mine["user"]})
    job = caller.work("/api/user/uwe/search?k=2", photos["anna"][0].read_bytes())
    assert job["state"] == "failed" and "grant" in job["text"]


def test_an_owner_audits(caller):
    report = caller.done("/api/owner/anna/audit", {"sample": 1})
    assert report["ok"] and [c["rows"] for c in report["clouds"]] == [report["live"]] * 2


def test_servers_of_an_embedded_deployment(caller):
    assert [s["ready"] for s in caller.done("/api/servers")] == [True] * 3


def test_a_sealed_key_file_opens_by_its_passphrase_alone(page, caller):
    if "sara" not in page.desk.deployment.users():
        page.desk.deployment.create_user("sara", "correct horse")
    facts = {p["name"]: p for p in caller.get("/api/state")[1]["parties"]}
    assert facts["sara"]["sealed"] and not facts["sara"]["open"]
    for wrong in (None, "", "wrong"):
        job = caller.work("/api/open", {"kind": "user", "name": "sara", "passphrase": wrong})
        assert job["state"] == "failed" and "passphrase" in job["text"]
    assert caller.work("/api/open", {"kind": "user", "name": "sara", "passphrase": "correct horse"})["state"] == "done"
    assert "correct horse" not in json.dumps(caller.get("/api/state")[1])


# --- work under way -------------------------------------------------------------------------------------------------


def test_adding_can_be_cancelled_and_keeps_what_was_added(caller, page, tmp_path, monkeypatch):
    from tests.app.conftest import picture

    for n in range(40):
        picture(tmp_path / f"c{n:02d}.png", 100 + n)
    _status, job = caller.post("/api/owner/anna/add", {"folder": str(tmp_path)})
    while not caller.get(f"/api/jobs/{job['id']}")[1]["done"]:
        time.sleep(0.005)
    told = caller.post(f"/api/jobs/{job['id']}/cancel")[1]
    assert told["state"] == "cancelled"
    page.desk.jobs.get(job["id"]).thread.join(20)
    some = caller.done("/api/owner/anna/images", {"filter": str(tmp_path)})["total"]
    assert 0 < some < 40
    report = caller.done("/api/owner/anna/add", {"folder": str(tmp_path)})
    assert (report["added"], report["skipped"]) == (40 - some, some)
    ids = [i["id"] for i in caller.done("/api/owner/anna/images", {"filter": str(tmp_path)})["images"]]
    caller.done("/api/owner/anna/delete", {"ids": ids})


def test_jobs_wait_for_each_other_fail_in_a_sentence_and_are_bounded():
    import threading

    some, turn, go = jobs.Jobs(), threading.Lock(), threading.Event()
    first = some.start("first", lambda job: go.wait(10), turn)
    second = some.start("second", lambda job: 7, turn)
    third = some.start("third", lambda job: 8, turn)
    time.sleep(0.15)
    assert (first.state, second.state) == ("running", "waiting")
    some.cancel(third.id)
    go.set()
    for job in (first, second, third):
        job.thread.join(10)
    assert (first.state, second.state, second.result, third.state, third.result) == (
        "done",
        "done",
        7,
        "cancelled",
        None,
    )

    def secret(job):
        raise ZeroDivisionError("a secret")

    broken = some.start("broken", secret)
    broken.thread.join(10)
    assert broken.state == "failed" and "secret" not in broken.text and "ZeroDivisionError" in broken.text
    hold = threading.Event()
    many = [some.start("x", lambda job: hold.wait(10)) for _ in range(jobs.MOST_RUNNING)]
    with pytest.raises(LimitError):
        some.start("one more", lambda job: None)
    hold.set()
    for job in many:
        job.thread.join(10)
    for _ in range(jobs.MOST_ENDED + 5):
        some.start("y", lambda job: None).thread.join(10)
    with pytest.raises(NotFoundError):
        some.get(first.id)


def test_work_that_cannot_end_at_once_is_dropped_when_it_is_cancelled():
    import threading

    go, some = threading.Event(), jobs.Jobs()
    job = some.start("search", lambda job: go.wait(10) and "a result", cancellable=False)
    assert some.cancel(job.id).text == "cancelled; what was sent already ends by itself"
    go.set()
    job.thread.join(10)
    assert (job.state, job.result) == ("cancelled", None)


# --- its end --------------------------------------------------------------------------------------------------------


def test_close_ends_the_program_and_forgets_everything(embedded, photos):
    page = AppServer(embedded)
    page.start()
    caller = Caller.opened(page).opened_party("user", "ulla")
    search(caller, photos["anna"][0])
    assert page.desk.found and not page.wait(0)
    assert caller.post("/api/close")[0] == 200
    assert page.wait(5)
    page.stop()
    assert not page.desk.found and not page.desk._seats
    with pytest.raises(OSError):
        raw(page, b"GET / HTTP/1.1\r\n\r\n")


def test_it_ends_while_its_loop_is_awake(embedded):
    """The loop that is woken by a connection at the same moment closes the pipe that wakes it."""
    page = AppServer(embedded)
    page.start()
    assert Caller(page).send("GET", "/")[0] == 401
    pull, trigger = page._server.pull_trigger, page._server.trigger

    def slowly():
        with socket.create_connection((page.host, page.port)):
            time.sleep(0.3)
        assert trigger._fds, "the pipe is open while it is written to"
        pull()

    page._server.pull_trigger = slowly
    page.stop()
    assert not trigger._fds


def test_it_ends_when_no_page_asks_any_more(embedded):
    page = AppServer(embedded, idle_minutes=0.001)
    page.start()
    time.sleep(0.1)
    assert page.wait(0)
    page.stop()


def test_a_port_that_is_taken_is_refused(embedded):
    with socket.create_server(("", 0)) as taken, pytest.raises(ParameterError, match="cannot be used"):
        AppServer(embedded, port=taken.getsockname()[1])
