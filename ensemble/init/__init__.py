"""`ens init`: look at the data, choose what fits it, and write a commented experiment file."""

from ensemble.init.command import init
from ensemble.init.recipe import Options

__all__ = ["Options", "init"]
