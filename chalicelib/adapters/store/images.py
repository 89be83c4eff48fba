"""Items of the certificates table as its stream shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pynamodb.exceptions import AttributeDeserializationError

from chalicelib.adapters.store.items import CertificateItem, record_of
from chalicelib.domain.model import CertificateRecord
from chalicelib.errors import InvalidRequest


def record_in(image: Mapping[str, Any]) -> CertificateRecord:
    """The record that the item kept when the image was taken.

    image: in DynamoDB's JSON, `{"serial": {"S": ...}, ...}`. Raises InvalidRequest when it is not
    a certificate's.
    """
    item = CertificateItem()
    try:
        item.from_dynamodb_dict(dict(image))
        return record_of(item)
    except (AttributeDeserializationError, TypeError, ValueError) as error:
        raise InvalidRequest("malformed_image", f"an attribute is malformed: {error}") from error
