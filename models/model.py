"""The whole model, of whatever parts its family has."""

from jaxtyping import Float
from torch import Tensor, nn

from hdam.models.attention import Attention
from hdam.models.avd import AvdNetwork
from hdam.models.background import BackgroundPredictor
from hdam.models.config import ModelConfig
from hdam.models.detector import Detector
from hdam.models.flow import FlowEstimator
from hdam.models.generator import EncodedSource, Generator
from hdam.models.structures import AnchorTree, Image, Transfer


class MotionModel(nn.Module):
    """Detect anchors in both images, estimate the flow between them, paint.

    Only motion anchors reach flow and generator, so that these two are the same for all families.
    """

    def __init__(self, config: ModelConfig, *, detector: Detector) -> None:
        super().__init__()
        self.config = config
        reading = config.reading
        self.detector = detector
        self.flow = FlowEstimator(config.flow, config.anchors.num_motion, reading=reading)
        self.generator = Generator(config.generator, reading=reading)
        self.background = (
            None if config.background.kind == "zero" else BackgroundPredictor(config.background, reading=reading)
        )
        self.avd = AvdNetwork(config.avd, config.anchors.num_motion) if config.has_avd else None

    def forward(self, source: Image, driving: Image) -> Transfer:
        """Make `source` move like `driving`, background included: both are frames of one clip."""
        return self.paint(
            self.generator.encode(source),
            self.detect(source),
            self.detect(driving),
            background=self.background_motion(source, driving),
        )

    def detect(self, image: Image) -> AnchorTree:
        """Anchors of one image."""
        tree: AnchorTree = self.detector(image)
        return tree

    def attend(self, driving: AnchorTree) -> Attention | None:
        """Attention among detected driving anchors; None where there is no intermediate level."""
        if self.detector.attention is None or driving.features is None:
            return None
        attention: Attention = self.detector.attention(driving, ignored=self.config.ignored)
        return attention

    def background_motion(self, source: Image, driving: Image) -> Float[Tensor, "batch 3 3"] | None:
        """Motion of the background from driving to source; None for a background that stands still."""
        return None if self.background is None else self.background(source, driving)

    def repose(self, source: Image, driving: Image) -> Transfer:
        """`source` in the pose of `driving`, by way of the AVD network; the background stands still."""
        assert self.avd is not None, "the model has no AVD network"
        tree, pose = self.detect(source), self.detect(driving)
        moved = pose._replace(motion=self.avd(tree.motion, pose.motion))
        return self.paint(self.generator.encode(source), tree, moved)

    def paint(
        self,
        encoded: EncodedSource,
        source: AnchorTree,
        driving: AnchorTree,
        *,
        background: Float[Tensor, "batch 3 3"] | None = None,
    ) -> Transfer:
        """The result for anchors that were detected or moved; a background of None stands still."""
        motion = self.flow(encoded.image, source.motion, driving.motion, background)
        return Transfer(
            image=self.generator.decode(encoded, motion),
            warped=self.generator.warp(encoded.image, motion),
            motion=motion,
            source=source,
            driving=driving,
            attention=self.attend(driving),
        )
