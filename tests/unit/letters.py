"""What the tests of handlers/ share: a key, a template, and letters as text."""

from handlers import decision, message
from handlers.message import InboundMessage
from handlers.request import DecidedMessage
from handlers.tag import AddressTemplate, Keyring, StoredTag, Tag, mint

KEYS = Keyring((b"the newest master of the unit tests",))
TEMPLATE = AddressTemplate.parse("u+{tag}@unsub.example.com")
POLICY = decision.Policy((TEMPLATE,))
JANE = Tag("acme", 12, "jane@example.com")


def tagged(tag: Tag = JANE, keys: Keyring = KEYS, *, opaque: bool = False) -> str:
    """Return the unsubscribe address of *tag*."""
    return mint(keys, tag, TEMPLATE, opaque=opaque).address


def rows(*tags: Tag) -> dict[StoredTag, Tag]:
    """Return the stored rows of *tags*."""
    return {StoredTag(mint(KEYS, tag, TEMPLATE).ref): tag for tag in tags}


def read(text: str | bytes, **facts: object) -> InboundMessage:
    """Read a letter; "TAG" in it is Jane's address. *facts* as in `message.read`."""
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return message.read(raw.replace(b"TAG", tagged().encode()), source="test", **facts)  # type: ignore[arg-type]


def decide(text: str | bytes, found: decision.Found | None = None, **facts: object) -> DecidedMessage:
    """Read a letter and decide it."""
    return decision.decide(read(text, **facts), KEYS, POLICY, found or {})
