"""The document about foreign records and the cases tested on a broker agree."""

import re
from pathlib import Path

from tests.foreign.cases import CASES, DeadLettered, Elsewhere, Refused, Skipped

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "foreign-records.md"
ROWS = dict(re.findall(r"^\| `(.+?)` \| .+ \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE))


def test_each_line_of_the_document_has_a_case_and_vice_versa():
    assert ROWS.keys() == CASES.keys()


def test_each_line_states_the_expectation_of_its_case():
    for name, said in ROWS.items():
        outcome = CASES[name].outcome
        if isinstance(outcome, DeadLettered):
            assert said.startswith("dead-lettered"), name
        elif isinstance(outcome, Refused):
            assert said.startswith("the broker refuses it"), name
        elif isinstance(outcome, Skipped):
            assert re.match("skipped|not read|neither processed nor dead-lettered", said), name
        elif not isinstance(outcome, Elsewhere):
            assert said.startswith("processed"), name


def test_each_case_is_written_by_a_foreign_client_unless_tested_elsewhere():
    for name, case in CASES.items():
        assert isinstance(case.outcome, Elsewhere) or (case.writer and case.record), name
