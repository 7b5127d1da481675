"""What the drawn images are like, beside what was measured on real ILSVRC-2012 images."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from beam_imagenet import drawing


@pytest.fixture(scope="module")
def small() -> drawing.Painter:
    return drawing.make_painter(seed=0, image_bytes=1900)


@pytest.fixture(scope="module")
def photographs(small: drawing.Painter) -> list[bytes]:
    return [small.photograph(f"image{number}") for number in range(3000)]


@pytest.mark.parametrize(("image_bytes", "images"), [(1900, 1500), (4000, 1000), (109_600, 200)])
def test_mean_and_spread_of_bytes(image_bytes: int, images: int) -> None:
    painter = drawing.make_painter(seed=0, image_bytes=image_bytes)
    sizes = [len(painter.photograph(f"image{number}")) for number in range(images)]
    assert np.mean(sizes) == pytest.approx(image_bytes, rel=0.15)
    assert 0.35 < np.std(sizes) / np.mean(sizes) < 0.85


def test_full_scale_images_have_the_shape_and_bits_of_photographs() -> None:
    painter = drawing.make_painter(seed=0, image_bytes=109_600)
    jpegs = [painter.photograph(f"image{number}") for number in range(200)]
    heights, widths, *_ = zip(*map(simplejpeg.decode_jpeg_header, jpegs), strict=True)
    assert np.mean(widths) == pytest.approx(468, rel=0.1)
    assert np.mean(heights) == pytest.approx(401, rel=0.1)
    pixels = np.multiply(widths, heights).sum()
    assert 8 * sum(map(len, jpegs)) / pixels == pytest.approx(4.67, rel=0.15)
    shapes = Counter(zip(widths, heights, strict=True))
    assert max(shapes.values()) < len(jpegs) / 2
    assert len(shapes) > 20


def test_every_image_decodes_and_is_distinct(photographs: list[bytes]) -> None:
    assert len(set(photographs)) == len(photographs)
    for jpeg in photographs:
        pixels = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", strict=True)
        assert pixels.std() > 0


def test_shares_of_chroma_sampling(photographs: list[bytes]) -> None:
    sampling = Counter(simplejpeg.decode_jpeg_header(jpeg)[3] for jpeg in photographs)
    shares = {name: count / len(photographs) for name, count in sampling.items()}
    assert shares["Gray"] == pytest.approx(0.023, abs=0.01)
    assert shares["420"] == pytest.approx(0.205, abs=0.03)
    assert shares["422"] == pytest.approx(0.008, abs=0.006)
    assert shares["444"] == pytest.approx(0.764, abs=0.03)


def test_orientation_tags(photographs: list[bytes]) -> None:
    orientations: Counter[int | None] = Counter()
    for jpeg in photographs:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert "progressive" not in image.info
            assert "jfif" in image.info
            orientations[image.getexif().get(0x0112)] += 1
    assert set(orientations) == {None, 1, 6}
    assert (orientations[1] + orientations[6]) / len(photographs) == pytest.approx(0.046, abs=0.015)
    assert orientations[1] > 10 * orientations[6]


def test_an_image_follows_from_its_name_and_seed(
    small: drawing.Painter, photographs: list[bytes]
) -> None:
    # Backwards, so that memory an encoder reads beyond a plane's edge would hold something else.
    again = [small.photograph(f"image{number}") for number in reversed(range(3000))]
    assert again[::-1] == photographs
    other = drawing.make_painter(seed=1, image_bytes=1900)
    others = [other.photograph(f"image{number}") for number in range(100)]
    assert not set(others) & set(photographs)
    shapes, other_shapes = (
        [simplejpeg.decode_jpeg_header(jpeg)[:2] for jpeg in jpegs]
        for jpegs in (photographs[:100], others)
    )
    assert shapes != other_shapes


def test_an_image_larger_than_the_canvas_repeats_it() -> None:
    painter = drawing.make_painter(seed=0, image_bytes=1_000_000)
    for number in range(100):
        image = simplejpeg.decode_jpeg(painter.photograph(f"image{number}"), colorspace="GRAY")
        if min(image.shape[:2]) > drawing.SIDE + 100:
            break
    for plane in (image[..., 0].astype(int), image[..., 0].T.astype(int)):
        assert np.abs(plane[:100] - plane[drawing.SIDE : drawing.SIDE + 100]).mean() < 4
        assert np.abs(plane[:100] - plane[500:600]).mean() > 15


@pytest.mark.parametrize(("ycck", "transform"), [(False, 0), (True, 2)])
def test_four_components_are_stored_as_adobe_does(
    small: drawing.Painter, ycck: bool, transform: int
) -> None:
    with Image.open(io.BytesIO(small.png("image"))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        picture = np.asarray(image).astype(int)
    with Image.open(io.BytesIO(small.cmyk("image", ycck=ycck))) as image:
        assert (image.format, image.mode) == ("JPEG", "CMYK")
        assert image.info["adobe_transform"] == transform
        # Pillow undoes the inversion that goes with Adobe's marker.
        same_picture = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(picture - same_picture).mean() < 4


def test_grain_never_wraps_around_black_or_white() -> None:
    canvases = drawing.draw_canvases(0)
    grain = np.stack(canvases.grains).view(np.int8)
    assert int(canvases.tones.min()) + int(grain.min()) >= 0
    assert int(canvases.tones.max()) + int(grain.max()) <= 255
