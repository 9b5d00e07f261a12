"""Bodies of check-ins, and the conversion of local times."""

from datetime import UTC, date, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from checkin_service.settings import CheckinSettings
from ecosystem import services
from ecosystem.cli.main import main
from runtime.http.answers import HttpProblem
from runtime.http.local_times import instant
from runtime.http.validation import invalid_request
from schemas.api import NewCheckin

BODY = {
    "internetNo": "8850049302",
    "orderNo": "5960915_106347524.2",
    "staffCode": "cs_eng_ftth",
    "jobStatus": "homecheckedin",
    "checkinLatitude": 13.7827811,
    "checkinLongitude": 100.5465937,
    "checkinDate": "2021-03-18 10:13:43",
}


def read(**changes):
    return NewCheckin.model_validate({**BODY, **changes})


def test_a_body_survives_a_round_trip():
    assert NewCheckin.from_json(read().to_json()) == read()
    assert read().model_dump(by_alias=True, mode="json") == BODY
    assert read(checkinLatitude=-90, checkinLongitude=180, unknown="passed over").checkin_latitude == -90


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("checkinLatitude", 90.1, "at most 90"),
        ("checkinLatitude", -90.1, "at least -90"),
        ("checkinLongitude", 180.5, "at most 180"),
        ("checkinLongitude", "100.5", "must be a number"),
        ("checkinLongitude", True, "must be a number"),
        ("checkinLongitude", float("nan"), "finite"),
        ("checkinDate", "2021-03-18T10:13:43Z", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "1969-12-31 23:59:59", "from 1970 to 2099"),
        ("checkinDate", "2100-01-01 00:00:00", "from 1970 to 2099"),
        ("checkinDate", "2021-03-18 24:00:00", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "2021-03-18 10:13:43\n", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "2021-03-18 10:13:60", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "21-03-18 10:13:43", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "0000-01-01 00:00:00", "from 1970 to 2099"),
        ("checkinDate", "9999-12-31 23:59:59", "from 1970 to 2099"),
        ("checkinDate", "2021-03-18 10:13", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "2021-03-18 10:13:43+7", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "2021-03-18 10:13:43+24:00", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "2021-03-18 10:13:43 Asia/Bangkok", "such as 2021-03-18 10:13:43"),
        ("checkinDate", " 2021-03-18 10:13:43", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "2021-02-30 10:13:43", "such as 2021-03-18 10:13:43"),
        ("checkinDate", "٢٠٢١-03-18 10:13:43", "such as 2021-03-18 10:13:43"),
        ("checkinDate", 1616037223, "such as 2021-03-18 10:13:43"),
        ("internetNo", "", "must not be empty"),
        ("internetNo", 8850049302, "text in quotes"),
        ("staffCode", "x\x00", "must not contain control"),
        ("jobStatus", "x" * 65, "at most 64"),
        ("orderNo", " o1", "white space"),
    ],
)
def test_an_invalid_field_is_named_with_its_remedy(field, value, advice):
    with pytest.raises(ValidationError) as error:
        read(**{field: value})
    [fault] = invalid_request(error.value).errors
    assert fault.name == field
    assert advice in fault.reason


@pytest.mark.parametrize("field", BODY)
def test_every_field_is_required(field):
    with pytest.raises(ValidationError, match="Field required"):
        NewCheckin.model_validate({name: value for name, value in BODY.items() if name != field})


def test_local_times_are_converted_from_the_configured_zone():
    local = read().checkin_date
    assert instant(local, ZoneInfo("Asia/Bangkok"), "checkinDate") == datetime(2021, 3, 18, 3, 13, 43, tzinfo=UTC)
    assert instant(local, ZoneInfo("America/New_York"), "checkinDate") == datetime(2021, 3, 18, 14, 13, 43, tzinfo=UTC)


def test_an_ambiguous_time_means_its_first_occurrence():
    twice = datetime(2021, 10, 31, 2, 30)  # noqa: DTZ001
    assert instant(twice, ZoneInfo("Europe/Prague"), "checkinDate") == datetime(2021, 10, 31, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-10-25 02:30:00", "00:30"),  # in Berlin, where clocks show it twice
        ("2026-10-25 02:30:00+02:00", "00:30"),
        ("2026-10-25 02:30:00+01:00", "01:30"),
        ("2026-10-25 01:30:00+00:00", "01:30"),
        ("2026-10-25 09:30:00+08:00", "01:30"),
    ],
)
def test_an_offset_selects_the_occurrence(text, utc):
    new = read(checkinDate=text)
    at = instant(new.checkin_date, ZoneInfo("Europe/Berlin"), "checkinDate")
    assert at.isoformat() == f"2026-10-25T{utc}:00+00:00"
    assert new.model_dump(by_alias=True, mode="json")["checkinDate"] == text
    assert NewCheckin.from_json(new.to_json()) == new


def test_a_skipped_time_is_accepted_with_an_offset():
    local = read(checkinDate="2026-03-29 02:30:00+01:00").checkin_date
    assert instant(local, ZoneInfo("Europe/Berlin"), "checkinDate") == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("local", "zone"),
    [
        ((2021, 3, 28, 2, 30), "Europe/Prague"),  # when clocks were put forward
        ((1, 1, 1, 0, 0), "Asia/Bangkok"),
        ((9999, 12, 31, 23, 59), "America/New_York"),
    ],
)
def test_a_skipped_time_without_offset_is_rejected(local, zone):
    with pytest.raises(HttpProblem, match="checkinDate") as refused:
        instant(datetime(*local), ZoneInfo(zone), "checkinDate")  # noqa: DTZ001
    assert refused.value.status == 400


@pytest.mark.parametrize("zone", ["", "Asia", "Nowhere/Land", "../etc/passwd"])
def test_an_unknown_time_zone_is_rejected(zone):
    with pytest.raises(ValidationError, match="no time zone"):
        CheckinSettings(checkin_time_zone=zone)


def test_the_check_in_service_alone_has_a_port_of_its_own():
    assert services.port(("checkin",)) == 3000
    assert services.port(("checkin", "portal")) is None
    assert services.port(("orders",)) is None


@pytest.mark.parametrize(
    ("arguments", "environment", "port"),
    [
        (["checkin"], {}, 3000),
        (["checkin"], {"HTTP_PORT": "9000"}, 9000),
        (["checkin", "--port", "9001"], {"HTTP_PORT": "9000"}, 9001),
        (["checkin", "portal"], {}, 8080),
    ],
)
def test_the_port_follows_option_then_environment_then_service(arguments, environment, port, monkeypatch):
    monkeypatch.delenv("HTTP_PORT", raising=False)
    ran = []
    monkeypatch.setattr("runtime.worker.process.run", lambda _, settings: ran.append(settings.http_port) or 0)
    result = CliRunner().invoke(main, ["run", *arguments], env=environment)
    assert (result.exit_code, ran) == (0, [port]), result.output


def test_exactly_the_days_from_1970_to_2099_are_accepted():
    days = {str(date(1970, 1, 1) + timedelta(n)) for n in range((date(2100, 1, 1) - date(1970, 1, 1)).days)}
    schema = Draft202012Validator(NewCheckin.model_json_schema()["properties"]["checkinDate"])
    for year, month, day in product(range(1967, 2105), range(14), range(33)):
        text = f"{year}-{month:02}-{day:02} 10:13:43"
        assert schema.is_valid(text) == (text[:10] in days), text
    assert {str(read(checkinDate=f"{day} 10:13:43").checkin_date.date()) for day in days} == days
