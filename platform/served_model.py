"""The face of a registered model for `mlflow.pyfunc`: this file is stored with the model and run when it is loaded.

Nothing is pickled: MLflow keeps this code, safetensors weights and the experiment as JSON. Wherever hdam is installed:

    model = mlflow.pyfunc.load_model("models:/hdam-puppets@candidate")
    frames = model.predict({"source": image[None], "driving": frames}, params={"mode": "relative"})

with uint8 RGB arrays of any height and width, `source` [1, height, width, 3] and `driving` [frame, height, width, 3];
the result is uint8 [frame, size, size, 3], where `size` is the size that the model was trained at.
"""

from pathlib import Path
from typing import Any, get_args

import mlflow.models
import mlflow.pyfunc
import numpy as np

from hdam.models.animation import Mode
from hdam.platform.animate import as_image, best_device, moments
from hdam.platform.images import images_to_frames
from hdam.platform.model_folder import ARTIFACT_NAME, read_model


class Painter:
    """One still image moved like the driving frames."""

    def load_context(self, context: Any) -> None:
        """Read weights and experiment from the model's artifacts."""
        self.device = best_device()
        model, experiment = read_model(Path(context.artifacts[ARTIFACT_NAME]))
        self.model, self.size = model.to(self.device), experiment.data.size

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG002
        """Frames of the transfer."""
        source, driving = np.asarray(model_input["source"]), np.asarray(model_input["driving"])
        if len(source) != 1:
            raise ValueError(f"source holds {len(source)} images; expected one, of shape [1, height, width, 3]")
        mode = (params or {}).get("mode", "relative")
        if mode not in get_args(Mode):
            raise ValueError(f"mode is {mode!r}; expected one of {get_args(Mode)}")
        still = as_image(source[0], size=self.size, device=self.device)
        images = (as_image(frame, size=self.size, device=self.device) for frame in driving)
        stream = moments(self.model, still, images, mode=mode)
        return np.concatenate([images_to_frames(moment.transfer.image) for moment in stream])


class ServedModel(Painter, mlflow.pyfunc.PythonModel):
    """The same for MLflow. It takes annotations of `predict` for a schema, and misses them in a class of its own."""


mlflow.models.set_model(ServedModel())
