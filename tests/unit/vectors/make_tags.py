"""Writes tags.json beside it: `python tests/unit/vectors/make_tags.py`.

A second implementation of the tag, in as few lines as DESIGN section 3 allows, that shares nothing with handlers/: if
both agree on every case, neither misread the page. It knows only what the cases below need (IDNA by the 2003 codec).
"""

import base64
import hashlib
import hmac
import json
import re
import unicodedata
from pathlib import Path

MASTERS = ["5e" * 32, "c0ffee" * 8]
PLAIN, CATCH_ALL, LONG = "leave+{tag}@bye.example.net", "{tag}@bye.example.net", "leave-the-list+{tag}@bye.example.net"

CASES = [  # sender, group, recipient, template, index of the master, opaque
    ("nordpost", 7, "ada.lovelace@example.org", PLAIN, 0, False),
    ("nordpost", 0, "Ada.Lovelace@EXAMPLE.org", PLAIN, 0, False),
    ("nordpost", 7, "ada.lovelace@example.org", CATCH_ALL, 0, False),
    ("nordpost", 7, "ada.lovelace@example.org", PLAIN, 0, True),
    ("nordpost", 7, "ada.lovelace@example.org", PLAIN, 1, False),
    ("k7", 31, "ada_b__c@sub.example.org", PLAIN, 0, False),
    ("k7", 31, "-ada-@example.org.", PLAIN, 0, False),
    ("k7", 31, "ada+news@example.org", PLAIN, 0, False),
    ("k7", 31, "d'arcy@example.org", PLAIN, 0, False),
    ("k7", 31, ".ada@example.org", PLAIN, 0, False),
    ("k7", 31, "ada@under_score.example", PLAIN, 0, False),
    ("k7", 31, '"ada b"@example.org', PLAIN, 0, False),
    ("k7", 31, "Zoë@example.org", PLAIN, 0, False),
    ("k7", 31, "Zoe\u0308@example.org", PLAIN, 0, False),
    ("k7", 31, "ada@MÜLLER.example", PLAIN, 0, False),
    ("k7", 31, "почта@пример.example", CATCH_ALL, 1, False),
    ("k7", 31, "ada@[198.51.100.7]", PLAIN, 0, False),
    ("k7", 31, "ada@[IPv6:2001:DB8::1]", PLAIN, 0, False),
    ("a", 4294967295, "x@y.zz", PLAIN, 1, False),
    ("sixteencharsoooo", 4294967295, "g.hopper@example.org", CATCH_ALL, 0, False),
    ("nordpost", 7, "exactly.sixtyfour@octets.example", PLAIN, 0, False),
    ("nordpost", 7, "exactly.sixtyfive@octets.example1", PLAIN, 0, False),
    ("nordpost", 7, "a.name.that.is.much.too.long.to.fit@department.example.org", PLAIN, 1, False),
    ("nordpost", 7, "ada+much.too.long.in.base32@example.org", LONG, 0, False),
]
REFUSED = [
    ("leave+{0}", "8", "another group"),
    ("leave+{0}", "07", "a group with a leading zero"),
    ("leave+{0}", "4294967303", "a group that wraps to 7 in 32 bits"),
    ("leave+{0}", "", "no group"),
    ("leave+{0}", "-7", "a negative group"),
    ("leave+{0}", "٧", "a group in other digits"),
]


def base32(octets):
    return base64.b32encode(octets).decode().lower().replace("=", "")


def mac_of(master, sender, group, canonical):
    key = hmac.new(bytes.fromhex(master), b"unsubd-sender-key-1\0" + sender.encode(), hashlib.sha256).digest()
    text = f"unsubd-tag-1\0{sender}\0{group}\0{canonical}"
    return base32(hmac.new(key, text.encode(), hashlib.sha256).digest())


def canonical_of(recipient):
    local_part, _, domain = unicodedata.normalize("NFC", recipient).rpartition("@")
    domain = domain.lower() if domain.startswith("[") else domain.rstrip(".").encode("idna").decode().lower()
    return f"{local_part.lower()}@{domain}"


def case(sender, group, recipient, template, master, opaque):
    canonical = canonical_of(recipient)
    mac = mac_of(MASTERS[master], sender, group, canonical)
    local_part, _, domain = canonical.rpartition("@")
    plain = re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", local_part) and re.fullmatch(r"[a-z0-9.-]+", domain)
    spelled = f"{local_part}_{domain}" if plain else base32(canonical.encode())
    tag = f"{'a' if plain else 'b'}{mac[:13]}-{sender}-{group}-{spelled}"
    stored = opaque or len(template.partition("@")[0].replace("{tag}", tag).encode()) > 64
    tag = "h" + mac[:26] if stored else tag
    return {
        "sender": sender, "group": group, "recipient": recipient, "template": template, "master": master,
        "opaque": opaque, "canonical": canonical, "tag": tag, "address": template.replace("{tag}", tag),
        "stored": stored, "ref": mac[:26],
    }  # fmt: skip


def refused(cases):
    tag = cases[0]["tag"]
    mac, sender, group, recipient = tag.split("-", 3)
    for template, other, why in REFUSED:
        yield template.format(f"{mac}-{sender}-{other}-{recipient}"), why
    yield f"leave+{mac}-nordpos-{group}-{recipient}", "another sender"
    yield f"leave+{mac}-nord_post-{group}-{recipient}", "no sender id"
    yield f"leave+{mac}-{sender}-{group}-{recipient}.uk", "another domain"
    yield f"leave+{mac}-{sender}-{group}-", "no recipient"
    yield f"leave+{mac}-{sender}-{group}-ada.lovelace", "half a recipient"
    yield f"leave+c{mac[1:]}-{sender}-{group}-{recipient}", "an unknown form"
    yield f"leave+b{mac[1:]}-{sender}-{group}-{recipient}", "another form"
    yield f"leave+{mac[:-1]}-{sender}-{group}-{recipient}", "a MAC of 12 characters"
    yield f"leave+{mac[:-1]}1-{sender}-{group}-{recipient}", "a MAC outside base32"
    yield f"leave%252B{tag}", "encoded twice"
    yield f"leave{tag}", "glued to the prefix"
    yield f"leave+{tag}-list", "something after it"
    yield "leave+haaaaaaaaaaaaaaaaaaaaaaaaaa", "an unknown stored tag"
    yield "leave+h" + cases[3]["ref"][:25], "a stored tag of 25 characters"
    yield "leave+", "an empty tag"
    yield "leave", "no tag"
    yield "", "nothing"


def vectors():
    cases = [case(*row) for row in CASES]
    prints = [hmac.new(bytes.fromhex(m), b"unsubd-fingerprint-1", hashlib.sha256).hexdigest()[:16] for m in MASTERS]
    return {
        "masters": MASTERS,
        "fingerprints": prints,
        "cases": cases,
        "refused": [list(row) for row in refused(cases)],
    }


if __name__ == "__main__":
    path = Path(__file__).with_name("tags.json")
    path.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
