"""Where a request comes from: the peer, or whom a trusted proxy names (UNSUBD_TRUSTED_PROXIES; by default nobody is)."""

from ipaddress import IPv6Address, ip_address, ip_network

from starlette.requests import Request

_MAX_HOPS = 20


class Peers:
    """Whom to believe. Shape: trusted: addresses and networks of proxies, separated by spaces."""

    def __init__(self, trusted: str) -> None:
        self._trusted = [ip_network(word) for word in trusted.split()]

    def source(self, request: Request) -> str:
        """Return where *request* comes from: an address, of IPv6 its network, as a household has one.

        Shape:   the last address of X-Forwarded-For that no trusted proxy has, if a trusted proxy speaks to us at all.
        """
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",")[-_MAX_HOPS:]
        for hop in reversed(["", *(each.strip() for each in forwarded)]):
            if not self._is_trusted(peer) or not hop:
                break
            peer = hop
        return _household(peer)

    def is_trusted(self, request: Request) -> bool:
        """Say whether a trusted proxy speaks to us."""
        return self._is_trusted(request.client.host if request.client else "")

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._trusted)


def _household(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return address[:45]
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else str(found)
