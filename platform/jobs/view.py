"""What a cluster sees of this machine: what is sent to it, and nothing else, unless it is this machine."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hdam.pipelines.errors import InputError
from hdam.pipelines.listing import is_remote, whole_address

LOOPBACK = ("localhost", "127.", "::1")
SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """From the cluster's nodes."""

    is_here: bool
    """All nodes are this machine, so that they see all of its files."""
    shares_paths: bool
    """The user says that paths are those of a file system that all nodes have."""

    def place(self, address: str, *, what: str) -> str:
        """`address` as the nodes understand it; `what` names it in the InputError where they do not."""
        if is_remote(address) and not address.startswith("file://"):
            return address
        if self.is_here:
            return whole_address(address)
        if not self.shares_paths:
            raise InputError(
                f"{what} {address} is a path of this machine, which the cluster does not see; give an s3:// address, "
                "or say --shared-paths where it is a path of a file system that all nodes have"
            )
        if not Path(whole_address(address)) == Path(address.removeprefix("file://")):
            raise InputError(f"{what} {address}: with --shared-paths, expected a whole path, as the nodes have it")
        return address

    def server(self, address: str, *, what: str) -> str:
        """The same of what may also be the address of a server, or of a SQLite file."""
        if address.startswith(SQLITE):
            return SQLITE + self.place(address.removeprefix(SQLITE), what=what)
        if not is_remote(address) or address.startswith("file://"):
            return self.place(address, what=what)
        if not self.is_here and (urlsplit(address).hostname or "").startswith(LOOPBACK):
            raise InputError(f"{what} {address} is a server of this machine, which the cluster does not see")
        return address
