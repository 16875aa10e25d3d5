"""Fetching: what must be refused before a byte is sent, and the bounds of what is read."""

import asyncio
import gzip
import ipaddress
import ssl
import subprocess
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hanol.errors import AddressError
from hanol.http import BoundedClient
from hanol.tools.web import _fetch  # private: addresses and redirects, with a resolver of the test
from hanol.tools.web._fetch import (
    Address,
    Fetched,
    Fetcher,
    Resolver,
    check_url,
    is_public,
)  # private: addresses and redirects, with a resolver of the test

PUBLIC = "93.184.215.14"


class Listener:
    """A server on 127.0.0.1 that counts connections and answers each request by a function."""

    def __init__(self, answer: Callable[[str], bytes], context: ssl.SSLContext | None = None):
        self._answer = answer
        self._context = context
        self.connections = 0
        self.requests: list[str] = []

    async def __aenter__(self) -> "Listener":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            writer.write(self._answer(head.split()[1]))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def response(body: bytes, kind: str = "text/html; charset=utf-8", *extra: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *extra, "Connection: close", "", ""]).encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def names(**table: str | list[str]) -> Resolver:
    async def resolver(host: str, port: int) -> list[str]:
        found = table.get(host.partition(".")[0])
        if found is None:
            raise OSError(f"no such name: {host}")
        return [found] if isinstance(found, str) else found

    return resolver


def loopback_only(address: Address) -> bool:
    """Test rule: the listener counts as public, everything else by the real rule."""
    return str(address) == "127.0.0.1" or is_public(address)


def fetching(
    answer: Callable[[str], bytes],
    run: Callable[[Listener], Awaitable[Fetched]],
) -> tuple[Fetched | AddressError, Listener]:
    async def both() -> tuple[Fetched | AddressError, Listener]:
        async with Listener(answer) as listener:
            try:
                return await run(listener), listener
            except AddressError as err:
                return err, listener

    return asyncio.run(both())


# --- refused before any byte

REFUSED = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.0.0.0x1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://0x7f.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:7f00:0001]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fd00::1]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://10.1.2.3:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://198.18.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://240.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://private.test:{port}/",
    "http://mixed.test:{port}/",
    "http://mapped.test:{port}/",
    "http://scoped.test:{port}/",
    "http://nowhere.test:{port}/",
    "http://empty.test:{port}/",
    "http://user@public.test:{port}/",
    "http://user:word@public.test:{port}/",
    "http://public.test@127.0.0.1:{port}/",
    "http://127.0.0.1\\@public.test:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://127\u30020\u30020\u30021:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "ftp://127.0.0.1:{port}/",
    "data:text/html,hello",
    "javascript:alert(1)",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "http://",
    "http:///path",
    "http://public.test:99999/",
    "http://pub lic.test/",
    "",
]
RESOLVER = names(
    localhost="127.0.0.1",
    private="127.0.0.1",
    mixed=[PUBLIC, "127.0.0.1"],
    mapped="::ffff:127.0.0.1",
    scoped="fe80::1%lo",
    public=PUBLIC,
    empty=[],
)


@pytest.mark.parametrize("url", REFUSED)
def test_refused_before_any_byte(url: str) -> None:
    async def run(listener: Listener) -> Fetched:
        fetcher = Fetcher(ports=(80, 443, listener.port), resolver=RESOLVER)
        return await fetcher.fetch(url.format(port=listener.port))

    found, listener = fetching(lambda _: response(b"secret"), run)
    assert isinstance(found, AddressError)
    assert not tried(found)
    assert listener.connections == 0


def tried(error: AddressError) -> bool:
    """Whether a connection was begun: what is refused is refused before."""
    return "could not be fetched" in str(error) or "took over" in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/"])
def test_refused_with_the_system_resolver(url: str) -> None:
    async def run(listener: Listener) -> Fetched:
        fetcher = Fetcher(ports=(listener.port,))
        return await fetcher.fetch(url.format(port=listener.port))

    found, listener = fetching(lambda _: response(b"secret"), run)
    assert isinstance(found, AddressError)
    assert "not a public address" in str(found)
    assert listener.connections == 0


