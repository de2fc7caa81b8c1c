"""Every effect of the path has a point for the crash matrix: read from the source."""

import ast

import pytest

from tests.crash.points import ROOT, found, names_of

PATH = (
    "anomalies.py", "anomaly_late.py", "anomaly_undo.py", "archiving.py", "forget.py", "imports.py", "joblist.py",
    "posted_lists.py", "sender_sources.py", "store/archive.py", "web/ops/*.py",
    "begun.py", "by_hand.py", "canary.py", "clock.py", "deliveries.py", "gather.py", "intake.py", "jobs.py", "journal.py",
    "parked.py", "queue.py", "reaper.py", "unread.py", "batch.py", "crew.py", "cli/mail.py", "events/*.py", "forwarding/*.py",
    "quarantine/*.py", "store/__init__.py", "store/buckets.py", "store/first_layout.py", "store/format.py", "store/growth.py",
    "store/ledger.py", "store/tags.py", "sources/*.py", "sources/lmtp/*.py", "web/answers.py", "web/body.py", "web/mailtrap.py",
    "web/one_click.py", "web/passing.py", "web/preferences.py", "web/told.py", "web/webhooks.py", "web/wishes.py",
)  # fmt: skip

# What a call does to the world, by its last name; a command that a pipeline only collects has none.
COMMANDS = {
    "append", "delete", "eval", "evalsha", "expire", "hdel", "hincrby", "hset", "hsetnx", "incr", "lmove", "lpush", "lrem",
    "ltrim", "rename", "rpush", "sadd", "set", "setex", "srem", "zadd", "zincrby", "zrem",
}  # fmt: skip
OTHERS = {
    "bgrewriteaof", "called", "client.post", "connection.move", "delete_all", "draft.rename", "enqueue_job", "execute", "fsync",
    "mark_done", "os.rename", "os.replace", "push", "requeue", "save_meta", "self._buckets.write", "self._client.delete",
    "self._client.receive", "self._confirmed", "self._file.flush", "self._look.messages", "self._send", "self._send_kept",
    "self.line.stream", "send", "slowlog_reset", "unlink", "volume.write", "write_bytes", "write_text",
}  # fmt: skip
CLIENTS = (
    "self._redis",
    "self._client",
    "self.redis",
    "redis",
    "client",
    "self.connection",
    "connection",
    "installation.redis",
)

READS, CONFIGURES = "reads", "what an operator sets, by a command that he repeats"
BOOKS = "only spares a job that was told to stop the count of a try; tests/crash/test_queue.py"
SESSION = "a login, and what the next page says: a person sees that it is not there"
LEASE = "ends by itself after 30 s"
SAYS = "an answer on the way to the mail, of which nothing is done yet"
# (module, function): why it needs no point.
EXCEPTIONS = {
    ("anomalies.py", "_keep"): "counting is a courtesy, and the next batch counts again",
    ("posted_lists.py", "_sweep"): "what a week, or a day, is over for: the next sweep",
    ("sender_sources.py", "_store_tokens"): CONFIGURES,
    ("sender_sources.py", "add"): CONFIGURES,
    ("sender_sources.py", "_store_known"): CONFIGURES,
    ("sender_sources.py", "lookup"): READS,
    ("sender_sources.py", "remove"): CONFIGURES,
    ("web/ops/session.py", "close_session"): SESSION,
    ("web/ops/session.py", "new_login_link"): SESSION,
    ("web/ops/session.py", "note_failure"): SESSION,
    ("web/ops/session.py", "of_proxy"): SESSION,
    ("web/ops/session.py", "open_session"): SESSION,
    ("web/ops/session.py", "say"): SESSION,
    ("web/ops/session.py", "use_login_link"): SESSION,
    ("batch.py", "excuse"): BOOKS,
    ("batch.py", "end_excuse"): BOOKS,
    ("canary.py", "note"): "a canary asks for nothing",
    ("clock.py", "_hashes"): READS,
    ("crew.py", "_give_back"): BOOKS,
    ("journal.py", "flush"): "a line of the log, of what is done already",
    ("crew.py", "note_run"): "that a part ever started; the next start notes it",
    ("deliveries.py", "is_known"): READS,
    ("events/__init__.py", "_keep"): CONFIGURES,
    ("events/__init__.py", "remove"): CONFIGURES,
    ("forwarding/__init__.py", "_renew"): LEASE,
    ("forwarding/__init__.py", "alone"): LEASE,
    ("forwarding/__init__.py", "remove"): CONFIGURES,
    ("forwarding/__init__.py", "add"): CONFIGURES,
    ("forwarding/owing.py", "end"): CONFIGURES,
    ("forwarding/owing.py", "every"): READS,
    ("forwarding/owing.py", "failed"): "tells ops why a try failed; the job is tried again all the same",
    ("quarantine/__init__.py", "_sized"): READS,
    (
        "quarantine/__init__.py",
        "_gave_way",
    ): "makes room: what is left undone is done at the next entry",
    ("quarantine/__init__.py", "ids"): READS,
    ("quarantine/__init__.py", "_counts"): READS,
    ("quarantine/__init__.py", "needing"): READS,
    ("sources/lease.py", "_renew"): "the same lease for longer: without it, it ends by itself",
    ("sources/__init__.py", "_beat"): "how a source is, said again within 30 s",
    ("sources/__init__.py", "say"): "how a source is, said again within 30 s; no message depends on it",
    ("sources/lmtp/conversation.py", "smtp_EXPN"): SAYS,
    ("sources/lmtp/conversation.py", "smtp_VRFY"): SAYS,
    ("sources/lmtp/conversation.py", "smtp_RSET"): SAYS,
    ("sources/lmtp/conversation.py", "smtp_DATA"): SAYS,
    ("sources/lmtp/conversation.py", "smtp_RCPT"): SAYS,
    ("sources/lmtp/conversation.py", "smtp_MAIL"): SAYS,
    ("sources/lmtp/conversation.py", "smtp_LHLO"): SAYS,
    ("sources/progress.py", "_write"): "the commands of `add` and `save`, which have their points",
    ("sources/survey.py", "messages"): READS,
    ("store/__init__.py", "_taken"): READS,
    ("store/__init__.py", "changes"): READS,
    ("store/__init__.py", "groups"): READS,
    ("store/buckets.py", "ask"): READS,
    ("store/buckets.py", "walk"): READS,
    ("store/buckets.py", "_confirmed"): "what `apply`, `forget` and growth, which have their points, write",
    ("store/buckets.py", "_written"): "what `apply` and `forget`, which have their points, write",
    ("store/growth.py", "grow"): "who grows alone, a courtesy that ends by itself after 2 s",
    ("store/growth.py", "_tried"): READS,
    ("store/ledger.py", "_followed"): READS,
    ("store/ledger.py", "_named"): READS,
    ("store/ledger.py", "_newest"): READS,
    ("store/ledger.py", "_matching"): READS,
    ("store/ledger.py", "_append"): READS,
    ("store/ledger.py", "without_record"): READS,
    ("store/tags.py", "found"): READS,
}


