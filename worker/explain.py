"""`unsubd explain`: what each hop makes of a message, by the functions that production calls, with no effect.

Only a form-h tag needs the store; without a store (or with it away) such a tag counts as unknown, and the line says so.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handlers import decision, message, providers
from handlers.decision import FirstReceipt, Lookup, Policy
from handlers.errors import ConfigError, Rejected, Unavailable
from handlers.message import InboundMessage
from handlers.providers import Headers
from handlers.request import DecidedMessage
from handlers.tag import AddressTemplate, StoredTag, Tag
from worker.installation import has_no_store, open_store
from worker.settings import Settings


class Explainer:
    """Explains messages with one installation's keys and policy."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = settings.keys()
        self._policy = Policy(AddressTemplate.parse(settings.address) if settings.address else None)

    def file(self, path: Path) -> dict[str, Any]:
        """Explain one message file."""
        raw = path.read_bytes()
        return {"file": str(path), **self.explain(message.read(raw, source="explain"))}

    def explain(self, inbound: InboundMessage) -> dict[str, Any]:
        """Return outcome, reason, requests and evidence as JSON values; addresses are spelled: the asker owns the file."""
        stored, note = self._stored([key for key in decision.lookups(inbound) if isinstance(key, StoredTag)])
        found: dict[Lookup, Tag | int] = {FirstReceipt(inbound.key): time.time_ns() // 1_000_000, **stored}
        return as_json(decision.decide(inbound, self._keys, self._policy, found)) | ({"note": note} if note else {})

    def _stored(self, refs: list[StoredTag]) -> tuple[dict[Lookup, Tag | int], str]:
        if not refs:
            return {}, ""
        if has_no_store(self._settings):
            return {}, "a stored tag, and there is no store here to look it up"
        try:
            with open_store(self._settings) as store:
                return dict(store.tags(refs).items()), ""
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
            module.verify(headers, body, proofs, time.time())
        except Rejected as error:
            return f"refused: {error}"
        return "valid"


def as_json(decided: DecidedMessage) -> dict[str, Any]:
    """Return what scripts rely on: outcome, reason, requests (sender, group, recipient), and the evidence."""
    return {
        "outcome": decided.outcome.value,
        "reason": decided.reason,
        "requests": [
            {"sender": each.sender, "group": each.group, "recipient": each.recipient, "id": each.id}
            for each in decided.requests
        ],
        "message": decided.key[:12],
        "evidence": decided.evidence,
    }


def message_files(paths: list[Path]) -> Iterator[Path]:
    """Yield the files to explain: each path itself, or every file below a folder, by name."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file())
        else:
            yield path