@pytest.mark.parametrize("port", [22, 25, 6379, 8080])
def test_other_ports_are_refused(port: int) -> None:
    with pytest.raises(AddressError, match=f"port {port}"):
        check_url(f"http://example.com:{port}/")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", PUBLIC, "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses_pass(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["2002:808:808::", "192.0.0.192", "168.63.129.16", "::ffff:168.63.129.16", "192.88.99.1",
     "64:ff9b::a83f:8110", "3fff::1", "3fff:fff::1", "5f00::1", "fec0::1"],
)  # fmt: skip
def test_special_addresses_are_refused_on_every_python(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["a..b", "xn--a", "xn--", f"{'a' * 64}.com", f"{'a.' * 200}com", "\u2488com", "a_b"]
)
def test_odd_names_are_refused(host: str) -> None:
    with pytest.raises(AddressError, match="resolved|not an address|fetched"):
        asyncio.run(Fetcher().fetch(f"http://{host}/"))
    # likewise where a redirect names them
    found, _ = fetch_from(lambda path: redirect(f"http://{host}/"))
    assert isinstance(found, AddressError)


# --- redirects and names that change


@pytest.mark.parametrize(
    "target",
    ["http://private.test:{port}/x", "http://10.0.0.1/", "http://[::1]:{port}/x", "file:///etc/x",
     "http://public.test:22/", "http://user@a.test:{port}/", "gopher://a.test/", "http://2130706433/",
     "//private.test:{port}/x", "http://169.254.169.254/latest/meta-data/"],
)  # fmt: skip
def test_redirect_to_a_private_place_is_refused(target: str) -> None:
    """Only the first hop, which the test calls public, is contacted."""

    async def run(listener: Listener) -> Fetched:
        port = listener.port
        listener._answer = lambda _: redirect(target.format(port=port))

        def permitted(address: Address) -> bool:
            return (str(address) == "127.0.0.1" and not asked_private) or is_public(address)

        asked_private: list[str] = []

        async def resolver(host: str, port: int) -> list[str]:
            if host.startswith("private"):
                asked_private.append(host)
            return ["127.0.0.1"]

        fetcher = Fetcher(ports=(80, port), resolver=resolver, permitted=permitted)
        return await fetcher.fetch(f"http://a.test:{port}/")

    found, listener = fetching(lambda _: b"", run)
    assert isinstance(found, AddressError)
    assert not tried(found)
    assert listener.connections == 1


def test_name_that_changes_its_address_is_looked_up_once() -> None:
    """Rebinding: the check and the connection use the same look-up."""
    looked_up: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["10.0.0.1"]

    async def run(listener: Listener) -> Fetched:
        fetcher = Fetcher(ports=(listener.port,), resolver=resolver, permitted=loopback_only)
        return await fetcher.fetch(f"http://rebind.test:{listener.port}/page")

    found, listener = fetching(lambda _: response(b"<p>ok</p>"), run)
    assert isinstance(found, Fetched)
    assert looked_up == ["rebind.test"]
    assert f"Host: rebind.test:{listener.port}".lower() in listener.requests[0].lower()


def test_name_that_turns_private_at_the_redirect_is_refused() -> None:
    looked_up: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["10.0.0.1"]

    async def run(listener: Listener) -> Fetched:
        fetcher = Fetcher(ports=(listener.port,), resolver=resolver, permitted=loopback_only)
        return await fetcher.fetch(f"http://rebind.test:{listener.port}/page")

    found, listener = fetching(lambda _: redirect("/again"), run)
    assert "10.0.0.1" in str(found)
    assert listener.connections == 1


# --- what works


def fetch_from(
    answer: Callable[[str], bytes], path: str = "/"
) -> tuple[Fetched | AddressError, Listener]:
    async def run(listener: Listener) -> Fetched:
        fetcher = Fetcher(
            ports=(listener.port,),
            resolver=names(site="127.0.0.1"),
            permitted=loopback_only,
        )
        return await fetcher.fetch(f"http://site.test:{listener.port}{path}")

    return fetching(answer, run)


def test_page_is_fetched() -> None:
    found, listener = fetch_from(lambda _: response("<p>서울</p>".encode()), "/a?b=c")
    assert isinstance(found, Fetched)
    assert found.content.decode() == "<p>서울</p>"
    assert found.media_type == "text/html"
    head = listener.requests[0]
    assert head.startswith("GET /a?b=c HTTP/1.1")
    assert "cookie" not in head.lower()
    assert "authorization" not in head.lower()
    assert "referer" not in head.lower()


