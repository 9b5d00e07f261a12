"""The board in a real browser: orders of its form, timelines, state, reconnecting, keyboard, accessibility, load."""

import asyncio
import contextlib
import os
import re
import shutil
from datetime import UTC, datetime

import pytest

from ecosystem.embedded.ports import free_ports
from ecosystem.services import CORE
from schemas.messages import Customer, Order, OrderState, OrderValidation, ValidationResult
from schemas.topics import CUSTOMERS, ORDER_VALIDATIONS, ORDERS
from tests.letters import Mailbox, serving
from tests.workers import PATIENCE_S, until

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: make install")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = PATIENCE_S * 1000
WIDE, PHONE = {"width": 1600, "height": 1000}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


@pytest.fixture(scope="module")
async def browser():
    async with playwright.async_playwright() as started:
        chromium = await started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--enable-precise-memory-info"]
        )
        yield chromium
        await chromium.close()


class Visitor:
    """A browser profile and everything that went wrong in its pages."""

    def __init__(self, context):
        self.context = context
        self.complaints = []
        self.elsewhere = []
        context.set_default_timeout(PATIENCE_MS)

    async def page(self, worker, fragment=""):
        page = await self.context.new_page()
        page.on(
            "console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda r: self.elsewhere.append(r.url) if not r.url.startswith(str(worker.url)) else None)
        await page.goto(f"{worker.url}{fragment}")
        await live(page)
        return page


@pytest.fixture
async def visit(browser):
    """Makes visitors. Fails the test if a page has complained, or asked another server."""
    visitors = []

    async def visit(size=WIDE, **options):
        visitor = Visitor(await browser.new_context(viewport=size, reduced_motion="reduce", **options))
        visitors.append(visitor)
        return visitor

    yield visit
    for visitor in visitors:
        await visitor.context.close()
    assert [c for v in visitors for c in v.complaints] == []
    assert [u for v in visitors for u in v.elsewhere] == []


async def live(page):
    await page.locator("#connection[data-state=live]").wait_for()


async def place(page, **fields):
    for name, value in fields.items():
        await page.locator(f"#field-{name}").fill(str(value))
    await page.get_by_role("button", name="Place order").click()


def order_panel(page):
    return page.get_by_role("region", name="Order", exact=True)


@pytest.fixture
async def board(deployment):
    """A worker with the core and the board, and products in stock."""
    worker = await deployment.start(*CORE, "board")
    await deployment.stock(mug=1000, teapot=3)
    return worker


async def test_orders_of_the_form_are_seen_validated_and_failed(board, visit):
    visitor = await visit()
    page = await visitor.page(board)
    second = await visitor.page(board)

    await place(page, product="mug", quantity=2, price="12.50", customerId=5)
    panel = order_panel(page)
    await panel.get_by_text("Validated", exact=True).wait_for()
    for said in ("VALIDATED", "Fraud check: PASS", "Inventory check: PASS", "Details check: PASS", "25.00 EUR"):
        assert said in await panel.inner_text()
    assert re.fullmatch(r"Order \S+ is VALIDATED after .+\.", await page.locator("#announce").inner_text())

    await place(page, product="teapot", quantity=4)
    await panel.locator(".badge[data-state=FAILED]").wait_for()
    assert "4 of 'teapot' ordered, 3 available" in await panel.locator(".reasons").inner_text()

    rows = second.locator("board-orders tbody tr")
    await rows.filter(has_text="2 × mug").filter(has_text="VALIDATED").wait_for()
    await second.locator("board-orders .segments label", has_text="Failed").click()
    await rows.filter(has_text="INVENTORY_CHECK: 4 of 'teapot' ordered").wait_for()
    assert await rows.count() == 1

    await second.get_by_role("searchbox").fill("teapot")
    await second.get_by_text("1 found").wait_for()
    await rows.get_by_role("button").click()
    await order_panel(second).locator(".badge[data-state=FAILED]").wait_for()
    assert "#order=" in second.url
    third = await visitor.page(board, "#" + second.url.partition("#")[2])
    await order_panel(third).get_by_text("4 × teapot").wait_for()


async def test_the_timeline_says_what_became_of_the_emails(deployment, visit):
    mailbox = Mailbox()
    mailbox.refuse["gone@example.org"] = "550 no such user"
    [port] = free_ports(1)
    with serving(mailbox, port):
        worker = await deployment.start(*CORE, "email", "board", smtp_port=port)
        await deployment.stock(teapot=3)
        names = {"first_name": "A", "last_name": "B", "address": "C", "level": "gold"}
        for number, name in ((5, "here"), (6, "gone")):
            await deployment.send(CUSTOMERS, Customer(id=number, email=f"{name}@example.org", **names))
        page = await (await visit()).page(worker)
        for customer, said in ((5, "E-mail accepted by the mail server"), (6, "E-mail not sent")):
            await place(page, product="teapot", quantity=4, customerId=customer)
            await order_panel(page).get_by_text(said).wait_for()
            assert f"customer {customer}" in await order_panel(page).inner_text()
        assert "no such user" in await order_panel(page).inner_text()
        assert [letter["To"] for letter in mailbox.letters] == ["A B <here@example.org>"]


async def test_a_verdict_is_explained_by_its_numbers_where_the_history_runs(deployment, visit, database_url):
    worker = await deployment.start(*CORE, "history", "board", history_database_url=database_url)
    await deployment.stock(teapot=3)
    page = await (await visit()).page(worker)
    await place(page, product="teapot", quantity=4, price=1, customerId=7)
    panel = order_panel(page)
    await panel.locator(".badge[data-state=FAILED]").wait_for()  # at once, the explanation follows
    await panel.get_by_text("4 of 'teapot' were asked for. The warehouse had counted 3").wait_for()
    await panel.get_by_text("below the limit of 2000.00 EUR").wait_for()

    fragment = "#" + page.url.partition("#")[2]  # an order whose stream has ended, from its address
    again = await (await visit()).page(worker, fragment)
    await order_panel(again).get_by_text("were asked for").wait_for()


async def test_a_refused_order_says_which_field_is_wrong(board, visit):
    page = await (visitor := await visit()).page(board)
    await place(page, price="0.00001")
    error = page.locator("#error-price")
    await until(error.inner_text, "a reason at the price")
    assert await page.locator("#field-price").get_attribute("aria-invalid") == "true"
    await place(page, price="", quantity=1)
    assert await error.inner_text() == "must be a number"
    assert [c for c in visitor.complaints if "400" not in c] == []
    visitor.complaints.clear()  # browsers report the status themselves


async def test_state_sessions_workers_and_dead_letters_are_shown(board, deployment, visit):
    page = await (await visit()).page(board)
    await place(page, product="mug", quantity=1, price=1500, customerId=77)
    sessions = page.get_by_role("region", name="Fraud sessions")
    await sessions.get_by_text("Customer 77").wait_for()
    assert "1,500.00" in await sessions.inner_text()
    stock = page.get_by_role("region", name="Stock")
    await stock.locator("tr", has_text="mug").get_by_text("999", exact=True).wait_for()

    letters = page.get_by_role("region", name="Dead letters")
    await letters.get_by_text("None. Every message could be processed").wait_for()

    await deployment.send_raw(ORDERS.name, b"broken", b"no order")
    letters = page.get_by_role("region", name="Dead letters")
    await letters.get_by_text("orders dead-letters redrive orders --service").first.wait_for()

    workers = page.get_by_role("region", name="Workers")
    await workers.get_by_text("✓ ready").wait_for()
    assert "0–3" in await workers.inner_text()
    await page.get_by_role("region", name="Backlog").get_by_text("Everything is worked off").wait_for()


async def test_a_page_reconnects_when_its_worker_is_back(deployment, visit):
    (port,) = free_ports(1)
    worker = await deployment.start(*CORE, "board", http_port=port)
    await deployment.stock(mug=10)
    page = await (visitor := await visit()).page(worker)
    await place(page, product="mug", quantity=1)
    await order_panel(page).locator(".badge[data-state=VALIDATED]").wait_for()

    await deployment.stop(worker)
    await page.locator("#connection[data-state=away]").wait_for()
    worker = await deployment.start(*CORE, "board", http_port=port)
    await live(page)
    await page.locator("board-orders tbody tr").filter(has_text="VALIDATED").wait_for()
    await place(page, product="mug", quantity=2)
    await page.locator("board-orders tbody tr").filter(has_text="2 × mug").filter(has_text="VALIDATED").wait_for()
    assert [c for c in visitor.complaints if "ERR_" not in c] == []
    visitor.complaints.clear()  # browsers report refused connections themselves


async def test_everything_is_reached_by_the_keyboard(board, visit):
    page = await (await visit()).page(board)
    await place(page, product="mug", quantity=1)
    rows = page.locator("board-orders tbody tr")
    await rows.first.wait_for()
    await place(page, product="mug", quantity=3)
    await rows.nth(1).wait_for()

    await page.goto(str(board.url))
    await page.reload()
    await rows.nth(1).wait_for()
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the orders"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "orders"
    for expected in ("all", "search"):
        await page.keyboard.press("Tab")
        assert expected in await page.evaluate("document.activeElement.value || document.activeElement.id")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "link id"
    await page.get_by_text("held while you look at it").wait_for()
    assert await page.locator("board-orders tbody [tabindex='0']").count() == 1  # Tab leaves the list
    await page.keyboard.press("Tab")
    assert not await page.evaluate("document.activeElement.closest('board-orders tbody')")
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("ArrowDown")
    second = await page.evaluate("document.activeElement.textContent")
    await page.keyboard.press("Home")
    assert await page.evaluate("document.activeElement.textContent") != second
    await page.keyboard.press("End")
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("ArrowDown")
    chosen = await page.evaluate("document.activeElement.textContent")
    await page.keyboard.press("Enter")
    await page.locator("board-order .id").get_by_text(chosen).wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_text("Choose an order to see its way").wait_for()

    await page.locator("#field-product").focus()
    await page.locator("#field-quantity").fill("1")
    await page.locator("#field-price").fill("12")
    await page.locator("#field-customerId").fill("1")
    await page.locator("#field-product").fill("mug")
    await page.keyboard.press("Enter")  # places the order; the focus stays in the form, for the next one
    await page.locator("board-order .badge[data-state=VALIDATED]").wait_for()
    await page.keyboard.press("Escape")
    await page.get_by_text("Choose an order to see its way").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(board, deployment, visit, scheme):
    from axe_playwright_python.async_playwright import Axe

    await deployment.send_raw(ORDERS.name, b"broken", b"no order")
    for size in (WIDE, PHONE):
        visitor = await visit(size, color_scheme=scheme, bypass_csp=True)  # axe itself is put into the page
        page = await visitor.page(board)
        await place(page, product="mug", quantity=1, price=1900, customerId=size["width"])
        await order_panel(page).locator(".badge[data-state=VALIDATED]").wait_for()
        await place(page, product="teapot", quantity=9)
        await order_panel(page).locator(".badge[data-state=FAILED]").wait_for()
        await page.get_by_role("region", name="Dead letters").locator("code").first.wait_for()
        await page.get_by_role("region", name="Fraud sessions").get_by_text("Customer").first.wait_for()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off"
        found = await Axe().run(page)
        serious = [v for v in found.response["violations"] if v["impact"] in {"serious", "critical"}]
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in serious] == []


