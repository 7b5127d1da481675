"""Draws photograph-like images and encodes them: a name in, the bytes of one JPEG or PNG out.

Stands in for photographs that nobody may pass on. Knows nothing of archives or of the command
line. What it aims at was measured on real ILSVRC-2012 images: their shapes, bits a pixel, chroma
sampling, quality, share of grayscale and of EXIF orientation tags.

An image is made of pieces of a few large *canvases*: a piece of a scene (coloured regions with
sharp edges and soft shading), its tones remapped, plus a piece of grain from elsewhere. That is a
few passes over bytes an image, which leaves most of the time to the JPEG encoder.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

_Plane = NDArray[np.uint8]
_Field = NDArray[np.float32]

MIN_IMAGE_BYTES = 1_000
"""Below this mean, an image would be little more than a JPEG's headers."""

MAX_IMAGE_BYTES = 1_000_000
"""Nine times ILSVRC-2012's mean; larger images would do little but repeat their canvas."""

SIDE = 1024
"""Width and height of a canvas. A larger image repeats it without a seam."""

_GRAIN_LIMIT = 40
_GRAIN_DEVIATIONS = (0.3, 1.5, 3.0, 5.0, 8.0, 12.0, 17.0, 24.0)
_CHROMA_LIMIT = 60
_CAST = 24


class _Scenery(NamedTuple):
    """How rough a scene is: a field's amplitude falls with frequency to the power of minus this."""

    outline: float
    surface: float
    chroma_deviation: float


_SCENERIES = (
    _Scenery(outline=2.8, surface=2.6, chroma_deviation=3),
    _Scenery(outline=2.4, surface=2.0, chroma_deviation=5),
    _Scenery(outline=2.2, surface=1.6, chroma_deviation=7),
    _Scenery(outline=1.9, surface=1.2, chroma_deviation=8),
)


class _Kind(NamedTuple):
    """A kind of JPEG: its share of all images in per mille, and what its images are like.

    `shapes` are pairs of width and height at full scale, each listed as often as it is common.
    `body_bits` (a pixel) and `header_bytes` are what the encoder makes of such images.
    """

    per_mille: int
    shapes: tuple[tuple[int, int], ...]
    qualities: tuple[int, ...]
    chroma_across: int
    chroma_down: int
    body_bits: float
    header_bytes: int = 623


def _often(*counted: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((width, height) for count, width, height in counted for _ in range(count))


# Most images come from one photo site, with its sizes and at quality 96. The subsampled ones come
# from all over the web: smaller or larger, and squeezed harder.
_SITE = _often(
    *((38, 500, 375), (16, 500, 333), (16, 375, 500), (8, 333, 500), (4, 500, 500), (5, 500, 400)),
    *((3, 400, 500), (3, 500, 281), (2, 445, 303), (2, 350, 236), (2, 640, 480), (1, 800, 600)),
    (2, 174, 223),
)
_WEB = _often(
    *((6, 500, 375), (3, 500, 333), (2, 375, 500), (3, 400, 300), (3, 300, 225), (2, 200, 150)),
    *((1, 136, 150), (2, 350, 350), (3, 600, 450), (3, 640, 480), (2, 768, 512), (1, 1024, 768)),
    (1, 1200, 1600),
)
_SITE_QUALITIES = (96,) * 13 + (95, 90, 80)
_WEB_QUALITIES = (70, 75, 75, 75, 75, 75, 80, 80, 80, 80, 85, 85, 90)

_GRAYSCALE = _Kind(23, _SITE, _SITE_QUALITIES, 0, 0, 4.2, 332)
_KINDS = (
    _GRAYSCALE,
    _Kind(205, _WEB, _WEB_QUALITIES, 2, 2, 2.05),  # 4:2:0
    _Kind(8, _WEB, _WEB_QUALITIES, 2, 1, 2.4),  # 4:2:2
    _Kind(764, _SITE, _SITE_QUALITIES, 1, 1, 5.55),  # 4:4:4
)
_DECK = tuple(kind for kind in _KINDS for _ in range(kind.per_mille))

# The encoder fills up blocks of 8 or 16 pixels, as if an image were this much wider and higher.
_BLOCK_FILL = 2.0
_TRIMMED_ONE_IN = 3
_TRIM = 0.1

_ORIENTED_PER_MILLE = 46
_ROTATED_ONE_IN = 44
_AFTER_JFIF = 20
_EXIF = struct.Struct("<2sH6s4sIHHHIHHI")


class _Choices(NamedTuple):
    """Everything random about one image: numbers from 0 to 65,535."""

    kind: int
    shape: int
    trimmed: int
    trim: int
    quality: int
    scene: int
    y: int
    x: int
    tone: int
    grain: int
    grain_y: int
    grain_x: int
    blue: int
    red: int
    orientation: int
    rotated: int


_CHOICES = struct.Struct(f">{len(_Choices._fields)}H")


class _Scene(NamedTuple):
    luma: _Plane
    blue: _Plane
    red: _Plane


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """What images are cut from; every plane is `SIDE` x `SIDE` and periodic.

    Attributes:
        scenes: Luma from 0 to 255 and chroma within 128 +- 60, from calm to busy.
        grains: Fine texture within +- 40, from faint to strong, modulo 256.
        tones: Tone curves of 256 bytes, one a row; they leave room for the grain.
    """

    scenes: tuple[_Scene, ...]
    grains: tuple[_Plane, ...]
    tones: NDArray[np.uint8]


@functools.lru_cache(maxsize=2)
def draw_canvases(seed: int) -> Canvases:
    """Draws the canvases of a seed: about 1 s and 20 MB."""
    key = hashlib.blake2b(f"canvases/{seed}".encode(), digest_size=16).digest()
    random = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))
    scenes = tuple(_draw_scene(random, scenery) for scenery in _SCENERIES)
    texture, _ = _fields(random, roughness=0.35)
    patches, _ = _fields(random, roughness=1.8)
    texture *= np.exp(0.35 * patches)
    texture /= texture.std()
    grains = tuple(
        np.clip(np.rint(texture * deviation), -_GRAIN_LIMIT, _GRAIN_LIMIT)
        .astype(np.int8)
        .view(np.uint8)
        for deviation in _GRAIN_DEVIATIONS
    )
    contrast = np.array([1.1, 0.9, 0.75, 0.6, -0.9])[:, np.newaxis, np.newaxis]
    brightness = np.linspace(-24, 24, 13)[:, np.newaxis]
    tones = 122 + brightness + contrast * (np.arange(256) - 122)
    tones = np.clip(tones, _GRAIN_LIMIT, 255 - _GRAIN_LIMIT).reshape(-1, 256)
    return Canvases(scenes=scenes, grains=grains, tones=tones.astype(np.uint8))


