"""A Dovecot 2.3 of our own, beside the system's: TLS and plain IMAP on loopback, Maildir, one user per test."""

import datetime
import grp
import imaplib
import ipaddress
import itertools
import os
import pwd
import re
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness.processes import Server, free_port, greeting

# A quote and a backslash, so that every client has to quote what it sends.
PASSWORD = r'correct"horse\battery'

# The passdb lets in every user with the one password; a mailbox is made at its first login. `anvil-auth-penalty` off:
# it would delay each login after a refused one, for all tests together, since all come from one address.
_CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
login_greeting = {folder}
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_failure_delay = 0
mail_location = maildir:~/Maildir
mail_max_userip_connections = 0
namespace inbox {{
  inbox = yes
  separator = {separator}
  prefix = {prefix}
  mailbox Junk {{
    special_use = \\Junk
  }}
}}
{capability}
{identity}
{oauth}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/homes/%u allow_all_users=yes
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = {imaps_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
"""


# Tokens are good when the OAuth server says that they are active, and whose they are.
_OAUTH = """
auth_mechanisms = plain login xoauth2 oauthbearer
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {arguments}
}}
"""
_OAUTH_ARGUMENTS = """
introspection_mode = auth
introspection_url = {url}
username_attribute = username
active_attribute = active
active_value = true
"""


class Dovecot(Server):
    """The server. `folder` has a short path (sockets live in it) and may be entered by other users.

    Folder names: `prefix` and `separator`. `capability` replaces what it says it can (it can the same, unasked).
    With `introspection_url` it also takes the tokens of that OAuth server (XOAUTH2, OAUTHBEARER).
    """

    host = "localhost"

    def __init__(
        self,
        binary: Path,
        folder: Path,
        introspection_url: str = "",
        *,
        prefix: str = "",
        separator: str = "/",
        capability: str = "",
    ) -> None:
        self.folder = folder
        self.imaps_port = free_port()
        self.imap_port = free_port()
        self.ca_file = folder / "certificate.pem"
        self.uid, self.gid = os.getuid(), os.getgid()
        identity = ""
        if self.uid == 0:
            # Dovecot serves no mail as root. Its own processes keep the users that its package made.
            nobody = pwd.getpwnam("nobody")
            self.uid, self.gid = nobody.pw_uid, nobody.pw_gid
        else:
            # An ordinary user cannot change user: everything runs as it.
            name = pwd.getpwuid(self.uid).pw_name
            identity = f"default_internal_user = {name}\ndefault_login_user = {name}\n"
            identity += f"default_internal_group = {grp.getgrgid(self.gid).gr_name}"
        (folder / "homes").mkdir()
        os.chown(folder / "homes", self.uid, self.gid)
        key = folder / "key.pem"
        write_certificate(self.ca_file, key)
        configuration = folder / "dovecot.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                certificate=self.ca_file,
                key=key,
                identity=identity,
                prefix=prefix,
                separator=separator,
                capability=f"imap_capability = {capability}" if capability else "",
                oauth=_oauth(folder, introspection_url) if introspection_url else "",
                password=PASSWORD,
                uid=self.uid,
                gid=self.gid,
                imap_port=self.imap_port,
                imaps_port=self.imaps_port,
            )
        )
        super().__init__([binary, "-F", "-c", configuration], folder / "dovecot.log")

    def _answers(self) -> bool:
        words = greeting(self.imap_port)
        return words.startswith(b"* OK") and words.rstrip().endswith(bytes(self.folder))  # ours, not another's


def _oauth(folder: Path, introspection_url: str) -> str:
    arguments = folder / "oauth2.conf.ext"
    arguments.write_text(_OAUTH_ARGUMENTS.format(url=introspection_url))
    return _OAUTH.format(arguments=arguments)


class Mailbox:
    """One user of the server, used by one test."""

    password = PASSWORD

    def __init__(self, server: Dovecot, user: str) -> None:
        self.server = server
        self.user = user
        self.host = server.host
        self.imaps_port = server.imaps_port
        self.imap_port = server.imap_port
        self.ca_file = server.ca_file
        self.start, self.stop, self.restart = server.start, server.stop, server.restart
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """What UNSUBD_IMAP_URL takes; the password and `ca_file` are settings of their own."""
        return f"imaps://{self.user}@{self.host}:{self.imaps_port}/INBOX"

    @contextmanager
    def imap(self) -> Iterator[imaplib.IMAP4]:
        """Log in over TLS with the standard library's client, which shares no code with ours."""
        context = ssl.create_default_context(cafile=self.ca_file)
        client = imaplib.IMAP4_SSL(self.host, self.imaps_port, ssl_context=context, timeout=30)
        try:
            client.login(self.user, self.password)
            yield client
        finally:
            # Where the test has cut the connection, logout raises and leaves the socket open.
            with suppress(OSError, imaplib.IMAP4.error):
                client.logout()
            with suppress(OSError):
                client.shutdown()

    def append(self, raw: bytes, flags: str = "", folder: str = "INBOX") -> None:
        """Add one message by IMAP, which turns its line ends into CRLF. *flags* as `"\\\\Seen $Word"`."""
        with self.imap() as client:
            _ok(client.append(folder, f"({flags})" if flags else "", "", raw))

    def append_many(self, raws: Iterable[bytes], folder: str = "INBOX") -> None:
        """Add messages byte for byte, in order, by dropping files as a delivery agent does. Fast."""
        with self.imap() as client:
            _ok(client.select(folder, readonly=True))  # makes the Maildir of a new user
        home = self.server.folder / "homes" / self.user / "Maildir"
        maildir = home if folder == "INBOX" else home / f".{folder}"
        for raw in raws:
            # Dovecot numbers new files in the order of their names.
            name = f"{next(self._numbers):09}.dropped"
            dropping = maildir / "tmp" / name
            dropping.write_bytes(raw)
            os.chown(dropping, self.server.uid, self.server.gid)
            dropping.rename(maildir / "new" / name)

    def create(self, folder: str) -> None:
        """Make a folder."""
        with self.imap() as client:
            _ok(client.create(folder))

    def messages(self, folder: str = "INBOX") -> list[tuple[int, set[str], bytes]]:
        """Return (uid, flags, raw) of every message, changing nothing; without \\Recent, which depends on who looks.

        A folder that does not exist (yet) has none: a service makes its own in its own time.
        """
        with self.imap() as client:
            answer = client.select(folder, readonly=True)
            if answer[0] == "NO" and b"doesn't exist" in (answer[1][0] or b""):
                return []
            _ok(answer)
            parts = _ok(client.uid("fetch", "1:*", "(UID FLAGS BODY.PEEK[])"))
        found = []
        for part in parts:
            if isinstance(part, tuple):
                match = re.search(rb"UID (\d+) FLAGS \(([^)]*)\)", part[0])
                assert match is not None, part[0]
                found.append((int(match[1]), set(match[2].decode().split()) - {r"\Recent"}, part[1]))
        return found

    def store(self, uid: int, flags: str, folder: str = "INBOX") -> None:
        """Add flags or keywords to one message, as another client of the mailbox would."""
        with self.imap() as client:
            _ok(client.select(folder))
            _ok(client.uid("store", str(uid), "+FLAGS", f"({flags})"))

    def remove(self, uid: int) -> None:
        """Remove one message of INBOX for good, as another client of the mailbox would."""
        with self.imap() as client:
            _ok(client.select())
            _ok(client.uid("store", str(uid), "+FLAGS", r"(\Deleted)"))
            _ok(client.uid("expunge", str(uid)))


def _ok(answer: tuple[str, list[Any]]) -> list[Any]:
    assert answer[0] == "OK", answer
    return answer[1]


def write_certificate(certificate: Path, key: Path) -> None:
    """Write a self-signed certificate for localhost that Python 3.13's strict checks accept as its own authority."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    public = secret.public_key()
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    built = (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=False, decipher_only=False, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key.touch(mode=0o600)
    key.write_bytes(
        secret.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
