"""The page in a real browser, as a person uses it: over one folder and over three servers.

Slow: each test starts a browser. They are left out where no Chromium is installed; CI installs it.
"""

import csv
import io
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.chromium import browser, missing
from mipp.client.user import User
from tests.app.conftest import HOSTILE, go, served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(params=["embedded", "network"])
def deployment(request):
    found = request.getfixturevalue("embedded" if request.param == "embedded" else "three_servers")
    return found if request.param == "embedded" else found[0]


@pytest.fixture
def screen(deployment, tmp_path):
    (tmp_path / "downloads").mkdir()
    with served(deployment) as page, browser(tmp_path / "downloads") as screen:
        screen.page = page
        yield screen.open(page.link())


def downloaded(folder, name):
    until = time.monotonic() + 20
    while not (folder / name).exists():
        assert time.monotonic() < until, list(folder.iterdir())
        time.sleep(0.05)
    return folder / name


def cards(screen):
    """Texts of the hits that are shown, at one moment: they may be drawn again just then."""
    return screen.run(
        "return [...document.querySelectorAll('#hits .card')].filter((c) => !c.hidden).map((c) => c.innerText)"
    )


def test_search_compare_fetch_export(screen, photos, tmp_path):
    assert "#" not in screen.driver.current_url, "the token is not left in the address"
    screen.drop(photos["anna"][3])
    assert len(cards(screen)) == 20 and len(screen.all("#hits img")) == 20
    assert screen.says("Found 20 images") is None
    assert screen.driver.switch_to.active_element.get_attribute("id") == "result-title", "the result is read out"

    # filter by owner
    screen.run(
        "const f = document.getElementById('filter-owner'); f.selectedIndex = 1; f.dispatchEvent(new Event('change'))"
    )
    owners = {text.split(".")[1].split()[0] for text in cards(screen)}
    assert len(owners) == 1 and len(cards(screen)) in (8, 12)
    screen.run(
        "const f = document.getElementById('filter-owner'); f.selectedIndex = 0; f.dispatchEvent(new Event('change'))"
    )

    # side by side, and the original on demand
    for box in screen.all("#hits [data-choose]")[:2]:
        box.click()
    assert screen.text("#chosen") == "2 chosen"
    screen.click("#compare")
    screen.until(lambda: len(screen.all("#dialog-body img")) == 3, "query and two hits")
    screen.click("#dialog-body .controls button")
    screen.until(
        lambda: [b for b in screen.all("#dialog-body button") if b.text == "Save the file"], "the image is here"
    )
    screen.click("#dialog-body .controls button")
    assert downloaded(tmp_path / "downloads", "anna03.png").read_bytes() == photos["anna"][3].read_bytes()
    screen.press("ESCAPE")
    screen.until(lambda: not screen.find("#dialog").is_displayed(), "the dialog is closed by a key")

    # export
    screen.click("#export-zip")
    archive = zipfile.ZipFile(downloaded(tmp_path / "downloads", "hits.zip"))
    assert len(archive.namelist()) == 3
    screen.click("#export-csv")
    table = downloaded(tmp_path / "downloads", "hits.csv")
    assert len(list(csv.DictReader(table.open()))) == 2

    # one already found is the next query
    screen.run("document.querySelector('#hits [data-hit=\"4\"] .controls button').click()")
    screen.until(lambda: len(screen.all("#history li")) == 2, "two searches")
    assert screen.problems() == []


def test_captions_of_a_hostile_owner_are_text(screen, photos):
    screen.drop(photos["anna"][0])
    assert screen.driver.title == "mipp"
    assert not screen.all("#hits script, #hits b, #hits img[src=x]")
    shown = screen.find('#hits [data-hit="0"] .caption')
    assert shown.text == HOSTILE["markup"]
    everything = screen.text("#hits")
    assert "\u202e" not in everything and "\x1b" not in everything
    wide = screen.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "nothing is wider than the page"
    tall = screen.run("return Math.max(...[...document.querySelectorAll('#hits .card')].map((c) => c.offsetHeight))")
    assert tall < 500, "a caption of thousands of characters is cut"
    assert screen.problems() == []


