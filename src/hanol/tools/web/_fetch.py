"""Fetching a web page without being led into a private network (SSRF).

Every name is resolved once; all its addresses must be public; the connection goes to the address
that was checked, with the name kept for Host and TLS. Redirects pass the same checks. Nothing is
sent before the checks have passed.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from hanol.errors import AddressError
from hanol.http import BoundedClient

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

# An IPv4 address in the last bits: by NAT64, and by itself.
_CARRYING = [ipaddress.ip_network(text) for text in ("64:ff9b::/96", "::/96")]
# What `is_global` takes for public, some of it before Python 3.12 or 3.13 only.
_REFUSED = [
    ipaddress.ip_network("192.0.0.0/24"),  # 192.0.0.192 tells the secrets of machines at Oracle
    ipaddress.ip_network("168.63.129.16/32"),  # likewise at Azure
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4, which has no relays any more (RFC 7526)
    ipaddress.ip_network("2002::/16"),
    ipaddress.ip_network("64:ff9b:1::/48"),  # NAT64 of one network
    ipaddress.ip_network("fec0::/10"),  # one site
    ipaddress.ip_network("3fff::/20"),  # documentation
    ipaddress.ip_network("5f00::/16"),  # segment routing
]
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_MAX_SECONDS = 30.0  # for one address, redirects included
_OFFICE = "application/vnd.openxmlformats-officedocument"
SUFFIXES = {  # of what is fetched, by media type
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/xml": ".html",
    "application/xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/pdf": ".pdf",
    f"{_OFFICE}.wordprocessingml.document": ".docx",
    f"{_OFFICE}.presentationml.presentation": ".pptx",
    f"{_OFFICE}.spreadsheetml.sheet": ".xlsx",
}


@dataclass(frozen=True)
class Fetched:
    """A fetched response."""

    url: str  # after redirects
    media_type: str  # without parameters
    content: bytes  # decompressed


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, whatever it is wrapped in."""
    parts: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if any(address in network for network in _CARRYING):
            parts.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.ipv4_mapped is not None:
            parts.append(address.ipv4_mapped)
        parts += address.teredo or ()
    refused = any(part in network for part in parts for network in _REFUSED)
    return not refused and all(part.is_global and not part.is_multicast for part in parts)


def check_url(url: str, ports: tuple[int, ...] = (80, 443)) -> httpx.URL:
    """Check an address as far as possible without resolving its name."""
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").rstrip(".").lower()
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as err:
        raise AddressError(f"{url[:200]!r} is not an address: {err}.") from err
    if parsed.scheme not in ("http", "https"):
        raise AddressError(f"{url[:200]!r}: only http and https may be fetched.")
    if parsed.userinfo:
        raise AddressError(f"{url[:200]!r} carries credentials; leave them out.")
    if not host:
        raise AddressError(f"{url[:200]!r} names no host.")
    port = parsed.port or _default_port(parsed)
    if port not in ports:
        allowed = ", ".join(str(port) for port in ports)
        raise AddressError(f"{url[:200]!r} asks for port {port}; allowed: {allowed}.")
    # Resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1: only the plain form passes.
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        try:
            ipaddress.IPv4Address(host)
        except ValueError as err:
            raise AddressError(f"{url[:200]!r}: {host!r} is a disguised IP address.") from err
    return parsed


def _default_port(url: httpx.URL) -> int:
    return 443 if url.scheme == "https" else 80


async def resolve(host: str, port: int) -> list[str]:
    """All IPv4 and IPv6 addresses of a name, from the system's resolver."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class _PinnedTransport(httpx.AsyncBaseTransport):
    """Connects to an address that was checked, never to one that a second look-up gives."""

    def __init__(self, resolver: Resolver, permitted: Callable[[Address], bool]) -> None:
        self._resolver = resolver
        self._permitted = permitted
        # Nothing is kept alive: a connection made for one name must not serve another.
        self._inner = httpx.AsyncHTTPTransport(
            trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.raw_host.decode("ascii")
        addresses = await self._checked(host, request.url.port or _default_port(request.url))
        error: httpx.ConnectError | None = None
        for address in addresses:
            pinned = httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,  # Host was set from the name
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except httpx.ConnectError as err:
                error = err
        assert error is not None  # a name without addresses was refused
        raise error

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            texts = [str(ipaddress.ip_address(host.strip("[]")))]
        except ValueError:
            try:
                texts = list(dict.fromkeys(await self._resolver(host, port)))
            except (OSError, UnicodeError) as err:  # of labels that are empty, long or odd
                raise AddressError(f"{host[:200]!r} cannot be resolved: {err}.") from err
        if not texts:
            raise AddressError(f"{host!r} has no address.")
        for text in texts:
            try:
                permitted = self._permitted(ipaddress.ip_address(text))
            except ValueError:
                permitted = False  # with a scope, as fe80::1%eth0
            if not permitted:
                raise AddressError(f"{host!r} leads to {text}, which is not a public address.")
        return texts

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(kw_only=True)
class Fetcher:
    """Fetches public addresses. Other values than the defaults are for tests."""

    ports: tuple[int, ...] = (80, 443)
    resolver: Resolver = resolve
    permitted: Callable[[Address], bool] = is_public

    async def fetch(self, url: str) -> Fetched:
        """Fetch one address."""
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                return await self._follow(url)
        except TimeoutError as err:
            raise AddressError(f"{url[:200]!r} took over {_MAX_SECONDS:g} s.") from err
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as err:
            reason = str(err) or type(err).__name__
            raise AddressError(f"{url[:200]!r} could not be fetched: {reason}.") from err

    async def _follow(self, url: str) -> Fetched:
        transport = _PinnedTransport(self.resolver, self.permitted)
        headers = {"User-Agent": "hanol"}
        async with BoundedClient(
            transport=transport, headers=headers, trust_env=False, timeout=_MAX_SECONDS
        ) as web:
            for _ in range(_MAX_REDIRECTS + 1):
                target = check_url(url, self.ports)
                async with web.stream("GET", target) as response:
                    web.cookies.clear()
                    if response.status_code not in _REDIRECTS:
                        return await self._body(response)
                    location = response.headers.get("location")
                if not location:
                    raise AddressError(f"{url[:200]!r} redirects to nowhere.")
                url = str(target.join(location))
        raise AddressError(f"{url[:200]!r}: more than {_MAX_REDIRECTS} redirects.")

    async def _body(self, response: httpx.Response) -> Fetched:
        url = str(response.url)
        if response.status_code != 200:
            raise AddressError(f"{url[:200]!r} answered with status {response.status_code}.")
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in SUFFIXES:
            raise AddressError(f"{url[:200]!r} is of type {media_type or 'unknown'!r}, not a page.")
        return Fetched(url, media_type, await response.aread())
