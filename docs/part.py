"""A picture of one part of a report: docs/part.py RESULTS SELECTOR FILE."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

report, selector, target = Path(sys.argv[1]).resolve() / "report.html", sys.argv[2], sys.argv[3]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    page.goto(report.as_uri())
    page.wait_for_selector("body[data-ready=true]")
    page.locator(selector).screenshot(path=target)
    browser.close()
