"""Enrol EC2 instances: bring each from launched to holding a certificate that was seen to work."""

from chalicelib.services.enrolling.asking import Asking
from chalicelib.services.enrolling.callers import InstanceCallers
from chalicelib.services.enrolling.commanding import Commanding
from chalicelib.services.enrolling.enrolling import Enrolling
from chalicelib.services.enrolling.holdings import CurrentTrust, Holdings
from chalicelib.services.enrolling.reconciling import Reconciling

__all__ = [
    "Asking",
    "Commanding",
    "CurrentTrust",
    "Enrolling",
    "Holdings",
    "InstanceCallers",
    "Reconciling",
]