def test_redirects_are_followed_without_cookies() -> None:
    def answer(path: str) -> bytes:
        if path == "/page":
            return response(b"there")
        return redirect("/page").replace(b"Content-Length", b"Set-Cookie: id=1\r\nContent-Length")

    found, listener = fetch_from(answer)
    assert isinstance(found, Fetched)
    assert found.url.endswith("/page")
    assert "cookie" not in listener.requests[1].lower()


def test_sixth_redirect_is_refused() -> None:
    found, listener = fetch_from(lambda path: redirect(f"{path}x"))
    assert "more than 5 redirects" in str(found)
    assert listener.connections == 6


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_page_is_unpacked(encoding: str) -> None:
    body = b"<p>hello</p>" * 100
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    found, _ = fetch_from(lambda _: response(packed, "text/html", f"Content-Encoding: {encoding}"))
    assert isinstance(found, Fetched)
    assert found.content == body


# --- bounds


def test_bombs_stop_at_the_limit() -> None:
    packed = gzip.compress(b"\0" * 200_000_000)
    assert len(packed) < 300_000
    found, _ = fetch_from(lambda _: response(packed, "text/html", "Content-Encoding: gzip"))
    assert "10,000,000 bytes" in str(found)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
def test_other_compressions_are_refused(encoding: str) -> None:
    found, _ = fetch_from(lambda _: response(b"abc", "text/html", f"Content-Encoding: {encoding}"))
    assert "compressed" in str(found)


@pytest.mark.parametrize(
    "body", [gzip.compress(b"x" * 1_000)[:-12], b"no gzip at all"], ids=["cut short", "no gzip"]
)
def test_broken_compression_is_refused(body: bytes) -> None:
    found, _ = fetch_from(lambda _: response(body, "text/html", "Content-Encoding: gzip"))
    assert isinstance(found, AddressError)


def test_large_page_is_refused() -> None:
    found, _ = fetch_from(lambda _: response(b"x" * (BoundedClient.most_bytes + 1)))
    assert "larger than 10,000,000 bytes" in str(found)
    found, _ = fetch_from(lambda _: response(b"x" * BoundedClient.most_bytes))
    assert isinstance(found, Fetched)


@pytest.mark.parametrize("kind", ["", "application/octet-stream", "image/png", "application/zip"])
def test_other_types_are_refused(kind: str) -> None:
    found, _ = fetch_from(lambda _: response(b"x", kind))
    assert "not a page" in str(found)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Error", "204 No Content", "101 Switch"])
def test_other_states_are_reported(status: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    found, _ = fetch_from(lambda _: answer)
    assert isinstance(found, AddressError)


def test_server_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetch, "_MAX_SECONDS", 0.3)

    async def both() -> str:
        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
            try:
                while True:  # a byte now and then keeps every per-read limit away
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(stall, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        fetcher = Fetcher(
            ports=(port,),
            resolver=names(site="127.0.0.1"),
            permitted=loopback_only,
        )
        try:
            with pytest.raises(AddressError) as caught:
                await fetcher.fetch(f"http://site.test:{port}/")
        finally:
            server.close()
            await server.wait_closed()
        return str(caught.value)

    assert "took over 0.3 s" in asyncio.run(both())


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    found, _ = fetch_from(lambda _: response(b"direct"))
    assert isinstance(found, Fetched)


def test_tls_keeps_the_name_and_checks_the_certificate(tmp_path: Path) -> None:
    subject = ["-subj", "/CN=site.test", "-addext", "subjectAltName=DNS:site.test"]
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", *subject],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    async def both() -> str:
        async with Listener(lambda _: response(b"x"), context) as listener:
            fetcher = Fetcher(
                ports=(listener.port,),
                resolver=names(site="127.0.0.1"),
                permitted=loopback_only,
            )
            with pytest.raises(AddressError) as caught:
                await fetcher.fetch(f"https://site.test:{listener.port}/")
            assert listener.requests == []
        return str(caught.value)

    assert "CERTIFICATE_VERIFY_FAILED" in asyncio.run(both())  # nobody vouches for it
    assert asked == ["site.test"]
