"""The doctor's DNS, with the real dnspython and a name server of our own: what counts as "takes no mail"."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingUDPServer

import pytest
from dns import flags, message, rcode, resolver, rrset

from worker.doctor import mx

ZONE = {
    ("acme.io.", "MX"): ["20 mxb.acme.io.", "10 MXA.acme.io."],
    ("null.io.", "MX"): ["0 ."],
    ("alone.io.", "A"): ["192.0.2.1"],
    ("six.io.", "AAAA"): ["2001:db8::1"],
    (".", "NS"): ["a.root-servers.net."],
}
KNOWN = {name for name, _ in ZONE} | {"bare.io."}


@contextmanager
def _asker(fault: str) -> Iterator[resolver.Resolver]:
    """A resolver that asks a server on loopback; *fault*: "", silent, servfail, or empty (it denies every name)."""

    class Answer(BaseRequestHandler):
        def handle(self) -> None:
            if fault == "silent":
                return
            asked = message.from_wire(self.request[0])
            (question,) = asked.question
            answer = message.make_response(asked)
            answer.flags |= flags.RA
            name, kind = question.name.to_text(), question.rdtype.name
            if fault == "servfail":
                answer.set_rcode(rcode.SERVFAIL)
            elif fault == "empty" or name not in KNOWN:
                answer.set_rcode(rcode.NXDOMAIN)
            elif rows := ZONE.get((name, kind)):
                answer.answer.append(rrset.from_text(name, 60, "IN", kind, *rows))
            self.request[1].sendto(answer.to_wire(), self.client_address)

    with ThreadingUDPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        asker = resolver.Resolver(configure=False)
        asker.nameservers, asker.port = ["127.0.0.1"], server.server_address[1]
        try:
            yield asker
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("acme.io", ["mxa.acme.io", "mxb.acme.io"]),
        ("alone.io", ["alone.io"]),
        ("six.io", ["six.io"]),
        ("null.io", [""]),
    ],
)
def test_a_domain_that_takes_mail_names_its_hosts(domain: str, hosts: list[str]) -> None:
    with _asker("") as asker:
        assert mx.resolve(domain, asker) == hosts


@pytest.mark.parametrize("domain", ["gone.io", "bare.io"])
def test_a_real_answer_of_nothing_is_no_mail(domain: str) -> None:
    with _asker("") as asker, pytest.raises(mx.NoSuchDomain):
        mx.resolve(domain, asker)


@pytest.mark.parametrize("fault", ["silent", "servfail", "empty"])
def test_a_server_that_cannot_be_asked_says_nothing_of_the_domain(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "_LIFETIME_S", 0.3)
    with _asker(fault) as asker, pytest.raises(mx.NoAnswer):
        mx.resolve("acme.io", asker)


def test_no_name_server_at_all_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> resolver.Resolver:
        raise resolver.NoResolverConfiguration

    monkeypatch.setattr(resolver, "Resolver", none)
    with pytest.raises(mx.NoAnswer):
        mx.resolve("acme.io")
