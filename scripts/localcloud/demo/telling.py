"""What `scripts/local demo` does once the cloud is up."""

from __future__ import annotations

import os
import secrets

from localcloud.demo import certificates, instances, revocation
from localcloud.demo.image import write_image
from localcloud.demo.story import Story
from localcloud.layout import Layout
from localcloud.terminal import styled

# Chapter after chapter; each may use what those before it made.
CHAPTERS = (certificates.STEPS, revocation.STEPS, instances.STEPS)


def tell(layout: Layout) -> bool:
    """Tell the whole story; whether every step went as it should."""
    layout.demo.mkdir(parents=True, exist_ok=True)
    # Other text every time, so that a push has something to bring.
    write_image(layout.demo / "hello", f"hello {secrets.token_hex(8)}\n")
    steps = [step for chapter in CHAPTERS for step in chapter]
    where, variables = os.path.relpath(layout.demo), os.path.relpath(layout.environment)
    print(styled("registry-trust on the local cloud, told by curl, openssl and skopeo", "strong"))
    print(f"To repeat any command: . {variables}; cd {where}")
    print("The image is in hello/, an OCI layout with one file, made just now.")
    if not Story(steps, layout.demo, layout.environment).tell():
        return False
    print(f"\n{styled('✓', 'good')} all {len(steps)} steps went as they should")
    return True
