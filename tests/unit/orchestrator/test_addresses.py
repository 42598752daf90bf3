"""Which receivers may be called, however their addresses are written."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyHttpUrl, TypeAdapter, ValidationError

from orchestrator.addresses import (
    Allowed,
    ReceiverPolicy,
    ReceiverRefused,
    kind_of,
    receiver_of,
)

POLICY = ReceiverPolicy()
PRIVATE = [
    "0.0.0.0",  # noqa: S104 - of a receiver
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.0.9",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]
PUBLIC = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.63.255.255", "223.255.255.254")
private = st.one_of(
    st.sampled_from(PRIVATE).map(IPv4Address),
    *(
        st.ip_addresses(v=4, network=network).map(str).map(IPv4Address)
        for network in ("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16")
    ),
)
public = st.sampled_from(PUBLIC).map(IPv4Address)


def number(value: int, base: str) -> str:
    """A number as resolvers of the C library read it."""
    return {"10": f"{value}", "16": f"0x{value:x}", "X": f"0X{value:04X}", "8": f"0{value:o}"}[base]


@st.composite
def written(draw: st.DrawFn, addresses: st.SearchStrategy[IPv4Address]) -> str:
    """An IPv4 address in one of the many ways that it can be written."""
    value = int(draw(addresses))
    parts = draw(st.integers(1, 4))
    numbers = [value >> (24 - 8 * place) & 255 for place in range(parts - 1)]
    numbers.append(value & (1 << (8 * (5 - parts))) - 1)
    bases = st.sampled_from(["10", "16", "X", "8"])
    text = ".".join(number(each, draw(bases)) for each in numbers)
    text += draw(st.sampled_from(["", "."]))
    if draw(st.booleans()):
        text = text.translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)})
        text = text.replace(".", draw(st.sampled_from([".", "\u3002", "\uff0e"])))
    return text


@st.composite
def embedded(draw: st.DrawFn, addresses: st.SearchStrategy[IPv4Address]) -> IPv6Address:
    """An IPv6 address that stands for an IPv4 one."""
    value = int(draw(addresses))
    high = draw(st.integers(0, 2**32 - 1))
    forms = [
        0xFFFF << 32 | value,
        value,
        0xFFFF << 48 | value,
        0x0064_FF9B << 96 | value,
        0x0064_FF9B_0001 << 80 | value,
        0x2002 << 112 | value << 80 | high,
        0x2001_0000 << 96 | value << 64 | high,
        0x2001_0000 << 96 | high << 64 | (value ^ 0xFFFF_FFFF),
        0x2A00_1450 << 96 | high << 64 | 0x0000_5EFE << 32 | value,
        0x2A00_1450 << 96 | high << 64 | 0x0200_5EFE << 32 | value,
    ]
    return IPv6Address(draw(st.sampled_from(forms)))


def check(url: str) -> None:
    """By the URL alone."""
    POLICY.check(receiver_of(url))


@given(written(private), st.sampled_from(["http", "https"]), st.sampled_from(["", ":8080"]))
def test_no_notation_hides_a_private_address(host: str, scheme: str, port: str) -> None:
    """Short, decimal, octal, hexadecimal, full-width, with a trailing dot."""
    with pytest.raises(ReceiverRefused, match="not public"):
        check(f"{scheme}://{host}{port}/hook")


@given(written(private))
def test_nor_does_it_behind_the_model_of_a_request(host: str) -> None:
    """Which writes URLs anew before anybody checks them."""
    try:
        url = TypeAdapter(AnyHttpUrl).validate_python(f"http://{host}/hook")
    except ValidationError:
        return
    with pytest.raises(ReceiverRefused, match="not public"):
        check(str(url))


@given(written(public))
def test_a_public_address_is_called_as_itself(host: str) -> None:
    """However it was written, what is requested has its usual form."""
    receiver = receiver_of(f"http://{host}:8080/hook?x=1#part")
    POLICY.check(receiver)
    assert receiver.host in PUBLIC
    assert f"http://{receiver.host}:8080/hook?x=1" == receiver.url


@given(embedded(private))
def test_no_address_in_an_address_is_missed(address: IPv6Address) -> None:
    """Mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP."""
    assert kind_of(address) is not None
    with pytest.raises(ReceiverRefused, match="not public"):
        check(f"http://[{address.exploded}]/hook")


@pytest.mark.parametrize("text", ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2a00:1450:4001:81b::200e"])
def test_a_public_ipv6_address_may_be_called(text: str) -> None:
    """Also one that stands for a public IPv4 address, as hosts without IPv4 need it."""
    check(f"https://[{text}]/hook")


@pytest.mark.parametrize(
    "text",
    [
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1"),
        *("2001:db8::1", "2001:10::1", "2002:808:808::1", "3fff::1", "5f00::1"),
        "64:ff9b:1::808:808",
    ],
)
def test_a_special_ipv6_address_is_refused(text: str) -> None:
    """Whatever is not for the whole network."""
    assert kind_of(ip_address(text)) is not None


@pytest.mark.parametrize("address", PRIVATE)
def test_every_special_ipv4_address_is_refused(address: str) -> None:
    """The loopback, the local networks, the clouds' metadata, and what nobody may use."""
    assert kind_of(ip_address(address)) is not None


