"""Identifiers: the rule, and that JSON Schema states the same."""

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from schemas.identifiers import Name, OrderId, new_event_id, time_of

RULES = {"id": TypeAdapter(OrderId), "name": TypeAdapter(Name)}
SCHEMAS = {name: Draft202012Validator(rule.json_schema()) for name, rule in RULES.items()}


def taken(rule, text):
    try:
        RULES[rule].validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("rule", RULES)
def test_the_schema_accepts_the_same_characters_as_the_rule_in_any_position(rule):
    pattern = re.compile(SCHEMAS[rule].schema["pattern"])
    for code in (*range(0xD800), *range(0xE000, 0x11_0000)):
        for text in (chr(code) * 3, f"a{chr(code)}b"):
            assert bool(pattern.search(text)) == taken(rule, text), (code, text)


@pytest.mark.parametrize(
    ("text", "id_", "name"),
    [
        ("a b", True, True), ("...", True, True), ("\U0001f9e6" * 128, True, True), ("\u0378\ue000", True, True),
        ("", False, False), (" ", False, False), (".", False, True), ("..", False, True), (" a", False, True),
        ("a\u3000", False, True), ("a\u200b", False, True), ("x" * 129, False, True), ("x" * 257, False, False),
    ],
)  # fmt: skip
def test_the_schema_rejects_the_same_texts_as_the_rule(text, id_, name):
    assert (SCHEMAS["id"].is_valid(text), taken("id", text)) == (id_, id_)
    assert (SCHEMAS["name"].is_valid(text), taken("name", text)) == (name, name)


@pytest.mark.parametrize("text", ["\ud83e", "a\n"], ids=ascii)
@pytest.mark.parametrize("rule", RULES)
def test_surrogates_and_a_final_line_break_are_rejected(rule, text):
    assert not taken(rule, text)


def test_the_time_of_an_event_id_is_when_it_was_made():
    before = datetime.now(UTC)
    made_at = time_of(new_event_id())
    assert made_at is not None
    assert timedelta(milliseconds=-1) <= made_at - before < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "none", "ffffffff-ffff-7fff-bfff-ffffffffffff", str(uuid.UUID(int=1, version=4))])
def test_no_other_text_has_a_time(text):
    assert time_of(text) is None
