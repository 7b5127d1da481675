"""Tars for tests: made by the standard library's tarfile, or header by header where it refuses."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from beam_imagenet.model import Source
from beam_imagenet.tar import Member, walk

END_MARK = bytes(1024)
Format = Literal[0, 1, 2]
FORMATS: dict[str, Format] = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}

LONG = "folder/" + "x" * 93 + "/" + "n" * 99
"""Long enough for each format's way of storing long names, and not too long for ustar's."""

SIZES = (0, 1, 511, 512, 513, 16_383, 16_384, 300_000)
"""Sizes of data: none, the edges of a block, those of what the walk takes for small, and a large one."""


class InMemory:
    """Bytes to walk over; like an archive on a disk, it gives exact ranges only."""

    path = "memory.tar"

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`."""
        assert 0 <= offset <= offset + size <= len(self._content)
        return self._content[offset : offset + size]


class Counting(InMemory):
    """Bytes to walk over that count what is read of them.

    Attributes:
        reads: Size of each read.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.size = len(content)
        self.reads: list[int] = []

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`."""
        self.reads.append(size)
        return super().read(offset, size)


def assert_bounded(file: Counting, *, walks: int = 1) -> None:
    """Asserts that walks over a file read a little more than all of it each, in reads that fit a worker.

    A walk may read headers with what follows them, extended headers' contents, and the zeros of the
    end: no byte more than three times; and each header once, with a content at most.
    """
    assert sum(file.reads) <= walks * (3 * file.size + 512)
    assert len(file.reads) <= walks * (2 * (file.size // 512) + 2)
    assert max(file.reads, default=0) <= (1 << 20) + (256 << 10)


def padded(data: bytes) -> bytes:
    """`data` filled up with zeros to whole blocks."""
    return data + bytes(-len(data) % 512)


def filled(size: int) -> bytes:
    """Data of no zero byte, so that a walk that loses its way sees neither a header nor an end."""
    return b"\xff" * size


def tar_of(
    members: Iterable[tuple[str, bytes] | tarfile.TarInfo],
    *,
    format: Format = tarfile.USTAR_FORMAT,
    global_headers: Mapping[str, str] | None = None,
) -> bytes:
    """A tar as tarfile writes it; members are files by name, or ready headers without data."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=format, pax_headers=dict(global_headers or {})
    ) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                name, data = member
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(
    name: str, kind: bytes, *, pax_headers: Mapping[str, str] | None = None
) -> tarfile.TarInfo:
    """A header of a type of its own: a directory, a link, a device."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "elsewhere" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
    info.pax_headers = dict(pax_headers or {})
    return info


def header(
    name: bytes,
    *,
    size: int | bytes = 0,
    kind: bytes = b"0",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    signed_sum: bool = False,
) -> bytes:
    """A header block with a right checksum, whatever its fields hold.

    Args:
        name: First 100 bytes.
        size: A number, or the 12 bytes of the field as they are.
        kind: The type flag.
        magic: Magic and version; b"" is the tar of Unix V7.
        prefix: The field at byte 345.
        signed_sum: Whether the checksum takes bytes as signed, as some old tars did.
    """
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            field.ljust(12, b"\0"),
            b"00000000000\0",
            b" " * 8,
            kind,
            bytes(100),
            magic.ljust(8, b"\0"),
            bytes(80),
            prefix.ljust(167, b"\0"),
        )
    )
    assert len(block) == 512
    total = sum(byte - 256 if signed_sum and byte > 127 else byte for byte in block)
    return block[:148] + b"%06o\0 " % total + block[156:]


def extended(kind: bytes, content: bytes) -> bytes:
    """An extended header (GNU's L and K, pax's x and g) and its content."""
    return header(b"extended", size=len(content), kind=kind) + padded(content)


def pax_record(key: bytes, value: bytes) -> bytes:
    """A line `LENGTH KEY=VALUE`, where the length counts itself."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def listed(content: bytes) -> list[tuple[bytes, int, int]]:
    """Name, data offset and size of each regular member, as tarfile tells them."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        return [
            (member.name.encode("utf-8", "surrogateescape"), member.offset_data, member.size)
            for member in tar
            if member.isreg()
        ]


def members_of(content: bytes, *, suspicions: list[str] | None = None) -> list[Member]:
    """The members of a tar, as the walk tells them."""
    return list(walk(InMemory(content), start=0, stop=len(content), suspicions=suspicions))


def triples(members: Iterable[Member]) -> list[tuple[bytes, int, int]]:
    """Name, data offset and size of each member, to compare with `listed`."""
    return [(member.name, member.offset, member.size) for member in members]


def write_source(folder: Path, split: str, content: bytes) -> Source:
    """Puts an archive into a folder."""
    path = folder / f"{split}.tar"
    path.write_bytes(content)
    return Source(
        split=split, archive=str(path), size=len(content), modified=path.stat().st_mtime_ns
    )


def train_tar(
    synsets: Sequence[tuple[str, Sequence[tuple[str, bytes]]]],
    *,
    format: Format = tarfile.USTAR_FORMAT,
) -> bytes:
    """A tar of one tar a synset: names of inner archives, each with its members."""
    return tar_of([(name, tar_of(members, format=format)) for name, members in synsets])
