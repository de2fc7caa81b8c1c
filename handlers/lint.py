"""Lint: does a mail, before it is sent or as it arrived, carry what an Unsubscribe button needs?

A problem is what mail clients or mailbox providers refuse; a note is what to know. Whether a button shows is the inbox
provider's choice all the same.

RFC: 2369 (one List-Unsubscribe), 2047 5 (never encoded), 5321 4.5.3.1.1 (64 octets), 6068 (mailto), 6376 3.5 (h=), 8058.
"""

import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import getaddresses
from urllib.parse import unquote

from handlers import body, message, tag
from handlers.body import Text
from handlers.errors import Rejected
from handlers.message import InboundMessage
from handlers.stamping.substitution import Tags
from handlers.tag import MAX_LOCAL_OCTETS, AddressTemplate, Keyring, StoredTag, Tag

CHOICE = "whether a button shows is the inbox provider's choice"
TEST_RECIPIENT = "canary@unsubd.invalid"  # RFC 2606: nobody has an address there
_HEADER, _POST = "list-unsubscribe", "list-unsubscribe-post"
_URI = re.compile(r"<([^<>]*)>")
_TOKEN = re.compile(r"[^\s<>\"'()/?&=#:]{14,200}")  # what may be a tag, in a link or an address
_MAX_TOKENS = 500
_TWICE = re.compile(r"%25[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True)
class Finding:
    """What lint says. Shape: code: stable, for programs. is_problem: False is a note."""

    code: str
    text: str
    is_problem: bool = True


class Lint:
    """A mail under the lens. *rows* as `tag.read` takes them, of the tags that `refs` names."""

    def __init__(self, raw: bytes) -> None:
        self._message: InboundMessage = message.read(raw, source="lint")
        self._values = self._all(_HEADER)
        self._uris: list[str] = [each.strip() for value in self._values for each in _URI.findall(value)]
        self._texts = [text for text in body.texts(self._message) if not text.embedded]

    def refs(self) -> list[StoredTag]:
        """Return the stored tags that header and body may carry."""
        found = [ref for each in self._tokens() for ref in tag.stored_refs(each)]
        return list(dict.fromkeys(found))

    def findings(self, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> list[Finding]:
        """Return what is wrong with the mail, and what to know."""
        if not self._values:
            return [Finding("no-header", "List-Unsubscribe: missing"), *self._of_body(keys, rows)]
        return [
            *self._of_header(), *self._of_mailto(keys, rows), *self._of_https(keys, rows), *self._of_post(),
            *self._of_signature(), *self._of_body(keys, rows),
        ]  # fmt: skip

    def test_link(self, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> str:
        """Return the mail's https link with a tag of `TEST_RECIPIENT` in the place of its own: nobody is unsubscribed.

        Errors:  Rejected  the mail has no https link with a tag of ours.    permanent
        """
        for uri in filter(_is_https, self._uris):
            for token in _TOKEN.findall(uri):
                if found := _read(token, keys, rows):
                    canary = Tag(found.sender, found.group, TEST_RECIPIENT)
                    return uri.replace(token, tag.mint(keys, canary, AddressTemplate("", "unsubd.invalid")).tag)
        raise Rejected("--try: the mail has no https link with a tag of ours, expected one in List-Unsubscribe")

    def _all(self, name: str) -> list[str]:
        return [value for each, value in self._message.headers if each == name]

    def _tokens(self) -> list[str]:
        shown = [html.unescape(text.content) if text.is_html else text.content for text in self._texts]
        return [each for text in (*self._uris, *shown) for each in _TOKEN.findall(unquote(text))][:_MAX_TOKENS]

    def _of_header(self) -> Iterator[Finding]:
        if len(self._values) > 1:
            yield Finding("two-headers", f"List-Unsubscribe: {len(self._values)} of them, expected one")
        value = ", ".join(self._values)
        if "=?" in value or not value.isascii():
            yield Finding("encoded", "List-Unsubscribe: encoded (RFC 2047) or not ASCII, expected plain text")
        if any(re.search(r"\s", uri) for uri in self._uris):
            yield Finding(
                "broken-uri", "List-Unsubscribe: folded or spaced inside a URI, expected breaks only between them"
            )
        if any(_TWICE.search(uri) for uri in self._uris):
            yield Finding("encoded-twice", "List-Unsubscribe: a URI is percent-encoded twice, expected once")

    def _of_mailto(self, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> Iterator[Finding]:
        addresses = [_address(uri) for uri in self._uris if uri.lower().startswith("mailto:")]
        ours = [each for each in addresses if _read(each, keys, rows)]
        if any(tag.is_shaped(each) and each not in ours for each in addresses):
            yield Finding(
                "bad-tag", "List-Unsubscribe: a mailto with a tag that no key of ours signed, or nobody stored"
            )
        if not ours:
            yield Finding("no-mailto", "List-Unsubscribe: no mailto of ours, expected one")
        if len(ours) > 1:
            yield Finding(
                "two-mailtos", f"List-Unsubscribe: {len(ours)} mailtos of ours, expected one: each has one tag"
            )
        longest = max((len(each.rpartition("@")[0].encode("utf-8", "replace")) for each in addresses), default=0)
        if longest > MAX_LOCAL_OCTETS:
            yield Finding(
                "long-local-part", f"mailto: local part of {longest} octets, expected at most {MAX_LOCAL_OCTETS}"
            )
        if {each.lower() for each in ours} & self._own_addresses():
            yield Finding(
                "answers-come-back", "mailto: also From, Reply-To or Return-Path: bounces would look like requests"
            )

    def _own_addresses(self) -> set[str]:
        values = [*self._all("from"), *self._all("reply-to"), *self._all("return-path")]
        return {address.lower() for _, address in getaddresses(values)}

    def _of_https(self, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> Iterator[Finding]:
        links = [uri for uri in self._uris if _is_https(uri)]
        if any(uri.lower().startswith("http:") for uri in self._uris):
            yield Finding("http-link", "List-Unsubscribe: an http link, expected https")
        if not links:
            yield Finding("no-https", "List-Unsubscribe: no https link, expected one: one-click needs it")
        tags = {
            found for uri in self._uris for each in _TOKEN.findall(unquote(uri)) if (found := _read(each, keys, rows))
        }
        if len(tags) > 1:
            yield Finding("two-tags", "List-Unsubscribe: mailto and https carry tags that say different things")
        if links and not any(_read(each, keys, rows) for uri in links for each in _TOKEN.findall(unquote(uri))):
            yield Finding("own-link", "List-Unsubscribe: the https link carries no tag of ours", is_problem=False)

    def _of_post(self) -> Iterator[Finding]:
        posts = self._all(_POST)
        if not posts:
            yield Finding("no-post", "List-Unsubscribe-Post: missing, expected List-Unsubscribe=One-Click")
        elif posts != ["List-Unsubscribe=One-Click"]:
            yield Finding("wrong-post", "List-Unsubscribe-Post: expected List-Unsubscribe=One-Click, once")

    def _of_signature(self) -> Iterator[Finding]:
        signatures = self._all("dkim-signature")
        if not signatures:
            yield Finding(
                "not-signed",
                "DKIM-Signature: none yet, its h= must name both List-Unsubscribe headers",
                is_problem=False,
            )
        elif not any({_HEADER, _POST} <= _signed(each) for each in signatures):
            yield Finding("not-covered", "DKIM-Signature: h= covers not both List-Unsubscribe headers (RFC 8058 4)")

    def _of_body(self, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> Iterator[Finding]:
        lacking = sorted({_kind(text) for text in self._texts} - {_kind(text) for text in self._linked(keys, rows)})
        if self._texts and len(lacking) == len({_kind(text) for text in self._texts}):
            yield Finding("no-body-link", "body: no unsubscribe link, expected one: the header does not replace it")
        elif lacking:
            yield Finding("part-without-link", f"body: the {lacking[0]} has no unsubscribe link", is_problem=False)
        if any(Tags().wanted(text.content, is_html=text.is_html) for text in self._texts):
            yield Finding("tag-left", "body: a substitution tag is left, expected a link: see unsubd stamp")

    def _linked(self, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> Iterator[Text]:
        links = [uri for uri in self._uris if _is_https(uri)]
        for text in self._texts:
            shown = html.unescape(text.content) if text.is_html else text.content
            tokens = _TOKEN.findall(unquote(shown))[:_MAX_TOKENS]
            if any(link in shown for link in links) or any(_read(each, keys, rows) for each in tokens):
                yield text


def _kind(text: Text) -> str:
    return "HTML" if text.is_html else "plain text"


def _is_https(uri: str) -> bool:
    return uri.lower().startswith("https://")


def _address(uri: str) -> str:
    return unquote(uri[len("mailto:") :].partition("?")[0])


def _read(text: str, keys: Keyring, rows: Mapping[StoredTag, Tag]) -> Tag | None:
    try:
        return tag.read(text, keys, rows).tag
    except Rejected:
        return None


def _signed(signature: str) -> set[str]:
    """The header names in a DKIM-Signature's h=, lower case."""
    pairs = (each.partition("=") for each in signature.split(";"))
    names = next((value for name, _, value in pairs if name.strip() == "h"), "")
    return {each.strip().lower() for each in names.split(":")}
