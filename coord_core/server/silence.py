"""Connections whose other side has vanished without a word: the kernel is told to look, and to end them."""

import asyncio
import socket


def notice_silence(transport: asyncio.BaseTransport, seconds: int) -> None:
    """End the connection when the other side's kernel has acknowledged nothing for about `seconds`.

    That side's process may stand still for as long as it likes: its kernel answers.  Only a machine or a network that is gone does
    not.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    pace = max(1, seconds // 3)
    options = {"TCP_USER_TIMEOUT": seconds * 1000, "TCP_KEEPIDLE": pace, "TCP_KEEPINTVL": pace, "TCP_KEEPCNT": 3}
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
