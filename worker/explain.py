"""`unsubd explain`: what each hop makes of a message, by the functions that production calls, with no effect.

Only a form-h tag needs the store; without a store (or with it away) such a tag counts as unknown, and the line says so.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from handlers import decision, message, providers
from handlers.decision import FirstReceipt, Lookup, Policy
from handlers.errors import ConfigError, Rejected, Unavailable
from handlers.message import InboundMessage
from handlers.providers import Headers, ses
from handlers.request import DecidedMessage
from handlers.tag import Tag
from worker.installation import has_no_store, open_known
from worker.intake import look_up
from worker.policy import settled
from worker.settings import Settings


class Explainer:
    """Explains messages with one installation's keys and policy."""

    def __init__(self, settings: Settings, aws: Any = None) -> None:
        """Shape: aws: what reaches Amazon, for tests (`worker.web.sns.Sns`)."""
        self._settings = settings
        self._aws = aws
        self._keys = settings.keys()
        self._policy, self._note = self._asked_policy()

    def _asked_policy(self) -> tuple[Policy, str]:
        if has_no_store(self._settings):
            return settled(self._settings), ""
        try:
            with open_known(self._settings) as known:
                return known.policies.now(), ""
        except (Unavailable, ConfigError) as error:
            return settled(self._settings), f"what senders configured cannot be asked: {error}"

    def file(self, path: Path) -> dict[str, Any]:
        """Explain one message file."""
        raw = path.read_bytes()
        return {"file": str(path), **self.explain(message.read(raw, source="explain"))}

    def explain(self, inbound: InboundMessage) -> dict[str, Any]:
        """Return outcome, reason, requests and evidence as JSON values; addresses are spelled: the asker owns the file."""
        decided, notes = self.decide(inbound)
        return as_json(decided) | ({"note": notes} if notes else {})

    def decide(self, inbound: InboundMessage) -> tuple[DecidedMessage, str]:
        """Return what *inbound* means, and what could not be asked for it, "" when everything could."""
        wanted: list[Lookup] = [
            key for key in decision.lookups(inbound, self._policy) if not isinstance(key, FirstReceipt)
        ]
        known, note = self._found(wanted)
        found: dict[Lookup, Tag | int] = {FirstReceipt(inbound.key): time.time_ns() // 1_000_000, **known}
        notes = "; ".join(each for each in (self._note, note) if each)
        return decision.decide(inbound, self._keys, self._policy, found), notes

    def _found(self, wanted: list[Lookup]) -> tuple[dict[Lookup, Tag | int], str]:
        if not wanted:
            return {}, ""
        if has_no_store(self._settings):
            return {}, "a stored tag, and there is no store here to look it up"
        try:
            with open_known(self._settings) as known:
                return look_up(wanted, known.tags, known.sender_sources), ""
        except (Unavailable, ConfigError) as error:
            return {}, f"a stored tag, and the store cannot be asked: {error}"

    def webhook(self, provider: str, headers: Headers, body: bytes) -> Iterator[dict[str, Any]]:
        """Explain a webhook's body: one line per message; the signature is reported, not required."""
        module = providers.provider(provider)
        proof = self._proof(module, provider, headers, body)
        try:
            messages = module.read(headers, body)
        except Rejected as error:
            yield {"outcome": "rejected", "reason": str(error), "requests": [], "signature": proof}
            return
        for each in messages:
            inbound = message.read(
                each.raw, source=f"{provider}:explain", envelope_to=each.envelope_to, envelope_from=each.envelope_from
            )
            envelope = {"envelope_to": each.envelope_to, "envelope_from": each.envelope_from, "signature": proof}
            yield envelope | self.explain(inbound)

    def _proof(self, module: Any, provider: str, headers: Headers, body: bytes) -> str:
        proofs = self._settings.proofs(provider, "default")
        if not proofs:
            return f"not checked: UNSUBD_IN_{provider.upper()} is not set"
        try:
            if provider == "ses":
                self._verify_ses(headers, body, proofs)
            else:
                module.verify(headers, body, proofs, time.time())
        except Rejected as error:
            return f"refused: {error}"
        except Unavailable as error:
            return f"not checked: {error}"
        return "valid"

    def _verify_ses(self, headers: Headers, body: bytes, proofs: list[str]) -> None:
        """Ask SNS for its certificate, only where everything else holds: nobody's URL but that of our own topic."""
        from worker.web.sns import Sns

        now_s = time.time()
        url = ses.certificate_url(headers, body, proofs, now_s)
        ses.verify(headers, body, proofs, now_s, asyncio.run(Sns(self._aws).certificate(url)))


def as_json(decided: DecidedMessage) -> dict[str, Any]:
    """Return what scripts rely on: outcome, reason, requests (sender, group, recipient), and the evidence."""
    return {
        "outcome": decided.outcome.value,
        "reason": decided.reason,
        "requests": [
            {
                "sender": each.sender,
                "group": each.group,
                "recipient": each.recipient,
                "action": each.action.value,
                "id": each.id,
            }
            for each in decided.requests
        ],
        "message": decided.key[:12],
        "evidence": decided.evidence,
        **({"suggestion": asdict(decided.suggestion)} if decided.suggestion else {}),
    }


def hops(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (hop, what it made of the message) of what `as_json` or `Explainer` returned, as people read it."""
    yield "read", " ".join(f"{name}={value}" for name, value in row.get("evidence", {}).items() if value)
    yield "decide", f"{row['outcome']}: {row['reason']}"
    for each in row["requests"]:
        effect = f" -> {each['effect']}" if "effect" in each else ""
        yield "request", f"sender={each['sender']} group={each['group']} recipient={each['recipient']}{effect}"
    if guess := row.get("suggestion"):
        whom = f"sender={guess['sender'] or '?'} group={guess['group']} recipient={guess['recipient']}"
        yield "suggest", f"{whom} ({guess['why']})"
    if "note" in row:
        yield "note", row["note"]


def message_files(paths: list[Path]) -> Iterator[Path]:
    """Yield the files to explain: each path itself, or every file below a folder, by name."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file())
        else:
            yield path
