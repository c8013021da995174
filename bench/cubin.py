"""What a kernel costs on a GPU, read from its compiled code: no GPU and no CUDA tools needed.

A cubin is a 64-bit ELF file. Its section `.nv.info` holds records of (format, attribute, size) and, in format 4, that
many bytes: here pairs of a symbol's index and a number. The layout is NVIDIA's and not published; the attributes used
are those that `cuobjdump -res-usage` prints.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

REGISTERS, FRAME_BYTES, STACK_BYTES = 0x2F, 0x11, 0x12
_SIZED = 4

MAX_THREADS = 2048
"""Threads that one processor of an H100 or H200 keeps at once, if their registers fit."""
REGISTER_FILE = 65536
"""Registers of one processor."""
WARP_REGISTERS_STEP = 256
"""Registers are given to 32 threads at a time in multiples of this."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one GPU function takes."""

    registers: int
    """Per thread; 255 is the most there are."""
    stack_bytes: int
    """Local memory per thread: spilled registers, and arrays that are indexed at run time."""
    code_bytes: int

    def resident_threads(self, block_threads: int = 256) -> int:
        """Threads that one processor keeps at once, as far as registers go: what hides the latency of memory."""
        per_warp = -(-self.registers * 32 // WARP_REGISTERS_STEP) * WARP_REGISTERS_STEP
        warps_per_block = block_threads // 32
        blocks = REGISTER_FILE // (per_warp * warps_per_block)
        return min(MAX_THREADS, blocks * block_threads)


def resources(cubin: bytes) -> dict[str, Resources]:
    """Resources of every kernel in a cubin, by the function's name. Raises ValueError for anything else."""
    if cubin[:5] != b"\x7fELF\x02":
        raise ValueError(f"not a cubin: expected a 64-bit ELF file, got bytes {cubin[:5]!r}")
    sections = dict(_sections(cubin))
    symbols = _symbol_names(sections[".symtab"], sections[".strtab"])
    found: dict[str, dict[int, int]] = {}
    for attribute, symbol, value in _records(sections[".nv.info"]):
        found.setdefault(symbols[symbol], {})[attribute] = value
    kernels = [name.removeprefix(".text.") for name in sections if name.startswith(".text.")]
    return {
        name: Resources(
            registers=found[name][REGISTERS],
            stack_bytes=max(found[name][FRAME_BYTES], found[name][STACK_BYTES]),
            code_bytes=len(sections[f".text.{name}"]),
        )
        for name in kernels
    }


def atomics(ptx: bytes) -> dict[str, tuple[int, int]]:
    """(scalar, four-component) atomic instructions on global memory in every kernel of a PTX text.

    Instructions as written: a loop that is unrolled, or compiled in two versions, counts more than once.
    """
    text = ptx.decode("ascii", errors="replace")
    starts = [(match.start(), match[1]) for match in re.finditer(r"^\.visible \.entry (\w+)", text, re.M)]
    ends = [start for start, _ in starts[1:]] + [len(text)]
    counts = {}
    for (start, name), end in zip(starts, ends, strict=True):
        found = re.findall(r"\b(?:red|atom)\.[a-z0-9_.]*global[a-z0-9_.]*", text[start:end])
        vectors = sum(".v4." in instruction for instruction in found)
        counts[name] = (len(found) - vectors, vectors)
    return counts


def _sections(elf: bytes) -> Iterator[tuple[str, bytes]]:
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<3H", elf, 0x3A)
    headers = [struct.unpack_from("<2I4Q2I2Q", elf, table + i * entry_size) for i in range(count)]
    names = headers[names_index][4]
    no_bits = 8
    for name, kind, _, _, offset, size, *_ in headers:
        yield _string(elf, names + name), b"" if kind == no_bits else elf[offset : offset + size]


def _symbol_names(symbols: bytes, strings: bytes) -> list[str]:
    return [_string(strings, name) for name, *_ in struct.iter_unpack("<I2BH2Q", symbols)]


def _records(info: bytes) -> Iterator[tuple[int, int, int]]:
    """(attribute, symbol, value) of the records that are about a function."""
    at = 0
    while at < len(info):
        layout, attribute, size = struct.unpack_from("<2BH", info, at)
        at += 4
        if layout == _SIZED:
            if attribute in (REGISTERS, FRAME_BYTES, STACK_BYTES):
                yield attribute, *struct.unpack_from("<2I", info, at)
            at += size


def _string(table: bytes, start: int) -> str:
    return table[start : table.index(0, start)].decode()
