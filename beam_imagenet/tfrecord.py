"""The bytes of a TFRecord file that holds `tf.train.Example`s, without TensorFlow.

A pure codec: knows nothing of files, images or plans. An Example with a bytes `file_name`, a bytes
`image` and an int64 `label` is a fixed frame around bytes that are already there, so a writer asks
for what comes before and after the image, and never copies the image itself.

Formats: tensorflow/core/example/{example,feature}.proto in protobuf's wire format with map entries
in key order (what `SerializeToString(deterministic=True)` gives), and the TFRecord framing
`uint64 length, uint32 masked_crc32c(length), data, uint32 masked_crc32c(data)`, little-endian.
"""

from __future__ import annotations

import functools
import struct

import google_crc32c
import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 12
FOOTER_BYTES = 4
FRAME_BYTES = HEADER_BYTES + FOOTER_BYTES
"""What the framing adds to each record; TFDS's shard rule counts it as 16 bytes too."""

MAX_AFTER_IMAGE = 64
"""At least what follows an image in its record: the label's entry (25 bytes at most) and the footer."""

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_NAME_KEY = b"\x0a\x09file_name"
_IMAGE_KEY = b"\x0a\x05image"
_LABEL_KEY = b"\x0a\x05label"


def masked_crc(data: bytes | NDArray[np.uint8]) -> int:
    """TFRecord's masked CRC-32C of `data`."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.lru_cache(maxsize=1 << 16)
def record_header(length: int) -> bytes:
    """The 12 bytes before a record of `length` bytes."""
    field = _LENGTH.pack(length)
    return field + _CRC.pack(masked_crc(field))


def record_footer(data: bytes | NDArray[np.uint8]) -> bytes:
    """The 4 bytes after the record `data`."""
    return _CRC.pack(masked_crc(data))


def example_prefix(file_name: bytes, *, image_size: int, label: int) -> bytes:
    """The bytes of an Example up to its image."""
    name_head = _name_head(len(file_name))
    image_head = _image_head(image_size)
    features_size = (
        len(name_head) + len(file_name) + len(image_head) + image_size + len(example_suffix(label))
    )
    return b"".join((b"\x0a", _varint(features_size), name_head, file_name, image_head))


@functools.lru_cache(maxsize=256)
def _name_head(size: int) -> bytes:
    """The `file_name` entry up to its value of `size` bytes."""
    return _entry_head(_NAME_KEY, size)


@functools.lru_cache(maxsize=1 << 16)  # sizes repeat: a shard's prefixes cost a third of the time
def _image_head(size: int) -> bytes:
    """The `image` entry up to its value of `size` bytes."""
    return _entry_head(_IMAGE_KEY, size)


def _entry_head(key: bytes, size: int) -> bytes:
    """A map entry `key: Feature(bytes_list=[value])` up to its value of `size` bytes."""
    value = b"\x0a" + _varint(size)
    values = b"\x0a" + _varint(len(value) + size) + value
    feature = key + b"\x12" + _varint(len(values) + size) + values
    return b"\x0a" + _varint(len(feature) + size) + feature


@functools.cache
def example_suffix(label: int) -> bytes:
    """The bytes of an Example after its image."""
    values = _varint(label & 0xFFFFFFFFFFFFFFFF)
    int64_list = b"\x0a" + _varint(len(values)) + values
    feature = b"\x1a" + _varint(len(int64_list)) + int64_list
    entry = _LABEL_KEY + b"\x12" + _varint(len(feature)) + feature
    return b"\x0a" + _varint(len(entry)) + entry


def example_sizes(
    *, name_sizes: NDArray[np.integer], image_sizes: NDArray[np.integer], labels: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Bytes of each serialised Example, for columns of equal length."""
    kinds, positions = np.unique(labels, return_inverse=True)
    suffixes = np.array([len(example_suffix(kind)) for kind in kinds.tolist()], dtype=np.int64)
    names = _entry_sizes(_NAME_KEY, name_sizes)
    return _field_sizes(names + _entry_sizes(_IMAGE_KEY, image_sizes) + suffixes[positions])


def _entry_sizes(key: bytes, sizes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Bytes of map entries as in `_entry_head`, their values of `sizes` bytes included."""
    values = _field_sizes(_field_sizes(sizes.astype(np.int64)))
    return _field_sizes(len(key) + _field_sizes(values))


def _field_sizes(contents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of length-delimited fields: tag, length, content."""
    sizes = contents + 2
    for power in range(7, 36, 7):  # no field has 2**35 bytes
        sizes += contents >= 1 << power
    return sizes


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
