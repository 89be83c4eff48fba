"""A machine on which a registry host is set up: a sandbox with systemd, docker and apt-get played.

Real are nginx, the registry, openssl, curl, logrotate and all of coreutils; the three stand-ins
below say what they are in their first lines. Processes end with the shell that `up` starts.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.sandbox import GONE_AT_BOOT, PATH, Sandbox

INSTANCE = "i-0123456789abcdef0"
PATIENCE = 90.0
SHIMS = "/opt/shims"
SHIM_OF_DOCKER = "/opt/shim-of-docker"  # apt-get puts it there: before, docker is not installed
ASKED = "/root/cut"

SYSTEMCTL = r"""#!/bin/sh
# A stand-in for systemctl: starts what the units' ExecStart says, without systemd's confinement.
# Which are enabled is kept on the disk, which are active in /run. Calls that change something are
# written down.
exec 9>&-
PATH=/usr/sbin:/usr/bin:/sbin:/bin
verb='' now=no units=''
for each; do
  case $each in
    --now) now=yes ;;
    -q | --quiet) ;;
    -*) echo "systemctl stand-in: what is $each?" >&2; exit 1 ;;
    *) if [ -z "$verb" ]; then verb=$each; else units="$units $each"; fi ;;
  esac
done
on=/var/lib/units run=/run/units
mkdir -p $on $run
file() { echo "/etc/systemd/system/$1"; }
directive() { sed -n "s/^$2=//p" "$(file "$1")"; }
alive() { [ -s "$run/$1" ] && kill -0 "$(cat "$run/$1")" 2>/dev/null; }
active() {
  case $1 in
    docker.service | *.timer) [ -e "$run/$1" ] ;;
    *) alive "$1" ;;
  esac
}
start() {
  ! active "$1" || return 0
  case $1 in
    docker.service) [ -x /usr/local/bin/docker ] && touch "$run/$1" && return
      echo "Unit $1 not found." >&2; return 1 ;;
    *.timer) touch "$run/$1"; return ;;
  esac
  [ -e "$(file "$1")" ] || { echo "Unit $1 not found." >&2; return 1; }
  for before in "$(directive "$1" ExecStartPre)"; do
    [ -z "$before" ] || sh -c "$before" 2>>/var/log/"$1" || return 1
  done
  setsid sh -c "exec $(directive "$1" ExecStart)" >>/var/log/"$1" 2>&1 </dev/null &
  echo $! >"$run/$1"
}
stop() {
  if alive "$1"; then
    kill -QUIT "$(cat "$run/$1")"
    while alive "$1"; do sleep 0.05; done
  fi
  rm -f "$run/$1"
}
case $verb in
  is-enabled) [ -e "$on/${units# }" ]; exit ;;
  is-active) active "${units# }"; exit ;;
  boot) for unit in $(ls $on); do start "$unit"; done; exit 0 ;;
esac
echo "$verb$units" >>/var/log/systemctl.calls
case $verb in
  mask) [ -z "$(ls "/etc/systemd/system/${units# }" 2>/dev/null)" ] || exit 1
    ln -sf /dev/null "/etc/systemd/system/${units# }" ;;
  daemon-reload) ;;
  enable) for unit in $units; do
      [ "$unit" = docker.service ] || [ -e "$(file "$unit")" ] || exit 1
      touch "$on/$unit"
      [ $now = no ] || start "$unit" || exit 1
    done ;;
  start) for unit in $units; do start "$unit" || exit 1; done ;;
  stop) for unit in $units; do stop "$unit"; done ;;
  restart) for unit in $units; do stop "$unit"; start "$unit" || exit 1; done ;;
  reload | try-reload-or-restart) for unit in $units; do
      if alive "$unit"; then
        MAINPID=$(cat "$run/$unit") sh -c "$(directive "$unit" ExecReload)"
      elif [ $verb = reload ]; then exit 1; fi
    done ;;
  *) echo "systemctl stand-in: what is $verb?" >&2; exit 1 ;;
