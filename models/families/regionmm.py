"""RegionMM (Siarohin et al., CVPR 2021): regions, whose affines are their principal axes; no latent anchors."""

from hdam.models.config import ModelConfig
from hdam.models.model import MotionModel
from hdam.models.regions import RegionDetector


def build(config: ModelConfig) -> MotionModel:
    """Regions; what is common to all families is as in FOMM. Raises ValueError for latent anchors."""
    anchors = config.anchors
    if anchors.has_root or anchors.num_intermediate:
        raise ValueError(
            "model.family=regionmm has no latent anchors; "
            "set model.anchors.has_root: false and model.anchors.num_intermediate: 0"
        )
    return MotionModel(config, detector=RegionDetector(config))
