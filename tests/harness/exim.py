"""An Exim of our own, with the lines of deploy/exim, beside the system's mail server.

Debian lets one mail server in, so this one is not installed: its packages are unpacked into a folder, and a private mount
namespace lays that folder over /usr and its configuration and users over /etc. Which only root may do.
"""

import os
import re
import shutil
import smtplib
import subprocess
from pathlib import Path

from tests.harness.processes import Server, free_port, greeting, unavailable

_DEPLOY = Path(__file__).parents[2] / "deploy/exim/unsubd.conf"
_ID = 64999  # of Debian-exim, here
_CONFIGURATION = """
primary_hostname = mx.example.org
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/spool/exim.pid
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
{main}
acl_smtp_rcpt = recipient
begin acl
recipient:
  accept domains = +relay_to_domains
  deny
begin routers
{routers}
begin transports
{transports}
begin retry
* * F,2h,1s
"""


class Exim(Server):
    """The server. *folder* has a short path and may be entered by other users; `socket_folder` is where unsubd's socket goes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket_folder = folder / "socket"
        for name in ("packages", "root", "etc/exim4", "spool", "log", "socket"):
            (folder / name).mkdir(parents=True)
        for name in ("spool", "log", "socket"):
            os.chown(folder / name, _ID if name != "socket" else -1, _ID)
        self.socket_folder.chmod(0o2750)
        _unpack(folder / "packages", folder / "root")
        users = f"Debian-exim:x:{_ID}:{_ID}::/:/bin/false\nunsubd:x:{_ID + 1}:{_ID + 1}::/:/bin/false\n"
        for name, line in (("passwd", users), ("group", f"Debian-exim:x:{_ID}:\nunsubd:x:{_ID + 1}:\n")):
            (folder / "etc" / name).write_text(Path("/etc", name).read_text() + line)
        (folder / "etc/exim4/exim4.conf").write_text(self._configured())
        over = "; ".join(f"mount -t overlay overlay -o lowerdir={folder}/{upper}:/{name} /{name}" for upper, name in
                         (("root/usr", "usr"), ("etc", "etc")))  # fmt: skip
        super().__init__(
            ["unshare", "--mount", "sh", "-ec", f"{over}; exec /usr/sbin/exim4 -bdf -q1s"], folder / "exim.out"
        )

    def _configured(self) -> str:
        parts = re.split(r"^# --- (\w+).*$", _DEPLOY.read_text(), flags=re.M)
        found = dict(zip(parts[1::2], parts[2::2], strict=True))
        transports = found["transports"].replace("/run/unsubd/lmtp", f"{self.socket_folder}/lmtp")
        return _CONFIGURATION.format(
            port=self.port, folder=self.folder, main=found["main"], routers=found["routers"], transports=transports
        )

    def send(self, raw: bytes, *recipients: str) -> None:
        """Hand a mail to it, as another mail server does."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            refused = client.sendmail("someone@example.net", list(recipients), raw)
        assert refused == {}

    def said(self) -> str:
        """Return the mail log."""
        return "".join(path.read_text() for path in sorted((self.folder / "log").iterdir()))

    def _answers(self) -> bool:
        return greeting(self.port).startswith(b"220")


def _unpack(packages: Path, root: Path) -> None:
    """Fetch Exim and what it needs and this machine lacks, and unpack it; nothing is installed."""
    if os.getuid() or not shutil.which("apt-get"):
        unavailable("Exim is unpacked from Debian's packages by root only")
    (packages / "partial").mkdir()
    fetch = ["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", "-o", f"Dir::Cache::archives={packages}",
             "-o", "Acquire::Retries=3", "install", "exim4-daemon-light"]  # fmt: skip
    done = subprocess.run(fetch, capture_output=True, text=True, timeout=300, env=os.environ | {"LC_ALL": "C"})
    if done.returncode:
        unavailable(f"Exim's packages cannot be fetched: {done.stderr.strip()[:200]}")
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