def _modules():
    paths = {path for pattern in PATH for path in (ROOT / "worker").glob(pattern)}
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted(paths)]


def _effect(call):
    """The effect that a call has, as text; "" for none."""
    if isinstance(call.func, ast.Name):
        return call.func.id if call.func.id in OTHERS else ""
    if not isinstance(call.func, ast.Attribute):
        return ""
    owner, name = ast.unparse(call.func.value), call.func.attr
    if any(word.arg == "pipeline" for word in call.keywords):
        return ""  # RQ's own, collected
    if name in OTHERS or f"{owner}.{name}" in OTHERS:
        return f"{owner}.{name}"
    is_client = owner in CLIENTS
    scripted = owner == "self" and name in SCRIPTS and not any(word.arg == "client" for word in call.keywords)
    return f"{owner}.{name}" if (is_client and name in COMMANDS) or scripted else ""


SCRIPTS = {"_script"}


def _bare(tree):
    """Yield (function, effect) of every effect that stands in no point."""
    stack = [(tree, "", False)]
    while stack:
        node, function, covered = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function, covered = node.name, False
        if isinstance(node, ast.With | ast.AsyncWith) and list(names_of(node)):
            covered = True
        if isinstance(node, ast.Call) and not covered and (effect := _effect(node)):
            yield function, effect
        stack += [(child, function, covered) for child in ast.iter_child_nodes(node)]


@pytest.mark.parametrize("path", _modules())
def test_every_effect_of_the_path_stands_in_a_point(path):
    module = str(path.relative_to(ROOT / "worker"))

    bare = set(_bare(ast.parse(path.read_text("utf-8"))))

    assert {(module, function) for function, _ in bare} <= EXCEPTIONS.keys(), bare


def test_no_exception_is_left_over():
    bare = {
        (str(path.values[0].relative_to(ROOT / "worker")), function)
        for path in _modules()
        for function, _ in _bare(ast.parse(path.values[0].read_text("utf-8")))
    }

    assert bare == EXCEPTIONS.keys()


@pytest.mark.parametrize(
    "effect",
    [
        "pipeline.execute()", "self._redis.hset(key, field, value)", "client.expire(key, 1)", "os.replace(a, b)", "os.fsync(f)",
        "self.rq.enqueue_job(job)", "called(client, request, whose)", "await connection.move(uids, folder)",
        "await self.push(line)", "self._client.delete(receipts)", "path.write_text(x)", "volume.write(path)",
        "self._buckets.write(_REGISTER, writes)", "send(self._redis, commands)", "self._script(keys=keys, args=args)",
    ],
)  # fmt: skip
def test_an_effect_outside_a_point_would_be_seen(effect):
    assert list(_bare(ast.parse(f"async def f():\n    {effect}\n")))
    assert not list(_bare(ast.parse(f"async def f():\n    with point('a.b'):\n        {effect}\n")))


@pytest.mark.parametrize(
    "collected",
    [
        "pipeline.hset(key, field, value)",
        "self.rq.enqueue_job(job, pipeline=pipeline)",
        "self._script(keys=k, client=pipeline)",
    ],
)
def test_what_a_pipeline_collects_is_no_effect(collected):
    assert not list(_bare(ast.parse(f"def f():\n    {collected}\n")))


def test_nothing_watches_the_points_of_production():
    setters = [
        path.name
        for path in (ROOT / "worker").rglob("*.py")
        if "points.watch" in (text := path.read_text("utf-8")) or "worker.points import watch" in text
    ]

    assert setters == []


def test_the_points_are_found():
    assert {"queue.enqueue", "store.apply", "imap.mark", "lmtp.answer"} <= set(found())
