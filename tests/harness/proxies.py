"""nginx and Caddy as deploy/proxy configures them: on free ports of loopback, with a certificate of the test's own."""

import http.client
import re
import shutil
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness.processes import PACKAGES, Server, free_port, require

PUBLIC, OPS = "unsub.example.com", "ops.unsub.example.com"
_DEPLOY = Path(__file__).parents[2] / "deploy/proxy"
_NGINX = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/logs/main.log;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/unsubd.conf;
}}
"""


class Proxy(Server):
    """One of them, before the ports *http* and *ops* of unsubd; operators come from 127.0.0.1."""

    def __init__(self, arguments: list[str | Path], folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._trusted = _certificate(folder)
        super().__init__(arguments, self.logs / "stderr.log")

    def ask(
        self, path: str, method: str = "GET", host: str = PUBLIC, source: str = "127.0.0.1", body: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:  # fmt: skip
        """Ask by HTTPS and return status and text. Shape: path goes out as it is; source: the address to come from."""
        plain = socket.create_connection(("127.0.0.1", self.port), 10, (source, 0))
        connection = http.client.HTTPConnection(host)
        connection.sock = ssl.create_default_context(cafile=str(self._trusted)).wrap_socket(plain, server_hostname=host)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def said(self) -> str:
        """Return everything in every log."""
        return "\n".join(path.read_text() for path in sorted(self.logs.iterdir()))

    def _answers(self) -> bool:
        try:
            return self.ask("/")[0] == 404
        except OSError:
            return False


class Nginx(Proxy):
    """nginx with deploy/proxy/nginx.conf."""

    def __init__(self, folder: Path, http: int, ops: int) -> None:
        binary = require("nginx", PACKAGES["nginx"])
        super().__init__([binary, "-p", folder, "-c", folder / "nginx.conf"], folder)
        text = (_DEPLOY / "nginx.conf").read_text()
        text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.M)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{free_port()};")
        text = text.replace("listen 443 ", f"listen 127.0.0.1:{self.port} ").replace("/var/log/nginx", str(self.logs))
        text = text.replace("/etc/ssl/unsub.example.com", str(folder)).replace("10.0.0.0/8", "127.0.0.1")
        text = text.replace("127.0.0.1:8125", f"127.0.0.1:{http}").replace("127.0.0.1:8126", f"127.0.0.1:{ops}")
        (folder / "unsubd.conf").write_text(text)
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder))


class Caddy(Proxy):
    """Caddy with deploy/proxy/Caddyfile."""

    def __init__(self, folder: Path, http: int, ops: int) -> None:
        binary = require("caddy", PACKAGES["caddy"])
        words = [shutil.which("env") or "env", f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
        run: list[str | Path] = [binary, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]
        super().__init__([*words, *run], folder)
        text = (_DEPLOY / "Caddyfile").read_text().replace("/var/log/caddy", str(self.logs))
        text = text.replace("10.0.0.0/8", "127.0.0.1")
        text = text.replace("127.0.0.1:8125", f"127.0.0.1:{http}").replace("127.0.0.1:8126", f"127.0.0.1:{ops}")
        own = f"{{\n\tadmin off\n\thttp_port {free_port()}\n\thttps_port {self.port}\n"
        text = re.sub(r"^\{\n", own, text, count=1, flags=re.M)
        keys = f"\ttls {folder}/fullchain.pem {folder}/privkey.pem\n"
        text = re.sub(r"^((?:ops\.)?unsub\.example\.com \{\n)", rf"\1{keys}", text, flags=re.M)
        (folder / "Caddyfile").write_text(text)


def _certificate(folder: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, PUBLIC)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(PUBLIC), x509.DNSName(OPS)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "privkey.pem").write_bytes(secret)
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "fullchain.pem"
