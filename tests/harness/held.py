"""What a Redis holds, read as a person would who looks for somebody in it."""

import base64
import zlib
from collections.abc import Iterator
from typing import Any

from redis import Redis


def values(client: Redis, key: bytes) -> list[bytes]:
    """Return all octets that lie in a key, of whatever type."""
    kind = client.type(key)
    read: dict[bytes, Any] = {
        b"string": lambda: [client.get(key)],
        b"hash": lambda: [each for pair in client.hgetall(key).items() for each in pair],
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"stream": lambda: [each for _, fields in client.xrange(key) for pair in fields.items() for each in pair],
        b"none": list,
    }
    return [each for each in read[kind]() if each is not None]  # it may go while we look


def looks(octets: bytes) -> Iterator[bytes]:
    """Yield octets as they are, and unpacked."""
    yield octets
    try:
        yield zlib.decompress(octets)
    except zlib.error:
        pass
    if octets[:2] == b"\x1f\x8b":
        yield zlib.decompress(octets, 31)
    try:  # what a stream of results, or a job, holds in base64
        yield zlib.decompress(base64.b64decode(octets, validate=True))
    except (ValueError, zlib.error):
        pass