def test_an_owner_adds_annotates_deletes_grants_and_revokes(screen, photos):
    go(screen, "owner")
    screen.run(
        "[...document.querySelectorAll('#owner-party button')].find((b) => b.textContent.includes('anna')).click()"
    )
    screen.until(lambda: len(screen.all("#owned .card")) == 12, "anna's images are listed")
    screen.idle()
    screen.type("#folder", str(photos["new"][0].parent))
    screen.click("#add-form [type=submit]")
    screen.until(lambda: "3 images added" in screen.text("#added"), "the folder is added")
    screen.idle()
    screen.type("#list-filter", "new0")
    screen.click("#list-form [type=submit]")
    screen.until(lambda: len(screen.all("#owned .card")) == 3, "the new ones are listed")
    screen.idle()
    screen.click("#owned .card button")
    field = screen.find("#dialog-body input")
    field.send_keys("<i>mine</i>")
    screen.click("#dialog-body [type=submit]")
    screen.until(lambda: "<i>mine</i>" in screen.text("#owned"), "the caption is there, as text")
    screen.idle()

    # what was added is found at once
    go(screen, "search")
    screen.drop(photos["new"][0])
    assert "<i>mine</i>" in screen.text('#hits [data-hit="0"]')

    go(screen, "owner")
    for box in screen.all("#owned .card [type=checkbox]"):
        box.click()
    screen.click("#delete")
    screen.driver.switch_to.alert.accept()
    screen.says("3 images deleted")
    go(screen, "search")
    screen.drop(photos["new"][1])
    assert len(cards(screen)) == 20

    # revoked: the other owner's images alone are found
    go(screen, "owner")
    screen.until(lambda: screen.all("#grants tbody button"), "a grant can be revoked")
    screen.click("#grants tbody button")
    screen.driver.switch_to.alert.accept()
    screen.says("may search no more")
    go(screen, "search")
    screen.drop(photos["new"][2])
    assert len(cards(screen)) == 8

    go(screen, "owner")
    screen.type("#grant-user", "ulla")
    screen.type("#grant-expiry", "30d")
    screen.run("document.querySelector('[name=ranking][value=threshold]').checked = true")
    screen.click("#grant-form [type=submit]")
    screen.says("ulla may search these images")
    screen.click("#audit")
    screen.says("The audit passed", 60)
    assert screen.problems() == []


def test_a_threshold_with_its_cost(screen, photos):
    screen.drop(photos["anna"][0])
    screen.run(
        "const s = document.getElementById('threshold-slider'); s.value = 400; s.dispatchEvent(new Event('input'))"
    )
    screen.until(lambda: "20 images searched" in screen.text("#cost"), "the cost is shown")
    assert float(screen.find("#threshold").get_attribute("value")) > 0
    screen.click("#go-range")
    screen.until(lambda: "within" in screen.text("#result-title"), "the range search is shown")
    screen.idle()
    assert 0 < len(cards(screen)) < 20
    assert screen.problems() == []


def test_a_reload_in_the_middle_loses_nothing(screen, photos, monkeypatch):
    screen.drop(photos["anna"][0])
    slow = User.search

    def slowly(self, *args, **options):
        time.sleep(1.5)
        return slow(self, *args, **options)

    monkeypatch.setattr(User, "search", slowly)
    screen.run("document.getElementById('result').hidden = true")
    screen.find("#query-file").send_keys(str(photos["berta"][2]))
    screen.until(lambda: screen.all("#jobs .job"), "the search is under way")
    screen.driver.refresh()
    screen.ready()
    screen.until(lambda: len(screen.all("#history li")) == 2, "the search came to its end")
    screen.idle()
    screen.until(lambda: "berta02.png" in screen.text('#hits [data-hit="0"]'), "its hits are shown")


