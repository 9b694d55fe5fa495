"""What follows from the tables for each backbone: the members that it stands for, and how they are trained."""

from ensemble.config.tables import Backbone, Config, Train, seed_members


def with_seeds(config: Config) -> Config:
    """The experiment with each seed as a backbone of its own, which is what training is given."""
    members = tuple(each for backbone in config.backbone for each in seed_members(backbone))
    return config.model_copy(update={"backbone": members})


def train_settings(config: Config, backbone: Backbone) -> Train:
    """The [train] table with this backbone's own `train = {...}` laid over it, and the strategy settled."""
    settings = Train.model_validate({**config.train.model_dump(), **backbone.train})
    if settings.strategy is None:
        return settings.model_copy(update={"strategy": "full" if starts_trained(backbone) else "scratch"})
    return settings


def starts_trained(backbone: Backbone) -> bool:
    return backbone.pretrained or backbone.weights is not None
