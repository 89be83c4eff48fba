"""Who the plane is, where it acts by itself."""

from __future__ import annotations

# Who revokes what is replaced, and what an instance that is gone leaves behind.
PLANE = "registry-trust"