esac
"""

DOCKER = r"""#!/bin/sh
# A stand-in for docker: a container is a process of this machine, the real docker-registry with the
# configuration that is mounted into it. The image "broken:1" ends at once, "deaf:1" never answers.
# Plain `inspect` finds images, too. With /opt/no-stop it may not stop what runs, and remembers, as
# dockerd does, that it was asked to.
exec 9>&-
PATH=/usr/sbin:/usr/bin:/sbin:/bin
all=/var/lib/docker-stand-in
mkdir -p $all /run/containers
[ -e /run/units/docker.service ] || { echo 'Cannot connect to the Docker daemon' >&2; exit 1; }
die() { echo "Error: $*" >&2; exit 1; }
alive() { [ -s "/run/containers/$1" ] && kill -0 "$(cat "/run/containers/$1")" 2>/dev/null; }
need() { [ -d "$all/$1" ] || die "No such container: $1"; }
begin() {
  alive "$1" && return
  set -- "$1" "$(cat "$all/$1/image")" "$(cat "$all/$1/source")"
  case $2 in
    broken:1) program="echo this image is broken >&2; exit 1" ;;
    deaf:1) program='exec sleep 3600' ;;
    *) program="exec env -i $(cat "$all/$1/env") PATH=$PATH docker-registry serve '$3'" ;;
  esac
  date -u +%Y-%m-%dT%H:%M:%S.000000000Z >"$all/$1/started"
  echo always >"$all/$1/restart"
  setsid sh -c "$program" >>"$all/$1/log" 2>&1 </dev/null &
  echo $! >"/run/containers/$1"
}
finish() {
  ! alive "$1" || kill "$(cat "/run/containers/$1")"
  while alive "$1"; do sleep 0.05; done
  rm -f "/run/containers/$1"
}
verb=$1
shift
case $verb in
  info | inspect | container | image | logs | boot) ;;
  *) echo "$verb $*" >>/var/log/docker.calls ;;
