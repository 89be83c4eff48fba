"""The commands and settings of docs/usage.md, as far as what they are for is here to take them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localcloud.demo.image import write_image
from localcloud.processes import until
from tests.e2e.conftest import Cloud
from tests.e2e.pages import Desk, block, functions

CERTS = "/etc/containerd/certs.d"
PULL = f'ctr images pull --hosts-dir {CERTS} "$REGISTRY/team'
PULL_IMAGE = "http://cri/runtime.v1.ImageService/PullImage"
GRPC = ["curl", "-sS", "--http2-prior-knowledge", "-D", "-", "-o", "/dev/null"]
GRPC += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
# What `docker images` may show, and not all of it is the registry's to update.
IMAGES = """\
{registry}/team/app:1
{registry}/team/app:<none>
{registry}/deep/er/app:latest
{registry}/never/pushed:2
{registry}/team/app:1
{other}/team/app:1
<none>:<none>
mirror.example.com/{registry}/app:1
app:1
"""
ENGINE = """#!/bin/sh
case $1 in
  images) cat '{images}' ;;
  pull) cat; echo "$*" >>'{calls}'; [ "$3" != '{registry}/never/pushed:2' ] ;;
esac
"""


USAGE = "docs/usage.md"


@pytest.fixture(scope="module")
def home(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    home = Desk(tmp_path_factory.mktemp("home"), cloud, cloud.newcomer("usage"))
    for name in ("hello", "other"):
        write_image(home.directory / name, f"{name}\n")
    home.get_certificate()
    push(home, "hello", "team/image:1")
    return home


def push(home: Desk, layout: str, name: str) -> None:
    """With skopeo."""
    to = f"docker://{home.registry}/{name}"
    done = home.run(f"skopeo copy -q --dest-cert-dir '{home.registry}' oci:{layout} '{to}'")
    assert done.returncode == 0, done.stderr


def test_skopeo_shows_what_is_there(home: Desk) -> None:
    done = home.run(block("skopeo list-tags", USAGE))

    assert done.returncode == 0, done.stderr
    assert '"Tags": [\n        "1"' in done.stdout
    assert re.search(r"(?m)^sha256:[0-9a-f]{64}$", done.stdout)


# --- all local images -----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_all_images_of_this_registry_are_pulled_again_and_no_others(
    home: Desk, tmp_path: Path, shell: str
) -> None:
    registry, calls, images = home.registry, tmp_path / "calls", tmp_path / "images"
    images.write_text(IMAGES.format(registry=registry, other=registry[:-1]))
    engine = tmp_path / "docker"
    engine.write_text(ENGINE.format(images=images, calls=calls, registry=registry))
    engine.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    done = home.run(block("update_images()", USAGE) + "update_images docker", shell, PATH=path)

    assert done.returncode == 0
    assert done.stderr == f"not updated: {registry}/never/pushed:2\n"
    names = ("deep/er/app:latest", "never/pushed:2", "team/app:1")
    assert calls.read_text().splitlines() == [f"pull -q {registry}/{name}" for name in names]


@pytest.fixture
def containerd(tmp_path: Path) -> Iterator[Callable[[str], dict[str, str]]]:
    """Starts one of the test's own with these settings; returns the variables that ctr takes."""
    if not shutil.which("containerd") or os.geteuid() != 0:
        pytest.skip("this needs containerd, and root to run it")
    with running(tmp_path) as start:
        yield start


@contextmanager
def running(directory: Path) -> Iterator[Callable[[str], dict[str, str]]]:
    socket, processes = directory / "socket", []
    variables = {"CONTAINERD_ADDRESS": str(socket), "CONTAINERD_SNAPSHOTTER": "native"}

    def start(settings: str) -> dict[str, str]:
        version, rest = settings.split("\n", 1)
        (directory / "config.toml").write_text(
            f'{version}\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
            f'{rest}\n[grpc]\naddress = "{socket}"\n'
        )
        with (directory / "log").open("wb") as log:
            command = ["containerd", "-c", str(directory / "config.toml")]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        ready = ["ctr", "--address", str(socket), "version"]
        answers = lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0  # noqa: E731
        assert until(answers, 20), (directory / "log").read_text()
        return variables

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
            process.wait(10)


