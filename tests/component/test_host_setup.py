"""The registry host's set-up, run for real in a machine of its own; see deployed_host."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chalicelib.domain.registry_host import SCRIPT_KEY
from localcloud.demo.image import write_image
from tests.component.cloud_stand_in import SECRET_KEY, TOKEN
from tests.component.deployed_host import CHECK, GIVEN, Deployment, deployed
from tests.component.host_machine import COMMANDS
from tests.component.real_host import wait_until

# What registry-refresh writes at each run lies beside what the set-up keeps.
NOTE_OF_REFRESH = re.compile(r"/var/lib/registry-trust/(?!http-secret)[^/]* ")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as made:
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
    host: Deployment, tmp_path: Path
) -> None:
    host.serves()

    print(host.machine.said)
    write_image(tmp_path / "image", "hello")
    files = host.client(host.client_ca.client("dev", access="push"))
    there = f"docker://{host.registry}/team/hello:1"
    skopeo("--dest-cert-dir", files, f"oci:{tmp_path / 'image'}", there)
    skopeo("--src-cert-dir", files, there, f"oci:{tmp_path / 'back'}")
    sent, came = (
        json.loads((tmp_path / name / "index.json").read_text())["manifests"][0]["digest"]
        for name in ("image", "back")
    )
    assert sent == came


# --- run again ------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing_and_says_so(host: Deployment) -> None:
    host.serves()
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


def test_what_it_keeps_to_itself_others_cannot_read(host: Deployment) -> None:
    host.serves()
    private = (
        *("/etc/registry-trust/registry.yml", "/etc/registry-trust/refresh.env"),
        "/var/lib/registry-trust/http-secret",
    )
    modes = host.machine.succeeds(f"stat -c %a {' '.join(private)} /var/lib/registry-trust")
    assert modes.split() == ["600"] * 3 + ["700"]
    secret = host.secret()
    assert len(secret) == 64
    config = host.machine.read("/etc/registry-trust/registry.yml")
    assert f'secret: "{secret}"' in config
    for path in ("/usr/local/lib/registry-trust", "/var/log", "/root/said"):
        found = host.machine.run(f"grep -r -l {secret} {path}")
        assert found == 1, host.machine.said


def test_no_secret_is_anybodys_argument_or_said(host: Deployment) -> None:
    """xtrace shows each command with its arguments, and each assignment: so it is only of the
    programs that are started."""
    host.serves()
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
    host.serves()
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
    host.serves()
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
    host.serves()
    container = host.machine.container()
    host.machine.write("/opt/image-of-the-day", "Tuesday\n")
    host.serves()
    assert host.machine.container() != container


def test_without_docker_hub_the_image_that_is_here_goes_on(host: Deployment) -> None:
    host.serves()
    container = host.machine.container()
    host.machine.write("/opt/no-network", "")
    host.serves()
    assert host.machine.container() == container
    assert "cannot pull registry:3, going on with the one that is here" in host.machine.said


def test_a_new_nginx_configuration_is_loaded_without_a_restart(host: Deployment) -> None:
    host.serves()
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
    host.serves()
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
    host.serves()
    container = host.machine.container()
    host.publish(image=image)

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
    host.serves()
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


def test_an_image_may_have_the_name_of_the_container(host: Deployment) -> None:
    host.publish(image="registry")
    host.serves()
    host.machine.succeeds("docker rename registry elsewhere")
    host.machine.succeeds("docker rm -f -v elsewhere")
    host.serves()


def test_a_first_container_that_does_not_serve_is_said_and_the_next_run_replaces_it(
    host: Deployment,
) -> None:
    host.publish(image="broken:1")
    host.fails("the registry does not serve: nobody answers")
    assert host.status() == "503"
    host.publish(image="registry:3")
    host.serves()


def test_the_host_upgrades_itself_when_asked(host: Deployment) -> None:
    host.serves()
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
    host.serves()
    host.cloud.objects[SCRIPT_KEY] = script
    assert host.machine.run("registry-host upgrade") == 1
    assert "registry-host: what S3 gave is not the set-up\n" in host.machine.said


# --- what keeps it from setting up ----------------------------------------------------------------


def untouched(host: Deployment) -> None:
    assert not host.machine.path("/etc/registry-trust").exists()
    assert host.machine.calls("docker") == []


def test_a_release_that_is_not_the_scripts_is_refused(host: Deployment) -> None:
    host.cloud.objects[host.setup.release_key] = host.setup.release + b"\0"
    host.fails("not the one that belongs to this script; nothing was done")
    untouched(host)


def test_without_a_role_it_tries_for_minutes_and_says_why(host: Deployment) -> None:
    host.cloud.faults["/security-credentials/"] = lambda: (404, b"")
    host.fails(
        "cannot fetch the release: the instance metadata service gave no credentials (no role)"
    )
    untouched(host)
    waited = sum(int(each) for each in host.machine.calls("sleep"))
    assert waited == 300
    host.cloud.faults.clear()
    host.serves()


def test_a_role_that_comes_late_is_waited_for(host: Deployment) -> None:
    answers = iter([(404, b"")] * 3)

    def late() -> tuple[int, bytes]:
        for answer in answers:
            return answer
        host.cloud.faults.clear()
        return 200, b"registry-host"

    host.cloud.faults["/security-credentials/"] = late
    host.serves()


def test_a_package_manager_that_is_busy_is_waited_for(host: Deployment) -> None:
    host.machine.write("/opt/apt-fails", "2\n")
    host.serves()
    assert [call.split()[-1] for call in host.machine.calls("apt-get")] == [
        *("update",) * 3, "docker.io",
    ]  # fmt: skip


@pytest.mark.skipif(
    shutil.which("apparmor_parser", path="/usr/sbin:/usr/bin") is not None,
    reason="the machine sees this one's programs, and this one has it",
)
def test_where_the_kernel_has_apparmor_on_what_docker_needs_for_it_is_installed(
    host: Deployment,
) -> None:
    enabled = "/sys/module/apparmor/parameters/enabled"
    host.machine.write(
        "/usr/local/bin/cat",
        f'#!/bin/sh\n[ "$*" != {enabled} ] || {{ echo Y; exit; }}\nexec /usr/bin/cat "$@"\n',
        0o755,
    )
    host.serves()
    installing = [call for call in host.machine.calls("apt-get") if " install " in call]
    assert [call.split()[-2:] for call in installing] == [["docker.io", "apparmor"]]
    host.serves()
    assert "packages: all there\n" in host.machine.said


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


def test_on_amazon_linux_it_asks_dnf_and_finds_nginxs_user(host: Deployment) -> None:
    path = amazon_linux(host)
    assert host.machine.run(f"sh {GIVEN}", path) == 0, host.machine.said
    assert host.machine.calls("dnf") == ["-q -y --setopt=exit_on_lock=False install docker"]
    assert "registry-host: this is amzn 2023\n" in host.machine.said
    assert "\nuser nginx root;\n" in host.machine.read("/etc/registry-trust/nginx.conf")
    assert "create 0640 nginx root\n" in host.machine.read("/etc/registry-trust/logrotate.conf")
    assert host.status() == "200"


def test_a_system_of_another_kind_is_left_alone(host: Deployment) -> None:
    path = amazon_linux(host, "alpine 3.20", dnf=False)
    assert host.machine.run(f"sh {GIVEN}", path) == 1
    assert "(alpine 3.20): there is neither apt-get nor dnf\n" in host.machine.said
    untouched(host)


def test_a_port_that_another_serves_is_not_fought_for(host: Deployment) -> None:
    port = host.setup.layout.listen[0]
    assert host.machine.process
    taken = f"python3 -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1 & sleep 1; sleep 1"
    host.machine.succeeds(f"{taken}; for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; done")
    host.fails(f"port {port} is taken, by python3")
    untouched(host)


def test_a_container_of_another_is_left_alone(host: Deployment) -> None:
    """A registry that was set up by hand may have its images in the container."""
    host.machine.succeeds("cp /opt/docker /usr/local/bin/; systemctl enable --now docker.service")
    host.machine.write("/root/other.yml", host.setup.layout.registry)
    host.machine.succeeds(
        "docker pull -q deaf:1; docker run -d --name registry"
        " --mount type=bind,source=/root/other.yml,target=/x deaf:1"
        " serve /etc/registry-trust/registry.yml"
    )
    other = host.machine.container()
    host.fails("there is a container registry that is not of registry-trust")
    assert host.machine.container() == other


def test_two_at_once_do_not_meet(host: Deployment) -> None:
    host.machine.succeeds("(flock 9; exec /usr/bin/sleep 60) 9>/run/registry-host.lock & sleep 1")
    host.fails("another set-up is at work here")
    untouched(host)


def test_a_wrong_call_is_refused(host: Deployment) -> None:
    assert host.machine.run(f"sh {GIVEN} --help") == 2
    host.serves()
    for wrong in ("", "chek", "check a b", "upgrade now"):
        assert host.machine.run(f"registry-host {wrong}") == 2
        assert "usage: registry-host check" in host.machine.said


# --- after a reboot, and after power cuts ---------------------------------------------------------


def test_after_a_reboot_it_serves_by_itself(host: Deployment) -> None:
    host.serves()
    secret, container = host.secret(), host.machine.container()
    host.machine.down()
    host.machine.up()
    for _ in range(50):
        if host.status() == "200":
            break
        host.machine.succeeds("sleep 1")
    assert host.machine.run(CHECK) == 0, host.machine.said
    assert (host.secret(), host.machine.container()) == (secret, container)


def test_when_the_power_fails_at_any_command_of_the_first_run_the_next_ends_well(
    host: Deployment,
) -> None:
    """Every tenth, for each takes two runs."""
    assert host.power_fails(f"sh {GIVEN}", every=10) > 10


@pytest.mark.parametrize(
    ("every", "commands"),
    [(10, COMMANDS), (1, ("docker", "systemctl"))],
    ids=["a tenth of all", "what changes containers and units"],
)
def test_when_the_power_fails_at_any_command_of_an_upgrade_the_next_run_ends_well(
    host: Deployment, every: int, commands: Sequence[str]
) -> None:
    """With the same secret, in a container that is ours, which serves."""
    host.serves()
    secret = host.secret()
    layout = replace(host.setup.layout, worker_processes="3")
    host.publish(redirect=True, layout=layout, image="registry:2")

    assert host.power_fails(f"sh {GIVEN}", every, commands) > 8

    assert host.secret() == secret
