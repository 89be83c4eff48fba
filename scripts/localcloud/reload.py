"""Have a part read its configuration again, as `systemctl reload` would on a registry host.

Usage: python -m localcloud.reload PART     exit: 0 done, or it does not run and so needs none;
1 the supervisor refused or does not answer, 2 wrong call
"""

from __future__ import annotations

import sys

from localcloud import control
from localcloud.layout import Layout


def main(arguments: list[str]) -> int:
    """arguments: the part's name."""
    if len(arguments) != 1:
        print("usage: python -m localcloud.reload PART", file=sys.stderr)
        return 2
    try:
        control.reload(Layout.from_environment(), arguments[0])
    except (control.NotRunning, control.Refused) as error:
        print(f"reload {arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