def _fields(random: np.random.Generator, *, roughness: float) -> tuple[_Field, _Field]:
    """Two independent fields of unit deviation, of amplitude frequency ** -roughness."""
    across = np.fft.fftfreq(SIDE).astype(np.float32)
    frequency = np.hypot(across, across[:, np.newaxis])
    # Waves longer than half a canvas would make it one slope.
    amplitude = np.where(frequency < 2 / SIDE, 0, np.maximum(frequency, 1 / SIDE) ** -roughness)
    noise = random.standard_normal((SIDE, SIDE, 2), dtype=np.float32).view(np.complex64)[..., 0]
    waves = np.fft.ifft2(noise * amplitude)
    first, second = waves.real.astype(np.float32), waves.imag.astype(np.float32)
    return first / first.std(), second / second.std()


def _draw_scene(random: np.random.Generator, scenery: _Scenery) -> _Scene:
    """Regions where two outlines overlap, each of one colour, with shading and hues over them."""
    cuts = np.array([-0.8, -0.1, 0.5, 1.2], np.float32)
    over, under = _fields(random, roughness=scenery.outline)
    regions = np.digitize(over, cuts) * (len(cuts) + 1) + np.digitize(under, cuts)
    count = (len(cuts) + 1) ** 2
    shading, _ = _fields(random, roughness=scenery.surface)
    luma = random.normal(120, 45, count)[regions] + 30 * shading
    chroma = [
        np.clip(
            random.normal(128, 9, count)[regions] + scenery.chroma_deviation * hues,
            128 - _CHROMA_LIMIT,
            128 + _CHROMA_LIMIT,
        ).astype(np.uint8)
        for hues in _fields(random, roughness=scenery.surface)
    ]
    return _Scene(np.clip(luma, 0, 255).astype(np.uint8), *chroma)