CUT_OFF = """() => [
  ...(document.documentElement.scrollWidth > innerWidth ? ["the page"] : []),
  ...[...document.querySelectorAll(".scroller, .lines .label, .foot, .under")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 && !(innerWidth < 390 && e.matches(".scroller")))
    .map((e) => `${e.closest("[aria-labelledby]").getAttribute("aria-labelledby")} ${e.className} ${e.textContent}`),
]"""


async def test_nothing_is_cut_off_on_any_screen(board, deployment, visit):
    """From 320 px on, a zoom of 400 % (WCAG 1.4.10, by which only tables may scroll), with numbers of `make run`."""
    await deployment.stock(**{"espresso-beans": 1_000_000, **{f"signed-poster-{n}": 1_000_005 + n for n in range(12)}})
    page = await (await visit()).page(board)
    await place(page, product="espresso-beans", quantity=1)
    await page.locator("board-stock tr", has_text="espresso-beans").get_by_text("999,999").wait_for()
    await page.locator("board-flow").get_by_text("Cancelled").wait_for()
    found = {}
    for width in (320, 390, 700, 1000, 1280, 1600, 2560):
        await page.set_viewport_size({"width": width, "height": 900})
        found[width] = await page.evaluate(CUT_OFF)
    assert {width: cut for width, cut in found.items() if cut} == {}