@given(st.ip_addresses())
def test_nothing_passes_that_python_knows_to_be_special(
    address: IPv4Address | IPv6Address,
) -> None:
    """Our lists are no shorter than the library's."""
    if kind_of(address) is None and not getattr(address, "ipv4_mapped", None):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://example.com/", "http:// or https://"),
        ("//example.com/", "http:// or https://"),
        ("http://", "name a host"),
        ("http:///path", "name a host"),
        ("http://user@example.com/", "user or a password"),
        ("http://user:word@example.com/", "user or a password"),
        ("http://example.com@127.0.0.1/", "user or a password"),
        ("http://127.0.0.1\\@example.com/", "backslashes"),
        ("http://exa mple.com/", "spaces"),
        ("http://example.com/\r\nHost: x", "control characters"),
        ("http://%31%32%37.0.0.1/", "without '%'"),
        ("http://[fe80::1%25eth0]/", "without '%'"),
        ("http://[::1", "not a URL"),
        ("http://[127.0.0.1]/", "not a URL|brackets"),
        ("http://1.2.3.4.5/", "an address that is one"),
        ("http://256.1.1.1/", "an address that is one"),
        ("http://0x/", "not public"),
        ("http://08.8.8.8/", "an address that is one"),
        ("http://4294967296/", "an address that is one"),
        ("http://-bad-.example.com/", "name a host"),
        ("http://a..b/", "name a host|DNS"),
        ("http://example.com:99999/", "not a URL"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:22/", "port 22"),
        ("http://example.com:6379/", ""),
        ("http://localhost/", "loopback"),
        ("http://LOCALHOST./", "loopback"),
        ("http://api.localhost:8080/", "loopback"),
        ("http://ⓛocalhost/", "loopback"),
        ("http://①②⑦.0.0.1/", "not public"),
        ("http://127。0。0。1/", "not public"),
    ],
)
def test_odd_urls_are_refused_in_words(url: str, why: str) -> None:
    """Who hands in a task learns what is wrong; ports from 1024 on are fine."""
    if not why:
        check(url)
        return
    with pytest.raises(ReceiverRefused, match=why):
        check(url)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Never anything else."""
    for url in (text, f"http://{text}", f"http://[{text}]/"):
        try:
            check(url)
        except ReceiverRefused:
            continue


def test_a_name_is_known_in_its_form_for_dns() -> None:
    """Letters of all languages, in lower case."""
    receiver = receiver_of("https://Bücher.Example:443/Hook")
    assert ("xn--bcher-kva.example", 443) == (receiver.host, receiver.port)
    assert "https://xn--bcher-kva.example:443/Hook" == receiver.url


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("127.0.0.1", "http://127.0.0.1:9/", False),
        ("127.0.0.1", "http://127.0.0.1:9999/", True),
        ("127.0.0.1", "http://2130706433:9999/", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:9999/", True),
        ("127.0.0.1", "http://127.0.0.2:9999/", False),
        ("127.0.0.1:9", "http://127.0.0.1:9/", True),
        ("127.0.0.1:9", "http://127.0.0.1:10/", False),
        ("10.0.0.0/8", "https://10.1.2.3/", True),
        ("10.0.0.0/8", "https://11.1.2.3:22/", False),
        ("fd00::/8", "https://[fd12::1]/", True),
        ("[fd12::1]:81", "https://[fd12::1]:81/", True),
        ("[fd12::1]:81", "https://[fd12::1]:82/", False),
        ("localhost", "http://localhost:22/", True),
        ("localhost:8080", "http://localhost:8081/", False),
        ("Hooks.Internal", "http://hooks.internal.:1/", True),
    ],
)
def test_private_receivers_are_allowed_by_name(entry: str, url: str, *, allowed: bool) -> None:
    """By host, by host and port, by address, by network."""
    policy, receiver = ReceiverPolicy([entry]), receiver_of(url)
    if allowed:
        policy.check(receiver)
        return
    with pytest.raises(ReceiverRefused):
        policy.check(receiver)


def test_a_name_that_is_allowed_may_be_anywhere() -> None:
    """Another may not, whichever of its addresses is private."""
    policy = ReceiverPolicy(["hooks.internal"])
    addresses = [ip_address("8.8.8.8"), ip_address("10.0.0.1")]
    policy.check_addresses(receiver_of("http://hooks.internal/"), addresses)
    with pytest.raises(ReceiverRefused, match=r"'hooks.example' \(10.0.0.1\)"):
        policy.check_addresses(receiver_of("http://hooks.example/"), addresses)


def test_ports_can_be_chosen() -> None:
    """Then only those are called."""
    policy = ReceiverPolicy(ports=[8443])
    policy.check(receiver_of("https://example.com:8443/"))
    with pytest.raises(ReceiverRefused, match="allowed: 8443"):
        policy.check(receiver_of("https://example.com/"))


@pytest.mark.parametrize("entry", ["", "10.0.0.0/99", "a b", "host:99999", "http://host", "a@b"])
def test_an_entry_that_allows_nothing_is_refused(entry: str) -> None:
    """A mistyped network must not be taken for a name."""
    with pytest.raises(ValueError, match="a host, host:port"):
        Allowed.of(entry)
