"""The registry host's set-up, run for real in a machine of its own; see deployed_host."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chalicelib.domain.registry_host import SCRIPT_KEY
from localcloud.demo.image import write_image
from tests.component.cloud_stand_in import SECRET_KEY, TOKEN
from tests.component.deployed_host import CHECK, GIVEN, Deployment, deployed
from tests.component.real_host import wait_until

# What registry-refresh writes at each run lies beside what the set-up keeps.
NOTE_OF_REFRESH = re.compile(r"/var/lib/registry-trust/(?!http-secret)[^/]* ")
# Files of one loop: the power fails between them once.
ALIKE = ("mv */.registry-refresh*", "mv */.registry-logrotate.*", "mv */tmpfiles.d/*")


@dataclass(frozen=True)
class Disks:
    """Those that tests start from: before the set-up, and after it."""

    of: Deployment
    bare: Path
    whole: Path


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    directory = tmp_path_factory.mktemp("host")
    with deployed(directory) as made:
        bare = made.machine.copy_disk(directory / "bare")
        made.serves()
        made.machine.down()
        yield Disks(made, bare, made.machine.copy_disk(directory / "whole"))


@contextmanager
def started(disks: Disks, disk: Path) -> Iterator[Deployment]:
    """All but the disk is as if nothing had been done with it before."""
    made = replace(disks.of)
    published = dict(made.cloud.objects)
    made.starts_from(disk)
    yield made
    made.machine.down()
    made.cloud.objects = published
    made.cloud.faults.clear()


@pytest.fixture
def bare(disks: Disks) -> Iterator[Deployment]:
    """Nothing is set up there yet."""
    with started(disks, disks.bare) as made:
        yield made


@pytest.fixture
def host(disks: Disks) -> Iterator[Deployment]:
    """It was set up, and started again since."""
    with started(disks, disks.whole) as made:
        wait_until(lambda: made.status() == "200", "the registry to serve")
        yield made


def skopeo(*arguments: object) -> None:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", "copy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_bare_machine_becomes_a_registry_that_clients_push_to_and_pull_from(
    bare: Deployment, tmp_path: Path
) -> None:
    bare.serves()

    print(bare.machine.said)
    write_image(tmp_path / "image", "hello")
    files = bare.client(bare.client_ca.client("dev", access="push"))
    there = f"docker://{bare.registry}/team/hello:1"
    skopeo("--dest-cert-dir", files, f"oci:{tmp_path / 'image'}", there)
    skopeo("--src-cert-dir", files, there, f"oci:{tmp_path / 'back'}")
    sent, came = (
        json.loads((tmp_path / name / "index.json").read_text())["manifests"][0]["digest"]
        for name in ("image", "back")
    )
    assert sent == came


# --- run again ------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing_and_says_so(host: Deployment) -> None:
    machine = host.machine
    kept = (host.secret(), machine.container(), machine.pid("registry-nginx.service"))
    files = machine.succeeds("find /etc /usr/local /var/lib -type f | sort | xargs stat -c '%n %i'")
    machine.forget_calls()

    host.serves()

    assert "nothing was amiss, nothing was changed\n" in machine.said
    assert machine.calls("systemctl") == []
    assert machine.calls("docker") == ["pull -q registry:3"]
    assert machine.calls("apt-get") == []
    assert (host.secret(), machine.container(), machine.pid("registry-nginx.service")) == kept
    again = machine.succeeds("find /etc /usr/local /var/lib -type f | sort | xargs stat -c '%n %i'")
    changed = set(again.splitlines()) ^ set(files.splitlines())
    assert {each for each in changed if not NOTE_OF_REFRESH.match(each)} == set()


def test_what_it_keeps_to_itself_others_cannot_read(bare: Deployment) -> None:
    bare.serves()
    private = (
        *("/etc/registry-trust/registry.yml", "/etc/registry-trust/refresh.env"),
        "/var/lib/registry-trust/http-secret",
    )
    modes = bare.machine.succeeds(f"stat -c %a {' '.join(private)} /var/lib/registry-trust")
    assert modes.split() == ["600"] * 3 + ["700"]
    secret = bare.secret()
    assert len(secret) == 64
    config = bare.machine.read("/etc/registry-trust/registry.yml")
    assert f'secret: "{secret}"' in config
    for path in ("/usr/local/lib/registry-trust", "/var/log", "/root/said"):
        found = bare.machine.run(f"grep -r -l {secret} {path}")
        assert found == 1, bare.machine.said


def test_no_secret_is_anybodys_argument_or_said(host: Deployment) -> None:
    """xtrace shows each command with its arguments, and each assignment: so it is only of the
    programs that are started."""
    secret = host.secret()
    host.machine.path("/var/lib/registry-trust/http-secret").write_text(secret)
    host.machine.write("/opt/shims/log", "#!/bin/sh\n", 0o755)  # makes the directory
    for name in ("curl", "sed", "awk", "printf", "cat", "sha256sum", "openssl", "docker", "od"):
        host.machine.write(
            f"/opt/shims/{name}",
            f'#!/bin/sh\nprintf "%s\\n" "$*" >>/var/log/arguments\n'
            f'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin exec {name} "$@"\n',
            0o755,
        )
    host.publish(redirect=True)  # all is rendered anew, and another container started
    path = "/opt/shims:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
    assert host.machine.run(f"sh {GIVEN}", path) == 0, host.machine.said
    arguments = host.machine.read("/var/log/arguments")
    assert "--config -" in arguments
    for each in (secret, SECRET_KEY, TOKEN):
        assert each not in arguments
        assert each not in host.machine.said


def test_what_was_spoilt_is_mended(host: Deployment) -> None:
    machine, container = host.machine, host.machine.container()
    machine.path("/etc/registry-trust/nginx.conf").write_text("spoilt\n")
    machine.path("/etc/registry-trust/registry.yml").chmod(0o644)
    machine.path("/etc/systemd/system/registry-refresh.timer").unlink()
    machine.path("/var/lib/units/registry-nginx.service").unlink()
    assert machine.run("docker stop registry") == 0
    machine.forget_calls()

    host.serves()

    said = machine.said
    assert "wrote /etc/registry-trust/nginx.conf\n" in said
    assert "wrote /etc/registry-trust/registry.yml\n" in said
    assert "wrote /etc/systemd/system/registry-refresh.timer\n" in said
    assert "started its container" in said
    assert "nginx: starts with the machine\n" in said
    # What nginx reads is as it was when it read it last.
    changes = [call for call in machine.calls("systemctl") if "nginx" in call]
    assert changes == ["enable registry-nginx.service"]
    assert machine.container() == container
    assert host.status() == "200"


# --- upgrades -------------------------------------------------------------------------------------


def test_an_upgrade_replaces_what_changed_and_nothing_else(host: Deployment) -> None:
    machine = host.machine
    nginx, container, secret = (
        machine.pid("registry-nginx.service"),
        machine.container(),
        host.secret(),
    )
    machine.forget_calls()

    host.publish(redirect=True)
    host.serves()

    assert machine.container() != container
    assert machine.container("registry-former") == ""
    assert (machine.pid("registry-nginx.service"), host.secret()) == (nginx, secret)
    assert not any("reload" in call or "restart" in call for call in machine.calls("systemctl"))
    assert "disable: false" in machine.read("/etc/registry-trust/registry.yml")
    assert len(list(machine.path("/var/lib/registry-trust/registry").iterdir())) == 1
    releases = {p.name for p in machine.path("/usr/local/lib/registry-trust").iterdir()}
    assert len(releases) == 2
    assert "current" in releases


def test_another_image_behind_the_same_tag_is_taken(host: Deployment) -> None:
    container = host.machine.container()
    host.machine.write("/opt/image-of-the-day", "Tuesday\n")
    host.serves()
    assert host.machine.container() != container


def test_without_docker_hub_the_image_that_is_here_goes_on(host: Deployment) -> None:
    container = host.machine.container()
    host.machine.write("/opt/no-network", "")
    host.serves()
    assert host.machine.container() == container
    assert "cannot pull registry:3, going on with the one that is here" in host.machine.said


def test_a_new_nginx_configuration_is_loaded_without_a_restart(host: Deployment) -> None:
    machine, pid = host.machine, host.machine.pid("registry-nginx.service")
    machine.forget_calls()
    layout = replace(host.setup.layout, worker_processes="3")

    host.publish(layout=layout)
    host.serves()

    assert machine.calls("systemctl") == ["reload registry-nginx.service"]
    assert machine.pid("registry-nginx.service") == pid
    workers = machine.succeeds("pgrep -f -c 'nginx: worker process$' || :")
    assert int(workers) >= 3


def test_a_configuration_that_nginx_does_not_take_changes_nothing(host: Deployment) -> None:
    before = host.machine.read("/etc/registry-trust/nginx.conf")
    host.publish(layout=replace(host.setup.layout, worker_processes="999"))
    real = host.machine.path("/usr/local/bin/nginx")
    real.write_text(
        '#!/bin/sh\ncase "$*" in *-t*setup*) echo "nginx: [emerg] too many of them" >&2; exit 1 ;; '
        'esac\nexec /usr/sbin/nginx "$@"\n'
    )
    real.chmod(0o755)

    host.fails(
        "nginx does not take its new configuration, so nothing was changed: nginx: [emerg] too"
    )

    assert host.machine.read("/etc/registry-trust/nginx.conf") == before
    assert host.status() == "200"


@pytest.mark.parametrize(
    ("image", "why"),
    [("broken:1", "this image is broken"), ("deaf:1", "nobody answers")],
)
def test_a_new_container_that_does_not_serve_gives_way_to_the_former(
    host: Deployment, image: str, why: str
) -> None:
    container = host.machine.container()
    host.publish(image=image)
    host.machine.write("/opt/a-second", "0.02")  # a minute passes in vain

    host.fails("the new registry does not serve, so the former is back")

    assert why in host.machine.said
    assert host.machine.container() == container
    assert host.machine.container("registry-former") == ""
    assert host.status() == "200"
    host.publish(image="registry:3")
    host.serves()
    assert host.machine.container() == container


def test_a_former_container_that_docker_may_not_stop_goes_on_serving(host: Deployment) -> None:
    """Also after a reboot, though docker was asked to stop it."""
    container = host.machine.container()
    host.publish(redirect=True)
    host.machine.write("/opt/no-stop", "")
    host.fails(
        "docker cannot stop the former registry: upgrade docker.io (Launchpad bug 2039294); Error: "
    )
    assert host.machine.said.endswith("; it serves on\n")
    assert host.machine.container() == container
    assert host.machine.container("registry-former") == ""
    assert host.status() == "200"
    host.machine.down()
    host.machine.up()
    wait_until(lambda: host.status() == "200", "the registry to serve again")
    host.machine.path("/opt/no-stop").unlink()
    host.serves()
    assert host.machine.container() != container


def test_an_image_may_have_the_name_of_the_container(bare: Deployment) -> None:
    bare.publish(image="registry")
    bare.serves()
    bare.machine.succeeds("docker rename registry elsewhere")
    bare.machine.succeeds("docker rm -f -v elsewhere")
    bare.serves()


def test_a_first_container_that_does_not_serve_is_said_and_the_next_run_replaces_it(
    bare: Deployment,
) -> None:
    bare.publish(image="broken:1")
    bare.machine.write("/opt/a-second", "0.02")  # a minute passes in vain
    bare.fails("the registry does not serve: nobody answers")
    assert bare.status() == "503"
    bare.publish(image="registry:3")
    bare.serves()


def test_the_host_upgrades_itself_when_asked(host: Deployment) -> None:
    container = host.machine.container()
    host.machine.path(GIVEN).unlink()
    host.publish(redirect=True)
    host.machine.path(GIVEN).unlink()

    said = host.machine.succeeds("registry-host upgrade")

    assert said.endswith("all is well\n")
    assert host.machine.container() != container
    assert "nothing was changed" in host.machine.succeeds("registry-host setup")


@pytest.mark.parametrize("script", [b"#!/bin/sh\nmain() {\n", b""], ids=["cut short", "empty"])
def test_half_a_script_is_not_run(host: Deployment, script: bytes) -> None:
    host.cloud.objects[SCRIPT_KEY] = script
    assert host.machine.run("registry-host upgrade") == 1
    assert "registry-host: what S3 gave is not the set-up\n" in host.machine.said


# --- what keeps it from setting up ----------------------------------------------------------------


def untouched(host: Deployment) -> None:
    assert not host.machine.path("/etc/registry-trust").exists()
    assert host.machine.calls("docker") == []


def test_a_release_that_is_not_the_scripts_is_refused(bare: Deployment) -> None:
    bare.cloud.objects[bare.setup.release_key] = bare.setup.release + b"\0"
    bare.fails("not the one that belongs to this script; nothing was done")
    untouched(bare)


def test_without_a_role_it_tries_for_minutes_and_says_why(bare: Deployment) -> None:
    bare.cloud.faults["/security-credentials/"] = lambda: (404, b"")
    bare.fails(
        "cannot fetch the release: the instance metadata service gave no credentials (no role)"
    )
    untouched(bare)
    waited = sum(int(each) for each in bare.machine.calls("sleep"))
    assert waited == 300
    bare.cloud.faults.clear()
    bare.serves()


def test_a_role_that_comes_late_is_waited_for(bare: Deployment) -> None:
    answers = iter([(404, b"")] * 3)

    def late() -> tuple[int, bytes]:
        for answer in answers:
            return answer
        bare.cloud.faults.clear()
        return 200, b"registry-host"

    bare.cloud.faults["/security-credentials/"] = late
    bare.serves()


def test_a_package_manager_that_is_busy_is_waited_for(bare: Deployment) -> None:
    bare.machine.write("/opt/apt-fails", "2\n")
    bare.serves()
    assert [call.split()[-1] for call in bare.machine.calls("apt-get")] == [
        *("update",) * 3, "docker.io",
    ]  # fmt: skip


@pytest.mark.skipif(
    shutil.which("apparmor_parser", path="/usr/sbin:/usr/bin") is not None,
    reason="the machine sees this one's programs, and this one has it",
)
def test_where_the_kernel_has_apparmor_on_what_docker_needs_for_it_is_installed(
    bare: Deployment,
) -> None:
    enabled = "/sys/module/apparmor/parameters/enabled"
    bare.machine.write(
        "/usr/local/bin/cat",
        f'#!/bin/sh\n[ "$*" != {enabled} ] || {{ echo Y; exit; }}\nexec /usr/bin/cat "$@"\n',
        0o755,
    )
    bare.serves()
    installing = [call for call in bare.machine.calls("apt-get") if " install " in call]
    assert [call.split()[-2:] for call in installing] == [["docker.io", "apparmor"]]
    bare.serves()
    assert "packages: all there\n" in bare.machine.said


def amazon_linux(host: Deployment, system: str = "amzn 2023", dnf: bool = True) -> str:
    """A PATH with dnf, or without, and no apt-get."""
    name, version = system.split()
    host.machine.write("/etc/os-release", f'ID={name}\nVERSION_ID="{version}"\n')
    host.machine.succeeds(
        "mkdir -p /opt/bin && ln -s /usr/bin/* /opt/bin/ && rm -f /opt/bin/apt-get"
        " /usr/local/bin/apt-get; sed -i s/^www-data:/nginx:/ /etc/passwd"
    )
    if dnf:
        host.machine.write(
            "/usr/local/bin/dnf",
            "#!/bin/sh\n# A stand-in for dnf, which has docker.\n"
            'echo "$*" >>/var/log/dnf.calls\n'
            "[ \"$*\" = '-q -y --setopt=exit_on_lock=False install docker' ] || exit 1\n"
            "cp /opt/docker /usr/local/bin/docker\n",
            0o755,
        )
    return "/usr/local/sbin:/usr/local/bin:/opt/bin"


def test_on_amazon_linux_it_asks_dnf_and_finds_nginxs_user(bare: Deployment) -> None:
    path = amazon_linux(bare)
    assert bare.machine.run(f"sh {GIVEN}", path) == 0, bare.machine.said
    assert bare.machine.calls("dnf") == ["-q -y --setopt=exit_on_lock=False install docker"]
    assert "registry-host: this is amzn 2023\n" in bare.machine.said
    assert "\nuser nginx root;\n" in bare.machine.read("/etc/registry-trust/nginx.conf")
    assert "create 0640 nginx root\n" in bare.machine.read("/etc/registry-trust/logrotate.conf")
    assert bare.status() == "200"


def test_a_system_of_another_kind_is_left_alone(bare: Deployment) -> None:
    path = amazon_linux(bare, "alpine 3.20", dnf=False)
    assert bare.machine.run(f"sh {GIVEN}", path) == 1
    assert "(alpine 3.20): there is neither apt-get nor dnf\n" in bare.machine.said
    untouched(bare)


def test_a_port_that_another_serves_is_not_fought_for(bare: Deployment) -> None:
    port = bare.setup.layout.listen[0]
    assert bare.machine.process
    taken = f"python3 -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1 & sleep 1; sleep 1"
    bare.machine.succeeds(f"{taken}; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; done")
    bare.fails(f"port {port} is taken, by python3")
    untouched(bare)


def test_a_container_of_another_is_left_alone(bare: Deployment) -> None:
    """A registry that was set up by hand may have its images in the container."""
    bare.machine.succeeds("cp /opt/docker /usr/local/bin/; systemctl enable --now docker.service")
    bare.machine.write("/root/other.yml", bare.setup.layout.registry)
    bare.machine.succeeds(
        "docker pull -q deaf:1; docker run -d --name registry"
        " --mount type=bind,source=/root/other.yml,target=/x deaf:1"
        " serve /etc/registry-trust/registry.yml"
    )
    other = bare.machine.container()
    bare.fails("there is a container registry that is not of registry-trust")
    assert bare.machine.container() == other


def test_two_at_once_do_not_meet(bare: Deployment) -> None:
    bare.machine.succeeds("(flock 9; exec /usr/bin/sleep 60) 9>/run/registry-host.lock & sleep 1")
    bare.fails("another set-up is at work here")
    untouched(bare)


def test_a_wrong_call_is_refused(host: Deployment) -> None:
    assert host.machine.run(f"sh {GIVEN} --help") == 2
    for wrong in ("", "chek", "check a b", "upgrade now"):
        assert host.machine.run(f"registry-host {wrong}") == 2
        assert "usage: registry-host check" in host.machine.said


# --- after a reboot, and after power cuts ---------------------------------------------------------


def test_after_a_reboot_it_serves_by_itself(host: Deployment) -> None:
    secret, container = host.secret(), host.machine.container()
    host.machine.down()
    host.machine.up()
    for _ in range(50):
        if host.status() == "200":
            break
        host.machine.succeeds("sleep 1")
    assert host.machine.run(CHECK) == 0, host.machine.said
    assert (host.secret(), host.machine.container()) == (secret, container)


def kinds(commands: Sequence[str]) -> set[str]:
    return {" ".join(command.split()[:2]) for command in commands}


def test_when_the_power_fails_before_any_change_of_the_first_run_the_next_ends_well(
    bare: Deployment,
) -> None:
    """Before each of CHANGES: whatever is renamed to its place, the release, `current`, the secret,
    the files in /etc but those that are ALIKE, the marks, the container's configuration; each
    systemctl that enables, starts or reloads; docker's pull and run."""
    cuts = bare.power_fails(f"sh {GIVEN}", ALIKE)
    assert kinds(cuts) >= {
        *("mv /usr/local/lib/registry-trust/.new", "ln -sfn", "mv -fT", "mv -f"),
        *("systemctl daemon-reload", "systemctl enable", "systemctl start"),
        *("docker pull", "docker run"),
    }
    assert len(cuts) > 18


def test_when_the_power_fails_before_any_change_of_an_upgrade_the_next_run_ends_well(
    host: Deployment,
) -> None:
    """Before each of CHANGES, see the first run: and before nginx is reloaded, the former container
    renamed, stopped and removed, its configuration and the former release, too. With the same
    secret, in a container that is ours, which serves."""
    secret = host.secret()
    layout = replace(host.setup.layout, worker_processes="3")
    host.publish(redirect=True, layout=layout, image="registry:2")

    cuts = host.power_fails(f"sh {GIVEN}", ALIKE)

    assert kinds(cuts) >= {
        *("mv /usr/local/lib/registry-trust/.new", "ln -sfn", "mv -fT", "mv -f", "rm -f", "rm -rf"),
        *("systemctl reload", "docker pull", "docker rename", "docker stop", "docker run"),
        "docker rm",
    }
    assert len(cuts) > 14
    assert host.secret() == secret
