"""Uploads beside the training, so that no step waits for the shared store; later, where it is away."""

import threading
import time
from collections.abc import Callable

from hdam.platform.sharing.store import SECONDS_OF_PATIENCE, again_and_again


class Uploader:
    """Calls `share` in a thread of its own whenever there is something new."""

    def __init__(self, share: Callable[[], None], *, tell: Callable[[str], None]) -> None:
        """`share` uploads what there is; `tell` hears once of every time that the store is away."""
        self._share = share
        self._tell = tell
        self._news = threading.Event()
        self._is_last = False
        self._give_up = float("inf")
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="hdam-upload", daemon=True)
        self._thread.start()

    def upload(self) -> None:
        """There is a new checkpoint. Raises TakenOverError where an earlier one found that another attempt goes on."""
        if self._error is not None:
            raise self._error
        self._news.set()

    def finish(self) -> None:
        """Wait until all is uploaded. Raises TakenOverError, and StoreError where the store is away for minutes."""
        self._give_up = time.monotonic() + SECONDS_OF_PATIENCE
        self._is_last = True
        self._news.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        is_over = False
        while not is_over:
            self._news.wait()
            self._news.clear()
            is_over = self._is_last
            try:
                self._share_patiently()
            except Exception as error:  # raised in the thread of the training
                self._error = error
                return

    def _share_patiently(self) -> None:
        again_and_again(
            self._share,
            is_over=lambda error, pause: (
                self._is_last and (error.is_lasting or time.monotonic() + pause > self._give_up)
            ),
            tell=lambda error: self._tell(f"{error}; checkpoints stay on this node, and are uploaded when it answers"),
        )
