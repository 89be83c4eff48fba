"""Leave out of the functions' zip what no function can use.

botocore carries the descriptions of all of AWS: most of the files in the zip, and a third of its
bytes. Lambda unpacks the zip at each cold start.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

# The services that chalicelib makes clients of; a test holds this against the source.
SERVICES = frozenset({"dynamodb", "ec2", "events", "iam", "s3", "sqs", "ssm"})

_DESCRIPTIONS = "botocore/data/"
_UNUSED = ("boto3/data/", "boto3/examples/")


def trim(archive: Path) -> None:
    """Rewrite *archive* without the descriptions of services that no function calls."""
    trimmed = archive.with_suffix(".trimmed")
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(trimmed, "w") as smaller:
        for entry in whole.infolist():
            if is_needed(entry.filename):
                smaller.writestr(entry, whole.read(entry), zipfile.ZIP_DEFLATED)
    trimmed.replace(archive)


def is_needed(name: str) -> bool:
    """Whether a function may read this file. What lies in botocore/data itself is for all."""
    # What was compiled here fits the files here: there Python would look at it and compile anew.
    if name.startswith(_UNUSED) or name.endswith(".pyc"):
        return False
    service, separator, _ = name.removeprefix(_DESCRIPTIONS).partition("/")
    return not (name.startswith(_DESCRIPTIONS) and separator) or service in SERVICES