def test_containerds_images_are_pulled_again(
    home: Desk, containerd: Callable[[str], dict[str, str]]
) -> None:
    variables = containerd("version = 2\n" + 'disabled_plugins = ["io.containerd.grpc.v1.cri"]')
    digest = "ctr images list | grep -o 'sha256:[0-9a-f]*'"
    first = home.run(f"{{ {block(PULL, USAGE)} }} >&2\n{digest}", **variables)
    assert first.returncode == 0, first.stderr
    push(home, "other", "team/image:1")
    tag = f"ctr images tag '{home.registry}/team/image:1' '{home.registry}/never/pushed:2'"
    assert home.run(tag, **variables).returncode == 0

    done = home.run(block("ctr images list -q", USAGE) + digest, **variables)

    push(home, "hello", "team/image:1")
    assert done.returncode == 0, done.stderr
    assert f"not updated: {home.registry}/never/pushed:2" in done.stderr
    (old,) = first.stdout.split()
    unpushed, new = done.stdout.split()
    assert unpushed == old != new


# --- Kubernetes -----------------------------------------------------------------------------------


def cri_settings(home: Desk, config_path: bool) -> str:
    """As the page says for the containerd that is here, with or without its one setting."""
    version = subprocess.run(
        ["containerd", "--version"], capture_output=True, text=True, check=True
    )
    new = re.search(r" v?2\.\d", version.stdout) is not None
    plugin = "io.containerd.cri.v1.images" if new else "io.containerd.grpc.v1.cri"
    store = f'[plugins."{plugin}"]\n' if new else f'[plugins."{plugin}".containerd]\n'
    settings = block(plugin, USAGE, "toml").replace(CERTS, str(home.certs("containerd")))
    if not config_path:
        settings = settings.replace(str(home.certs("containerd")), "")
    comment, settings = settings.split("\n", 1)
    assert comment.startswith("# containerd")
    return settings + store + 'snapshotter = "native"\n'


def pull_as_kubelet_does(home: Desk, image: str, socket: str) -> str:
    """One PullImage call of the CRI; the message it failed with, or nothing."""
    name = f"{home.registry}/{image}".encode()
    spec = bytes([10, len(name)]) + name  # ImageSpec.image, in PullImageRequest.image
    request = bytes([10, len(spec)]) + spec
    body = home.directory / "request"
    body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    done = subprocess.run(
        [*GRPC, "--unix-socket", socket, "--data-binary", f"@{body}", PULL_IMAGE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    if "grpc-status: 0" in done.stdout:
        return ""
    return re.findall(r"(?mi)^grpc-message: (.*)$", done.stdout)[-1].strip()


def test_a_node_pulls_as_soon_as_it_has_a_certificate_without_a_restart(
    home: Desk, containerd: Callable[[str], dict[str, str]]
) -> None:
    aside = home.directory / "aside"
    home.certs("containerd").rename(aside)
    try:
        socket = containerd(cri_settings(home, config_path=True))["CONTAINERD_ADDRESS"]
        before = pull_as_kubelet_does(home, "team/image:1", socket)
    finally:
        aside.rename(home.certs("containerd"))

    assert "failed to resolve reference" in before
    assert pull_as_kubelet_does(home, "team/image:1", socket) == ""


def test_a_node_without_the_setting_does_not_find_its_certificate(
    home: Desk, containerd: Callable[[str], dict[str, str]]
) -> None:
    socket = containerd(cri_settings(home, config_path=False))["CONTAINERD_ADDRESS"]

    told = pull_as_kubelet_does(home, "team/image:1", socket)

    assert "failed to resolve reference" in told


# --- builders and jobs ----------------------------------------------------------------------------


def test_the_builders_settings_name_the_installed_files(home: Desk) -> None:
    done = home.run(block("buildkitd.toml <<EOF", USAGE) + "cat buildkitd.toml")

    assert done.returncode == 0, done.stderr
    where = home.certs("docker") / home.registry
    pair = {"cert": f"{where}/client.cert", "key": f"{where}/client.key"}
    wanted = {home.registry: {"ca": [f"{where}/ca.crt"], "keypair": [pair]}}
    assert tomllib.loads(done.stdout) == {"registry": wanted}
    assert {each.name for each in where.iterdir()} == {"ca.crt", "client.cert", "client.key"}


def test_a_job_takes_a_certificate_for_a_day_and_hands_it_back(
    home: Desk, cloud: Cloud, tmp_path: Path
) -> None:
    job = Desk(tmp_path, cloud, cloud.newcomer("ci-run-4711"))
    image = f"skopeo copy -q oci:{home.directory}/other docker-archive:image.tar\n"

    done = job.run(functions() + image + block("build 4711", USAGE))

    assert done.returncode == 0, done.stderr
    assert {each.name for each in job.directory.iterdir()} == {"credentials", "image.tar"}
    (held,) = job.person.ask("GET", "/certs").json["certificates"]
    assert (held["status"], held["label"]) == ("revoked", "build 4711")
    assert '"2"' in home.run(block("skopeo list-tags", USAGE)).stdout
