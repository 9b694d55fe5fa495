"""A run directory as a thing: `Run`, its `Member`s and their `Fold`s know their paths, settings and state."""

from ensemble.run.fold import Fold
from ensemble.run.member import Member
from ensemble.run.run import Run

__all__ = ["Fold", "Member", "Run"]
