"""What `orders doctor` makes of what it sees: each finding has a reason and a remedy."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import main
from ecosystem.doctor import run
from ecosystem.doctor.brokers import contradictions, missing_requests
from ecosystem.doctor.configuration import check_settings, judge_webhooks
from ecosystem.doctor.databases import judge_apart, judge_revision
from ecosystem.doctor.finding import Level, ok, problem, warning
from ecosystem.doctor.records import judge_clock, judge_keys
from ecosystem.doctor.surroundings import judge_state, judge_workers
from ecosystem.doctor.topics import judge_setting, judge_topics
from runtime.common.settings import Settings
from runtime.kafka.topic_configs import UnkeptSetting

KAFKA_4 = {1: 17, 3: 13, 9: 9, 22: 5, 28: 5}
SETTINGS = Settings(kafka_bootstrap_servers="kafka:9092", partitions=4)


def described(name, partitions=4, leader=1, isr=(1,), replicas=(1,)):
    rows = [{"partition": p, "leader": leader, "isr": list(isr), "replicas": list(replicas)} for p in range(partitions)]
    return {"topic": name, "partitions": rows}


def topics(*found):
    names = [topic["topic"] for topic in found]
    return judge_topics(SETTINGS, ["orders", "payments", *names], names, found)


def setting(name, wanted, found):
    return [judge_setting(SETTINGS, UnkeptSetting("orders", name, wanted, found))]


A, B = "http://a:8080", "http://b:8080"
FOUND = {
    "Kafka before 2.5": (
        lambda: missing_requests(KAFKA_4 | {28: 2}, exactly_once=True),
        "problem",
        "TxnOffsetCommit v3",
    ),
    "no log ids": (lambda: missing_requests(KAFKA_4 | {3: 9}, exactly_once=True), "warning", "gives topics no ids"),
    "transaction timeout": (
        lambda: contradictions({"transaction.max.timeout.ms": "5000"}, Settings(transaction_timeout_s=10)),
        "problem",
        "lower TRANSACTION_TIMEOUT_S",
    ),
    "session timeout": (
        lambda: contradictions({"group.min.session.timeout.ms": "30000"}, Settings(session_timeout_s=10)),
        "problem",
        "set SESSION_TIMEOUT_S within this range",
    ),
    "topics are created by chance": (
        lambda: contradictions({"auto.create.topics.enable": "true"}, SETTINGS),
        "warning",
        "set auto.create.topics.enable=false",
    ),
    "offsets expire": (
        lambda: contradictions({"offsets.retention.minutes": "60"}, SETTINGS),
        "warning",
        "reads everything again",
    ),
    "no topics": (topics, "warning", "there are none"),
    "missing topics": (lambda: topics(described("orders")), "warning", "are missing: payments"),
    "all topics have more partitions": (
        lambda: topics(described("orders", 8), described("payments", 8)),
        "problem",
        "set PARTITIONS=8",
    ),
    "all of three topics have more partitions": (
        lambda: topics(described("orders", 8), described("payments", 8), described("customers", 8)),
        "problem",
        "3 topics have others: customers 8, orders 8, payments 8",
    ),
    "no key for webhooks": (lambda: judge_webhooks(running=True, keys=0), "problem", "set WEBHOOK_KEYS="),
    "one topic has other partitions": (
        lambda: topics(described("orders"), described("payments", 2), described("customers")),
        "problem",
        "payments has 2 partitions, the others have 4",
    ),
    "a topic has grown": (
        lambda: topics(
            described("orders"),
            described("payments", 6),
            described("payments.dead-letters"),
            described("orders.dead-letters"),
        ),
        "warning",
        "has grown to 6",
    ),
    "no leader": (
        lambda: topics(described("orders", leader=-1), described("payments")),
        "problem",
        "4 partitions have no leader: orders[0], ",
    ),
    "not in sync": (
        lambda: topics(described("orders", replicas=(1, 2)), described("payments")),
        "warning",
        "replicas that are not in sync",
    ),
    "not compacted": (lambda: setting("cleanup.policy", "compact", "delete"), "problem", "a restore is incomplete"),
    "compacted": (lambda: setting("cleanup.policy", "delete", "compact"), "problem", "lose records"),
    "kept too shortly": (
        lambda: setting("retention.ms", "-1", "1000"),
        "problem",
        "--alter --entity-type topics --entity-name orders --add-config retention.ms=-1",
    ),
    "kept longer": (lambda: setting("retention.ms", "1000", "-1"), "warning", "was changed"),
    "wrong partition": (
        lambda: judge_keys({"orders": 3}, {"orders": "2@17: key b'o1'"}, 10),
        "problem",
        "orders dead-letters redrive orders --all",
    ),
    "the future": (lambda: judge_clock(60, "orders 0@1", 3), "warning", "was written 60 s in the future"),
    "not migrated": (lambda: judge_revision("checkin", None, ["2", "1"]), "warning", "not migrated yet"),
    "an older revision": (lambda: judge_revision("checkin", "1", ["2", "1"]), "warning", "which migrates"),
    "a newer revision": (lambda: judge_revision("checkin", "3", ["2", "1"]), "problem", "run the newer version"),
    "time of a database": (lambda: judge_apart("checkin", -60), "warning", "is 60 s behind"),
    "state": (lambda: judge_state(Path("/x"), writable=False, free=2**40), "problem", "set STATE_DIR to a folder"),
    "disk": (lambda: judge_state(Path("/x"), writable=True, free=2**20), "warning", "has 1 MiB left"),
    "one URL for two": (
        lambda: judge_workers({A: ["m1", "m2"]}, {A: (A, 0.0)}),
        "problem",
        f"2 workers advertise {A}",
    ),
    "nobody at a URL": (lambda: judge_workers({A: ["m1"]}, {A: "refused"}), "warning", "nobody answers at"),
    "another at a URL": (lambda: judge_workers({A: ["m1"]}, {A: (B, 0.0)}), "problem", "past any load balancer"),
    "time of a worker": (lambda: judge_workers({A: ["m1"]}, {A: (A, 9.0)}), "warning", "is 9 s ahead"),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_is_wrong_is_found_with_reason_and_remedy(case):
    judge, level, said = FOUND[case]
    findings = [f for f in judge() if f.level is not Level.OK]
    assert {f.level for f in findings} >= {level}
    assert all(f.why and f.remedy for f in findings)
    assert said in " ".join(f"{f.what} {f.why} {f.remedy}" for f in findings)


def test_what_is_well_is_not_complained_about():
    well = [
        *missing_requests(KAFKA_4, exactly_once=True),
        *missing_requests({1: 6, 3: 5, 9: 5, 22: 1} | {3: 10}, exactly_once=False),
        *contradictions({"auto.create.topics.enable": "false", "offsets.retention.minutes": "525600"}, SETTINGS),
        *topics(described("orders"), described("payments"), described("orders.dead-letters", 6)),
        *judge_keys({}, {}, 10),
        *judge_clock(0.5, "orders 0@1", 3),
        *judge_revision("checkin", "2", ["2", "1"]),
        *judge_apart("checkin", 0.1),
        *judge_state(Path("/x"), writable=True, free=2**40),
        *judge_workers({A: ["m1"], B: ["m2"]}, {A: (A, 0.0), B: (B, 0.1)}),
        *judge_webhooks(running=True, keys=1),
        *judge_webhooks(running=False, keys=0),
    ]
    assert {f.level for f in well} <= {Level.OK}


async def test_a_slow_or_failing_check_hides_no_other():
    async def slow(_):
        await asyncio.sleep(3600)

    async def failing(_):
        raise KeyError("x")

    async def well(_):
        return [ok("c", "fine")]

    found = await run.diagnose(SETTINGS, 0.01, {"a": slow, "b": failing, "c": well})
    assert [(f.check, f.level) for f in found] == [("a", "warning"), ("b", "warning"), ("c", "ok")]
    assert "not finished within 0.01 s" in found[0].what
    assert "the check failed: KeyError" in found[1].what


async def test_without_a_broker_its_topics_are_not_asked_for():
    asked = []

    def check(name, finding):
        async def asked_for(_):
            asked.append(name)
            return [finding]

        return asked_for

    checks = {name: check(name, ok(name, "fine")) for name in run.CHECKS}
    checks["broker"] = check("broker", problem("broker", "nobody answers", "why", "remedy"))
    await run.diagnose(SETTINGS, 5, checks)
    assert asked == ["settings", "broker", "databases", "mail", "state"]


async def test_a_setting_that_is_refused_is_a_problem_and_fails_no_other_check(monkeypatch, tmp_path):
    monkeypatch.setenv("WEBHOOK_KEYS", "short")
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:1", state_dir=tmp_path)
    [found] = await check_settings(settings)
    assert (found.level, found.what) == (
        "problem",
        "WEBHOOK_KEYS key 1 is shorter than 32 characters: `openssl rand -hex 32`",
    )
    assert "webhooks" in found.why
    everything = await run.diagnose(settings, 5)
    assert [f.what for f in everything if "the check failed" in f.what] == []


def test_several_problems_of_one_cause_are_one_finding():
    found = topics(*(described(f"t{n}", 8) for n in range(20)))
    assert [f.what for f in found if "PARTITIONS" in f.what] == [
        "PARTITIONS is 4, 20 topics have others: t0 8, t1 8, t10 8, t11 8, t12 8 and 15 more"
    ]


@pytest.mark.parametrize(
    ("finding", "code"),
    [(ok("a", "x"), 0), (warning("a", "x [bold]", "why", "how"), 0), (problem("a", "x", "why", "how"), 1)],
)
def test_the_exit_code_tells_whether_there_is_a_problem(monkeypatch, finding, code):
    async def diagnose(*_):
        return [finding]

    monkeypatch.setattr(run, "diagnose", diagnose)
    shown = CliRunner().invoke(main, ["doctor"])
    assert (shown.exit_code, finding.what in shown.output, finding.remedy in shown.output) == (code, True, True)
    as_json = CliRunner().invoke(main, ["doctor", "--json"])
    assert as_json.exit_code == code
    assert json.loads(as_json.output)["level"] == finding.level
