"""Issue certificates and hand them out. An owner's certificates do not exist for anybody else."""

from chalicelib.services.issuing.delivering import Delivering
from chalicelib.services.issuing.for_instances import InstanceIssuing
from chalicelib.services.issuing.issuing import Issuing
from chalicelib.services.issuing.needs import Issued
from chalicelib.services.issuing.recording import Recording
from chalicelib.services.issuing.room import Room

__all__ = ["Delivering", "InstanceIssuing", "Issued", "Issuing", "Recording", "Room"]
