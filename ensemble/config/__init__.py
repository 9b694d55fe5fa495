"""The experiment file: its tables, and how it is read."""

from ensemble.config.backbones import starts_trained as starts_trained
from ensemble.config.backbones import train_settings as train_settings
from ensemble.config.backbones import with_seeds as with_seeds
from ensemble.config.reading import check_backbones as check_backbones
from ensemble.config.reading import load_config as load_config
from ensemble.config.reading import load_run_config as load_run_config
from ensemble.config.reading import parse_change as parse_change
from ensemble.config.tables import Backbone as Backbone
from ensemble.config.tables import Config as Config
from ensemble.config.tables import Data as Data
from ensemble.config.tables import Folds as Folds
from ensemble.config.tables import Log as Log
from ensemble.config.tables import Train as Train
from ensemble.config.tables import Tta as Tta
from ensemble.config.tables import check_member_name as check_member_name
