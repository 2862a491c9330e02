"""A name server of the tests' own, and processes that ask it and nobody else. Needs root; for
tests/faults alone.

Each such process sees its own /etc/resolv.conf: the machine's is not touched.
"""

import ctypes
import os
import socket
import struct
import threading
from pathlib import Path

from tests.faults.groups import new_group

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
QUESTION = 12  # bytes of the header before it
_libc = ctypes.CDLL(None, use_errno=True)


class Resolver:
    """Answers for the names it knows; others do not exist; `mute` says nothing at all."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.mute = False
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # resolv.conf knows no port but 53
        self.address = f"127.77.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
        self._socket.bind((self.address, 53))
        self._thread = threading.Thread(target=self._serve, name="resolver", daemon=True)

    def __enter__(self) -> "Resolver":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", (self.address, 53))  # wakes the thread
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while query := self._receive():
            data, sender = query
            self.asked += 1
            if not self.mute:
                self._socket.sendto(self._answer(data), sender)

    def _receive(self) -> tuple[bytes, tuple[str, int]] | None:
        data, sender = self._socket.recvfrom(512)
        return (data, sender) if data else None

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", QUESTION)
        name, question = query[QUESTION:end], query[QUESTION : end + 5]
        address = self.known.get(_text(name))
        is_a = question[-4:-2] == b"\0\1"
        flags = 0x8180 if address else 0x8183  # an answer, recursion available; 3: no such name
        head = query[:2] + struct.pack(">5H", flags, 1, int(bool(address and is_a)), 0, 0)
        if not (address and is_a):
            return head + question
        return (
            head + question + struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
        )


def _text(name: bytes) -> str:
    """Return a name of length-prefixed labels with dots."""
    labels = []
    while name:
        labels.append(name[1 : 1 + name[0]].decode())
        name = name[1 + name[0] :]
    return ".".join(labels)


class Asking:
    """What a process enters to ask the tests' resolver, in the place of a control group."""

    def __init__(self, resolver: Resolver, conf: Path) -> None:
        conf.write_text(f"nameserver {resolver.address}\n")
        self._conf, self._group = os.fsencode(conf), new_group()

    def enter(self) -> None:
        """Replace /etc/resolv.conf for the calling process alone."""
        if self._group:
            self._group.enter()
        _must(_libc.unshare(CLONE_NEWNS))
        _must(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        _must(_libc.mount(self._conf, b"/etc/resolv.conf", None, MS_BIND, None))

    def remove(self) -> None:
        """Remove what was made for it."""
        if self._group:
            self._group.remove()


def _must(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
