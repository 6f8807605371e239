"""Results and their MLflow store in a folder of a test's own, whatever the environment says."""


def keep_results_in(folder, patch):
    """Everything from here on, in other processes too, keeps its results in `folder`; `patch` is pytest's."""
    patch.setenv("HDAM_RESULTS", str(folder))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder
