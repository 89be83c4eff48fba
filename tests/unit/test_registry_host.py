"""The files of a registry host: every place is filled, and no value can leave its place."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from chalicelib.domain.registry_host import (
    FileStorage,
    HostLayout,
    RefreshSource,
    S3Storage,
    host_files,
    host_units,
    nginx_config,
    refresh_settings,
    registry_config,
)
from chalicelib.domain.templates import fill, read
from chalicelib.errors import Misconfigured

SECRET = "0123456789abcdef" * 4
STORAGE = S3Storage(region="eu-west-1", bucket="team-images")


def layout(**changes: object) -> HostLayout:
    values: dict[str, object] = {
        "registry": "registry.example.com:8443",
        "config_dir": "/etc/registry-trust",
        "state_dir": "/var/lib/registry-trust",
        "log_dir": "/var/log/registry-trust",
        "run_dir": "/run/registry-trust",
    }
    return HostLayout(**(values | changes))  # type: ignore[arg-type]


def test_every_place_of_every_file_is_filled() -> None:
    for text in (nginx_config(layout()), registry_config(layout(), STORAGE, http_secret=SECRET)):
        assert not re.search(r"@[A-Z_]+@", text)


def test_a_place_without_a_value_and_a_value_without_a_place_are_refused() -> None:
    assert fill("a @ONE@ b", {"ONE": "1"}) == "a 1 b"
    with pytest.raises(Misconfigured, match="ONE"):
        fill("a @ONE@ b", {})
    with pytest.raises(Misconfigured, match="TWO"):
        fill("a @ONE@ b", {"ONE": "1", "TWO": "2"})


def test_a_value_that_looks_like_a_place_is_left_alone() -> None:
    assert fill("@ONE@ @TWO@", {"ONE": "@TWO@", "TWO": "2"}) == "@TWO@ 2"


def test_a_line_of_an_empty_value_goes_away() -> None:
    assert fill("a\n  @ONE@\nb @ONE@ c\n", {"ONE": ""}) == "a\nb  c\n"


HOSTILE = ["", " ", "a b", "a;b", "a\nb", 'a"b', "a'b", "a$b", "a{b", "a}b", "a#b", "a\\b", "@UP@"]
UNSAFE: dict[str, Callable[[str], str]] = {
    "registry": lambda v: nginx_config(layout(registry=v)),
    "listen": lambda v: nginx_config(layout(listen=(v,))),
    "upstream": lambda v: nginx_config(layout(upstream=v)),
    "worker_processes": lambda v: nginx_config(layout(worker_processes=v)),
    "http_secret": lambda v: registry_config(layout(), STORAGE, http_secret=v),
    "region": lambda v: registry_config(layout(), S3Storage(v, "bucket"), http_secret=SECRET),
    "bucket": lambda v: registry_config(layout(), S3Storage("eu-west-1", v), http_secret=SECRET),
}


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", sorted(UNSAFE))
def test_a_value_that_is_unsafe_in_its_place_is_refused(field: str, value: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        UNSAFE[field](value)
    assert refusal.value.field == field


@pytest.mark.parametrize("value", ["a b", "root;", "a\nb", "$user", "1st"])
def test_a_user_that_is_unsafe_is_refused(value: str) -> None:
    assert "\nuser www-data;\n" in nginx_config(layout(user="www-data"))
    with pytest.raises(Misconfigured):
        layout(user=value)


DIRECTORIES = ["config_dir", "state_dir", "log_dir", "run_dir"]
BAD_PATHS = ["", "etc", "/", "//a", "/a/", "/a;b", "/a\nb", '/a"b', "/a'b", "/a$b", "/a\\b", "/a{b"]


@pytest.mark.parametrize("value", BAD_PATHS)
@pytest.mark.parametrize("field", DIRECTORIES)
def test_a_directory_that_is_unsafe_is_refused(field: str, value: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        layout(**{field: value})
    assert refusal.value.field == field


def test_a_prefix_may_hold_spaces_and_letters_of_any_language() -> None:
    prefix = "/home/jörg/my code/.local/registry-host"
    own = HostLayout.under(prefix, registry="r:1", listen=("127.0.0.1:1",), upstream="127.0.0.1:2")
    assert f'ssl_crl "{prefix}/state/current/client-ca.crl";' in nginx_config(own)
    assert all(path.startswith(f"{prefix}/") for path in own.directories)


def test_an_old_nginx_is_not_given_what_it_does_not_know() -> None:
    assert "keepalive_time " not in nginx_config(layout())
    assert "keepalive_time 1m;" in nginx_config(layout(nginx_version=(1, 22, 1)))


def test_every_listen_address_has_its_default_server() -> None:
    text = nginx_config(layout(listen=("443", "[::]:443")))
    for address in ("443", "[::]:443"):
        assert f"listen {address} ssl;" in text
        assert f"listen {address} ssl default_server;" in text


def test_registry_yml_on_aws_leaves_endpoint_and_credentials_to_the_registry() -> None:
    parsed = yaml.safe_load(registry_config(layout(), STORAGE, http_secret=SECRET))
    assert parsed["storage"]["s3"] == {
        "region": "eu-west-1", "bucket": "team-images", "encrypt": True, "chunksize": 20 * 2**20,
    }  # fmt: skip
    assert parsed["storage"]["redirect"] == {"disable": True}
    assert parsed["storage"]["delete"] == {"enabled": True}
    assert parsed["health"]["storagedriver"]["enabled"] is True
    assert parsed["http"]["addr"] == "127.0.0.1:5000"
    assert parsed["http"]["secret"] == SECRET


def test_registry_yml_for_another_s3_asks_by_path() -> None:
    storage = S3Storage("eu-west-1", "bucket", endpoint="http://127.0.0.1:4566", encrypt=False)
    parsed = yaml.safe_load(registry_config(layout(), storage, http_secret=SECRET, redirect=True))
    s3 = parsed["storage"]["s3"]
    assert s3["regionendpoint"] == "http://127.0.0.1:4566"
    assert (s3["secure"], s3["forcepathstyle"], s3["encrypt"]) == (False, True, False)
    assert parsed["storage"]["redirect"] == {"disable": False}


def test_registry_yml_can_keep_its_images_in_a_directory() -> None:
    parsed = yaml.safe_load(
        registry_config(layout(), FileStorage("/srv/my images"), http_secret=SECRET)
    )
    assert parsed["storage"]["filesystem"] == {"rootdirectory": "/srv/my images"}


def test_the_subjects_that_nginx_admits_are_anchored_at_both_ends() -> None:
    patterns = re.findall(
        r'"~\^SUCCESS (O=registry-trust,OU=\w+,CN=[^"]+)"', read("registry/nginx.conf")
    )
    assert len(patterns) == 2
    assert all(pattern.endswith("$") for pattern in patterns)


# --- registry-refresh -----------------------------------------------------------------------------

SOURCE = RefreshSource("team-config", "eu-west-1", "https://id.execute-api.example.com/v1")


def test_host_files_are_all_that_a_host_needs() -> None:
    files = host_files(layout(), STORAGE, SOURCE, http_secret=SECRET)
    assert {path.rpartition("/")[2]: mode for path, (mode, _) in files.items()} == {
        "nginx.conf": 0o644,
        "registry.yml": 0o600,
        "refresh.env": 0o600,
        "registry-refresh": 0o755,
    }
    assert not any(re.search(r"@[A-Z_]+@", text) for _, text in files.values())


def settings_by_sh(text: str) -> dict[str, str]:
    """What sh makes of refresh.env."""
    shown = subprocess.run(
        ["env", "-i", "sh", "-c", 'set -a; eval "$1"; env -0', "sh", text],
        capture_output=True,
        check=True,
    )
    pairs = [line.partition("=") for line in shown.stdout.decode().split("\0")]
    return {name: value for name, _, value in pairs}


def test_commands_reach_sh_as_they_were_written() -> None:
    command = "sh -c 'echo \"$HOME\" `id` $(id) \\ ; & | # x' jörg"
    source = replace(SOURCE, test_command=command, reload_command=command)
    seen = settings_by_sh(refresh_settings(layout(state_dir="/var/my state"), source))
    assert seen["NGINX_TEST_COMMAND"] == seen["NGINX_RELOAD_COMMAND"] == command
    assert seen["STATE_DIR"] == "/var/my state"
    assert seen["REGISTRY_HOST"] == "registry.example.com"
    assert (seen["AWS_ENDPOINT_URL"], seen["AWS_EC2_METADATA_SERVICE_ENDPOINT"]) == ("", "")


UNSAFE_SETTINGS = {
    "config_bucket": ["", "a b", "Team", "a.b.c", "x" * 64, "a\nb"],
    "region": ["", "eu west", "eu-west-1;", "eu-west-1\n"],
    "api_url": ["", "ftp://x/v1", "https://x/v1?q", "https://x/v1/", "https://x/v 1", 'https://x"'],
    "endpoint": ["127.0.0.1", "http://x/path", "http://x y", "http://x\n"],
    "metadata_endpoint": ["127.0.0.1", "http://x/path", "http://user@x"],
    "test_command": ["", "a\nb", "a\x00b"],
    "reload_command": ["", "a\nb"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(f, value) for f, values in UNSAFE_SETTINGS.items() for value in values]
)
def test_a_setting_that_is_unsafe_is_refused(field: str, value: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        refresh_settings(layout(), replace(SOURCE, **{field: value}))  # type: ignore[arg-type]
    assert refusal.value.field == field


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_scripts_are_clean_under_shellcheck() -> None:
    files = host_files(layout(), STORAGE, SOURCE, http_secret=SECRET)
    for name in ("registry-refresh", "refresh.env"):
        text = files[f"/etc/registry-trust/{name}"][1]
        unused = ["-e", "SC2034"] if name == "refresh.env" else []  # its reader is another file
        told = subprocess.run(
            ["shellcheck", "-s", "sh", *unused, "-"], input=text, capture_output=True, text=True
        )
        assert (told.returncode, told.stdout) == (0, "")


def test_the_reload_command_survives_any_directory(tmp_path: Path) -> None:
    own = layout(run_dir=f"{tmp_path}/a b~c")
    done = subprocess.run(["sh", "-c", own.reload_command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- its timer ------------------------------------------------------------------------------------


def directives(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_it_runs_so_often_that_what_is_revoked_is_refused_within_a_minute() -> None:
    timer = directives(host_units(layout())["registry-refresh.timer"])
    pause, inaccuracy = (
        int(timer[name].removesuffix("s")) for name in ("OnUnitInactiveSec", "AccuracySec")
    )
    assert 30 <= pause + inaccuracy <= 50  # a run takes a second or two, publishing as much


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("directory", ["/etc/registry-trust", "/srv/jörgs registry"])
def test_systemd_takes_its_units(tmp_path: Path, directory: str) -> None:
    for name, text in host_units(layout(config_dir=directory)).items():
        (tmp_path / name).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_a_directory_that_systemd_would_expand_is_refused() -> None:
    assert host_units(layout())
    with pytest.raises(Misconfigured) as refusal:
        host_units(layout(config_dir="/etc/100%n"))
    assert refusal.value.field == "config_dir"
