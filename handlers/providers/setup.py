"""What to enter at each provider: the secret that it gives or takes, where it is entered, the DNS lines, what is unsure.

Facts of the providers' own documentation; what could not be confirmed is marked experimental. Names of MX hosts change and
differ by region and account: where a provider shows its own, that one counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setup:
    """How one provider is set up.

    Shape:   makes: which proof we make, "whsec", "basic", "token" or "header"; "" = the provider gives it. gives: what it
             gives, in words. steps: {url} is the endpoint's, {secret} the proof's secret. mx: (priority, host). experimental:
             what is unconfirmed, "" = nothing that matters.
    """

    makes: str
    gives: str
    steps: tuple[str, ...]
    mx: tuple[tuple[int, str], ...] = ()
    experimental: str = ""


_OWN_MX = "the hosts that its console shows for your domain"

SETUPS: Mapping[str, Setup] = {
    "relay": Setup("whsec", "a Standard Webhooks secret", (
        "let your mail server's script post each message, Content-Type: message/rfc822, to {url}",
        "sign with the secret {secret} (webhook-id, webhook-timestamp, webhook-signature)",
        "tell the envelope in X-Envelope-To and X-Envelope-From; a Postfix snippet is in deploy/postfix",
    )),
    "sendgrid": Setup("basic", "the public key of a security policy (base64)", (
        "Settings, Inbound Parse, Add Host & URL: {url}",
        "tick: POST the raw, full MIME message",
        "better than the password in the URL: a security policy with a signature; give its public key to unsubd hook add",
    ), ((10, "mx.sendgrid.net"),)),
    "ses": Setup("", "the ARN of the SNS topic", (
        "SES, Email receiving: a receipt rule for your domain with the action SNS, encoding Base64",
        "SNS: subscribe {url} to the topic, protocol HTTPS; unsubd confirms it by itself",
        "a delivery policy that retries for an hour, and a dead-letter queue: SNS drops what it cannot deliver",
    ), ((10, "inbound-smtp.REGION.amazonaws.com"),)),
    "mailgun": Setup("", "the HTTP webhook signing key", (
        "Receiving, Create route: match_recipient(\".*@your domain\"), action forward(\"{url}/mime\")",
    ), ((10, "mxa.mailgun.org"), (10, "mxb.mailgun.org"))),
    "postmark": Setup("basic", "", (
        "the inbound stream's settings, Webhook: {url}", "switch on: Include raw email content in JSON payload",
    ), ((10, "inbound.postmarkapp.com"),)),
    "postal": Setup("", "the public key of your Postal (PEM or base64)", (
        "Routing, HTTP endpoints: {url}, format RawMessage, encoding JSON", "a route for your domain to that endpoint",
    ), ((10, "the MX of your Postal"),)),
    "cloudmailin": Setup("basic", "", (
        "the address's target: {url}, POST format: raw",
    ), ((10, _OWN_MX),)),
    "mandrill": Setup("", "KEY@URL: the webhook's key and its URL exactly as entered", (
        "Inbound, Domains, Routes: * to the webhook {url}", "then give KEY@{url} to unsubd hook add",
    ), ((10, _OWN_MX),), "which answers it repeats, and for how long"),
    "sparkpost": Setup("token", "", (
        "an inbound domain, then a relay webhook: target {url}, auth_token {secret}",
    ), ((10, "rx1.sparkpostmail.com"), (10, "rx2.sparkpostmail.com"), (10, "rx3.sparkpostmail.com")),
        "which answers count as failed"),
    "mailjet": Setup("basic", "", ("a Parse route with the Url {url} (by its API)",), ((10, "parse.mailjet.com"),),
                     "which answers it repeats, and for how long"),
    "forwardemail": Setup("", "the domain's Webhook Signature Payload Verification Key", (
        "an alias (or catch-all) that forwards to {url}",
    ), ((10, "mx1.forwardemail.net"), (10, "mx2.forwardemail.net")), "which answers it repeats, and for how long"),
    "resend": Setup("", "the webhook's signing secret (whsec_…)", (
        "Webhooks, Add: {url}, event email.received",
    ), ((10, _OWN_MX),), "its field received_for; headers and text are not fetched"),
    "mailersend": Setup("", "the secret of the inbound route", (
        "an inbound route of your domain, forwarded to {url}", "its secret changes when that URL is edited",
    ), ((10, _OWN_MX),), "it repeats nothing: while unsubd is away, mail is lost"),
    "brevo": Setup("header", "", (
        "a webhook of type inbound for your receiving domain (by its API): url {url}",
        "with the header {header}: {secret}",
    ), ((10, _OWN_MX),), "it tells no envelope: Bcc'd mail is lost; what a 5xx does"),
    "mailtrap": Setup("", "the webhook's signing secret, and then, in a second hook add, api:TOKEN", (
        "Webhooks, Create: {url}, Inbound Inboxes, your inbox",
        "its signing secret, and api: with an API token that may read this inbox, to unsubd hook add, one at a time",
    ), ((10, _OWN_MX),), "all of it: no account was at hand; it tells no envelope, so To, Cc and Bcc are asked"),
}  # fmt: skip
