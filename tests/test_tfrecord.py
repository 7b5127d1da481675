"""Records beside TensorFlow's: the Example's bytes, and the file's framing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_imagenet import tfrecord

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=255)
LENGTHS = [0, 1, 2, 105, 106, 113, 114, 127, 128, 16_365, 16_383, 16_384, (1 << 21) - 20, 1 << 21]
LABELS = [-1, 0, 1, 127, 128, 999]


def example(file_name: bytes, image: bytes, label: int) -> bytes:
    """TensorFlow's serialisation."""
    feature = {
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "file_name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[file_name])),
    }
    message = tf.train.Example(features=tf.train.Features(feature=feature))
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def ours(file_name: bytes, image: bytes, label: int) -> bytes:
    prefix = tfrecord.example_prefix(file_name, image_size=len(image), label=label)
    return prefix + image + tfrecord.example_suffix(label)


def predicted_size(file_name: bytes, image: bytes, label: int) -> int:
    sizes = tfrecord.example_sizes(
        name_sizes=np.array([len(file_name)]),
        image_sizes=np.array([len(image)], dtype=np.uint32),
        labels=np.array([label], dtype=np.int16),
    )
    return int(sizes[0])


def framed(records: list[bytes]) -> bytes:
    return b"".join(
        tfrecord.record_header(len(record)) + record + tfrecord.record_footer(record)
        for record in records
    )


@given(name=NAMES, image=st.binary(max_size=400), label=st.integers(-1, 999))
@settings(deadline=None, max_examples=200)
def test_an_example_is_tensorflows(name: str, image: bytes, label: int) -> None:
    file_name = name.encode()[:255]
    expected = example(file_name, image, label)
    assert ours(file_name, image, label) == expected
    assert predicted_size(file_name, image, label) == len(expected)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("label", LABELS)
def test_an_example_is_tensorflows_where_lengths_grow_a_byte(length: int, label: int) -> None:
    image = b"\xff" * length
    for name_length in (1, 23, 127, 128, 255):
        file_name = b"n" * name_length
        expected = example(file_name, image, label)
        assert ours(file_name, image, label) == expected
        assert predicted_size(file_name, image, label) == len(expected)


def test_every_label_is_tensorflows() -> None:
    for label in range(-1, 1000):
        assert ours(b"n", b"", label) == example(b"n", b"", label)


def test_sizes_of_a_column_are_those_of_its_rows() -> None:
    names, images, labels = (
        column.ravel()
        for column in np.meshgrid([1, 20, 127, 255], LENGTHS[:-2], LABELS, indexing="ij")
    )
    sizes = tfrecord.example_sizes(
        name_sizes=names, image_sizes=images.astype(np.uint32), labels=labels.astype(np.int16)
    )
    rows = zip(names.tolist(), images.tolist(), labels.tolist(), strict=True)
    assert sizes.tolist() == [
        len(ours(b"n" * name, bytes(image), label)) for name, image, label in rows
    ]


def test_sizes_of_images_near_a_gibibyte_hold() -> None:
    for image_size in ((1 << 28) - 1, 1 << 28, 1 << 30):
        prefix = tfrecord.example_prefix(b"name", image_size=image_size, label=7)
        sizes = tfrecord.example_sizes(
            name_sizes=np.array([4]),
            image_sizes=np.array([image_size], dtype=np.uint32),
            labels=np.array([7], dtype=np.int16),
        )
        assert sizes.tolist() == [len(prefix) + image_size + len(tfrecord.example_suffix(7))]


def test_what_follows_an_image_fits_its_room() -> None:
    longest = max(len(tfrecord.example_suffix(label)) for label in range(-1, 1000))
    assert longest == 25
    assert longest + tfrecord.FOOTER_BYTES <= tfrecord.MAX_AFTER_IMAGE


@given(records=st.lists(st.binary(max_size=300), max_size=5))
@settings(deadline=None, max_examples=50)
def test_a_file_is_the_one_that_tensorflow_writes(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "by_tensorflow.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    assert framed(records) == path.read_bytes()


def test_tensorflow_reads_what_was_framed(tmp_path: Path) -> None:
    rows = [
        (b"one.JPEG", b"\xff\xd8" * 5000, 0),
        (b"two.JPEG", b"", -1),
        (b"three.JPEG", b"3", 999),
    ]
    path = tmp_path / "ours.tfrecord"
    path.write_bytes(framed([ours(*row) for row in rows]))
    features = {
        "file_name": tf.io.FixedLenFeature((), tf.string),
        "image": tf.io.FixedLenFeature((), tf.string),
        "label": tf.io.FixedLenFeature((), tf.int64),
    }
    read = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        parsed = tf.io.parse_single_example(record, features)
        read.append(tuple(parsed[key].numpy() for key in ("file_name", "image", "label")))
    assert read == rows


# Made by:
#   with tf.io.TFRecordWriter(path) as writer:
#       writer.write(tf.train.Example(...).SerializeToString(deterministic=True))
#   path.read_bytes().hex(" ", 4)
# of TensorFlow 2.21.0, where the Example has file_name b"a.JPEG", image b"image" and label -1.
GOLDEN = """
    48000000 00000000 fe92489d 0a460a17 0a096669 6c655f6e 616d6512 0a0a080a
    06612e4a 5045470a 120a0569 6d616765 12090a07 0a05696d 6167650a 170a056c
    6162656c 120e1a0c 0a0affff ffffffff ffffff01 ee98b2a3
"""


def test_a_record_is_the_golden_one() -> None:
    assert framed([ours(b"a.JPEG", b"image", -1)]) == bytes.fromhex(GOLDEN)


def test_checksums_are_taken_from_arrays_too() -> None:
    data = b"the quick brown fox"
    array = np.frombuffer(data, dtype=np.uint8)
    assert tfrecord.record_footer(array) == tfrecord.record_footer(data)
    assert tfrecord.masked_crc(array[4:9]) == tfrecord.masked_crc(b"quick")
