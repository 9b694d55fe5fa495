"""`ens init`: look at the data, choose what fits it, and write a commented experiment file."""

from ensemble.init.command import init

__all__ = ["init"]
