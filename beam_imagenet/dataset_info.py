"""What was planned and written to a reconciled dataset description, in the form that TFDS reads.

Pure: renders bytes, writes none. Knows nothing of Beam. The JSON is that of TFDS's dataset_info.proto
and feature.proto, so no TensorFlow is needed to write it; tests hold it against TFDS's own.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from beam_imagenet import labels, layout
from beam_imagenet.errors import ReconcileError
from beam_imagenet.model import DATASET_NAME, SPLITS, Job, ShardResult, SplitPlan

_HOMEPAGE = "https://image-net.org/"

_CITATION = """\
@article{ILSVRC15,
Author = {Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev Satheesh and \
Sean Ma and Zhiheng Huang and Andrej Karpathy and Aditya Khosla and Michael Bernstein and \
Alexander C. Berg and Li Fei-Fei},
Title = {{ImageNet Large Scale Visual Recognition Challenge}},
Year = {2015},
journal   = {International Journal of Computer Vision (IJCV)},
doi = {10.1007/s11263-015-0816-y},
volume={115},
number={3},
pages={211-252}
}"""

_DESCRIPTION = """\
The classification images of the ImageNet Large Scale Visual Recognition Challenge 2012 (ILSVRC-2012):
1,281,167 training and 50,000 validation photographs in 1,000 classes, and 100,000 test photographs
whose labels were never published. Each class is a WordNet synset, named by its WordNet id; an integer
label is the position of that id in the sorted list of the 1,000 ids. Test images carry the label -1.

The records, their order and their fields are those of TFDS's imagenet2012. The few training images that
are CMYK JPEGs or a PNG were converted to RGB JPEGs; all other images are the original files.

Prepared by beam_imagenet from the official archives."""

_RELEASE_NOTES = {
    "2.0.0": "Validation labels corrected.",
    "2.0.1": "Other encoding, same content.",
    "3.0.0": "CMYK images and the one PNG are converted to RGB JPEGs; archives are read in place.",
    "4.0.0": "Never published.",
    "5.0.0": "The split API with slices (https://tensorflow.org/datasets/splits).",
    "5.1.0": "The test split was added.",
}


def reconcile(job: Job, plans: Sequence[SplitPlan], results: Sequence[ShardResult]) -> None:
    """Holds what was written against the plan, and the plan against the job.

    Args:
        job: What was to be done, as the launcher knew it.
        plans: The plan of every split, as they arrived.
        results: What was written, as it arrived.

    Raises:
        ReconcileError: Something is missing, there twice, or differs. Nothing may be published then.
    """
    _require_once(
        "the plan of split",
        [source.split for source in job.sources],
        [plan.split for plan in plans],
    )
    planned = {shard.shard: shard for plan in plans for shard in plan.shards}
    _require_once("shard", planned, [result.shard for result in results])
    for result in results:
        shard = planned[result.shard]
        left_out = 0 if job.checks.keeps_bad else len(result.bad)
        dealt_with = result.num_examples + left_out
        _require_equal(result.shard, "records", shard.num_examples, dealt_with)
        _require_equal(
            result.shard, "digest of file names", shard.names_digest, result.names_digest
        )
        if not result.fixes and not left_out:  # a colour fix changes an image's size
            _require_equal(result.shard, "bytes", shard.num_bytes, result.num_bytes)


def _require_once(what: str, expected: Iterable[str], found: Iterable[str]) -> None:
    difference = collections.Counter(found)
    difference.subtract(list(expected))
    missing = sorted(name for name, count in difference.items() if count < 0)
    surplus = sorted(name for name, count in difference.items() if count > 0)
    if missing:
        _fail(f"{what} {missing[0]} never arrived" + _more(missing))
    if surplus:
        _fail(f"{what} {surplus[0]} arrived more than once, or was never planned" + _more(surplus))


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""


def _require_equal(shard: str, what: str, planned: object, written: object) -> None:
    if planned != written:
        _fail(f"shard {shard} was planned with {what} {planned}, but written with {written}")


def _fail(what: str) -> NoReturn:
    raise ReconcileError(
        f"What was written is not what was planned: {what}. No dataset_info.json was written, so there "
        "is no dataset. The runner lost or repeated work: run the same command again, and report it "
        "if it happens again."
    )


def dataset_info_json(
    job: Job,
    plans: Sequence[SplitPlan],
    results: Sequence[ShardResult],
    *,
    published: bytes | None = None,
) -> bytes:
    """`dataset_info.json`: what TFDS opens the dataset by.

    Args:
        job: What was done.
        plans: The plan of every split of the job.
        results: What was written; a split's shards hold what these say, not what was planned.
        published: The `dataset_info.json` that is there; splits that are not the job's stay as they are.
    """
    written = {result.shard: result for result in results}
    folders = {source.split: source.folder for source in job.sources}
    splits = {}
    for plan in plans:
        shards = [written[shard.shard] for shard in plan.shards]
        splits[plan.split] = {
            "filepathTemplate": layout.path_template(folders[plan.split]),
            "name": plan.split,
            "numBytes": str(sum(shard.num_bytes for shard in shards)),
            "shardLengths": [str(shard.num_examples) for shard in shards],
        }
    content = _description(job.version)
    if published is not None:
        there = json.loads(published)
        others = {split["name"]: split for split in there["splits"] if split["name"] not in splits}
        if others:  # somebody else may have described the dataset
            content, splits = there, {**splits, **others}
    content["splits"] = [splits[split] for split in sorted(splits, key=_position)]
    return _json(content)


def _position(split: str) -> tuple[int, str]:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), split


def _description(version: str) -> dict[str, Any]:
    return {
        "citation": _CITATION,
        "description": _DESCRIPTION,
        "fileFormat": layout.FILE_FORMAT,
        "location": {"urls": [_HOMEPAGE]},
        "moduleName": "tensorflow_datasets.datasets.imagenet2012.imagenet2012_dataset_builder",
        "name": DATASET_NAME,
        "releaseNotes": {was: note for was, note in _RELEASE_NOTES.items() if was <= version},
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
        "version": version,
    }


def features_json() -> bytes:
    """`features.json`: the structure of a record."""
    module = "tensorflow_datasets.core.features"
    return _json(
        {
            "featuresDict": {
                "features": {
                    "file_name": {
                        "pythonClassName": f"{module}.text_feature.Text",
                        "text": {},
                    },
                    "image": {
                        "image": {
                            "dtype": "uint8",
                            "encodingFormat": "jpeg",
                            "shape": {"dimensions": ["-1", "-1", "3"]},
                        },
                        "pythonClassName": f"{module}.image_feature.Image",
                    },
                    "label": {
                        "classLabel": {"numClasses": str(labels.NUM_CLASSES)},
                        "pythonClassName": f"{module}.class_label_feature.ClassLabel",
                    },
                }
            },
            "pythonClassName": f"{module}.features_dict.FeaturesDict",
        }
    )


def label_names() -> bytes:
    """`label.labels.txt`: the WordNet id of each label, one a line."""
    return "".join(f"{wnid}\n" for wnid in labels.synsets()).encode("ascii")


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("utf-8")
