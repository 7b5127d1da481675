"""Opens a dataset with TFDS and prints what is in it: `python examples/read_with_tfds.py DATA_DIR`."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up messages

import tensorflow_datasets as tfds


def main(data_dir: str) -> None:
    """Prints the splits and the first records of each."""
    builder = tfds.builder("imagenet2012", data_dir=data_dir)
    print(f"{builder.info.full_name} in {builder.data_path}")
    for name, info in builder.info.splits.items():
        print(f"\n{name}: {info.num_examples:,} images in {info.num_shards} shards")
        for example in tfds.as_numpy(builder.as_dataset(split=f"{name}[:3]")):
            height, width, _ = example["image"].shape
            label = int(example["label"])
            wnid = builder.info.features["label"].int2str(label) if label >= 0 else "no label"
            print(f"  {example['file_name'].decode():30} {width:4} x {height:<4} {label:4}  {wnid}")


if __name__ == "__main__":
    main(sys.argv[1])
