"""CMYK and YCCK JPEGs to RGB pixels, the very ones that `tf.image.decode_jpeg` gives.

Knows JPEG samples and nothing else. TensorFlow decodes with libjpeg-turbo, the fast DCT and "fancy"
upsampling, then multiplies each ink with black (tensorflow/core/lib/jpeg/jpeg_mem.cc). simplejpeg
does the first part for the usual chroma samplings; for the others Pillow decodes the components as
they are stored, and libjpeg's upsampling and colour conversion (jdsample.c, jdcolor.c) follow here.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin

_Plane = NDArray[np.int32]


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """Decodes a JPEG of four components to RGB, shape (height, width, 3).

    Raises:
        OSError, ValueError, SyntaxError: The data cannot be decoded.
    """
    with Image.open(io.BytesIO(data)) as opened:
        if not isinstance(opened, JpegImagePlugin.JpegImageFile):
            raise ValueError(f"a {opened.format} is no JPEG")
        try:
            inks = simplejpeg.decode_jpeg(data, colorspace="CMYK", fastdct=True).astype(np.int32)
        except (ValueError, KeyError):
            # Legal chroma samplings that TurboJPEG has no name for.
            inks = _decode_components(opened)
        if "adobe" not in opened.info:
            inks = 255 - inks  # Adobe stores complements; without its marker ink is ink
    rgb: NDArray[np.uint8] = (inks[..., :3] * inks[..., 3:] // 255).astype(np.uint8)
    return rgb


def _decode_components(image: JpegImagePlugin.JpegImageFile) -> NDArray[np.int32]:
    """The stored inks, shape (height, width, 4)."""
    factors = [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer]
    most_horizontal = max(horizontal for horizontal, _ in factors)
    most_vertical = max(vertical for _, vertical in factors)
    is_ycck = image.info.get("adobe_transform", 0) != 0  # libjpeg takes unknown codes so
    # Both modes CMYK: no conversion. The second 1 asks for the fast DCT, and for upsampling by
    # repetition, which can be undone.
    image.tile = [ImageFile._Tile("jpeg", (0, 0, *image.size), 0, ("CMYK", "CMYK"))]
    image.decoderconfig = (1, 1)
    stored = np.asarray(image).astype(np.int32)
    planes = [
        _upsample(
            stored[:: most_vertical // vertical, :: most_horizontal // horizontal, index],
            horizontal=most_horizontal // horizontal,
            vertical=most_vertical // vertical,
            shape=stored.shape[:2],
        )
        for index, (horizontal, vertical) in enumerate(factors)
    ]
    if is_ycck:
        planes[:3] = _inks_of_ycc(*planes[:3])
    return np.stack(planes, axis=2)


def _upsample(plane: _Plane, *, horizontal: int, vertical: int, shape: tuple[int, ...]) -> _Plane:
    """libjpeg-turbo's upsampling: a triangle filter for factors of 2, repetition for others."""
    if (horizontal, vertical) == (2, 1) and plane.shape[1] > 2:
        plane = _fancy_rows(plane, before=1, after=2, shift=2)
    elif (horizontal, vertical) == (1, 2):
        plane = _fancy_columns(plane)
        plane[0::2] += 1
        plane[1::2] += 2
        plane >>= 2
    elif (horizontal, vertical) == (2, 2) and plane.shape[1] > 2:
        plane = _fancy_rows(_fancy_columns(plane), before=8, after=7, shift=4)
    else:
        plane = plane.repeat(vertical, axis=0).repeat(horizontal, axis=1)
    return plane[: shape[0], : shape[1]]


def _fancy_columns(plane: _Plane) -> _Plane:
    """Twice the rows, each three quarters of its own and one quarter of the next, times 4."""
    rows = np.pad(plane, ((1, 1), (0, 0)), mode="edge")
    output = np.repeat(3 * plane, 2, axis=0)
    output[0::2] += rows[:-2]
    output[1::2] += rows[2:]
    return output


def _fancy_rows(plane: _Plane, *, before: int, after: int, shift: int) -> _Plane:
    """Twice the columns likewise, rounded: `before` and `after` alternate, `shift` divides."""
    columns = np.pad(plane, ((0, 0), (1, 1)), mode="edge")
    output = np.repeat(3 * plane, 2, axis=1)
    output[:, 0::2] += columns[:, :-2]
    output[:, 1::2] += columns[:, 2:]
    output[:, 0::2] += before
    output[:, 1::2] += after
    return output >> shift


def _inks_of_ycc(luma: _Plane, blue: _Plane, red: _Plane) -> list[_Plane]:
    """libjpeg's YCCK to CMYK in 16-bit fixed point; black passes through."""
    half = 1 << 15
    blue, red = blue - 128, red - 128
    cyan = luma + ((91881 * red + half) >> 16)
    magenta = luma + ((-22554 * blue - 46802 * red + half) >> 16)
    yellow = luma + ((116130 * blue + half) >> 16)
    return [np.clip(255 - plane, 0, 255) for plane in (cyan, magenta, yellow)]
