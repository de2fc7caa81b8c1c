"""What proves us to AWS: each call is signed, by botocore (the extra `unsubd[ses]`), which costs its import only here."""

from collections.abc import Generator
from importlib.util import find_spec

import httpx2

from handlers.errors import ConfigError
from handlers.forwarding import ses


def require_signer() -> None:
    """Errors: ConfigError  botocore is not installed."""
    if find_spec("botocore") is None:
        raise ConfigError("forward to ses: needs botocore, which is not installed: pip install 'unsubd[ses]'")


class SigV4(httpx2.Auth):
    """Signs the calls of one client for SES: method, path, host, time and body.

    Errors:  ConfigError  botocore is not installed.
             Rejected     *secret* is no key pair.    permanent
    """

    requires_request_body = True

    def __init__(self, secret: str, base: str) -> None:
        require_signer()
        from botocore.auth import SigV4Auth
        from botocore.credentials import Credentials

        self._signer = SigV4Auth(Credentials(*ses.key_pair(secret)), "ses", ses.region(base))

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign one call as it goes out."""
        from botocore.awsrequest import AWSRequest

        kind = {"Content-Type": request.headers["Content-Type"]} if request.content else {}
        signed = AWSRequest(request.method, str(request.url), headers=kind, data=request.content)
        self._signer.add_auth(signed)
        for name in ("X-Amz-Date", "Authorization"):
            request.headers[name] = signed.headers[name]
        yield request
