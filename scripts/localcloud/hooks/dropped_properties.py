"""CloudFormation properties that MiniStack accepts and then drops without a word.

Tables: time to live, point-in-time recovery, encryption. Buckets: encryption, lifecycle.
Functions: dead-letter target, reserved concurrency. REST APIs: which media types are binary, when
an OpenAPI body names them; without them an archive arrives in base64. Tests look at what the
deployed resources say, so each is applied through MiniStack's own API of the service after the
resource was made or updated. A property that is taken out of a template stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.sax.saxutils import escape

from localcloud.hooks.rebinding import Missing, attribute, module

Properties = dict[str, Any]
Apply = Callable[[str, Properties], None]

S3_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class NotApplied(Exception):
    """MiniStack refused a property that the template sets."""


def apply() -> None:
    """Follow the making and updating of tables, buckets, functions and REST APIs."""
    handlers = attribute(module("services.cloudformation.provisioners"), "_RESOURCE_HANDLERS")
    _follow(handlers, "AWS::DynamoDB::Table", _table_properties())
    _follow(handlers, "AWS::S3::Bucket", _bucket_properties())
    _follow(handlers, "AWS::Lambda::Function", _function_properties())
    _follow(handlers, "AWS::ApiGateway::RestApi", _api_properties())


def _follow(handlers: dict[str, dict[str, Any]], resource_type: str, after: Apply) -> None:
    if not {"create", "update"} <= handlers.get(resource_type, {}).keys():
        raise Missing(f"MiniStack's CloudFormation cannot create and update {resource_type}")
    create, update = handlers[resource_type]["create"], handlers[resource_type]["update"]

    def creating(logical_id: str, properties: Properties, *rest: Any, **named: Any) -> Any:
        made = create(logical_id, properties, *rest, **named)
        after(made[0], properties)
        return made

    def updating(name: str, old: Properties, new: Properties, *rest: Any, **named: Any) -> Any:
        made = update(name, old, new, *rest, **named)
        after(made[0] if isinstance(made, tuple) else name, new)
        return made

    handlers[resource_type].update(create=creating, update=updating)


def _table_properties() -> Apply:
    tables = module("services.dynamodb")
    set_ttl = attribute(tables, "_update_ttl")
    set_backups = attribute(tables, "_update_continuous_backups")
    describe_encryption = attribute(tables, "_sse_description_from_spec")
    records = attribute(tables, "_tables")

    def after(name: str, properties: Properties) -> None:
        for key, put in (
            ("TimeToLiveSpecification", set_ttl),
            ("PointInTimeRecoverySpecification", set_backups),
        ):
            if key in properties:
                _accepted(key, put({"TableName": name, key: properties[key]}))
        if encryption := properties.get("SSESpecification"):
            # The API says Enabled where CloudFormation says SSEEnabled.
            wanted = {**encryption, "Enabled": encryption.get("SSEEnabled")}
            records[name]["SSEDescription"] = describe_encryption(wanted)

    return after


def _bucket_properties() -> Apply:
    buckets = module("services.s3")
    set_encryption = attribute(buckets, "_put_bucket_encryption")
    set_lifecycle = attribute(buckets, "_put_bucket_lifecycle")

    def after(name: str, properties: Properties) -> None:
        if encryption := properties.get("BucketEncryption"):
            rules = encryption["ServerSideEncryptionConfiguration"]
            body = document("ServerSideEncryptionConfiguration", encryption_rules(rules))
            _accepted("BucketEncryption", set_encryption(name, body))
        if lifecycle := properties.get("LifecycleConfiguration"):
            body = document("LifecycleConfiguration", lifecycle_rules(lifecycle["Rules"]))
            _accepted("LifecycleConfiguration", set_lifecycle(name, body))

    return after


def _function_properties() -> Apply:
    functions = attribute(module("services.lambda_svc"), "_functions")

    def after(name: str, properties: Properties) -> None:
        if dead_letters := properties.get("DeadLetterConfig"):
            functions[name]["config"]["DeadLetterConfig"] = dead_letters
        reserved = properties.get("ReservedConcurrentExecutions")
        if reserved is not None:
            functions[name]["concurrency"] = int(reserved)

    return after


def _api_properties() -> Apply:
    apis = attribute(module("services.apigateway_v1"), "_rest_apis")

    def after(api_id: str, properties: Properties) -> None:
        types = (properties.get("Body") or {}).get("x-amazon-apigateway-binary-media-types")
        if types:
            apis[api_id]["binaryMediaTypes"] = list(types)

    return after


def _accepted(key: str, answer: tuple[int, Any, Any]) -> None:
    """CloudFormation reports what a handler raises as the reason for the resource's failure."""
    if answer[0] >= 300:
        raise NotApplied(f"{key}: {answer[2]!r}")


def encryption_rules(rules: list[Properties]) -> list[Properties]:
    """CloudFormation's encryption rules in the words of the S3 API."""
    return [
        {
            "ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"],
            "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
        }
        for rule in rules
    ]


def lifecycle_rules(rules: list[Properties]) -> list[Properties]:
    """CloudFormation's lifecycle rules in the words of the S3 API, as far as we use them."""
    return [_lifecycle_rule(rule) for rule in rules]


def _lifecycle_rule(rule: Properties) -> Properties:
    tags = [{"Tag": tag} for tag in rule.get("TagFilters", [])]
    prefix = {"Prefix": rule.get("Prefix", "")}
    wanted: Properties = {
        "ID": rule.get("Id", ""),
        "Filter": {"And": [prefix, *tags]} if tags else prefix,
        "Status": rule["Status"],
    }
    words = {"ExpirationInDays": "Days", "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker"}
    expiration = {ours: rule[theirs] for theirs, ours in words.items() if theirs in rule}
    if expiration:
        wanted["Expiration"] = expiration
    if "NoncurrentVersionExpirationInDays" in rule:
        days = rule["NoncurrentVersionExpirationInDays"]
        wanted["NoncurrentVersionExpiration"] = {"NoncurrentDays": days}
    for key in ("NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
        if key in rule:
            wanted[key] = rule[key]
    return wanted


def document(root: str, rules: list[Properties]) -> bytes:
    """An S3 configuration document: one Rule element a rule, nested dicts as nested elements."""
    inner = "".join(f"<Rule>{_elements(rule)}</Rule>" for rule in rules)
    return f'<{root} xmlns="{S3_NAMESPACE}">{inner}</{root}>'.encode()


def _elements(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{tag}>{_elements(inner)}</{tag}>" for tag, inner in value.items())
    if isinstance(value, list):
        return "".join(_elements(inner) for inner in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))
