"""registry-trust's Chalice application: registers the blueprints, nothing else."""

from chalice import Chalice

from chalicelib.entrypoints import certs, schedules, streams, trust
from chalicelib.entrypoints.http import GZIP

app = Chalice(app_name="registry-trust")
app.api.binary_types = [GZIP]

for blueprint in (certs.blueprint, trust.blueprint, schedules.blueprint, streams.blueprint):
    app.register_blueprint(blueprint)
