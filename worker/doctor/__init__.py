"""`unsubd doctor`: one line per layer, OK, WARN or FAIL, with the remedy. It calls what production calls.

The looks run side by side, each within 20 s, and none is left out because another one failed: Redis away does not hide
what the mailbox says.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from handlers.errors import ConfigError, UnsubdError
from worker.doctor import house, mx, processes, server, ways_in, web
from worker.doctor.finding import Finding, Look, Started, Verdict, fail
from worker.installation import Installation, open_installation
from worker.settings import Settings

__all__ = ["Finding", "Verdict", "examine"]
_IN_REDIS = "not looked at: it needs Redis"


def examine(settings: Settings, resolver: mx.Resolver = mx.resolve) -> Iterator[Finding]:
    """Yield the findings, layer by layer.

    Shape:   resolver: host names of a domain's MX, for tests.
    Units:   30 s at most, however many layers do not answer.
    """
    before = [Started(layer, look) for layer, look in _apart(settings, resolver)]
    with ExitStack() as stack:
        installation, trouble = _opened(settings, stack)
        rest = [Started(layer, look) for layer, look in _of_redis(settings, installation)] if installation else []
        for started in before[:1]:
            yield from started.findings()
        yield from trouble
        for started in [*rest, *before[1:]]:
            yield from started.findings()


def _opened(settings: Settings, stack: ExitStack) -> tuple[Installation | None, list[Finding]]:
    try:
        return stack.enter_context(open_installation(settings)), []
    except (UnsubdError, ConfigError) as error:
        remedy = "start it again: unsubd run" if settings.embedded else "start the server, or mend the URL"
        told = "" if isinstance(error, ConfigError) else remedy
        unseen = [fail(layer, _IN_REDIS, "mend the line of redis first") for layer in ("worker", "webhook")]
        return None, [fail("redis", str(error), told), *unseen]


def _apart(settings: Settings, resolver: mx.Resolver) -> list[tuple[str, Look]]:
    """What is looked at whether or not Redis answers."""
    mailboxes: list[tuple[str, Look]] = [
        ("mailbox", partial(ways_in.mailbox, settings, address)) for address in ways_in.addresses(settings)
    ]
    return [
        ("settings", partial(house.settings, settings)),
        ("keys", partial(house.keys, settings)),
        ("files", partial(house.files, settings)),
        ("archive", partial(house.archive, settings.archive)),
        ("disk", partial(house.disk, settings)),
        *(mailboxes or [("mailbox", partial(ways_in.no_mailbox, settings))]),
        *[(part, partial(ways_in.asked, part, address)) for part, address in settings.listens.items()],
        ("web", partial(web.look, settings)),
        ("mx", partial(mx.look, settings, resolver)),
    ]


def _of_redis(settings: Settings, installation: Installation) -> list[tuple[str, Look]]:
    apart = installation.store_redis is not installation.redis
    return [
        ("redis", partial(server.look, "redis", installation.redis, settings, installation.weakness)),
        *([("store", partial(server.look, "store", installation.store_redis, settings, ""))] if apart else []),
        ("clock", partial(server.clock, installation.redis)),
        ("worker", partial(processes.workers, installation)),
        ("source", partial(processes.sources, installation)),
        ("anomaly", partial(processes.anomalies, installation)),
        ("webhook", partial(ways_in.webhooks, installation)),
    ]
