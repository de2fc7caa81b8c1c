"""What senders import: `import unsubd`. Ask before each send, and build the headers.

    from unsubd import Client
    client = Client("https://unsub.example.com", api_key="SG.…")
    suppressed = [each.recipient for each in client.check(12, ["jane@example.com"]) if each.suppressed]

Fail-closed: an installation that cannot answer raises, it never says "allowed".
"""

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CheckFailed", "Checked", "Client"]


class CheckFailed(Exception):
    """The installation did not answer, or refused the question: nobody was declared "allowed"."""


@dataclass(frozen=True, slots=True)
class Checked:
    """May this recipient be mailed? Shape: scope "group" or "global"; since ISO 8601 UTC; None when allowed."""

    recipient: str
    suppressed: bool
    scope: str | None
    since: str | None
    source: str | None


class Client:
    """One sender's connection to an installation, over HTTP."""

    def __init__(self, url: str, *, api_key: str, timeout_s: float = 10.0) -> None:
        self._url = url.rstrip("/")
        self._api_key = api_key
        self._timeout_s = timeout_s

    def check(self, group: int, recipients: Sequence[str]) -> list[Checked]:
        """Return one answer per recipient, in order; at most 10,000 a call.

        Errors:  CheckFailed  no answer, an unknown group, a wrong key.
        """
        body = json.dumps({"group": group, "recipients": list(recipients)}).encode()
        headers = {"Authorization": f"Bearer {self._api_key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._url}/v1/check", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:
                return [Checked(**row) for row in json.load(answer)]
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read(500).decode("utf-8", "replace")
            raise CheckFailed(f"{self._url}: {error.code} {detail}") from error
        except (OSError, ValueError) as error:
            raise CheckFailed(f"{self._url}: {error}") from error