def test_an_action_says_at_once_that_it_runs_and_can_be_cancelled(screen, photos, monkeypatch):
    slow, go_on = User.search, threading.Event()

    def slowly(self, *args, **options):
        go_on.wait(60)
        return slow(self, *args, **options)

    monkeypatch.setattr(User, "search", slowly)
    # no request leaves the page before it says so
    screen.run(
        """
        const real = window.fetch;
        const said = new Promise((go) => new MutationObserver(() => document.querySelector('#jobs .job') && go())
          .observe(document.getElementById('jobs'), { childList: true }));
        window.fetch = async (...request) => { await said; window.saidFirst = true; return real(...request); };
        document.getElementById('show-cost').click();
        """
    )
    screen.until(lambda: screen.run("return window.saidFirst === true"), "it is said")
    screen.until(lambda: not screen.all("#jobs .job"), "it came to its end")
    screen.find("#query-file").send_keys(str(photos["anna"][0]))
    screen.until(lambda: screen.all("#jobs .job button"), "it can be cancelled")
    screen.click("#jobs .job button")
    screen.says("cancelled")  # before the search itself has ended
    go_on.set()


def test_what_is_no_image_is_said_in_a_sentence(screen, tmp_path):
    (tmp_path / "notes.png").write_text("these are notes")
    screen.find("#query-file").send_keys(str(tmp_path / "notes.png"))
    screen.says("not an image")
    assert "\n" not in screen.said


def test_the_keyboard_alone_is_enough(screen, photos):
    """Every control has a name, and is reached by the tabulator; nothing needs a mouse."""
    screen.drop(photos["anna"][0])
    unnamed = screen.run(
        """
        return [...document.querySelectorAll('button, input, select, img, [role]')]
          .filter((e) => e.offsetParent !== null)
          .filter((e) => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.alt
            || e.textContent.trim() || e.title || e.labels?.length || e.id === 'status' || e.id === 'cost'))
          .map((e) => e.outerHTML.slice(0, 100));
        """
    )
    assert unnamed == []
    assert screen.run("return document.querySelectorAll('[tabindex]:not([tabindex=\"-1\"])').length") == 0
    assert screen.run("return document.querySelectorAll('html[lang], main, h1, h2, nav').length") >= 5
    seen = set()
    screen.run("document.querySelector('.skip').focus()")
    for _ in range(40):
        screen.press("TAB")
        seen.add(screen.run("const a = document.activeElement; return a.id || a.className || a.tagName"))
    assert {"query-file", "k", "go", "choose-all", "compare"} <= seen


