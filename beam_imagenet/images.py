"""Image bytes: what they are, and the colour fixes that make every image an RGB or grayscale JPEG.

Knows nothing of archives, shards or Beam. What an image is follows from its bytes, never from its
name, and never from what a codec refuses: codecs refuse legal JPEGs.
"""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from beam_imagenet import cmyk
from beam_imagenet.errors import ImageError

_JPEG_SIGNATURE = b"\xff\xd8"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SEGMENT = struct.Struct(">BBH")
_FRAME = struct.Struct(">BHHB")
_NOT_FRAMES = frozenset((0xC4, 0xC8, 0xCC))  # DHT, JPG and DAC share SOF's range of codes
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))  # TEM and RST0 to RST7 carry no length


@dataclasses.dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header tells.

    Attributes:
        format: "JPEG" or "PNG".
        width: Pixels.
        height: Pixels.
        components: Colour components of a JPEG: 1 gray, 3 colour, 4 CMYK or YCCK. 0 for a PNG.
    """

    format: str
    width: int
    height: int
    components: int

    @property
    def needs_fix(self) -> str | None:
        """What the image is converted from, "CMYK" or "PNG"; None if it is carried over as it is."""
        if self.format == "PNG":
            return "PNG"
        return "CMYK" if self.components == 4 else None


def probe(data: bytes | memoryview) -> ImageFacts:
    """Reads an image's header by a walk over its markers; costs about 2 us.

    Args:
        data: The whole file.

    Raises:
        ImageError: It is neither a JPEG with a frame header nor a PNG.
    """
    if data[:2] != _JPEG_SIGNATURE:
        start = bytes(data[:8])
        if start != _PNG_SIGNATURE:
            what = f"it starts with {start.hex(' ')}" if start else "it is empty"
            raise ImageError(f"it is neither a JPEG nor a PNG ({what})")
        if len(data) < 24:
            raise ImageError("it is a PNG that ends inside its header")
        width, height = struct.unpack_from(">II", data, 16)
        return ImageFacts("PNG", width, height, 0)
    position = 2
    stop = len(data) - 3
    while position < stop:
        mark, code, length = _SEGMENT.unpack_from(data, position)
        if mark != 0xFF or code == 0x00:
            # Decoders pass over stray bytes between segments, so they are no reason to refuse.
            data = bytes(data)
            position = data.find(b"\xff", position + 1)
            if position < 0:
                break
            continue
        if 0xC0 <= code <= 0xCF and code not in _NOT_FRAMES:
            if position + 10 > len(data):
                break
            _, height, width, components = _FRAME.unpack_from(data, position + 4)
            return ImageFacts("JPEG", width, height, components)
        if code == 0xFF:  # a fill byte before a marker
            position += 1
        elif code in _STANDALONE:
            position += 2
        elif code in (0xD8, 0xD9, 0xDA) or length < 2:
            break
        else:
            position += 2 + length
    raise ImageError("it is a JPEG without a frame header")


def to_rgb_jpeg(data: bytes) -> bytes:
    """Converts a CMYK or YCCK JPEG, or a PNG, to the JPEG that TFDS makes of it.

    The bytes are TFDS's (`jpeg_cmyk_to_rgb` and `png_to_jpeg` in its core/utils/image_utils.py):
    TensorFlow's decoding, then libjpeg at quality 100 with 4:2:0 chroma and 300 dots an inch.

    Raises:
        ImageError: The image cannot be decoded.
    """
    try:
        pixels = _png_to_rgb(data) if data.startswith(_PNG_SIGNATURE) else cmyk.decode_rgb(data)
        output = io.BytesIO()
        Image.fromarray(pixels).save(output, "JPEG", quality=100, subsampling=2, dpi=(300, 300))
    except UnidentifiedImageError as error:  # its text has an address in memory
        raise ImageError("it has to be converted to RGB, but its header is damaged") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"it has to be converted to RGB, which failed ({error})") from error
    return output.getvalue()


def _png_to_rgb(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):
            # 16-bit gray: libpng keeps the high byte, Pillow's own conversion clips.
            high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.repeat(high[:, :, np.newaxis], 3, axis=2)
        return np.asarray(image.convert("RGB"))
