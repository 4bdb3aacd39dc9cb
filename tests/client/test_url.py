"""URLs: what is meant, and that whatever else comes is refused in words, without showing the token."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coord_core.client.url import ClientUrl, parse_duration_ms, parse_url, split_address
from coord_core.errors import InvalidUrl


def test_whole_url() -> None:
    """The form that the documentation shows."""
    assert parse_url("coord://secret@h1:7401,h2:7402/ns?ttl=30s&timeout=2s") == ClientUrl(
        ("h1:7401", "h2:7402"), "/ns", "secret", tls=False, ttl_ms=30_000, timeout_ms=2_000
    )


def test_least_url() -> None:
    """Everything but a host has a default."""
    assert parse_url("coord://host") == ClientUrl(("host:7400",))


def test_tls_url_with_its_files() -> None:
    """Files as they are named; relative to where the program runs."""
    url = parse_url("coords://h1/a/b?ca=ca.pem&cert=/etc/c.pem&key=/etc/k.pem")
    assert (url.tls, url.namespace, url.ca, url.cert, url.key) == (True, "/a/b", "ca.pem", "/etc/c.pem", "/etc/k.pem")


def test_ipv6_hosts_stand_in_brackets() -> None:
    """With and without a port; and split again for connecting."""
    url = parse_url("coord://[::1]:7401,[fe80::0:1]")
    assert url.addresses == ("[::1]:7401", "[fe80::1]:7400")
    assert split_address(url.addresses[0]) == ("::1", 7401)


def test_token_may_have_any_character_in_percent_form() -> None:
    """Tokens are random bytes to people who make them."""
    assert parse_url("coord://a%2Fb%40c%3F@host").token == "a/b@c?"


def test_embedded_node_is_named_by_its_directory() -> None:
    """Its namespace is an option, because the path is the directory's; and a directory may have an '@'."""
    url = parse_url("coord+embedded:///var/lib/my%20app@home/?namespace=/a/b&ttl=30s&timeout=2s")
    assert url == ClientUrl(("/var/lib/my app@home",), "/a/b", ttl_ms=30_000, timeout_ms=2_000, embedded=True)
    assert parse_url("coord+embedded:///n") == ClientUrl(("/n",), embedded=True)


def test_repeated_host_counts_once() -> None:
    """Trying it twice finds nothing new."""
    assert parse_url("coord://h1,h1:7400,h2").addresses == ("h1:7400", "h2:7400")


@pytest.mark.parametrize("text", ["coord://h/ns", "coord://h/ns/", "coord://h//ns"])
def test_slashes_around_a_namespace_do_not_count(text: str) -> None:
    """It is put before paths, which begin with one."""
    assert parse_url(text).namespace == "/ns"


