"""What EC2 instances run to get a certificate and use it, and what is believed of their answers.

Two commands of Run Command, with nothing of ours between them on the instance: *prepare* prints a
CSR for a key made there, *install* brings the certificate and tries it. Where there is no SSM
agent, one script, given as user data, does both with the instance role's own credentials. None
holds a secret.
"""

from __future__ import annotations

from chalicelib.domain.instance_host.boot import BootSettings, user_data
from chalicelib.domain.instance_host.commands import install_command, prepare_command
from chalicelib.domain.instance_host.outputs import (
    MAXIMUM_OUTPUT,
    InstallReport,
    InstallResult,
    csr_in,
    report_in,
)

__all__ = [
    "MAXIMUM_OUTPUT",
    "BootSettings",
    "InstallReport",
    "InstallResult",
    "csr_in",
    "install_command",
    "prepare_command",
    "report_in",
    "user_data",
]
