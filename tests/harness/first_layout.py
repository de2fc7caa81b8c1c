"""A store as the first version of unsubd wrote it."""

from collections.abc import Iterable, Mapping

from redis import Redis

from worker.store.row import source_code


def packed(first_s: int, time_ms: int, flags: int, lifted_ms: int | None = None) -> bytes:
    """Return a row as it was. Shape: flags: 1 suppressed, 2 held, 4 complaint."""
    head = first_s.to_bytes(4) + time_ms.to_bytes(6) + bytes([flags, source_code("page")]) + b"evidence"
    return head + (b"" if lifted_ms is None else lifted_ms.to_bytes(6))


def write(client: Redis, sender: str, rows: Mapping[int, Mapping[str, bytes]], forgotten: Iterable[str]) -> None:
    """Write the rows of each group, by recipient or name, and the names of who is forgotten."""
    for group, each in rows.items():
        client.hset(f"unsubd:supp:{{{sender}}}:{group}", mapping=dict(each))
        client.hset(f"unsubd:counts:{{{sender}}}", mapping={str(group): len(each), f"{group}:changes": len(each)})
    client.sadd(f"unsubd:supp:{{{sender}}}", *rows)
    client.sadd(f"unsubd:forgotten:{{{sender}}}", *forgotten)
