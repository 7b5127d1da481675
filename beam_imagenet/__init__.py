"""The official ImageNet (ILSVRC-2012) archives to the TFDS dataset imagenet2012, by Apache Beam."""

__version__ = "0.2.0"
