"""Writing only while a lease is ours: the server compares and writes in one step, so that nothing comes between.

Whoever was frozen may wake long after his lease went to another process. What he then sends writes nothing.
"""

from dataclasses import dataclass
from typing import Any

from handlers.errors import Unavailable

# Commands lie in ARGV one after the other, each behind the count of its words.
_IF_OURS = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local at = 2
while at <= #ARGV do
  local words = {}
  for place = at + 1, at + tonumber(ARGV[at]) do words[#words + 1] = ARGV[place] end
  redis.call(unpack(words))
  at = at + #words + 1
end
return 1
"""


class LeaseLost(Unavailable):
    """Another process may have the work by now: nothing more may be done of it without a new lease."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease as its holder took it. Shape: value: the token in it differs at every taking."""

    key: str
    value: str

    def around(self, collected: Any, pipeline: Any) -> None:
        """Add to *pipeline* the commands that *collected* holds, as one that does nothing once the lease is gone.

        Shape:   collected: a pipeline of the same server that is never executed. The one answer goes to `check`.
        """
        words: list[Any] = [self.value]
        for command, _ in collected.command_stack:
            words += [len(command), *command]
        pipeline.eval(_IF_OURS, 1, self.key, *words)

    def check(self, answer: Any) -> None:
        """Errors: LeaseLost  nothing was written.    temporary"""
        if not answer:
            raise LeaseLost("the lease of this mailbox went to another process: nothing was written")
