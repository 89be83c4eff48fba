"""The tables: one connection, their errors as ours, and transactions whose parts have names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError
from pynamodb.connection import Connection
from pynamodb.constants import ALL_OLD
from pynamodb.exceptions import (
    AttributeDeserializationError,
    PutError,
    PynamoDBException,
    TransactWriteError,
)
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from chalicelib.adapters.store.enrolment_items import EnrolmentItem
from chalicelib.adapters.store.items import CertificateItem, StateItem
from chalicelib.errors import Contended, DependencyFailed, Misconfigured

# Four tries within what API Gateway waits for an answer, 29 seconds.
_CONNECT_SECONDS, _READ_SECONDS, _RETRIES = 2, 5, 3

_Item = CertificateItem | StateItem | EnrolmentItem


class Tables:
    """One per process: it binds the models to their tables and to one connection."""

    def __init__(self, certificates: str, state: str, instances: str) -> None:
        self.connection = Connection(
            connect_timeout_seconds=_CONNECT_SECONDS,
            read_timeout_seconds=_READ_SECONDS,
            max_retry_attempts=_RETRIES,
        )
        self.certificates = certificates
        self.state = state
        self.instances = instances
        self._bind(CertificateItem, certificates)
        self._bind(StateItem, state)
        self._bind(EnrolmentItem, instances)

    def _bind(self, model: type[_Item], table_name: str) -> None:
        """Left to itself each model makes a client of its own."""
        model.Meta.table_name = table_name
        model._connection = None
        of_model = model._get_connection()
        self.connection.add_meta_table(of_model.get_meta_table())
        of_model.connection = self.connection

    def query(self, table: str, partition: str, **options: Any) -> Mapping[str, Any]:
        """One call of DynamoDB's Query, and its answer as it came. Raises DependencyFailed."""
        with our_errors():
            answer: Mapping[str, Any] = self.connection.query(table, partition, **options)
            return answer

    def batch_get(self, table: str, keys: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
        """One call of BatchGetItem, consistent, as query(); what it left out is its answer's word.

        Raises DependencyFailed.
        """
        wanted: Sequence[Any] = keys  # pynamodb's hint is of texts, its code of keys
        with our_errors():
            answer: Mapping[str, Any] = self.connection.batch_get_item(
                table, wanted, consistent_read=True
            )
            return answer


class CancelledError(Exception):
    """A condition did not hold, so nothing was written.

    failed: by the name of each part whose condition that was, the item that stood in its way, in
    DynamoDB's own form; empty when another transaction was under way on the same items.
    """

    def __init__(self, failed: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__("transaction cancelled")
        self.failed = failed


class Transaction:
    """Writes that happen together or not at all. Nothing is sent before commit()."""

    def __init__(self, connection: Connection) -> None:
        self._write = TransactWrite(connection=connection)
        self._deletes: list[str] = []
        self._puts: list[str] = []
        self._updates: list[str] = []

    def put(self, name: str, item: Model, condition: Condition | None = None) -> None:
        """Put the whole *item*."""
        self._write.save(item, condition=condition, return_values=ALL_OLD)
        self._puts.append(name)

    def update(
        self, name: str, item: Model, actions: Sequence[Action], condition: Condition | None = None
    ) -> None:
        """Change attributes of the item with this key."""
        self._write.update(item, actions=list(actions), condition=condition, return_values=ALL_OLD)
        self._updates.append(name)

    def delete(self, name: str, item: Model, condition: Condition | None = None) -> None:
        """Delete the item with this key."""
        self._write.delete(item, condition=condition)
        self._deletes.append(name)

    def commit(self) -> None:
        """Write it all. Raises CancelledError, DependencyFailed."""
        try:
            with our_errors(), self._write:
                pass
        except _UnnamedCancellationError as cancelled:
            raise CancelledError(self._named(cancelled.reasons)) from cancelled

    def _named(self, reasons: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
        """DynamoDB gives a reason for each part; pynamodb sends deletes, puts, updates, so."""
        names = self._deletes + self._puts + self._updates
        codes = {reason.code for reason in reasons if reason is not None}
        failed = {
            name: reason.raw_item or {}
            for name, reason in zip(names, reasons, strict=True)
            if reason is not None and reason.code == "ConditionalCheckFailed"
        }
        if not failed and "TransactionConflict" not in codes:
            raise DependencyFailed("table_unwritable", "the record was not written")
        return failed


class _UnnamedCancellationError(Exception):
    def __init__(self, reasons: Sequence[Any]) -> None:
        super().__init__("transaction cancelled")
        self.reasons = reasons


@contextmanager
def our_errors() -> Iterator[None]:
    """The SDK's errors as ours.

    Raises DependencyFailed; Contended for a put's failed condition, and for a write of one item
    that a transaction was changing just then.
    """
    try:
        yield
    except TransactWriteError as error:
        if error.cause_response_code != "TransactionCanceledException":
            raise DependencyFailed("table_unwritable", "the record was not written") from error
        raise _UnnamedCancellationError(error.cancellation_reasons) from error
    except PutError as error:
        if error.cause_response_code != "ConditionalCheckFailedException":
            raise DependencyFailed("table_unwritable", "the record was not written") from error
        raise contended() from error
    except PynamoDBException as error:
        if error.cause_response_code == "TransactionConflictException":
            raise contended() from error
        raise _silent() from error
    except BotoCoreError as error:
        raise _silent() from error


def _silent() -> DependencyFailed:
    return DependencyFailed("table_unreadable", "the table did not answer")


@contextmanager
def readable(name: str, code: str = "unreadable_record") -> Iterator[None]:
    """Raises Misconfigured for what pynamodb and our values say of an item that was damaged."""
    try:
        yield
    except (AttributeDeserializationError, TypeError, ValueError) as error:
        raise Misconfigured(code, f"the record of {name} is broken") from error


def contended() -> Contended:
    """What to raise when another request changed the same items first."""
    return Contended("busy", "another request of yours got there first; ask again")


def text(raw_item: Mapping[str, Any], name: str) -> str:
    """A string attribute of an item in DynamoDB's own form; empty when it has none."""
    return str(raw_item.get(name, {}).get("S", ""))
