"""The champion among the versions of a model: who it is, since when, and why."""

from datetime import datetime

from hdam.pipelines.errors import InputError
from hdam.platform.registry import set_alias, show_model, tag_version

CHAMPION = "champion"


def promote(name: str, version: str, reason: str) -> str:
    """Make a version the champion; its tags say why, when, and in place of which version, which is returned.

    Raises InputError when name or version do not exist, and without a reason.
    """
    if not reason.strip():
        raise InputError(f"version {version} of {name} is not promoted without a reason; give one with --reason")
    before = next((known.version for known in show_model(name).versions if CHAMPION in known.aliases), "")
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    tags = {"promoted.reason": reason.strip(), "promoted.at": now, "promoted.instead_of": before}
    tag_version(name, version, tags)
    set_alias(name, version, CHAMPION)
    return before
