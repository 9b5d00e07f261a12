"""Tables of the bench: medians, quotients, and where they go in the page."""

from argparse import Namespace

import pytest

from bench import board_cost, volume
from bench.compare import parse
from bench.comparison.page import UnknownResult, write
from bench.comparison.report import render
from bench.volume import Turn


def measured(per_second, p50, p99, cpu_s=1.0, ok=1000, **more):
    figures = {"per_second": per_second, "validated_p50": p50, "validated_p99": p99, "ok": ok, "errors": {}}
    return figures | {"cpu_s": {"worker": cpu_s}, "rss_mib": {"worker": 100}, "wall_s": 5.0} | more


def report(rows):
    system = {"versions": {"Thing": "1"}, "first_answer_s": 3.0}
    setting = {"date": "2026-01-01", "machine": "2 cores", "pairs": 3, "seconds": 8, "products": 64, "generator": "Go"}
    return {**setting, "systems": {"ours": system, "theirs": system}, "rows": rows}


def test_a_closed_loop_shows_medians_and_the_quotient_of_rates():
    ours = [measured(900, 60, 100), measured(1000, 50, 90), measured(1, 9999, 9999)]
    text = render(report({"closed-64": {"ours": ours, "theirs": [measured(300, 200, 400)] * 3}}))
    assert "| 64 clients | 900/s; 60 / 100 | 300/s; 200 / 400 | 3.00 |" in text
    assert "| 64 clients | 1.00 | 1.00 |" in text, "a second of CPU, a thousand orders"


def test_an_open_loop_shows_latencies_and_their_quotients():
    rows = {"open-200": {"ours": [measured(199, 5, 20)], "theirs": [measured(199, 50, 100)]}}
    assert "| 200/s | 5.0 / 20 | 50 / 100 | 0.10 / 0.20 |" in render(report(rows))


def test_a_system_that_fell_behind_is_not_shown_as_keeping_the_rate():
    rows = {"open-2000": {"ours": [measured(1999, 5, 20)], "theirs": [measured(700, 900, 2000)]}}
    assert "| 2,000/s | 5.0 / 20 | 700/s; 900 / 2,000 | 0.01 / 0.01 |" in render(report(rows))
    rows = {"open-2000": {"ours": [measured(1999, 5, 20)]}}
    assert "| 2,000/s | 5.0 / 20 | fell behind | – / – |" in render(report(rows))


def test_errors_are_shown():
    rows = {"closed-64": {"ours": [measured(900, 60, 100, errors={"POST 503": 1200})]}}
    assert "900/s; 60 / 100; 1,200 errors" in render(report(rows))


def test_results_go_between_the_markers_of_their_name(tmp_path):
    page, images = tmp_path / "page.md", tmp_path / "images"
    page.write_text("before\n<!-- results one -->\nold\n<!-- end one -->\nafter\n")
    rows = {
        "closed-64": {"ours": [measured(900, 60, 100)], "theirs": [measured(300, 200, 400)]},
        "open-50": {"ours": [measured(50, 6, 10)], "theirs": [measured(50, 20, 40)]},
    }
    for _ in range(2):
        write(report(rows), "one", page, images)
    text = page.read_text()
    assert text.startswith("before\n<!-- results one -->\n")
    assert text.endswith("<!-- end one -->\nafter\n")
    assert "old" not in text
    assert text.count("64 clients") == 2
    assert "(images/performance-one.svg)" in text
    assert (images / "performance-one.svg").read_text().count("<svg") == 1
    with pytest.raises(UnknownResult, match="results two"):
        write(report(rows), "two", page, images)


def test_a_run_is_put_into_the_page_later(tmp_path):
    args = parse(["--from", str(tmp_path / "run.json"), "--write", "one"])
    assert args.source == tmp_path / "run.json"
    assert args.write == "one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "closed-64,closed-65"], "there is no row closed-65"),
        (["--against", "kafka"], "neither a peer, a layout, nor the folder of a checkout"),
        (["--products", "65"], "--products is from 1 to 64"),
        (["--write", "one"], "--write needs one --layout"),
    ],
)
def test_wrong_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err


def test_what_the_board_costs_is_the_median_of_the_pairs_of_each_round():
    rates = {"off": [1000, 500], "metrics": [990, 500], "watched": [950, 490], "again": [980, 500]}
    turns = {
        kind: [{"per_second": rate, "cpu_ms": 1000 / rate, "errors": {}} for rate in found]
        for kind, found in rates.items()
    }
    report = {"date": "2026-01-01", "machine": "2 cores", "revision": "abc", "seconds": 5, "clients": 256}
    attributed = {"orders": 10_000, "process": 5.0, "metrics": 0.05, "board": 0.025, "scrape": 0.01}
    text = board_cost.render(report | {"turns": turns, "attributed": attributed})
    assert "| core alone, metrics off | 750 |" in text
    assert "| again, against off | 1.0 % (" in text
    assert "| metrics, against off | 0.5 % (" in text
    assert "| watched, against off | 3.5 % " in text
    assert "| metrics | 5.0 | 1.00 % |" in text
    assert "| scrapes, one every 15 s, of 10.0 ms each | 2.0 | 0.40 % |" in text  # two in 30 s
    assert "| together | 9.5 | 1.90 % |" in text


def test_a_worker_with_many_orders_is_compared_with_one_with_few_pair_by_pair():
    few, many = [Turn(100, 1.0, 50), Turn(200, 1.0, 60)], [Turn(90, 1.1, 80), Turn(190, 1.3, 90)]
    text = volume.render((10_000, 1_000_000), few, many, Namespace(seconds=8, clients=256))
    assert "| 10,000 | 150 | 1.000 | 60 MiB |" in text
    assert "| 1,000,000 | 140 | 1.200 | 90 MiB |" in text
    assert "| many : few, median of the pairs | 0.93 | 1.20 | |" in text


def test_the_page_has_a_place_for_the_volume():
    assert f"<!-- results {volume.NAME} -->" in volume.PAGE.read_text()


def test_the_page_has_a_place_for_what_the_board_costs():
    assert f"<!-- results {board_cost.NAME} -->" in board_cost.PAGE.read_text()
