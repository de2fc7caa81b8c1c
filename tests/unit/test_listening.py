"""What is accepted sends its answers at once."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

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