@dataclass(frozen=True, kw_only=True)
class Painter:
    """Draws any number of distinct images; each follows from `seed`, `scale` and its name alone.

    Attributes:
        seed: Another seed gives other choices for every image.
        scale: Factor on the width and height of every image; 1 is ILSVRC-2012's.
        canvases: `draw_canvases(seed)`.
    """

    seed: int
    scale: float
    canvases: Canvases

    def photograph(self, name: str) -> bytes:
        """The JPEG of this name: baseline JFIF, at times grayscale or with an orientation tag."""
        choices = self._choices(name)
        kind = _DECK[choices.kind % len(_DECK)]
        width, height = self._shape(choices, kind.shapes)
        luma, blue, red = self._planes(choices, kind, width=width, height=height)
        quality = kind.qualities[choices.quality % len(kind.qualities)]
        jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality)
        if choices.orientation % 1000 >= _ORIENTED_PER_MILLE:
            return jpeg
        orientation = 6 if choices.rotated % _ROTATED_ONE_IN == 0 else 1
        return jpeg[:_AFTER_JFIF] + _exif(orientation) + jpeg[_AFTER_JFIF:]

    def cmyk(self, name: str, *, ycck: bool = False) -> bytes:
        """The four-component JPEG of this name as Adobe writes it: its marker, inks inverted.

        The components are CMYK, or with `ycck` YCCK (Adobe's transform 2).
        """
        light = self._light(name)
        # As inverted inks are light: a pixel is its black times cyan, magenta and yellow.
        black = light.max(axis=2, keepdims=True)
        colours = light.astype(np.uint16) * 255 // np.maximum(black, 1)
        inverted = np.concatenate([colours.astype(np.uint8), black], axis=2)
        if ycck:
            jpeg: bytes = simplejpeg.encode_jpeg(inverted, 90, "CMYK", "444")
            return jpeg
        file = io.BytesIO()
        height, width, _ = light.shape
        # Pillow takes plain inks and inverts them itself.
        inks = (255 - inverted).tobytes()
        Image.frombytes("CMYK", (width, height), inks).save(file, "JPEG", quality=90)
        return file.getvalue()

    def png(self, name: str) -> bytes:
        """The RGB PNG of this name."""
        file = io.BytesIO()
        Image.fromarray(self._light(name)).save(file, "PNG")
        return file.getvalue()

    def _choices(self, name: str) -> _Choices:
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=_CHOICES.size)
        return _Choices._make(_CHOICES.unpack(digest.digest()))

    def _shape(self, choices: _Choices, shapes: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        width, height = shapes[choices.shape % len(shapes)]
        trim = 0.0 if choices.trimmed % _TRIMMED_ONE_IN else _TRIM * choices.trim / 65536
        return max(1, round(width * self.scale)), max(1, round(height * self.scale * (1 - trim)))

    def _planes(
        self, choices: _Choices, kind: _Kind, *, width: int, height: int
    ) -> tuple[_Plane, _Plane | None, _Plane | None]:
        canvases = self.canvases
        scene = canvases.scenes[choices.scene % len(canvases.scenes)]
        tone = canvases.tones[choices.tone % len(canvases.tones)]
        grain = canvases.grains[choices.grain % len(canvases.grains)]
        across, down = kind.chroma_across or 1, kind.chroma_down or 1
        # libjpeg-turbo reads luma up to the end of the last chroma sample, beyond an odd edge.
        rows, columns = height + height % down, width + width % across
        top, left = _start(choices.y, rows), _start(choices.x, columns)
        luma = tone[_cut(scene.luma, top, left, rows, columns)]
        luma += _cut(
            grain, _start(choices.grain_y, rows), _start(choices.grain_x, columns), rows, columns
        )
        luma = luma[:height, :width]
        if kind is _GRAYSCALE:
            return luma, None, None
        blue, red = (
            _cut(plane, top, left, rows, columns)[::down, ::across]
            + np.uint8(choice % (2 * _CAST + 1) - _CAST & 255)
            for plane, choice in ((scene.blue, choices.blue), (scene.red, choices.red))
        )
        return luma, blue, red

    def _light(self, name: str) -> NDArray[np.uint8]:
        """The image of this name as RGB, height x width x 3."""
        choices = self._choices(name)
        kind = _KINDS[-1]
        width, height = self._shape(choices, kind.shapes)
        luma, blue, red = self._planes(choices, kind, width=width, height=height)
        data = np.dstack([plane for plane in (luma, blue, red) if plane is not None]).tobytes()
        return np.asarray(Image.frombytes("YCbCr", (width, height), data).convert("RGB"))


def make_painter(*, seed: int, image_bytes: int) -> Painter:
    """A painter whose photographs take `image_bytes` each on average.

    The number of pixels follows from it, so that bits a pixel stay those of photographs.
    """
    assert MIN_IMAGE_BYTES <= image_bytes <= MAX_IMAGE_BYTES
    return Painter(seed=seed, scale=_scale(image_bytes), canvases=draw_canvases(seed))


def _scale(image_bytes: int) -> float:
    """Solves for the scale at which the encoder's mean bytes, a quadratic, are `image_bytes`."""
    square = linear = constant = 0.0
    kept = 1 - _TRIM / 2 / _TRIMMED_ONE_IN
    for kind in _KINDS:
        pixel = kind.body_bits / 8 * kind.per_mille / 1000 / len(kind.shapes)
        constant += kind.header_bytes * kind.per_mille / 1000
        fill = _BLOCK_FILL * (kind.chroma_across or 1)
        for width, height in kind.shapes:
            square += pixel * width * height * kept
            linear += pixel * fill * (width + height * kept)
            constant += pixel * fill**2
    excess = image_bytes - constant
    return (math.sqrt(linear**2 + 4 * square * excess) - linear) / (2 * square)


def _start(choice: int, length: int) -> int:
    return choice * (SIDE - length) >> 16 if length <= SIDE else choice % SIDE


def _cut(canvas: _Plane, top: int, left: int, rows: int, columns: int) -> _Plane:
    if rows <= SIDE and columns <= SIDE:
        return canvas[top : top + rows, left : left + columns]
    downwards, rightwards = range(top, top + rows), range(left, left + columns)
    return canvas.take(downwards, axis=0, mode="wrap").take(rightwards, axis=1, mode="wrap")


def _exif(orientation: int) -> bytes:
    """An APP1 segment with one tag: 0x0112, orientation, one 16-bit number."""
    return _EXIF.pack(
        *(b"\xff\xe1", 0x2200, b"Exif\0\0", b"II*\0", 8, 1),
        *(0x0112, 3, 1, orientation, 0, 0),
    )
