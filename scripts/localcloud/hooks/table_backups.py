"""The backup that DynamoDB makes by itself of a table that is deleted.

On AWS a table with point-in-time recovery leaves a system backup when it is deleted, which is kept
for 35 days; MiniStack drops the items. Recovery from a deletion relies on it.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/PointInTimeRecovery_Howitworks.html
"""

from __future__ import annotations

import json
from typing import Any

from localcloud.hooks.rebinding import attribute, module, rebind


def apply() -> None:
    """Back a table up before it is deleted, if its changes are kept."""
    tables = module("services.dynamodb")
    name_of = attribute(tables, "_normalize_table_name")
    there, kept = attribute(tables, "_tables"), attribute(tables, "_pitr_settings")
    backups, create = attribute(tables, "_backups"), attribute(tables, "_create_backup")

    def wrap(delete: Any) -> Any:
        def deleting(data: dict[str, Any]) -> Any:
            name = name_of(data.get("TableName"))
            made = None
            if name in there and kept.get(name):
                made = create({"TableName": name, "BackupName": f"{name}$DeletedTableBackup"})
            answer = delete(data)
            if made is not None:
                arn = json.loads(made[2])["BackupDetails"]["BackupArn"]
                if answer[0] == 200:
                    backups[arn]["BackupDetails"]["BackupType"] = "SYSTEM"
                else:  # it is protected, and so still there
                    del backups[arn]
            return answer

        return deleting

    rebind(tables, "_delete_table", wrap)
