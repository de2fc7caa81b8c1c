"""One small payload of each provider's shape, made for a recipient: what `unsubd hook test` posts.

Shape:   each is (content type, body) with one message to the recipient, a person's plain request.
"""

import base64
import json
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

FROM = "hook-test@example.com"
_BOUNDARY = "unsubd-hook-test"
Sample = Callable[[str], tuple[str, bytes]]


def mail(recipient: str) -> bytes:
    """Return the message itself."""
    return (
        f"From: <{FROM}>\r\nTo: <{recipient}>\r\nSubject: unsubscribe\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n"
        f"Message-ID: <hook-test@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nunsubscribe\r\n"
    ).encode()


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", json.dumps(value).encode()


def _form(fields: Mapping[str, str]) -> tuple[str, bytes]:
    return "application/x-www-form-urlencoded", urlencode(fields).encode()


def _multipart(fields: Mapping[str, str]) -> tuple[str, bytes]:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return f"multipart/form-data; boundary={_BOUNDARY}", ("".join(parts) + f"--{_BOUNDARY}--\r\n").encode()


def _text(recipient: str) -> str:
    return mail(recipient).decode()


def _headers(recipient: str) -> list[tuple[str, str]]:
    lines = _text(recipient).partition("\r\n\r\n")[0].split("\r\n")
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


SAMPLES: Mapping[str, Sample] = {
    "relay": lambda to: ("message/rfc822", f"X-Original-To: {to}\r\nReceived: by hook-test\r\n".encode() + mail(to)),
    "sendgrid": lambda to: _multipart({"email": _text(to), "envelope": json.dumps({"to": [to], "from": FROM})}),
    "ses": lambda to: ("text/plain; charset=UTF-8", json.dumps({
        "Type": "Notification", "MessageId": "hook-test", "TopicArn": "arn:aws:sns:us-east-1:000000000000:hook-test",
        "Timestamp": "2026-01-01T00:00:00.000Z", "Message": json.dumps({
            "notificationType": "Received", "mail": {"source": FROM, "messageId": "hook-test", "destination": [to]},
            "receipt": {"recipients": [to], "action": {"type": "SNS", "encoding": "BASE64"}},
            "content": base64.b64encode(mail(to)).decode(),
        }),
    }).encode()),
    "mailgun": lambda to: _form({"recipient": to, "sender": FROM, "body-mime": _text(to), "timestamp": "0", "token": "t",
                                 "signature": "s"}),
    "postmark": lambda to: _json({"OriginalRecipient": to, "From": FROM, "MessageID": "hook-test", "RawEmail": _text(to),
                                  "Headers": [{"Name": "Return-Path", "Value": f"<{FROM}>"}]}),
    "postal": lambda to: _json({"id": 1, "rcpt_to": to, "mail_from": FROM, "base64": True, "size": len(mail(to)),
                                "message": base64.b64encode(mail(to)).decode()}),
    "cloudmailin": lambda to: _json({"envelope": {"to": to, "recipients": [to], "from": FROM}, "plain": "unsubscribe",
                                     "headers": {name.lower().replace("-", "_"): value for name, value in _headers(to)}}),
    "mandrill": lambda to: _form({"mandrill_events": json.dumps([
        {"event": "inbound", "ts": 1767225600, "msg": {"email": to, "from_email": FROM, "raw_msg": _text(to)}}])}),
    "sparkpost": lambda to: _json([{"msys": {"relay_message": {
        "rcpt_to": to, "msg_from": FROM, "content": {"email_rfc822": _text(to), "email_rfc822_is_base64": False}}}}]),
    "mailjet": lambda to: _json({"Sender": FROM, "Recipient": to, "From": FROM, "Subject": "unsubscribe",
                                 "Headers": dict(_headers(to)), "Text-part": "unsubscribe"}),
    "forwardemail": lambda to: _json({"raw": _text(to), "recipients": [to], "session": {"recipient": to, "sender": FROM}}),
    "resend": lambda to: _json({"type": "email.received", "data": {
        "email_id": "hook-test", "from": FROM, "to": [to], "received_for": [to], "message_id": "<hook-test@example.com>",
        "subject": "unsubscribe"}}),
    "mailersend": lambda to: _json({"type": "inbound.message", "data": {
        "id": "hook-test", "recipients": {"rcptTo": [{"email": to}]}, "sender": {"email": FROM}, "raw": _text(to),
        "headers": dict(_headers(to))}}),
    "brevo": lambda to: _json({"items": [{"Uuid": ["hook-test"], "From": {"Address": FROM}, "To": [{"Address": to}],
                                          "Subject": "unsubscribe", "RawTextBody": "unsubscribe",
                                          "Headers": {**dict(_headers(to)), "Delivered-To": to}}]}),
    # What the Messages API answers: the post itself holds a reference only.
    "mailtrap": lambda to: _json({"id": "1", "inbox_id": 1, "from": FROM, "to": [to], "cc": [], "bcc": [],
                                  "subject": "unsubscribe", "rfc_message_id": "<hook-test@example.com>",
                                  "headers": {**dict(_headers(to)), "Delivered-To": to},
                                  "text_body": "unsubscribe"}),
}  # fmt: skip
