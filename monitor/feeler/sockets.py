"""Questions to the kernel about a connection's socket. For this package alone."""

import socket
import struct
import sys

_TCP_INFO_SIZE = 208
_BYTES_RECEIVED = 128  # where linux/tcp.h has tcpi_bytes_received
_BYTES_SENT = 200  # and tcpi_bytes_sent
# Bytes: a flood comes in sips, and no more than a sip is read beyond a budget.
RECEIVE_BUFFER = 16_384


def bytes_received(sock: socket.socket) -> int:
    """Return how many bytes came in since the connection began; 0 where the kernel does not say."""
    return _counter(sock, _BYTES_RECEIVED)


def bytes_sent(sock: socket.socket) -> int:
    """Return how many bytes went out since the connection began; 0 as above."""
    return _counter(sock, _BYTES_SENT)


def _counter(sock: socket.socket, offset: int) -> int:
    if sys.platform != "linux":
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    if len(info) < offset + 8:
        return 0
    (count,) = struct.unpack_from("=Q", info, offset)
    return int(count)


def peek(sock: socket.socket, length: int = 4096) -> bytes | None:
    """Return unread bytes without taking them, b'' for none; None when the peer closed or reset."""
    try:
        return sock.recv(length, socket.MSG_PEEK | socket.MSG_DONTWAIT) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None


def clamp(sock: socket.socket) -> None:
    """Keep the kernel from taking in megabytes on our behalf."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def sever(sock: socket.socket) -> None:
    """End the connection under whoever is using it, another thread included."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it had ended already
