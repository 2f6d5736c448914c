"""What a program under callgrind asks of it: counting on, off, and the count so far under a name.

A client request is a sequence of instructions that does nothing on a CPU and that valgrind recognises: the macro
VALGRIND_DO_CLIENT_REQUEST of valgrind.h, here for x86-64, as bytes. It needs neither a compiler nor valgrind's headers.
"""

import ctypes
import mmap
import platform

MACHINES = ("x86_64",)
"""Where this module works."""

_TOOL = ord("C") << 24 | ord("T") << 16
_DUMP_AT, _START, _STOP = _TOOL + 3, _TOOL + 4, _TOOL + 5
_CODE = bytes.fromhex(
    "4889f8"  # mov rax, rdi: the request and its arguments
    "31d2"  # xor edx, edx: the result outside valgrind
    "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi by 3, 13, 61, 51: by 128 in all
    "4887db"  # xchg rbx, rbx: the request
    "4889d0"  # mov rax, rdx: the result
    "c3"  # ret
)


class Callgrind:
    """Counting in this process; without callgrind every method does nothing."""

    def __init__(self) -> None:
        if platform.machine() not in MACHINES:
            raise OSError(f"no client requests on {platform.machine()}")
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._ask = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)

    def start(self) -> None:
        """Count from here."""
        self._request(_START)

    def stop(self) -> None:
        """Count no more."""
        self._request(_STOP)

    def dump(self, name: str) -> None:
        """Write what was counted since the last dump to a file that says `desc: Trigger: Client Request: <name>`."""
        text = ctypes.c_char_p(name.encode())
        self._request(_DUMP_AT, ctypes.cast(text, ctypes.c_void_p).value or 0)

    def _request(self, number: int, argument: int = 0) -> None:
        words = (ctypes.c_uint64 * 6)(number, argument)
        self._ask(ctypes.addressof(words))
