"""Why a URL of ours could not be asked, and what to do: a missing name, a closed port and a bad certificate differ."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2


def unreached(url: str, error: Exception, meanwhile: str = "") -> tuple[str, str]:
    """Return what is wrong, and what to do.

    Shape:   url: its host is named; the rest may spell an address. meanwhile: what works before DNS does, "" = nothing.
    """
    host = _host(url)
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol) or not host:
        return "this is no URL of a web server", "expected e.g. https://unsub.example.com"
    if isinstance(error, httpx2.HTTPStatusError):
        return f"{host} answers {error.response.status_code}", "see DNS and proxy: it must lead to unsubd"
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            knows = "did not answer about" if cause.errno == socket.EAI_AGAIN else "knows no host"
            return f"DNS {knows} {host}", "make its DNS record" + (f"; meanwhile: {meanwhile}" if meanwhile else "")
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{host}: the certificate is not trusted ({cause.verify_message})", "give it one for this name"
        if isinstance(cause, ssl.SSLError):
            return f"{host} speaks no TLS", "put TLS before it: deploy/proxy"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host}: nobody listens there", "start unsubd run (or web), or the proxy before it"
    if isinstance(error, httpx2.TimeoutException):
        return f"{host}: no answer in time", "see firewall and proxy, and whether unsubd run is alive"
    return f"{host}: no answer ({type(error).__name__})", "see the proxy's log, and whether unsubd run is alive"


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