@pytest.mark.parametrize(
    ("text", "part", "says"),
    [
        ("redis://h", "scheme", "redis"),
        ("h1:7400", "scheme", "coord://"),
        ("", "scheme", "coord://"),
        ("coord://", "host", "empty"),
        ("coord://h1,,h2", "host", "empty"),
        ("coord://:7400", "host", "empty"),
        ("coord://h:0", "port", "'0'"),
        ("coord://h:65536", "port", "65536"),
        ("coord://h:http", "port", "http"),
        ("coord://h:", "port", "''"),
        ("coord://::1:7400", "host", "[address]:port"),
        ("coord://[::1", "host", "[address]:port"),
        ("coord://[nonsense]:7400", "host", "nonsense"),
        ("coord://h_!st", "host", "h_!st"),
        ("coord://@h", "token", "no token"),
        ("coord://h?tttl=5s", "options", "did you mean 'ttl'?"),
        ("coord://h?wait=5s", "options", "ttl, timeout, ca, cert, key"),
        ("coord://h?ttl=5s&ttl=6s", "options", "twice"),
        ("coord://h?ttl=soon", "options", "such as 15s"),
        ("coord://h?ttl=15", "options", "such as 15s"),
        ("coord://h?ttl=1ms", "options", "500ms"),
        ("coord://h?ttl=", "options", "no value"),
        ("coord://h?ca=x", "options", "coords://"),
        ("coords://h?cert=x", "options", "go together"),
        ("coord+embedded://", "path", "coord+embedded:///var"),
        ("coord+embedded:///", "path", "coord+embedded:///var"),
        ("coord+embedded:/n", "path", "coord+embedded:///var"),
        ("coord+embedded://host/n", "path", "coord+embedded:///var"),
        ("coord+embedded:relative", "path", "coord+embedded:///var"),
        ("coord+embedded:///a%0Ab", "path", "cannot be shown"),
        ("coord+embedded:///a%FF", "path", "UTF-8"),
        ("coord+embedded:///a#b", "fragment", "%23"),
        ("coord+embedded:///n?ca=x", "options", "guards itself"),
        ("coord+embedded:///n?token=x", "options", "guards itself"),
        ("coord+embedded:///n?namespac=x", "options", "did you mean 'namespace'?"),
        ("coord+embedded:///n?namespace=a//b", "namespace", "empty part"),
        ("coord+embedded:///n?ttl=1ms", "options", "500ms"),
        ("coord://h?namespace=a", "options", "there is no option"),
        ("coord://h#x", "fragment", "%23"),
        ("coord://h/a//b", "namespace", "empty part"),
        ("coord://h/%ff", "namespace", "UTF-8"),
        (f"coord://h/{'n' * 300}", "namespace", "longer"),
    ],
)
def test_fault_is_named(text: str, part: str, says: str) -> None:
    """The part at fault, and what to write instead."""
    with pytest.raises(InvalidUrl) as caught:
        parse_url(text)
    assert caught.value.details["part"] == part
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "coord://s3cr3t@h:bad",
        "coord://s3cr3t@",
        "coord://s3/cr3t@h",
        "coord://s3cr3t/x@h",
        "coord://s3cr3t@h?no=1",
        "s3cr3t@h",
        "coord://h?token=s3cr3t",
        "coord://s3cr3t%ff@h",
        # Not escaped, as base64 comes: a part of it looks like a host or an option.
        "coord://s3cr3t+!/x@h",
        "coord://s3:cr3t:x/y@h",
        "coord://x?s3cr3t@h",
        "coord://x?ttl=s3cr3t@h",
        "coord://x@s3cr3t!/y@h",
    ],
)
def test_token_is_never_shown(text: str) -> None:
    """Errors are logged, and logs are read by many."""
    with pytest.raises(InvalidUrl) as caught:
        parse_url(text)
    assert "cr3t" not in str(caught.value) + repr(caught.value) + repr(caught.value.details)


def test_token_is_not_in_the_repr() -> None:
    """It stands in tracebacks and debuggers."""
    assert "s3cr3t" not in repr(parse_url("coord://s3cr3t@h"))


_PIECES = st.sampled_from(
    [
        "coord://",
        "coords://",
        "h1",
        ":7400",
        ":",
        ",",
        "@",
        "/",
        "ns",
        "?",
        "ttl=15s",
        "&",
        "=",
        "[",
        "::1",
        "]",
        "%",
        "%ff",
        "#",
        "\x00",
    ]
)


@given(st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.text(max_size=3)), max_size=12).map("".join)))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Never another exception; and what parses is whole."""
    try:
        url = parse_url(text)
    except InvalidUrl:
        return
    assert url.addresses
    for address in url.addresses:
        host, port = split_address(address)
        assert host
        assert 1 <= port <= 65535


@given(st.text())
def test_any_text_is_a_duration_or_is_refused(text: str) -> None:
    """Never another exception."""
    with contextlib.suppress(InvalidUrl):
        assert parse_duration_ms(text) >= 0


@pytest.mark.parametrize(("text", "ms"), [("500ms", 500), ("15s", 15_000), ("1.5m", 90_000), ("2h", 7_200_000)])
def test_durations(text: str, ms: int) -> None:
    """A number and a unit."""
    assert parse_duration_ms(text) == ms
