"""Events about the tags of instances.

MiniStack changes tags and tells nobody. On AWS each change is told to EventBridge, best effort.
https://docs.aws.amazon.com/tag-editor/latest/userguide/monitor-tag-changes.html "Monitor tag
changes with serverless workflows and Amazon EventBridge"

Not added: the event about the tags that an instance is launched with. Of other resources than
instances nothing is told.
"""

from __future__ import annotations

from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind_entry
from localcloud.hooks.service_events import ServiceEvents

KIND = "Tag Change on Resource"


def apply(events: ServiceEvents) -> None:
    """Tell of tags that CreateTags and DeleteTags changed on instances."""
    computers = module("services.ec2")
    actions, tags = attribute(computers, "_ACTION_MAP"), attribute(computers, "_tags")
    instances = attribute(computers, "_instances")
    versions: dict[str, int] = {}

    def tags_of(name: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in tags.get(name) or []}

    def wrap(act: Any) -> Any:
        def acting(request: Any) -> Any:
            before = {name: tags_of(name) for name in instances}
            answer = act(request)
            for name, old in before.items():
                new = tags_of(name)
                changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
                if changed:
                    versions[name] = versions.get(name, 0) + 1
                    detail = {
                        "changed-tag-keys": changed,
                        "service": "ec2",
                        "resource-type": "instance",
                        "version": versions[name],
                        "tags": new,
                    }
                    events.tell("aws.tag", KIND, name, detail)
            return answer

        return acting

    for action in ("CreateTags", "DeleteTags"):
        rebind_entry(actions, action, wrap)
