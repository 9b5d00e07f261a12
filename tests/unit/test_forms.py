"""The same text in two Unicode forms: one name at every edge where people give it, and two keys on topics."""

import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.cli import product_import
from ecosystem.cli.csv_files import InvalidFile
from ecosystem.cli.main import main
from runtime.common.settings import Settings
from runtime.http.validation import invalid_request
from runtime.testing import TopologyTestDriver
from schemas.api import NewCheckin, NewOrder, NewProduct
from schemas.identifiers import is_composed
from schemas.messages import Order, StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from validators.inventory.app import build
from validators.inventory.state import STOCK

COMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
DECOMPOSED = "cafe\N{COMBINING ACUTE ACCENT}"
OTHERS = ["\N{ANGSTROM SIGN}", "\N{HANGUL CHOSEONG KIYEOK}\N{HANGUL JUNGSEONG A}", "e\u0323\u0302", "\u0344"]

BODIES = [
    (NewOrder, {"id": "o1", "customerId": 1, "product": "mug", "quantity": 1, "price": 1}, ("id", "product")),
    (NewProduct, {"code": "mug", "name": "Mug", "price": 1}, ("code",)),
    (
        NewCheckin,
        {
            "internetNo": "8",
            "orderNo": "o1",
            "staffCode": "c",
            "jobStatus": "h",
            "checkinLatitude": 1.0,
            "checkinLongitude": 1.0,
            "checkinDate": "2021-03-18 10:13:43",
        },
        ("internetNo", "orderNo", "staffCode", "jobStatus"),
    ),
]


@pytest.mark.parametrize("text", [DECOMPOSED, *OTHERS])
@pytest.mark.parametrize(("model", "body", "names"), BODIES)
def test_an_identifier_that_is_not_nfc_is_rejected_with_the_nfc_spelling(model, body, names, text):
    for name in names:
        with pytest.raises(ValueError, match="Unicode form NFC") as error:
            model.model_validate({**body, name: text})
        [fault] = invalid_request(error.value).errors
        assert (fault.name, fault.reason.endswith(ascii(unicodedata.normalize("NFC", text)))) == (name, True)
        model.model_validate({**body, name: unicodedata.normalize("NFC", text)})


def test_a_display_name_may_have_any_unicode_form():
    assert NewProduct(code="x", name=DECOMPOSED, price=1).name == DECOMPOSED


@given(st.text())
def test_exactly_one_unicode_form_of_a_text_is_composed(text):
    forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
    assert [form for form in forms if is_composed(form)] == [unicodedata.normalize("NFC", text)]


def test_an_identifier_in_a_file_that_is_not_nfc_is_reported_with_its_line():
    with pytest.raises(InvalidFile, match=r"f.csv:2: code must be in Unicode form NFC: write 'caf\\xe9'"):
        product_import.read_products("f.csv", ["code,name,price", f"{DECOMPOSED},Cafe,1"])
    assert product_import.read_products("f.csv", ["code,name,price", f"{COMPOSED},{DECOMPOSED},1"])[0].code == COMPOSED


@pytest.mark.parametrize(
    "arguments",
    [
        ["stock", "set", DECOMPOSED, "1"],
        ["pay", DECOMPOSED, "--amount", "1", "--no-wait"],
        ["post", "--product", DECOMPOSED],
        ["post", "--id", DECOMPOSED],
        ["products", "add", DECOMPOSED, "Cafe", "1"],
        ["checkin", DECOMPOSED],
    ],
)
def test_a_command_rejects_an_identifier_that_is_not_nfc(arguments):
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, "NFC: write 'caf\\xe9'" in result.output) == (2, True), result.output


def test_messages_may_have_any_unicode_form_and_stock_not_in_nfc_is_counted():
    assert Order.from_json(Order(id=DECOMPOSED, customer_id=1, product=DECOMPOSED, quantity=1, price=1).to_json())
    topology = TopologyTestDriver(build(Settings()).service)
    for product in (COMPOSED, DECOMPOSED):
        topology.send(WAREHOUSE_INVENTORY, StockLevel(product=product, count=3))
        assert topology.row(STOCK, product).count == 3
    assert topology.workers[0].events == {("inventory", "stock not in NFC"): 1}
