"""A Postfix of our own, beside the system's: its folders, its port on loopback, in the foreground as our child.

What it does with mail is what deploy/postfix tells it, so that those files are tested too. Its processes run as the users
that its package made, which only root may do.
"""

import grp
import os
import re
import smtplib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.harness.processes import Server, free_port, greeting

_DEPLOY = Path(__file__).parents[2] / "deploy/postfix"
_PORT = re.compile(r"^([^#\n]*127\.0\.0\.1\]?:)(252\d)", re.M)  # of a service, or of a transport's next hop
_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
maillog_file_permissions = 0644
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.org
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
notify_classes =
default_process_limit = 20
"""
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
relay unix - - n - - smtp
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
lmtp unix - - n - - lmtp
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    """The server, with the lines of deploy/postfix. *folder* has a short path and may be entered by other users.

    *configuration*: beginnings of the names of the files; *more*: lines of our own for main.cf; ports of those files become
    free ones, see `ports`. `socket_folder` is where these lines look for our socket.
    """

    def __init__(self, binary: Path, folder: Path, configuration: str = "", more: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.ports: dict[str, int] = {}
        self._postfix = binary
        self._configuration = folder / "etc"
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir()
        for name, own in (("main.cf", _MAIN), ("master.cf", _MASTER)):
            deployed = _PORT.sub(self._free, (_DEPLOY / (configuration + name)).read_text())
            text = own.format(folder=folder, port=self.port) + deployed + (more if name == "main.cf" else "")
            (self._configuration / name).write_text(text)
        shown = self._run("postconf", "-h", "daemon_directory", "mail_owner").split()
        subprocess.run(["chown", shown[1], folder / "data"], check=True)
        # Makes the folders of the queue, with the owners that its processes expect.
        self._run("postfix", "check")
        self.socket_folder = folder / "queue/unsubd"
        self.socket_folder.mkdir()
        os.chown(self.socket_folder, -1, grp.getgrnam(shown[1]).gr_gid)
        self.socket_folder.chmod(0o2750)
        super().__init__([Path(shown[0]) / "master", "-c", self._configuration, "-d"], folder / "master.log")

    def _run(self, tool: str, *words: str) -> str:
        command = [self._postfix.with_name(tool), "-c", self._configuration, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env={"PATH": os.environ["PATH"]})
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def _free(self, found: re.Match[str]) -> str:
        return found[1] + str(self.ports.setdefault(found[2], free_port()))

    def send(self, raw: bytes, *recipients: str, sender: str = "someone@example.net", port: int = 0) -> None:
        """Hand a mail to it, as another mail server does."""
        with smtplib.SMTP("127.0.0.1", port or self.port, timeout=30) as client:
            refused = client.sendmail(sender, list(recipients), raw)
        assert refused == {}

    def flush(self) -> None:
        """Try everything in the queue now."""
        self._run("postqueue", "-f")

    def waiting(self) -> Sequence[str]:
        """Return the JSON line of each mail in the queue."""
        return self._run("postqueue", "-j").splitlines()

    def said(self) -> str:
        """Return the mail log."""
        path = self.folder / "maillog"
        return path.read_text() if path.exists() else ""

    def _answers(self) -> bool:
        time.sleep(0.05)
        return greeting(self.port).startswith(b"220")