def test_a_phone_and_a_dark_room(embedded, photos):
    for width, dark in ((390, False), (390, True), (1280, True)):
        with served(embedded) as page, browser(dark=dark, width=width, height=844) as screen:
            # a window cannot be as narrow as a phone, a device can
            size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
            screen.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            screen.open(page.link())
            screen.drop(photos["anna"][0])
            wide = screen.run("return document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0
            paper, ink = screen.run(
                "const s = getComputedStyle(document.documentElement); return [s.backgroundColor, s.color]"
            )
            light = lambda colour: sum(map(int, colour[4:-1].split(","))) / 765  # noqa: E731
            assert (light(paper) < 0.2 and light(ink) > 0.8) if dark else (light(paper) > 0.9 and light(ink) < 0.2)


def test_a_server_that_is_down_is_said(three_servers, photos):
    client, network = three_servers
    with served(client) as page, browser() as screen:
        screen.open(page.link())
        screen.drop(photos["anna"][0])
        go(screen, "servers")
        screen.click("#ask-servers")
        screen.until(lambda: screen.text("#servers").count("ready") == 3, "three are ready")
        assert "not ready" not in screen.text("#servers")
        network.stop(2)
        screen.click("#ask-servers")
        screen.until(lambda: "not ready" in screen.text("#servers"), "one is not")
        go(screen, "search")
        screen.run("document.getElementById('status').textContent = ''")
        screen.find("#query-file").send_keys(str(photos["berta"][0]))
        screen.until(lambda: "bad" in (screen.find("#status").get_attribute("class") or ""), "the failure is said", 90)
        assert "server 2" in screen.said or "south" in screen.said or "cloud2" in screen.said
        assert "\n" not in screen.said
        network.start(2).ready()
        screen.drop(photos["berta"][1])
        assert "berta01.png" in screen.text('#hits [data-hit="0"]')


def test_a_thousand_hits(tmp_path, photos):
    """Shown a hundred at a time; all of them can be."""
    import numpy as np

    import mipp
    from mipp import features
    from tests.app.conftest import encoding

    with mipp.Deployment.create(tmp_path / "d", encoding(), descriptor="cld", preview_size=1024) as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        codes = features.extract([str(p) for p in photos["anna"]], "cld", workers=1).values
        rows = np.repeat(features.get("cld").embed(codes), 90, axis=0)
        owner.add_vectors(rows, metadata=[{"caption": f"row {n}"} for n in range(len(rows))])
        owner.grant(user)
        deployment.wait_certified()
        with served(deployment) as page, browser() as screen:
            screen.open(page.link())
            screen.type("#k", "1000")
            screen.drop(photos["anna"][0])
            assert "1,000 hits" in screen.text("#result-title") and len(screen.all("#hits .card")) == 100
            for shown in range(200, 1001, 100):
                screen.run("document.getElementById('more').click()")  # wherever it is, while pictures come
                screen.until(lambda shown=shown: len(screen.all("#hits .card")) == shown, f"{shown} are shown")
                screen.idle()
            assert len(screen.all("#hits .caption")) == 1000 and not screen.find("#more").is_displayed()


SHOTS = os.environ.get("MIPP_SCREENSHOTS", "")


def shot(screen, name):
    Image.open(io.BytesIO(screen.driver.get_screenshot_as_png())).save(Path(SHOTS) / name, quality=80)


@pytest.mark.skipif(not SHOTS, reason="MIPP_SCREENSHOTS names no folder for the pictures of the docs")
def test_pictures_for_the_docs(tmp_path):
    """Writes the pictures of the docs anew, from rendered images."""
    import mipp
    from mipp.demo.render import render_collection
    from tests.app.conftest import encoding

    (tmp_path / "images").mkdir()
    for name, _, pixels in render_collection(10, 12):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    images = sorted((tmp_path / "images").iterdir())
    with mipp.Deployment.create(tmp_path / "d", encoding(), descriptor="cld", preview_size=8192) as deployment:
        user = deployment.create_user("ulla")
        for name, some in (("anna", images[::2]), ("berta", images[1::2])):
            owner = deployment.create_owner(name)
            owner.add_images(some, metadata={p: {"caption": p.stem.replace("_", " ")} for p in some}, workers=1)
            owner.grant(user, rankings=["server", "threshold"])
        with served(deployment) as page, browser(width=1200, height=900) as screen:
            screen.open(page.link())
            screen.type("#k", "24")
            screen.drop(images[0])
            screen.run("document.activeElement.blur(); document.getElementById('result').scrollIntoView()")
            shot(screen, "app-search.webp")
            for box in screen.all("#hits [data-choose]")[:2]:
                box.click()
            screen.click("#compare")
            screen.until(lambda: len(screen.all("#dialog-body img")) == 3, "query and two hits")
            shot(screen, "app-compare.webp")
            screen.click("dialog > form button")
            go(screen, "owner")
            screen.run("document.querySelector('#owner-party button').click()")
            screen.until(lambda: screen.all("#owned .card"), "images are listed")
            screen.idle()
            shot(screen, "app-owner.webp")
