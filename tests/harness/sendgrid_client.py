"""The real `sendgrid` client, with nothing but its host changed, and what it heard as plain values."""

import json
from dataclasses import dataclass
from typing import Any

import sendgrid
from python_http_client.exceptions import HTTPError


@dataclass(frozen=True)
class Heard:
    """What the client got. Shape: body: as JSON, None where there was none. headers: lower-case."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def fields(self) -> list[str | None]:
        """Which fields an answer of 400 and above names."""
        return [each["field"] for each in self.body["errors"]]

    @property
    def message(self) -> str:
        """What it says first."""
        return str(self.body["errors"][0]["message"])


def client(port: int, key: str, subuser: str | None = None) -> Any:
    """Return the client's fluent form: `client(...).asm.groups.get()`."""
    host = f"http://127.0.0.1:{port}"
    return sendgrid.SendGridAPIClient(key, host=host, impersonate_subuser=subuser).client


def heard(call: Any, *args: Any, **named: Any) -> Heard:
    """Make a call and return what it heard; an exception of the client is an answer too."""
    try:
        answer = call(*args, **named)
    except HTTPError as error:
        if type(error) is HTTPError:
            raise AssertionError(f"the client has no class for {error.status_code}") from error
        return Heard(error.status_code, json.loads(error.body), {k.lower(): v for k, v in error.headers.items()})
    assert answer.status_code != 204 or not answer.body
    return Heard(answer.status_code, answer.to_dict, {k.lower(): v for k, v in answer.headers.items()})
