"""What a model is made of: one frozen dataclass per part, one home for each number.

The defaults are the paper's full width (Tao et al., CVPR 2022, supplementary; TaiChiHD at 256²).
"""

from dataclasses import dataclass, field
from typing import Literal

Reading = Literal["paper", "released"]
"""Where the supplementary and the published code differ: `paper` follows the former, `released` the latter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorConfig:
    """How many anchors of which kind; a model without root anchor is FOMM, without intermediate anchors DAM."""

    num_motion: int = 10
    """Anchors that move pixels."""
    num_intermediate: int = 3
    """Latent anchors between root and motion anchors (HDAM only; 4 for MGIF); 0 is DAM."""
    has_root: bool = True
    """The single latent anchor of the whole object."""

    def __post_init__(self) -> None:
        if self.num_motion < 1:
            raise ValueError(f"model.anchors.num_motion={self.num_motion}; at least 1 anchor has to move pixels")
        if self.num_intermediate < 0:
            raise ValueError(f"model.anchors.num_intermediate={self.num_intermediate}; use 0 (DAM) or more (HDAM)")
        if self.num_intermediate and not self.has_root:
            raise ValueError(
                f"model.anchors.num_intermediate={self.num_intermediate} without a root anchor; "
                "set model.anchors.has_root: true or num_intermediate: 0"
            )

    @property
    def total(self) -> int:
        """Anchors of all kinds, in the order motion, intermediate, root."""
        return self.num_motion + self.num_intermediate + int(self.has_root)

    @property
    def variant(self) -> Literal["fomm", "dam", "hdam"]:
        """Name of the model that has these anchors."""
        if not self.has_root:
            return "fomm"
        return "hdam" if self.num_intermediate else "dam"


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """Hourglass that finds the anchors in one image."""

    width: int = 32
    """Channels of the first level; level i has min(max_width, width·2^(i+1))."""
    max_width: int = 1024
    num_blocks: int = 5
    scale: float = 0.25
    """Resolution at which it looks, as a share of the image's: 1, 1/2, 1/4 or 1/8."""
    temperature: float = 0.1
    """Of the softmax over space."""
    heatmap_padding: int = 0
    """Padding of the 7×7 heads; the published DAM configurations have 0."""
    has_shared_affine: bool = False
    """One affine map for all anchors (FashionVideo, MGIF, VoxCeleb1) instead of one each (TaiChiHD)."""
    attention_width: int = 64
    """c in ω = softmax(F_I W_key (F_K W_que)ᵀ / √c)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """Hourglass that chooses, pixel by pixel, among the candidate flows."""

    width: int = 64
    max_width: int = 1024
    num_blocks: int = 5
    scale: float = 0.25
    heatmap_variance: float = 0.01
    """Variance of the Gaussian drawn at each anchor, in coordinates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorConfig:
    """Encoder, warp, bottleneck, decoder."""

    width: int = 64
    max_width: int = 512
    num_down_blocks: int = 2
    num_bottleneck_blocks: int = 6
    has_skips: bool = True
    """Blend warped encoder features, and in the end the warped source itself, into the decoder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundConfig:
    """Motion of everything that is not the object."""

    kind: Literal["zero", "shift", "affine", "perspective"] = "affine"
    width: int = 32
    max_width: int = 1024
    num_blocks: int = 5
    paper_scale: float = 0.25
    """Resolution of its input under the `paper` reading; `released` looks at the full resolution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AvdConfig:
    """Network that gives one object the pose of another one (animation via disentanglement, RegionMM)."""

    identity_width: int = 64
    """Numbers that the identity is squeezed into."""
    pose_width: int = 64
    stretch: float = 0.25
    """Poses are stretched by factors in 1 ± this while it trains, so that it cannot take the build from them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscriminatorConfig:
    """Patch discriminator, one per scale."""

    scales: tuple[float, ...] = (1.0,)
    width: int = 32
    max_width: int = 512
    num_blocks: int = 4
    has_spectral_norm: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeformationConfig:
    """Random map of the image plane: affine noise, then thin-plate noise on a square grid of control points."""

    sigma_affine: float = 0.05
    sigma_thin_plate: float = 0.005
    num_points: int = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptualConfig:
    """What two images are compared by."""

    network: Literal["vgg19", "vgg16", "pixels"] = "vgg19"
    """`pixels` compares colours on every level of the pyramid: it needs no weights and suits small demonstrations."""
    weights: str = ""
    """File of the network's weights (torchvision's `features.N.weight` names); not for `pixels`. Where it is empty,
    `hdam train` takes what `hdam weights get` has fetched."""
    scales: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    layer_weights: tuple[float, ...] = (10.0, 10.0, 10.0, 10.0, 10.0)
    """Weight of each compared layer; `pixels` has one layer and takes the first."""
    augmented_weight: float = 1.0
    """Share of the same loss on an affinely augmented driving image; 0 leaves out its second generator pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights of the losses; a weight of 0 leaves the loss out."""

    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    equivariance_position: float = 10.0
    equivariance_affine: float = 10.0
    equivariance_image: Literal["source", "driving"] = "source"
    """The image that is deformed: FOMM takes the driving image."""
    deformation: DeformationConfig = field(default_factory=DeformationConfig)
    root_to_motion: float = 10.0
    """DAM: every motion anchor by the root."""
    root_to_intermediate: float = 1.0
    """HDAM: every intermediate anchor by the root."""
    intermediate_to_motion: float = 10.0
    """HDAM: every motion anchor by every intermediate anchor, weighted by the attention."""
    orthogonal: float = 1.0
    """Of the supplementary's sum. The published configurations have 10, of the mean that `released` takes."""
    completeness: float = 1.0
    """Likewise; the published configuration for MGIF has 20."""
    avd_position: float = 1.0
    """Of the AVD network, which is trained by itself: its anchors' positions, and affines."""
    avd_affine: float = 1.0
    delta: float = 0.3
    """δ of the completeness loss: the least attention that a motion anchor shall get."""
    gan: float = 0.0
    feature_matching: float = 10.0
    """Taken only where `gan` is above 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A whole model."""

    family: str = "hdam"
    """File of `hdam.models.families` that puts the model together; `hdam` is HDAM, DAM and FOMM, by their anchors."""
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    reading: Reading = "paper"
    ignored: tuple[int, ...] = ()
    """Motion anchors left out of attention, L_ortho and L_compl after screening."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    background: BackgroundConfig = field(default_factory=BackgroundConfig)
    has_avd: bool = False
    """Whether an AVD network is trained after the rest of the model."""
    avd: AvdConfig = field(default_factory=AvdConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)

    @property
    def variant(self) -> str:
        """Name of the model: its family, and of the family `hdam` which of the three it is."""
        return self.anchors.variant if self.family == "hdam" else self.family

    def __post_init__(self) -> None:
        unknown = [k for k in self.ignored if not 0 <= k < self.anchors.num_motion]
        if unknown:
            raise ValueError(f"model.ignored names motion anchors {unknown}; there are 0…{self.anchors.num_motion - 1}")
