"""A headless Chromium that looks at the page as a person would."""

from __future__ import annotations

import contextlib
import shutil

try:
    from selenium import webdriver
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:  # pip install selenium
    webdriver = None

#: where distributions put it
NAMES = ("chromium", "chromium-browser", "google-chrome")


def missing() -> str:
    """What is not installed; empty if all is."""
    if webdriver is None:
        return "no selenium here: pip install selenium"
    if not any(map(shutil.which, NAMES)):
        return "no Chromium here: apt-get install chromium chromium-driver"
    return "" if shutil.which("chromedriver") else "no chromedriver here: apt-get install chromium-driver"


@contextlib.contextmanager
def browser(downloads=None, *, dark=False, width=1280, height=1000):
    """A browser of its own, without what an earlier one kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(path for path in map(shutil.which, NAMES) if path)
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                   "--force-device-scale-factor=1", f"--window-size={width},{height}"):  # fmt: skip
        options.add_argument(option)
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        if dark:
            theme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", theme)
        yield Screen(driver)
    finally:
        driver.quit()


class Screen:
    """What a person does with the page."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, link):
        self.driver.get(link)
        self.ready()
        return self

    def ready(self):
        self.until(lambda: self.find("body").get_attribute("data-ready"), "the page is ready")

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.until(lambda: (self.find(selector).text,), f"{selector} is there")[0]

    def click(self, selector):
        self.find(selector).click()

    def type(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def press(self, key):
        """Press a key of :class:`Keys` by its name."""
        ActionChains(self.driver).send_keys(getattr(Keys, key)).perform()

    def run(self, script, *args):
        return self.driver.execute_script(script, *args)

    def until(self, what, why, seconds=20):
        """Wait until ``what()`` is true; gives it."""

        def there(driver):
            try:
                return what()
            except StaleElementReferenceException:  # drawn again just then
                return False

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(there, f"{why}; it says: {self.said}")

    @property
    def said(self):
        return self.driver.execute_script("return document.getElementById('status')?.textContent")

    def says(self, part, seconds=20):
        self.until(lambda: part in (self.said or ""), f"says {part!r}", seconds)

    def idle(self):
        """Wait until nothing is under way."""
        self.until(lambda: not self.all("#jobs .job"), "nothing is under way")

    def drop(self, path):
        """Give a query image, and wait for what was found."""
        self.run("delete document.getElementById('result').dataset.milliseconds")
        self.find("#query-file").send_keys(str(path))
        self.until(lambda: self.find("#result").get_attribute("data-milliseconds"), "hits are there", 60)
        return int(self.find("#result").get_attribute("data-milliseconds"))

    def problems(self):
        """What the browser complained about, such as what the content policy forbade."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
