"""A group refuses members that the others cannot reach."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.common.settings import Settings
from runtime.group.reachability import MemberInfo, _is_local, network_identity, refused_members

URLS = ("http://a:1", "http://b:1", "http://127.0.0.1:1", "http://0.0.0.0:1", "http://[::]:2", "http://localhost:1")
MEMBERS = st.lists(
    st.builds(
        MemberInfo,
        url=st.sampled_from(URLS),
        instance=st.uuids().map(str) | st.just(""),
        since=st.integers(1, 4).map(float),
        network=st.sampled_from("xyz"),
        accepted=st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(lambda members: {f"m{n}": info for n, info in enumerate(members)})


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
def test_urls_that_are_local_to_each_host(url, local):
    assert _is_local(url) == local


@given(MEMBERS)
def test_never_all_members_are_refused_and_the_others_reach_each_other(members):
    refused = refused_members(members)
    assert refused.keys() < members.keys()
    assert all("set ADVERTISED_URL" in reason for reason in refused.values())
    known = [info for member, info in members.items() if member not in refused and info.instance]
    assert len({info.url for info in known}) == len(known)
    if any(_is_local(info.url) for info in known) and len({c.network for c in members.values() if c.instance}) > 1:
        assert len({info.network for info in known}) == 1
        assert all(_is_local(info.url) for info in known)


@given(MEMBERS, st.randoms(use_true_random=False))
def test_a_rebalance_without_changes_refuses_the_same_members_whoever_leads(members, rng):
    refused = refused_members(members)
    again = [
        (m, MemberInfo(c.url, c.instance, c.since, c.network, accepted=m not in refused)) for m, c in members.items()
    ]
    rng.shuffle(again)
    assert refused_members(dict(again)) == refused


@given(MEMBERS)
def test_no_member_of_a_group_without_conflict_is_refused(members):
    members = {m: MemberInfo(f"http://{m}:1", c.instance, c.since, c.network, c.accepted) for m, c in members.items()}
    assert refused_members(members) == {}


def test_members_of_an_earlier_version_are_never_refused():
    old = MemberInfo("http://a:1", "", 0.0, "", accepted=False)
    assert refused_members({"a": old, "b": old}) == {}
    assert refused_members({"a": old, "b": MemberInfo("http://a:1", "b", 1.0, "x", accepted=True)}).keys() == {"b"}


def test_a_process_that_is_briefly_two_members_is_no_conflict():
    twice = MemberInfo("http://a:1", "one", 1.0, "x", accepted=True)
    assert refused_members({"a": twice, "b": twice}) == {}


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
def test_the_advertised_url_must_be_a_base_url(text, good):
    if good:
        assert Settings(advertised_url=text).base_url(1).host
        return
    with pytest.raises(ValueError, match="advertised_url"):
        Settings(advertised_url=text)


def test_the_network_identity_is_stable_and_default_ports_count():
    assert network_identity() == network_identity() != ""
    urls = {"a": "http://a", "b": "http://A:80/"}
    members = {name: MemberInfo(url, name, 1.0, "x", accepted=False) for name, url in urls.items()}
    assert refused_members(members).keys() == {"b"}