esac
case $verb in
  info) ;;
  boot) for each in $(ls $all); do [ ! -s "$all/$each/restart" ] || begin "$each"; done ;;
  pull) [ "$1" = -q ] && shift
    [ ! -e /opt/no-network ] || die 'no route to host'
    { cat /opt/image-of-the-day 2>/dev/null; echo "$1"; } | sha256sum >"/opt/image-$1" ;;
  image) [ "$1" = inspect ] || die "what is image $1?"
    shift; [ "$1" != -f ] || shift 2
    [ -s "/opt/image-$1" ] || die "No such image: $1"
    cut -c 1-64 "/opt/image-$1" ;;
  inspect | container)
    [ $verb = inspect ] || { [ "$1" = inspect ] || die "what is container $1?"; shift; }
    [ "$1" = -f ] || die 'inspect without -f'
    if [ $verb = inspect ] && [ ! -d "$all/$3" ] && [ -s "/opt/image-$3" ]; then
      case $2 in
        '{{.Id}}') cut -c 1-64 "/opt/image-$3"; exit ;;
        '{{index .Config.Labels "registry-trust"}}') echo; exit ;;
        *) die "template parsing error: map has no entry for key \"State\"" ;;
      esac
    fi
    need "$3"
    running=false; ! alive "$3" || running=true
    case $2 in
      '{{.Id}}') cat "$all/$3/id" ;;
      '{{.State.Running}}') echo $running ;;
      '{{index .Config.Labels "registry-trust"}}') cat "$all/$3/label" ;;
      '{{.State.Running}} {{.RestartCount}} {{.State.StartedAt}} {{.Config.Image}}')
        echo "$running 0 $(cat "$all/$3/started") $(cat "$all/$3/image")" ;;
      *) die "what is $2?" ;;
    esac ;;
  rename) need "$1"; [ ! -d "$all/$2" ] || die "the name $2 is in use"
    [ ! -e "/run/containers/$1" ] || mv "/run/containers/$1" "/run/containers/$2"
    mv "$all/$1" "$all/$2" ;;
  stop) [ "$1" != -t ] || shift 2
    need "$1"; : >"$all/$1/restart"
    [ ! -e /opt/no-stop ] || die "cannot stop container: $1: permission denied"
    finish "$1" ;;
  update) [ "$1 $2" = '--restart always' ] || die "what is update $*?"
    need "$3"; echo always >"$all/$3/restart" ;;
  start) need "$1"; begin "$1"; echo "$1" ;;
  rm) [ "$1" = -f ] && [ "$2" = -v ] || die 'rm without -f -v'
    need "$3"; finish "$3"; rm -rf "${all:?}/$3"; echo "$3" ;;
  logs) [ "$1" != --tail ] || shift 2
    need "$1"; tail -n 3 "$all/$1/log" ;;
  run)
    name='' label='' env='' source=''
    while [ $# -gt 0 ]; do
      case $1 in
        -d | --read-only) shift ;;
        --name) name=$2; shift 2 ;;
        --label) label=${2#registry-trust=}; shift 2 ;;
        --env) env="$env $2"; shift 2 ;;
        --mount) source=${2#*source=}; source=${source%%,*}; shift 2
          [ -f "$source" ] || die "bind source path does not exist: $source" ;;
        --restart | --network | --userns | --user | --cap-drop | --security-opt) shift 2 ;;
        --tmpfs | --log-driver | --log-opt) shift 2 ;;
        -*) die "unknown flag: $1" ;;
        *) break ;;
      esac
    done
    [ "$2 $3" = 'serve /etc/registry-trust/registry.yml' ] || die "what is $2 $3?"
    [ -s "/opt/image-$1" ] || die "No such image: $1"
    [ ! -d "$all/$name" ] || die "the name $name is in use"
    mkdir "$all/.$name"
    od -An -N8 -tx8 /dev/urandom | tr -d ' ' >"$all/.$name/id"
    echo "$1" >"$all/.$name/image"; echo "$source" >"$all/.$name/source"
    echo "$env" >"$all/.$name/env"
    echo "$label" >"$all/.$name/label"; : >"$all/.$name/log"
    mv "$all/.$name" "$all/$name"
    begin "$name"; cat "$all/$name/id" ;;
  *) die "what is $verb?" ;;
esac
"""

APT_GET = r"""#!/bin/sh
# A stand-in for apt-get: it has docker.io, which is the stand-in that lies in /opt, and apparmor.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "$*" >>/var/log/apt-get.calls
failures=$(cat /opt/apt-fails 2>/dev/null || echo 0)
if [ "$failures" -gt 0 ]; then
  echo $((failures - 1)) >/opt/apt-fails
  echo 'E: Could not get lock /var/lib/dpkg/lock-frontend' >&2
  exit 100
fi
case "$*" in
  *' update') ;;
  *' install '*' docker.io') cp /opt/docker /usr/local/bin/docker
    [ ! -e /opt/shim-of-docker ] || mv /opt/shim-of-docker /opt/shims/docker ;;
  *' install '*' apparmor')
    case "$*" in *' docker.io '*) cp /opt/docker /usr/local/bin/docker ;; esac
    printf '#!/bin/sh\n' >/usr/local/sbin/apparmor_parser
    chmod 755 /usr/local/sbin/apparmor_parser ;;
  *) echo "E: Unable to locate package" >&2; exit 100 ;;