async def test_the_theme_is_that_of_the_system_until_it_is_chosen(board, visit):
    page = await (await visit(color_scheme="dark")).page(board)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(background)
    await page.get_by_role("button", name="Light").click()
    light = await page.evaluate(background)
    assert light != dark
    await page.reload()
    await live(page)
    assert await page.evaluate(background) == light


async def test_orders_of_other_origins_are_refused(board, deployment):
    body = b'{"customerId": 1, "product": "mug", "quantity": 1, "price": 1}'
    json = {"Content-Type": "application/json"}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = await deployment.ask(board, "POST", "/board/orders", data=body, headers={**json, **headers})
        assert answer.status == 403
    own = {"Origin": str(board.url.origin()), "Sec-Fetch-Site": "same-origin"}
    assert (await deployment.ask(board, "POST", "/board/orders", data=body, headers={**json, **own})).status == 201


async def test_a_board_apart_finds_the_workers_and_costs_nothing_while_nobody_watches(deployment, visit):
    await deployment.start_core(apart=False)
    await deployment.stock(mug=10)
    worker = await deployment.start("board", name="board")
    assert not any("feed" in task.get_name() for task in asyncio.all_tasks())
    page = await (await visit()).page(worker)
    await page.get_by_role("region", name="Workers").get_by_text("2 of 2 ready").wait_for()
    await place(page, product="mug", quantity=1)
    await order_panel(page).locator(".badge[data-state=VALIDATED]").wait_for()


