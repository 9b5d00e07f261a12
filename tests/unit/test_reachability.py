"""Which members of a group are given nothing, because the others cannot reach them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.common.settings import Settings
from runtime.group.reachability import Claim, _is_local, network_identity, refusals

URLS = ("http://a:1", "http://b:1", "http://127.0.0.1:1", "http://0.0.0.0:1", "http://[::]:2", "http://localhost:1")
CLAIMS = st.lists(
    st.builds(
        Claim,
        url=st.sampled_from(URLS),
        instance=st.uuids().map(str) | st.just(""),
        since=st.integers(1, 4).map(float),
        network=st.sampled_from("xyz"),
        accepted=st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(lambda claims: {f"m{n}": claim for n, claim in enumerate(claims)})


@pytest.mark.parametrize(
    ("url", "local"),
    [
        *[
            (f"http://{host}:8080", True)
            for host in ("0.0.0.0", "[::]", "127.0.0.1", "127.9.9.9", "[::1]", "localhost")
        ],
        *[(f"http://{host}:8080", True) for host in ("LocalHost", "localhost.", "a.localhost", "[::ffff:127.0.0.1]")],
        *[
            (f"http://{host}:8080", False)
            for host in ("10.0.0.1", "orders", "[fd00::1]", "localhost.example.org", "128.0.0.1")
        ],
    ],
)
def test_what_each_host_takes_for_itself(url, local):
    assert _is_local(url) == local


@given(CLAIMS)
def test_somebody_is_always_left_and_those_left_reach_each_other(claims):
    refused = refusals(claims)
    assert refused.keys() < claims.keys()
    assert all("set ADVERTISED_URL" in reason for reason in refused.values())
    known = [claim for member, claim in claims.items() if member not in refused and claim.instance]
    assert len({claim.url for claim in known}) == len(known)
    if any(_is_local(claim.url) for claim in known) and len({c.network for c in claims.values() if c.instance}) > 1:
        assert len({claim.network for claim in known}) == 1
        assert all(_is_local(claim.url) for claim in known)


@given(CLAIMS, st.randoms(use_true_random=False))
def test_a_rebalance_by_itself_changes_nothing_whoever_leads(claims, rng):
    refused = refusals(claims)
    again = [(m, Claim(c.url, c.instance, c.since, c.network, accepted=m not in refused)) for m, c in claims.items()]
    rng.shuffle(again)
    assert refusals(dict(again)) == refused


@given(CLAIMS)
def test_nobody_of_a_group_without_conflict_is_refused(claims):
    claims = {m: Claim(f"http://{m}:1", c.instance, c.since, c.network, c.accepted) for m, c in claims.items()}
    assert refusals(claims) == {}


def test_members_of_an_earlier_version_are_never_refused():
    old = Claim("http://a:1", "", 0.0, "", accepted=False)
    assert refusals({"a": old, "b": old}) == {}
    assert refusals({"a": old, "b": Claim("http://a:1", "b", 1.0, "x", accepted=True)}).keys() == {"b"}


def test_a_process_that_is_two_members_for_a_moment_is_no_conflict():
    twice = Claim("http://a:1", "one", 1.0, "x", accepted=True)
    assert refusals({"a": twice, "b": twice}) == {}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("http://orders-1:8080", True), ("https://orders.example.org", True), ("http://[fd00::1]:80/", True),
        ("", True), ("orders:8080", False), ("orders", False),
        ("http://", False), ("ftp://orders", False),
        ("http://a/b", False), ("http://a?b", False), ("http://a#b", False), ("http://me:too@a", False),
        ("http://a:99999", False), ("http://[::", False),
    ],
)  # fmt: skip
def test_what_is_advertised_is_a_base_url(text, good):
    if good:
        assert Settings(advertised_url=text).base_url(1).host
        return
    with pytest.raises(ValueError, match="advertised_url"):
        Settings(advertised_url=text)


def test_the_network_has_one_name_and_ports_that_are_implied_count():
    assert network_identity() == network_identity() != ""
    urls = {"a": "http://a", "b": "http://A:80/"}
    claims = {name: Claim(url, name, 1.0, "x", accepted=False) for name, url in urls.items()}
    assert refusals(claims).keys() == {"b"}
