"""Whatever the OpenAPI document says can be sent, and what it says cannot: schemathesis makes it, the running application
answers, and every answer is one that the document names; none is a 500."""

import json
import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import positive_data_acceptance

from handlers.providers import PROVIDERS
from tests.harness.web import Web, serving
from worker.hooks import Hook

MAIL = {"in_relay": "bearer:t", "in_sendgrid": "basic:a:b", "public_url": "https://unsub.example.com"}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, redis_server: object) -> Iterator[Web]:
    redis_server.empty()  # type: ignore[attr-defined]
    with serving(tmp_path_factory.mktemp("openapi"), redis_server.url, **MAIL) as found:  # type: ignore[attr-defined]
        found.installation.accounts.add_sender("acme")
        found.installation.accounts.add_group("acme", "Weekly news", "", 12)
        yield found


@pytest.fixture(scope="module")
def operations(web: Web) -> dict[str, APIOperation]:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{web.port}/openapi.json")
    found = [each.ok() for each in schema.get_all_operations()]
    return {each.label: each for each in found}


DOORS = ["POST /in/{provider}", "POST /in/{provider}-events/{name}", "POST /in/{provider}/{name}", "POST /u/{text}"]
API = [
    "DELETE /v3/asm/groups/{group_id}",
    "DELETE /v3/asm/groups/{group_id}/suppressions/{email}",
    "DELETE /v3/asm/suppressions/global/{email}",
    "GET /v1/export",
    "GET /v1/groups",
    "GET /v1/imports",
    "GET /v1/imports/{import_id}",
    "GET /v1/imports/{import_id}/rejected",
    "GET /v3/asm/groups",
    "GET /v3/asm/groups/{group_id}",
    "GET /v3/asm/groups/{group_id}/suppressions",
    "GET /v3/asm/suppressions",
    "GET /v3/asm/suppressions/global/{email}",
    "GET /v3/asm/suppressions/{email}",
    "GET /v3/scopes",
    "GET /v3/suppression/unsubscribes",
    "GET /v3/tracking_settings/subscription",
    "GET /v3/user/webhooks/event/settings/signed",
    "PATCH /v1/groups/{group_id}",
    "PATCH /v3/asm/groups/{group_id}",
    "PATCH /v3/tracking_settings/subscription",
    "PATCH /v3/user/webhooks/event/settings/signed",
    "POST /v1/check",
    "POST /v1/evidence",
    "POST /v1/groups",
    "POST /v1/headers",
    "POST /v1/imports",
    "POST /v1/resubscribe",
    "POST /v1/sent",
    "POST /v1/stamp",
    "POST /v1/suppress",
    "POST /v3/asm/groups",
    "POST /v3/asm/groups/{group_id}/suppressions",
    "POST /v3/asm/groups/{group_id}/suppressions/search",
    "POST /v3/asm/suppressions/global",
]
EXAMPLES = int(os.environ.get("UNSUBD_OPENAPI_EXAMPLES", "60"))
EXAMPLES_OF_MANY = max(8, EXAMPLES // 8)  # of each of the API's: there are thirty


def test_every_operation_is_tried(operations: dict[str, APIOperation]) -> None:
    assert sorted(operations) == sorted(DOORS + API)


# Of the others the document describes no body, so nothing can be sent wrongly by it.
DESCRIBED = [
    each for each in API if each.startswith(("POST", "PATCH")) and each != "POST /v1/imports"
] + ["GET /v1/export", "GET /v3/suppression/unsubscribes"]  # fmt: skip
CASES = [(label, GenerationMode.POSITIVE) for label in DOORS + API]
CASES += [(label, GenerationMode.NEGATIVE) for label in DESCRIBED]


@pytest.mark.parametrize(("label", "mode"), CASES, ids=str)
def test_every_answer_is_one_that_the_document_names(
    web: Web, operations: dict[str, APIOperation], label: str, mode: GenerationMode
) -> None:
    key = web.installation.accounts.new_api_key("acme") if label in API else "t"
    examples = EXAMPLES if label in DOORS or label == "POST /v1/check" else EXAMPLES_OF_MANY

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def answers_as_documented(case: Case) -> None:
        # No schema says what an address is, or which groups there are: a refusal of either is right.
        excluded = [positive_data_acceptance]
        case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, excluded_checks=excluded)

    answers_as_documented()


_TYPES = st.sampled_from([
    "application/json", "text/plain; charset=UTF-8", "application/x-www-form-urlencoded", "message/rfc822", "",
    "multipart/form-data; boundary=b", "multipart/form-data", "nonsense", "application/json; charset=utf-16",
])  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())
_FORM = st.binary(max_size=80).map(lambda value: b'--b\r\nContent-Disposition: form-data; name="email"\r\n\r\n' + value)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_no_post_at_all_is_answered_500(web: Web, provider: str) -> None:
    """Past its proof: a test of our own opens every endpoint for a minute."""
    web.installation.hooks.add(Hook(provider, "fuzz", ("basic:un:used",)))
    web.installation.hooks._known = None
    codes = PROVIDERS[provider].CODES
    expected = {codes.ack, codes.drop, codes.retry, codes.auth_fail, 415}
    token = web.installation.hooks.test_token()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(kind=_TYPES, body=st.binary(max_size=200) | _JSON | _FORM)
    def answers_by_its_codes(kind: str, body: bytes) -> None:
        headers = {"Authorization": f"Bearer {token}"} | ({"Content-Type": kind} if kind else {})
        answer = web.post(f"/in/{provider}/fuzz", body, headers)
        assert answer.status in expected
        assert answer.status != codes.retry or codes.retry == codes.auth_fail, "a body that repeats for ever"

    answers_by_its_codes()
    assert not [line for line in web.journal() if line["event"] == "failed"]
