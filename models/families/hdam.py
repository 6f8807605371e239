"""HDAM (Tao et al., CVPR 2022), and with fewer levels of anchors DAM (no intermediate) and FOMM (no root either)."""

from hdam.models.config import ModelConfig
from hdam.models.detector import AnchorDetector
from hdam.models.model import MotionModel


def build(config: ModelConfig) -> MotionModel:
    """Points with affines of their own."""
    return MotionModel(config, detector=AnchorDetector(config))
