"""registry-trust's Chalice application: registers the blueprints, nothing else."""

from chalice import Chalice

from chalicelib.entrypoints import (
    admin,
    certs,
    enrolment,
    instances,
    openapi,
    schedules,
    streams,
    trust,
)
from chalicelib.entrypoints.http.forms import GZIP

app = Chalice(app_name="registry-trust")
app.api.binary_types = [GZIP]

for module in (certs, admin, instances, trust, openapi, schedules, streams, enrolment):
    app.register_blueprint(module.blueprint)
