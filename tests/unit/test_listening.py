"""What is accepted sends its answers at once."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from handlers.errors import ConfigError
from worker.listening import listening
from worker.web.doors import listen

_LISTENERS: dict[str, Callable[[ExitStack, str], socket.socket]] = {
    "web": lambda stack, address: stack.enter_context(listen(address)),
    "lmtp, policy, milter": lambda stack, address: stack.enter_context(listening(address, "UNSUBD_LMTP")),
}


@pytest.mark.parametrize("kind", _LISTENERS)
def test_no_answer_waits_for_the_clients_delayed_ack(kind: str, free_port: Callable[[], int]) -> None:
    async def accepted_without_delay(listener: socket.socket) -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        server = await asyncio.start_server(serve, sock=listener)
        async with server:
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            found = await asyncio.wait_for(seen, 20)
            writer.close()
            await writer.wait_closed()
        return found

    with ExitStack() as stack:
        listener = _LISTENERS[kind](stack, f"127.0.0.1:{free_port()}")
        assert asyncio.run(accepted_without_delay(listener)) != 0


def test_an_address_that_is_not_ours_is_said_with_its_setting() -> None:
    with pytest.raises(
        ConfigError, match=r"^UNSUBD_HTTP: 192\.0\.2\.1:8125: .*: expected a name or address of this machine"
    ):
        listen("192.0.2.1:8125")


def test_a_port_that_is_taken_says_what_to_stop(free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    with listen(address), pytest.raises(ConfigError, match=r"stop what listens there, or choose another port$"):
        listen(address)