def records(number):
    """An order and its verdict."""
    order_id = f"load-{number}"
    order = Order(id=order_id, customer_id=number, product="mug", quantity=1, price=1, created_at=datetime.now(UTC))
    verdict = OrderValidation(
        order_id=order_id, check_type="FRAUD_CHECK", validation_result=ValidationResult.PASS, reason=None
    )
    decided = order.model_copy(update={"state": OrderState.VALIDATED})
    return [(ORDERS, order), (ORDER_VALIDATIONS, verdict), (ORDERS, decided)]


async def flood(deployment, rate, seconds):
    """Writes records of orders, without waiting for any to be processed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(int(rate * seconds)):
        for topic, message in records(number):
            await deployment.producer.send(
                deployment.prefix + topic.name, message.to_json(), key=topic.key(message).encode()
            )
        if (ahead := number / rate - (loop.time() - began)) > 0.02:
            await asyncio.sleep(ahead)


async def measure(page):
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    await session.send("Performance.enable")
    found = {m["name"]: m["value"] for m in (await session.send("Performance.getMetrics"))["metrics"]}
    await session.detach()
    return {"nodes": found["Nodes"], "heap": found["JSHeapUsedSize"], "listeners": found["JSEventListeners"]}


async def test_a_page_does_not_grow_under_load(deployment, visit):
    """The short form of `make bench-board`."""
    worker = await deployment.start("board", ready=False)
    for topic in (ORDERS, ORDER_VALIDATIONS):
        await create(deployment, topic.name)
    page = await (await visit()).page(worker)
    load = asyncio.create_task(flood(deployment, 300, 12))
    try:
        await page.locator("board-orders tbody tr").nth(59).wait_for()
        await asyncio.sleep(2)
        before = await measure(page)
        await load
        after = await measure(page)
    finally:
        load.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await load
    assert after["nodes"] <= before["nodes"] * 1.1 + 100
    assert after["listeners"] <= before["listeners"] * 1.1 + 50
    assert after["heap"] <= before["heap"] * 1.3 + 2_000_000
    assert float((await page.locator("board-flow .lines .number").first.inner_text()).replace(",", "")) > 50


async def create(deployment, topic):
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(deployment.prefix + topic, 4, 1)])
    finally:
        await admin.close()
