"""ens: several fine-tuned backbones, k folds, an honest blend, test-time augmentation."""

__version__ = "0.1.0"
