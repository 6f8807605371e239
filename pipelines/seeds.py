"""Seeded choices that come out the same in every process and on every machine."""

import hashlib
import json


def stable_hash(*parts: str | int) -> int:
    """A 128-bit number that depends on `parts` alone, not on the process (Python's own hash does)."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:16], "big")
