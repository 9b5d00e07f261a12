"""Kinds of causes: errors that differ in numbers, ids and quoted values only are of one kind. Pure."""

import re

ELISION = "…"
"""What stands in a kind of cause for numbers, ids and quoted values."""

_TERMS = frozenset({"utf-8", "murmur2", "murmur2_random", "base64", "sha-256", "int32", "int64"})
"""Words with digits that are terms, in lower case."""

_VARIABLE = re.compile(
    r"""
    (?<!\w) [bru]? (?P<quote>['"])                                  # a quoted value; one that is cut off has no end
      (?: [^'"\\] | \\. | (?!(?P=quote))['"] | (?P=quote)(?=\w) )*
      (?: (?P=quote) | \\?$ )
    | [+-]? \w+ (?: [.:,@/+-] \w+ )*                           # a word, number or id
    """,
    re.VERBOSE | re.DOTALL,
)


def kind_of_cause(error: str) -> str:
    """Replaces numbers, ids and quoted values, so that equal kinds of errors have equal texts.

    >>> kind_of_cause("key 'mug' belongs in partition 3, the record is in 0: redrive it")
    "key '…' belongs in partition …, the record is in …: redrive it"
    >>> kind_of_cause("not done within 30 s: RCPT 450 4.2.2")
    'not done within … s: RCPT … …'
    """
    return " ".join(_VARIABLE.sub(_elided, error).split())


def _elided(found: re.Match[str]) -> str:
    text, quote = found[0], found["quote"]
    if quote is not None:
        return f"{quote}{ELISION}{quote}"
    if text.lower() in _TERMS or not any(c.isdigit() for c in text):
        return text
    return ELISION
