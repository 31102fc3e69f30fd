"""A picture of the page of `harness demo`: `python docs/page.py RESULTS IMAGE TARGET`; needs chromium, playwright."""

from __future__ import annotations

import subprocess
import sys

from playwright.sync_api import sync_playwright

PORT = "8599"


def main(results: str, image: str, target: str) -> None:
    """Drop the image, wait for its maps, take the picture."""
    command = [sys.executable, "-m", "harness", "demo", results, "--port", PORT, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            while server.stdout is not None and "http" not in server.stdout.readline():
                pass
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1280, "height": 1180})
                page.goto(f"http://localhost:{PORT}")
                page.get_by_role("tab", name="Test images of the run").wait_for()
                page.locator("input[type=file]").first.set_input_files(image)
                page.get_by_text("overlay", exact=True).first.wait_for()
                page.wait_for_timeout(2000)
                page.screenshot(path=target)
                browser.close()
        finally:
            server.terminate()


main(*sys.argv[1:])
