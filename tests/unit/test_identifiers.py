"""Ids: the rule, and that JSON Schema says the same."""

import re

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from schemas.identifiers import Name, OrderId

RULE = TypeAdapter(OrderId)
SCHEMA = Draft202012Validator(RULE.json_schema())


def taken(text):
    try:
        RULE.validate_python(text)
    except ValidationError:
        return False
    return True


def test_the_schema_takes_the_characters_that_the_rule_takes_wherever_they_stand():
    pattern = re.compile(SCHEMA.schema["pattern"])
    for code in (*range(0xD800), *range(0xE000, 0x11_0000)):
        for text in (chr(code) * 3, f"a{chr(code)}b"):
            assert bool(pattern.search(text)) == taken(text), (code, text)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("a b", True), ("...", True), ("\U0001f9e6" * 128, True), ("\u0378\ue000", True),
        ("", False), (".", False), ("..", False), (" a", False), ("a\u3000", False), ("\u200b", False),
        ("x" * 129, False),
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_rule_refuses(text, fine):
    assert (SCHEMA.is_valid(text), taken(text)) == (fine, fine)


@pytest.mark.parametrize("text", ["\ud83e", "a\n"], ids=ascii)
def test_half_a_character_is_none_and_neither_is_a_line_break_at_the_end(text):
    assert not taken(text)
