"""From adding a product over HTTP to an order for it, on a real Kafka and PostgreSQL."""

import pytest

from tests.workers import Deployment, until
from validators.details.state import OFFERS as KNOWN_TO_DETAILS
from validators.inventory.state import OFFERS as KNOWN_TO_INVENTORY

MUG = {"code": "mug", "name": "Mug", "price": 12}


@pytest.fixture
async def shop(deployment: Deployment, apart, database_url):
    """The core and the product service. Orders for unknown products and at other prices fail."""
    settings = {
        "unknown_products": "fail",
        "order_prices": "catalogue",
        "price_grace_s": 0,
        "products_database_url": database_url,
        "standby_replicas": 0,
    }
    front, *_ = await deployment.start_core(apart=apart, **settings)
    products = await deployment.start("products", name="products", **settings)
    await until(lambda: products.readiness()["databases"] == {"products": "open"}, "database")
    return front, products


async def announced(deployment: Deployment, code, version):
    """Waits until both validators have processed this version of the product."""
    for table in (KNOWN_TO_DETAILS.table, KNOWN_TO_INVENTORY.table):
        await until(lambda table=table: _known(deployment, table, code, version), f"{table.name} knows {code}")


async def _known(deployment: Deployment, table, code, version):
    row = (await deployment.rows(table)).get(code)
    return row is not None and row.version == version


async def test_an_order_fails_when_its_product_is_not_on_offer_at_its_price(deployment: Deployment, shop):
    front, products = shop

    async def order(product, price=12):
        status, order = await deployment.post(front, customerId=1, product=product, quantity=1, price=price)
        assert status == 201, order
        outcome = await deployment.outcome(front, order["id"])
        return outcome["state"], outcome.get("reasons", [])

    await deployment.stock(mug=10, leftover=10)
    assert (await deployment.ask(products, "POST", "/v1/products", json=MUG)).status == 201
    await announced(deployment, "mug", 1)
    assert await order("mug") == ("VALIDATED", [])
    assert await order("leftover") == ("FAILED", ["ORDER_DETAILS_CHECK: there is no product 'leftover'"])

    assert (await deployment.ask(products, "DELETE", "/v1/products/mug")).status == 200
    await announced(deployment, "mug", 2)
    state, reasons = await order("mug")
    assert state == "FAILED"
    assert set(reasons) <= {
        "INVENTORY_CHECK: 'mug' was withdrawn",
        "ORDER_DETAILS_CHECK: product 'mug' was withdrawn",
    }

    back = await deployment.ask(products, "PUT", "/v1/products/mug", json=MUG, headers={"If-Match": '"2"'})
    assert back.status == 200
    await announced(deployment, "mug", 3)
    assert await order("mug") == ("VALIDATED", [])

    dearer = await deployment.ask(
        products, "PUT", "/v1/products/mug", json={**MUG, "price": 15}, headers={"If-Match": '"3"'}
    )
    assert dearer.status == 200
    await announced(deployment, "mug", 4)
    failure = "ORDER_DETAILS_CHECK: price is 12.00 EUR, the price of 'mug' is 15.00 EUR"
    assert await order("mug") == ("FAILED", [failure])
    assert await order("mug", price=15) == ("VALIDATED", [])
