"""One installation with every way in, on real servers; its parts are processes that are killed and started again."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import redis

from tests.crash.points import ROOT
from tests.crash.processes import kill_tree
from tests.harness import posts, sns
from tests.harness.dovecot import Mailbox
from tests.harness.far_side import KEY, FarSide, far_side
from tests.harness.growth import grow
from tests.harness.processes import free_port
from tests.harness.receiver import Receiver, receiving
from tests.harness.redis_server import RedisServer
from tests.harness.service import MASTERS, Service
from tests.harness.sqs import Sqs, sqs
from tests.harness.web import ask
from tests.unit.house import decided
from worker.installation import Installation, open_installation
from worker.settings import load_settings
from worker.store.script import send
from worker.web.ops import session as sessions
from worker.web.ops.session import Role

PARTS = ("web", "poll", "lmtp", "worker", "events", "reaper")
PLACE = "103"  # group 1 at the provider
_BUCKETS = 8  # for 900 people


class House:
    """The servers, the parts, and who was asked for. One for all cases: what a kill leaves must not disturb the next."""

    def __init__(self, folder: Path, queue: RedisServer, store: RedisServer, mailbox: Mailbox, doors: "Doors") -> None:
        self.folder, self.queue, self.mailbox, self.doors = folder, queue, mailbox, doors
        self.plans = folder / "plans"
        self.plans.mkdir()
        self.maildir = folder / "maildir"
        self.lmtp = f"127.0.0.1:{free_port()}"
        self.service = Service(
            folder, redis_url=queue.url, store_url=store.url, secret_keys=MASTERS[0],
            address="u+{tag}@unsub.example.com", in_relay=posts.RELAY_SECRET, in_ses=sns.TOPIC,
            imap_url=mailbox.url, imap_password=mailbox.password, imap_ca_file=str(mailbox.ca_file),
            imap_backlog="all", maildir=str(self.maildir), lmtp=self.lmtp, ses_queue_url=doors.sqs.url,
        )  # fmt: skip
        self.service.env |= {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret",
                             "NO_PROXY": "127.0.0.1"}  # fmt: skip
        self.deaths: Counter[str] = Counter()
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    def register(self, signer: str) -> None:
        """Make sender, group, event hook, forward and the endpoint that passes on."""
        told_by, key = self.folder / "told-by", self.folder / "key"
        told_by.write_text(signer)
        key.write_text(KEY)
        service = self.service
        service.last_line("sender", "add", "acme")
        assert service.last_line("group", "add", "acme", "Weekly news") == "1"
        service.last_line("sender", "events", "acme", "--url", self.doors.receiver.url, "--every")
        service.last_line("forward", "add", "acme", "sendgrid", "--key-file", str(key), "--group", f"1={PLACE}",
                          "--base", self.doors.far.url, "--told-by-file", str(told_by))  # fmt: skip
        with self.installation() as installation:
            _split(installation)
            self.api_key = installation.accounts.new_api_key("acme", name="robot")
            self._cookie = sessions.open_session(installation.redis, Role.OPERATOR, "anna")
            session = sessions.find(installation.redis, self._cookie)
            assert session is not None
            self._csrf = session.csrf
        (self.folder / "secret").write_text("bearer:app")
        service.last_line("hook", "add", "relay", "app", "--secret-file", str(self.folder / "secret"),
                          "--pass-on-url", self.doors.application.url)  # fmt: skip

    @contextmanager
    def installation(self) -> Iterator[Installation]:
        """Look at it from outside, with production's own functions."""
        given = {name: each for name, each in self.service.env.items() if name.startswith("UNSUBD_")}
        with open_installation(load_settings(given)) as found:
            yield found

    def press(self, path: str, **fields: str) -> bool:
        """Press a button of the console; say whether it answered, if only that there is nothing left to do."""
        body = urlencode({"csrf": self._csrf, **fields}).encode()
        try:
            answer = ask(self.service.port, "POST", path, body, {"Cookie": f"{sessions.COOKIE}={self._cookie}"})
        except (OSError, http.client.HTTPException):
            return False
        return answer.status < 500

    # --- processes

    def command(self, *words: str, given: bytes = b"") -> int:
        """Run a command that may be killed; return how it ended."""
        launched = [sys.executable, "-m", "tests.crash.launcher", self.plans, *words]
        done = subprocess.run(
            launched, input=given, capture_output=True, cwd=ROOT, env=self.service.env, timeout=60, check=False
        )
        return done.returncode

    def start(self, name: str) -> None:
        """Start a part, or again what has died."""
        known = self._parts.get(name)
        if known is not None and known.poll() is None:
            return
        self.deaths[name] += known is not None
        with self.service.log.open("ab") as log:
            self._parts[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.launcher", self.plans, name, str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=self.service.env,
                start_new_session=True,
            )  # fmt: skip

    def restart(self, name: str) -> None:
        """End a part in the middle of whatever it does; `tend` starts it again."""
        kill_tree(self._parts[name].pid)
        self._parts[name].wait(20)

    def stop(self, name: str) -> None:
        """Tell a part to stop; it may be killed on its way. `tend` starts it again."""
        self._parts[name].terminate()
        self._parts[name].wait(20)

    def tend(self, done: Callable[[], object], seconds: float, what: Callable[[], object]) -> None:
        """Keep every part running until *done*."""
        deadline = time.monotonic() + seconds
        while True:
            for name in PARTS:
                self.start(name)
            if done():
                return
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what()}"
            time.sleep(0.03)

    def close(self) -> None:
        """End every part."""
        for part in self._parts.values():
            if part.poll() is None:
                kill_tree(part.pid)
            part.wait(20)

    # --- plans

    def arm(self, point: str, moment: str, part: str, victim: str = "self", count: int = 1) -> Path:
        """Plan a kill; return the file that is there once it was carried out."""
        plan = self.plans / f"{point}@{moment}@{part}"
        hit = Path(f"{plan}.hit")
        hit.unlink(missing_ok=True)
        (self.plans / "new").write_text(f"{victim} {count}")
        (self.plans / "new").rename(plan)
        return hit

    def disarm(self) -> None:
        """Drop every plan that was not carried out."""
        for plan in self.plans.iterdir():
            plan.unlink()

    # --- what was heard outside

    def events(self) -> dict[str, Counter[str]]:
        """Return by recipient the ids of the events that were posted, and how often each."""
        heard: dict[str, Counter[str]] = defaultdict(Counter)
        for _, body in list(self.doors.receiver.got):
            for each in json.loads(body):
                heard[each["email"]][each["sg_event_id"]] += 1
        return heard

    def stranded(self) -> list[str]:
        """Return the keys in which something waits; failed jobs that a person has are none."""
        with redis.Redis.from_url(self.queue.url) as client:
            ours = ["unsubd:begun"] if client.exists("unsubd:begun") else []
            lists = [key for key in client.scan_iter("rq:queue:*", _type="list", count=1000) if client.llen(key)]
            sets = [
                key
                for registry in ("wip", "scheduled", "deferred")
                for key in client.scan_iter(f"rq:{registry}:*", _type="zset", count=1000)
                if client.zcard(key)
            ]
        return ours + [key.decode() for key in lists + sets]


class Doors:
    """What stands outside: SQS, the sender's program, the provider, the application that shares an endpoint."""

    def __init__(self, queue: Sqs, receiver: Receiver, far: FarSide, application: Receiver) -> None:
        self.sqs, self.receiver, self.far, self.application = queue, receiver, far, application


def _split(installation: Installation) -> None:
    """Let acme have many buckets from the start: a split copies the number of changes that the matrix counts by."""
    installation.store.apply(decided("the first", 1, "acme", "first@example.com").requests)
    assert (
        grow(lambda commands: send(installation.store_redis, commands), installation.names, "acme", _BUCKETS)
        == _BUCKETS
    )


@contextmanager
def doors() -> Iterator[Doors]:
    """Serve all of them for the time of the block."""
    with ExitStack() as stack:
        enter = stack.enter_context
        queue = enter(sqs())
        queue.hold.clear()  # an empty answer waits, as a long poll does
        yield Doors(queue, enter(receiving()), enter(far_side("sendgrid")), enter(receiving()))
