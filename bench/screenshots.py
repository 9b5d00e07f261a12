"""Takes the pictures of the board in docs/images, light and dark, from a system that it starts and loads itself.

make screenshots
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

from playwright.async_api import Page, async_playwright

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
RATE = "12"
"""Orders a second."""
READY_S, RUNNING_S = 240, 75
"""Seconds to start, and seconds of orders before the first picture."""
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SIZE = {"width": 1440, "height": 1250}


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """Starts everything on data of its own."""
    env = {**os.environ, "ORDERS_DATA": str(folder), "CHECKIN_PORT": "0"}
    command = [sys.executable, "-m", "ecosystem.cli", "up", "--rate", RATE, "--port", "18080"]
    return subprocess.Popen(command, env=env, stdout=(folder / "log").open("wb"), stderr=subprocess.STDOUT)


def post(url: str, **order: object) -> str:
    """Posts an order; returns its id."""
    body = json.dumps({"product": "mug", "quantity": 2, "price": 12.0, **order}).encode()
    request = urllib.request.Request(f"{url}/v1/orders", body, {"Content-Type": "application/json"})
    with NO_PROXY.open(request, timeout=30) as answer:
        return str(json.load(answer)["id"])


async def ready_url(folder: Path, process: "subprocess.Popen[bytes]") -> str:
    """The URL of the worker, once it accepts orders."""
    async with asyncio.timeout(READY_S):
        while process.poll() is None:
            await asyncio.sleep(1)
            with suppress(OSError, ValueError):
                url = str(json.loads((folder / "running.json").read_text())["urls"]["board"][0])
                post(url, customerId=1)
                return url
    raise RuntimeError("orders up has ended")


async def take(url: str) -> None:
    """Takes both pictures."""
    async with async_playwright() as started:
        browser = await started.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        for scheme in ("light", "dark"):
            context = await browser.new_context(viewport=SIZE, color_scheme=scheme, reduced_motion="reduce")
            page = await context.new_page()
            await page.goto(url)
            await page.locator("#connection[data-state=live]").wait_for()
            await choose(page)
            await page.mouse.move(5, 5)
            await page.wait_for_timeout(2500)
            await page.screenshot(path=IMAGES / f"board-{scheme}.png")
            await context.close()
        await browser.close()


async def choose(page: Page) -> None:
    """Shows an order that was shipped, and of which an e-mail has told."""
    shipped = page.locator("board-orders tbody tr").filter(has_text="SHIPPED").first
    await shipped.get_by_role("button").click()
    await page.locator("board-order .badge[data-state=SHIPPED]").wait_for()
    await page.locator("board-order").get_by_text("E-mail accepted").first.wait_for()


def shrink() -> None:
    """Reduces the colours: the pictures are in the repository."""
    from PIL import Image

    for path in IMAGES.glob("board-*.png"):
        with Image.open(path) as image:
            image.convert("RGB").quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)


async def main() -> None:
    """Starts, waits, takes, stops."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        process = start(Path(folder))
        try:
            url = await ready_url(Path(folder), process)
            await asyncio.sleep(RUNNING_S / 2)
            for customer, price in ((7, 730.0), (8, 905.0), (9, 1020.0)):
                post(url, customerId=customer, product="grinder", price=price)
            await asyncio.sleep(RUNNING_S / 2)
            await take(url)
        finally:
            process.terminate()
            process.wait()
    shrink()


if __name__ == "__main__":
    asyncio.run(main())
