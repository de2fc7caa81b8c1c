"""A Redis Cluster whose pipelines know WAIT: each node that was written to confirms by itself.

| key                           | type   | holds                                            | lives |
|-------------------------------|--------|--------------------------------------------------|-------|
| `unsubd:confirm:{HASH TAG}`   | STRING | the write by which a Cluster's node is waited for | 1 s   |
"""

from collections.abc import Iterable, Sequence
from typing import Any

from redis.cluster import ClusterPipeline, RedisCluster
from redis.exceptions import AskError

_SCRIPTS = ("EVAL", "EVALSHA")


class Cluster(RedisCluster):
    """redis-py's, with pipelines that take WAIT as their last command."""

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> "ConfirmingPipeline":
        """Return an empty one."""
        pipeline = super().pipeline(transaction, shard_hint)
        # What redis-py makes it of is its own affair, and another one in each version.
        pipeline.__class__ = ConfirmingPipeline
        assert isinstance(pipeline, ConfirmingPipeline)
        return pipeline


class ConfirmingPipeline(ClusterPipeline):
    """A pipeline that ends with WAIT when that was asked for; the reply is of the node that fewest replicas confirm.

    Why:     redis-py sends what a moved slot refuses again, elsewhere: WAIT on the first connection counts for another node.
             So each node is waited for after a write to each slot that comes after all of ours. What a node acknowledged and
             took with it when another took its place is not confirmed by that other: then the reply is 0.
    """

    _wait: tuple[int, int] = (0, 0)

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Take one more command."""
        if words[0] == "WAIT":
            self._wait = words[1:]
            return self
        return super().execute_command(*words, **options)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all and return the replies; of WAIT, how many replicas of each node confirmed, at least."""
        (replicas, within_ms), self._wait = self._wait, (0, 0)
        if not replicas:
            return super().execute(raise_on_error)
        keys = [_key(each.args) for each in self._execution_strategy.command_queue]
        before = self._nodes(keys)
        replies = super().execute(raise_on_error)
        if self._nodes(keys) != before:
            return [*replies, 0]
        return [*replies, min(self._confirmed(name, tags, replicas, within_ms) for name, tags in before.items())]

    def _nodes(self, keys: Iterable[str]) -> dict[str, dict[int, str]]:
        """Return the name of each key's node, with the hash tag of one key of each slot: one may be on its way elsewhere."""
        found: dict[str, dict[int, str]] = {}
        for key in keys:
            slot = self.keyslot(key)
            tags = found.setdefault(self.nodes_manager.get_node_from_slot(slot).name, {})
            tags.setdefault(slot, key.partition("{")[2].partition("}")[0] or key)
        return found

    def _confirmed(self, name: str, tags: dict[int, str], replicas: int, within_ms: int) -> int:
        if (node := self.get_node(node_name=name)) is None:
            return 0
        with self.get_redis_connection(node).pipeline(transaction=False) as pipeline:
            for tag in tags.values():
                pipeline.set(f"unsubd:confirm:{{{tag}}}", 1, px=1000)
            pipeline.execute_command("WAIT", replicas, within_ms)
            try:
                return int(pipeline.execute()[-1])
            except AskError:
                return 0  # a slot moved away meanwhile


def _key(words: Sequence[Any]) -> str:
    key = words[3 if words[0] in _SCRIPTS else 1]
    return key if isinstance(key, str) else key.decode()
