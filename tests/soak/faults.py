"""What goes wrong meanwhile, at random moments of a seed: one fault at a time, each of a few seconds at most."""

import random
import time
from collections import Counter
from collections.abc import Callable

from tests.crash.processes import Part, alive, below, imap_sessions, kill, kill_tree, pause, resume
from tests.harness.dovecot import Mailbox
from tests.harness.redis_server import RedisServer

PARTS = ("web", "poll", "lmtp", "worker", "reaper", "events")


class Faults:
    """Does harm, and counts it by kind."""

    def __init__(self, run: Part, redis: RedisServer, mailbox: Mailbox, seed: int) -> None:
        self._run, self._redis, self._mailbox = run, redis, mailbox
        self._random = random.Random(f"{seed}/faults")
        self.done: Counter[str] = Counter()

    def go_on(self, until_s: float) -> None:
        """Do one fault after the other until the time of `time.monotonic`, each kind once a round."""
        kinds: dict[str, Callable[[], bool]] = {
            "part killed": self._kill_part, "all killed": self._kill_all, "redis killed": self._kill_redis,
            "redis away": self._redis_away, "imap cut": self._cut_imap, "part frozen": self._freeze_part,
            "redis frozen": self._freeze_redis,
        }  # fmt: skip
        names = ["part killed", "part killed", *kinds]
        while time.monotonic() < until_s:
            for name in self._random.sample(names, k=len(names)):
                time.sleep(self._random.uniform(2.0, 6.0))
                if time.monotonic() >= until_s:
                    return
                self.done[name] += kinds[name]()

    def _some_part(self) -> int:
        for name in self._random.sample(PARTS, k=len(PARTS)):
            if pids := [each for each in self._run.parts(name) if alive(each)]:
                return self._random.choice(pids)
        return 0

    def _kill_part(self) -> bool:
        return bool(pid := self._some_part()) and kill(pid)

    def _kill_all(self) -> bool:
        ran = self._run.kill(kill_tree)
        self._run.start()
        return ran

    def _kill_redis(self) -> bool:
        self._redis.kill()
        time.sleep(self._random.uniform(0, 1.5))
        self._redis.start()
        return True

    def _redis_away(self) -> bool:
        self._redis.stop()
        time.sleep(self._random.uniform(0.5, 3.0))
        self._redis.start()
        return True

    def _cut_imap(self) -> bool:
        return sum(kill(pid) for pid in imap_sessions(self._mailbox)) > 0

    def _freeze_part(self) -> bool:
        return self._frozen([pid, *below(pid)]) if (pid := self._some_part()) else False

    def _freeze_redis(self) -> bool:
        return self._frozen([self._redis.pid])

    def _frozen(self, pids: list[int]) -> bool:
        for pid in pids:
            pause(pid)
        time.sleep(self._random.uniform(0.5, 3.0))
        for pid in pids:
            resume(pid)
        return True
