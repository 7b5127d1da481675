"""Prepares imagenet2012 with TFDS's own builder: the peer that compare.py measures this job against."""

from __future__ import annotations

import os
import sys


def main(manual_dir: str, data_dir: str) -> None:
    """Prepares the dataset from the archives in `manual_dir`, as TFDS's documentation says to."""
    # Set before TensorFlow starts, which reads it once: its log is no part of the work.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=config)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/tfds_builder.py MANUAL_DIR DATA_DIR")
    main(*sys.argv[1:])
