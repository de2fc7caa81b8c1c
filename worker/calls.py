"""A call to somebody else's server that ends: in time whatever it drips, and in size whatever it sends."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate

import httpx2

from handlers.errors import Unavailable

_MOST_BYTES = 4 * 1024 * 1024


def called(client: httpx2.Client, request: httpx2.Request, whose: str, *, within_s: float) -> tuple[int, bytes]:
    """Return the status and body that *request* is answered with.

    Shape:   whose: for errors, which name neither URL nor body: they spell addresses.
    Errors:  Unavailable  no whole answer of at most 4 MB within *within_s*.    temporary
    Why:     a client's own time-out is for one read: a server that sends an octet a second would hold us for ever.
    """
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(_answer, client, request).result(within_s)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"{whose}: {type(error).__name__}, expected an answer in {within_s:g} s") from None
    except TooLate:
        client.close()  # ends the read that still waits
        raise Unavailable(f"{whose}: no whole answer, expected one in {within_s:g} s") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(client: httpx2.Client, request: httpx2.Request) -> tuple[int, bytes]:
    answer = client.send(request, stream=True)
    try:
        found = bytearray()
        for chunk in answer.iter_raw():
            found += chunk
            if len(found) > _MOST_BYTES:
                raise httpx2.DecodingError(f"more than {_MOST_BYTES} octets", request=request)
        return answer.status_code, bytes(found)
    finally:
        answer.close()
