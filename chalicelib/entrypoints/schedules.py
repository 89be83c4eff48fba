"""What runs by the clock."""

from __future__ import annotations

from chalice import Blueprint
from chalice.app import CloudWatchEvent

from chalicelib import bootstrap

blueprint = Blueprint(__name__)


@blueprint.schedule("rate(1 hour)")
def refresh_crl(event: CloudWatchEvent) -> dict[str, int]:
    """Publish the trust with fresh revocation lists.

    Lets every error out: Lambda tries twice more, and the lists hold for days.
    """
    return {"crl_number": bootstrap.services().trust.refresh().crl_number}
