"""Commands of the demo, as a reader would type them."""

from __future__ import annotations

import re


def command(text: str) -> str:
    """*text* with `signed-by-X` in it replaced by the options with which curl signs as X."""
    return re.sub(
        r"signed-by-(\w+)",
        '--aws-sigv4 "aws:amz:$AWS_REGION:execute-api" \\\\\\n'
        r'  --user "$\1_ACCESS_KEY_ID:$\1_SECRET_ACCESS_KEY"',
        text.strip(),
    )
