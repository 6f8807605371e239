"""Families of models: one file each, with a function `build`.

A new file `NAME.py` here, and `model: {family: NAME}` in an experiment, is a new model: training, screening, evaluation
and animation ask no more of it than that `build(config)` returns a `MotionModel`.
"""

import importlib
import pkgutil

from hdam.models.config import ModelConfig
from hdam.models.model import MotionModel


def known_families() -> tuple[str, ...]:
    """Names of the files here."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def build_model(config: ModelConfig) -> MotionModel:
    """A model with random weights. Raises ValueError where there is no such family, or its settings do not fit."""
    known = known_families()
    if config.family not in known:
        raise ValueError(f"model.family={config.family}; there are {', '.join(known)}, files of hdam/models/families")
    model: MotionModel = importlib.import_module(f"{__name__}.{config.family}").build(config)
    return model
