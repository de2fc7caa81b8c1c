"""A sender's colour on our pages, kept readable: whatever it chose, text on it and text of it has a contrast of 4.5:1.

Why:     WCAG 2.1, 1.4.3: contrast is the ratio of relative luminances, each raised by 0.05.
"""

import re

from handlers.errors import Rejected

TEXT, SHAPE = 4.5, 3.0  # WCAG 2.1: 1.4.3 text, 1.4.11 what is no text
_HEX = re.compile(r"#?([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")
_STEPS = 100
WHITE, BLACK = "#ffffff", "#000000"


def checked(text: str) -> str:
    """Return a colour as `#rrggbb`.

    Errors:  Rejected  no hexadecimal colour.    permanent
    Example:
        >>> checked("#C03"), checked("1f5fbf")
        ('#cc0033', '#1f5fbf')
    """
    found = _HEX.fullmatch(text.strip())
    if found is None:
        raise Rejected(f"colour: {text[:20]!r}, expected e.g. #1f5fbf")
    digits = found[1] if len(found[1]) == 6 else "".join(digit * 2 for digit in found[1])
    return f"#{digits.lower()}"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21.

    Example:
        >>> round(contrast("#ffffff", "#000000"), 1)
        21.0
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def ink(ground: str) -> str:
    """Return black or white, whichever reads better on *ground*: the better one has always 4.5:1."""
    return max((WHITE, BLACK), key=lambda each: contrast(each, ground))


def shade(colour: str, ground: str, ratio: float) -> str:
    """Return the nearest shade of *colour* that has at least *ratio* on *ground*."""
    towards = _parts(ink(ground))
    for step in range(_STEPS + 1):
        mixed = [round(a + (b - a) * step / _STEPS) for a, b in zip(_parts(colour), towards, strict=True)]
        found = "#" + "".join(f"{part:02x}" for part in mixed)
        if contrast(found, ground) >= ratio:
            return found
    return ink(ground)


def _parts(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _luminance(colour: str) -> float:
    shares = (value / 255 for value in _parts(colour))
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
