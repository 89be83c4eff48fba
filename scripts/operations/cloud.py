"""What the commands share: whom they talk to, and how they fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from chalicelib.errors import AppError


class CommandError(Exception):
    """What went wrong and what to do, for the person who ran the command."""


def session() -> boto3.Session:
    """The caller's, with a region. Raises CommandError."""
    found = boto3.Session(region_name=os.environ.get("AWS_REGION"))
    if found.region_name is None:
        raise CommandError("no region: set AWS_REGION, or a region in your AWS profile")
    return found


def api_address(on_aws: str, endpoint: str) -> str:
    """Where the API of a stack answers, without a slash at its end.

    on_aws: the stack's output, https://ID.execute-api.REGION.amazonaws.com/v1/. endpoint: as in
    AWS_ENDPOINT_URL, or empty. An emulator, which is where plain HTTP leads, answers at the same id
    below execute-api.localhost.
    """
    there, here = urlsplit(on_aws.rstrip("/")), urlsplit(endpoint)
    if here.scheme != "http":
        return there.geturl()
    api_id = (there.hostname or "").partition(".")[0]
    return f"http://{api_id}.execute-api.localhost:{here.port or 80}{there.path}"


def error_code(error: ClientError) -> str:
    """AWS's word for what went wrong."""
    return str(error.response["Error"]["Code"])


def run(command: str, body: Callable[[], Any]) -> int:
    """Run *body*; tell a failure in one line, without a traceback. Returns the exit code."""
    try:
        body()
    except CommandError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    except NoCredentialsError:
        keys = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        print(f"{command}: no AWS credentials: set AWS_PROFILE, or {keys}", file=sys.stderr)
        return 1
    except AppError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"{command}: AWS said: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{command}: interrupted; run it again to finish", file=sys.stderr)
        return 1
    return 0
