"""Which addresses may be connected to: an address comes in, the reason why it is refused goes out. Pure.

Public unicast is allowed and everything else refused, so that an uploader cannot make this process read
from the networks it stands in. Knows no host names: what is checked here must be what is connected to.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_V6_PUBLIC = IPv6Network("2000::/3")  # the only block that IANA hands out for public unicast
_NAT64 = IPv6Network("64:ff9b::/96")  # the IPv4 address is in the last 32 bits (RFC 6052)
_TUNNELS = (
    IPv6Network("2002::/16"),  # 6to4 and Teredo carry an IPv4 address chosen by whoever made the name
    IPv6Network("2001::/32"),
)
_NOT_PUBLIC = (
    IPv4Network("192.88.99.0/24"),  # 6to4 relays (RFC 7526)
    IPv4Network("168.63.129.16/32"),  # Azure's host agent: a public address that answers inside only
    IPv6Network("3fff::/20"),  # documentation (RFC 9637), newer than Python 3.11's tables
)


def parse_networks(networks: Sequence[str]) -> tuple[Network, ...]:
    """Read networks in CIDR notation.

    Raises:
        ValueError: not a network; the message names it.
    """
    return tuple(ip_network(network) for network in networks)


def refusal(address: str, allowed: Sequence[Network]) -> str | None:
    """Why this address may not be connected to; None if it may.

    Args:
        address: as the resolver gave it.
        allowed: networks that may be connected to although they are not public.
    """
    parsed = ip_address(address)
    if any(parsed.version == network.version and parsed in network for network in allowed):
        return None
    return _not_public(parsed)


def _not_public(address: Address) -> str | None:
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if isinstance(address, IPv6Address):
        return _not_public_v6(address)
    if not address.is_global or address.is_reserved or any(address in net for net in _NOT_PUBLIC if net.version == 4):
        return "a private or reserved address"
    return None


def _not_public_v6(address: IPv6Address) -> str | None:
    if address.ipv4_mapped is not None:
        return "an IPv4-mapped address"
    if address in _NAT64:
        return _not_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address in net for net in _TUNNELS):
        return "an address that tunnels to another one (6to4, Teredo)"
    if address not in _V6_PUBLIC or not address.is_global or any(address in net for net in _NOT_PUBLIC):
        return "a private or reserved address"
    return None
