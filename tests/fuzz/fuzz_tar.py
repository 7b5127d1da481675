"""Fuzzes the walk over tar headers, and what `inventory` makes of it, on arbitrary bytes.

    pip install atheris
    python -m tests.fuzz.fuzz_tar --runs=1000000

Only ArchiveError may come out; members lie in the archive, one behind the other; what is read is
bounded by the archive's size, and no input takes long.
"""

from __future__ import annotations

import io
import tarfile

import atheris

from tests.fuzz.fuzzing import fuzz, require_sentence

with atheris.instrument_imports(include=["beam_imagenet"]):
    from beam_imagenet.errors import ArchiveError
    from beam_imagenet.inventory import list_segments, read_segment
    from beam_imagenet.model import SPLITS, Source
    from beam_imagenet.tar import BLOCK, walk

_READS_A_BLOCK = 2  # a header, and the content of an extended one
_MOST_READ = 4  # times the archive: windows overlap by a block, extended headers are read twice


class _Archive:
    """An archive in memory that bounds what is read of it."""

    path = "fuzz.tar"

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._reads_left = 4 + _READS_A_BLOCK * len(content) // BLOCK
        self._bytes_left = BLOCK + _MOST_READ * len(content)

    def read(self, offset: int, size: int) -> bytes:
        assert 0 <= offset <= offset + size <= len(self._content), "it reads beyond the archive"
        self._reads_left -= 1
        self._bytes_left -= size
        assert self._reads_left >= 0, "it reads too often"
        assert self._bytes_left >= 0, "it reads too much"
        return self._content[offset : offset + size]


def check(data: bytes) -> None:
    """Raises AssertionError where a promise is broken.

    The first byte of `data` chooses what is done with the rest, the archive.
    """
    choice, content = (data[0], data[1:]) if data else (0, b"")
    if choice & 1:
        content = _with_right_sums(content)
    split = SPLITS[(choice >> 1) % 3]
    _check_walk(content)
    _check_inventory(content, split, keep_member_path=bool(choice & 8))


def _check_walk(content: bytes) -> None:
    stop = 0
    try:
        for member in walk(_Archive(content), start=0, stop=len(content)):
            assert stop <= member.start < member.offset
            assert member.offset + member.size <= member.stop <= len(content)
            stop = member.stop
    except ArchiveError as error:
        require_sentence(str(error))


def _check_inventory(content: bytes, split: str, *, keep_member_path: bool) -> None:
    source = Source(split=split, archive="fuzz.tar", size=len(content), modified=0)
    position = 0
    try:
        for segment in list_segments(source, _Archive(content)):
            assert segment.start == position
            position = segment.stop
            batch = read_segment(segment, _Archive(content), keep_member_path=keep_member_path)
            assert len(batch.names) == len(batch.offsets) == len(batch.sizes) == len(batch.labels)
            assert batch.overhead >= 0
            for offset, size in zip(batch.offsets.tolist(), batch.sizes.tolist(), strict=True):
                assert segment.start < offset <= offset + size <= segment.stop
        assert position == len(content)
    except ArchiveError as error:
        require_sentence(str(error))


def _with_right_sums(content: bytes) -> bytes:
    """The archive with the checksum of each block that has a header's magic.

    A fuzzer does not guess checksums, and would never get behind them.
    """
    blocks = [bytearray(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]
    for block in blocks:
        if block[257:262] == b"ustar" and len(block) == BLOCK:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def _tar(
    members: dict[str, bytes], format: int = tarfile.USTAR_FORMAT, kind: bytes = b"0"
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return buffer.getvalue()[: end + 2 * BLOCK]


def _extended(kind: bytes, content: bytes) -> bytes:
    """An extended header and its content."""
    return _tar({"extended": content}, kind=kind)[: -2 * BLOCK]


def _seeds() -> dict[str, bytes]:
    inner = _tar({"n01440764_1.JPEG": b"one", "n01440764_2.JPEG": b"t" * 600})
    train = _tar({"n01440764.tar": inner, "n01443537.tar": inner.replace(b"01440764", b"01443537")})
    validation = {f"ILSVRC2012_val_{number:08d}.JPEG": b"image" for number in (1, 50_000)}
    long_name = "folder/" * 40 + "ILSVRC2012_test_00000001.JPEG"
    return {
        "train": b"\1" + train,
        "train_without_inner_end": b"\1" + _tar({"n01440764.tar": inner[: -2 * BLOCK]}),
        "validation": b"\3" + _tar(validation),
        "validation_by_path": b"\x0b" + _tar({f"./val/{k}": v for k, v in validation.items()}),
        "test": b"\5" + _tar({"test/ILSVRC2012_test_00000001.JPEG": b"image"}),
        "test_gnu": b"\x0d" + _tar({long_name: b"image"}, tarfile.GNU_FORMAT),
        "test_pax": b"\x0d" + _tar({long_name: b"image"}, tarfile.PAX_FORMAT),
        "pax_size": b"\3" + _extended(b"x", b"9 size=5\n") + _tar(validation),
        "pax_sparse": b"\3" + _extended(b"x", b"22 GNU.sparse.major=1\n") + _tar(validation),
        "pax_global": b"\3" + _extended(b"g", b"9 size=5\n") + _tar(validation),
        "twice": b"\1" + _tar({"n01440764.tar": inner, "a/n01440764.tar": inner}),
        "large": b"\3" + _tar({"ILSVRC2012_val_00000001.JPEG": bytes(20_000)}),
        "folder": b"\1" + _tar({"folder/": b""}, kind=b"5"),
        "link": b"\1" + _tar({"link": b""}, kind=b"2"),
        "gzip": b"\0\x1f\x8b\x08",
    }


if __name__ == "__main__":
    fuzz(check, name="tar", seeds=_seeds())
