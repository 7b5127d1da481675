"""Packaging of beam_imagenet; the pinned set that deployments and CI install is deploy/constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

WORKER = [
    "apache-beam[gcp]~=2.77.0",  # the engine; local_runner.py builds on this minor's worker handlers
    "google-cloud-storage>=2.19,<4",  # Google Cloud Storage, for buckets (from the next versions on)
    "google-crc32c>=1.6,<2",  # the checksum of TFRecord framing, in C
    "numpy>=1.26,<3",  # a split's members as columns instead of 1.3 million objects
    "pillow>=11,<13",  # PNG decoding, JPEG encoding
    "pyyaml>=6,<7",  # --config files
    "simplejpeg>=1.8,<2",  # libjpeg-turbo's CMYK decode as TensorFlow does it, without TensorFlow
    "tqdm>=4.66,<5",  # the progress bar of long checks
]
READER = [
    "tensorflow>=2.19,<3",  # what opens the dataset
    "tensorflow-datasets~=4.9.10",  # tfds.load, and the peer that tests compare with
    "importlib-resources>=6,<8",  # tensorflow-datasets 4.9.10 imports it without declaring it
]
DEVELOPER = [
    "hypothesis>=6.100,<7",  # properties of the plan, the tar walk and the probe
    "mypy>=1.15,<3",  # the type gate
    "pre-commit>=4,<5",  # runs the gates before a commit
    "pytest>=8,<10",  # the test runner
    "ruff>=0.11,<1",  # formatter and linter
    "types-PyYAML>=6,<7",  # mypy's view of pyyaml
    "types-tqdm>=4.66,<5",  # mypy's view of tqdm
]

setup(
    name="beam_imagenet",
    version="0.2.0",
    description="The official ImageNet archives to the TFDS dataset imagenet2012, by Apache Beam",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["beam_imagenet", "beam_imagenet.*"]),
    package_data={"beam_imagenet": ["data/*", "py.typed"]},
    install_requires=WORKER,
    extras_require={"tensorflow": READER, "dev": DEVELOPER},
    entry_points={"console_scripts": ["beam-imagenet=beam_imagenet.__main__:entry_point"]},
)
