"""The installer: a shell script that puts a bundle where this machine's container engines look."""

from __future__ import annotations

from chalicelib.domain.bundle import Bundle


def installer(bundle: Bundle) -> str:
    """POSIX sh for the machine it is run on; safe to run twice. Holds the key if we made it."""
    raise NotImplementedError(bundle.registry)
