"""What a provider tells of its own lists: somebody stopped, complained, or came back there."""

from dataclasses import dataclass

from handlers.request import Action


@dataclass(frozen=True, slots=True)
class Told:
    """One change at a provider.

    Shape:   id: the provider's, the same on every repeat. place: as `forward add` names it; "" is everything.
    Units:   at_ms: when it happened there, ms UTC.
    """

    id: str
    recipient: str
    place: str
    action: Action
    at_ms: int