esac
"""

# What of a set-up's run changes the disk for good, as patterns of sh: each rename and link, what it
# tells docker and systemd to do, what it throws away. What comes between is laid aside only.
CHANGES = (
    *("mv *", "ln *", "rm -f /var/lib/registry-trust/registry/*"),
    "rm -rf /usr/local/lib/registry-trust/[0-9a-f]*",
    *(f"docker {verb} *" for verb in ("pull", "rename", "stop", "start", "run", "rm")),
    "systemctl [a-z]*",  # `systemctl -q ...` only looks
)


@dataclass(frozen=True)
class Cut:
    """Before which command the power fails, and the disk as it is then, in a directory."""

    command: str
    disk: Path


@dataclass
class HostMachine:
    """One machine, down at first.

    directory: of all machines. system: ID and VERSION_ID of its /etc/os-release.
    """

    directory: Path
    metadata_endpoint: str
    instance_id: str = INSTANCE
    system: str = "ubuntu 24.04"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    runs: int = 0

    def __post_init__(self) -> None:
        self.sandbox = Sandbox.of(self.directory, self.instance_id)
        self.sandbox.boot(self.metadata_endpoint)
        name, version = self.system.split()
        self.write("/etc/os-release", f'ID={name}\nVERSION_ID="{version}"\n')
        with self.path("/etc/passwd").open("a") as users:  # there is but one in here: root
            users.write("www-data:x:0:0:nginx:/:/usr/sbin/nologin\n")
        for path, text in {
            "/usr/local/bin/systemctl": SYSTEMCTL,
            "/usr/local/bin/apt-get": APT_GET,
            "/usr/local/bin/dpkg": "#!/bin/sh\n# A stand-in: nothing is half done.\n",
            "/opt/docker": DOCKER,
            # The set-up waits in seconds for what takes tenths of them here.
            "/usr/local/bin/sleep": (
                '#!/bin/sh\necho "$1" >>/var/log/sleep.calls\n'
                "exec /usr/bin/sleep $(cat /opt/a-second 2>/dev/null || echo 0.1)\n"
            ),
        }.items():
            self.write(path, text, 0o755)

    def path(self, path: str) -> Path:
        """Where a file of the machine is on the one that runs the tests."""
        return self.sandbox.disk / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path: str) -> str:
        return self.path(path).read_text()

    def up(self) -> None:
        """Power on. What is enabled starts."""
        self.sandbox.boot(self.metadata_endpoint)
        self.path("/run/systemd/system").mkdir(parents=True)
        (self.path("/run") / "registry-trust").mkdir()  # as its tmpfiles.d has it
        self.process = subprocess.Popen(
            self.sandbox.command(["sh"]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert self.run("systemctl boot; ! docker info || docker boot") == 0

    def down(self) -> None:
        """Power off."""
        if self.process and self.process.stdin:
            # Once this has ended nobody in there holds a port any more.
            with suppress(BrokenPipeError):
                self.process.stdin.write(b"kill -KILL -1; exit\n")
                self.process.stdin.close()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def format(self, disk: Path) -> None:
        """Give it this disk; it has to be down."""
        shutil.rmtree(self.sandbox.disk)
        shutil.copytree(disk, self.sandbox.disk, symlinks=True)

    def copy_disk(self, directory: Path) -> Path:
        """The disk as it is now, there: without what is gone at a boot."""
        gone = {str(self.path(name)) for name in GONE_AT_BOOT}
        shutil.copytree(
            self.sandbox.disk,
            directory,
            symlinks=True,
            ignore=lambda path, names: names if path in gone else [],
        )
        return directory

    def leftovers(self) -> list[str]:
        """What no set-up may leave: files laid aside, work directories."""
        places = ("etc", "usr/local", "var/lib/registry-trust")
        hidden = [p for place in places for p in self.path(place).rglob(".*")]
        made = [*self.path("/tmp").glob("registry-host.*")]  # noqa: S108  # the machine's
        made += [*self.path("/var/lib/registry-trust").glob("setup")]
        made += [*self.path("/var/lib/registry-trust").rglob("*.new")]
        return sorted(p.name for p in (*hidden, *made))

    def run(
        self, command: str, path: str = PATH, meanwhile: Callable[[], None] = lambda: None
    ) -> int:
        """As root in a shell of the machine, whose exit code.

        What it said is in `said` then, the errors too. meanwhile: called again and again until it
        has ended.
        """
        assert self.process
        assert self.process.stdin
        self.runs += 1
        self.write("/root/command", f"{command}\n")
        code = self.path("/root/code")
        code.unlink(missing_ok=True)
        line = (
            f"PATH={shlex.quote(path)} sh /root/command >/root/said 2>&1 </dev/null; "
            "echo $? >/root/.code; mv /root/.code /root/code\n"
        )
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while not code.exists():
            assert time.monotonic() < deadline, f"{command} has not ended: {self.said}"
            assert self.process.poll() is None, f"the machine went down at {command}"
            meanwhile()
            time.sleep(0.01)
        return int(code.read_text())

    @property
    def said(self) -> str:
        file = self.path("/root/said")
        return file.read_text() if file.exists() else ""

    def succeeds(self, command: str) -> str:
        """What it said."""
        assert self.run(command) == 0, self.said
        return self.said

    def calls(self, command: str) -> list[str]:
        """How a stand-in was called to change something."""
        log = self.path(f"/var/log/{command}.calls")
        return log.read_text().splitlines() if log.exists() else []

    def forget_calls(self) -> None:
        for log in self.path("/var/log").glob("*.calls"):
            log.unlink()

    def pid(self, unit: str) -> int:
        """Its number in the machine."""
        return int(self.read(f"/run/units/{unit}"))

    def container(self, name: str = "registry") -> str:
        """The container's id, or nothing."""
        file = self.path(f"/var/lib/docker-stand-in/{name}/id")
        return file.read_text().strip() if file.exists() else ""

    def cuts(self, command: str, directory: Path, spared: Sequence[str] = ()) -> list[Cut]:
        """Run it to its end; what a power cut right before each of its CHANGES would have left.

        The disks go below *directory*. Left out is what registry-refresh changes, for it has tests
        of its own, and what *spared*, patterns of sh, has.
        """
        self._write_shims(spared)
        asked, cuts = self.path(ASKED), list[Cut]()

        def copy_when_asked() -> None:
            if asked.exists():
                disk = self.copy_disk(directory / str(len(cuts)))
                cuts.append(Cut(asked.read_text().strip(), disk))
                asked.unlink()

        assert self.run(command, f"{SHIMS}:{PATH}", copy_when_asked) == 0, self.said
        shutil.rmtree(self.path(SHIMS))
        return cuts

    def _write_shims(self, spared: Sequence[str]) -> None:
        for name in sorted({change.split()[0] for change in CHANGES}):
            comes_later = name == "docker" and not self.path("/usr/local/bin/docker").exists()
            self.write(
                SHIM_OF_DOCKER if comes_later else f"{SHIMS}/{name}",
                f"""#!/bin/sh
case "{name} $*" in
  {_alternatives(spared or ["none"])}) ;;
  {_alternatives(CHANGES)})
    printf '%s\n' "{name} $*" >{ASKED}.new
    /usr/bin/mv {ASKED}.new {ASKED}
    while [ -e {ASKED} ]; do /usr/bin/sleep 0.01; done ;;
esac
exec {self._program(name)} "$@"
""",
                0o755,
            )
        self.write(
            f"{SHIMS}/sh",
            f"#!/bin/sh\ncase ${{1-}} in */registry-refresh) PATH={PATH} ;; esac\n"
            'exec /usr/bin/sh "$@"\n',
            0o755,
        )

    def _program(self, name: str) -> str:
        """Where the machine has it; docker comes to where stand-ins are."""
        own = f"/usr/local/bin/{name}"
        if name == "docker" or self.path(own).exists():
            return own
        return shutil.which(name, path="/usr/sbin:/usr/bin") or name


def _alternatives(patterns: Sequence[str]) -> str:
    return " | ".join(pattern.replace(" ", r"\ ") for pattern in patterns)
