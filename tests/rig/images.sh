#!/usr/bin/env bash
# Makes images without a registry and gives them to the rig's containerd:
#   images.sh make NAME...     base pause coredns versitygw toxiproxy kubectl postgres-13 postgres-15 postgres-17 postgres-18
#   images.sh import NAME...   into the running cluster, where it lacks them
# They are kept in buildah's own store, labelled with the recipe that made them, so that another clone finds them. Environment: STATE, BIN, RUN.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
STATE=${STATE:?} BIN=${BIN:-$STATE/bin} RUN=${RUN:-/run/dbbackup-rig}
OUT=$STATE/images IMPORTED=$STATE/run/imported
mkdir -p "$OUT/empty"
BASE=docker.io/library/debian:trixie-slim
# Debian's crun refuses hybrid cgroups; runc serves everywhere.
export BUILDAH_RUNTIME=${BUILDAH_RUNTIME:-runc}

name_of() {
  case $1 in
  base) echo $BASE ;;
  pause | coredns) echo "localhost/$1:1" ;;
  postgres-1[3578]) echo "localhost/dbbackup/postgres:${1#postgres-}" ;;
  versitygw | toxiproxy | kubectl) echo "localhost/dbbackup/$1:1" ;;
  *) echo "images.sh: unknown image $1" >&2 && return 1 ;;
  esac
}

recipe() { # NAME: what it is made from
  case $1 in
  coredns | versitygw | toxiproxy | kubectl) sha256sum <"$BIN/$1" | cut -c-16 ;;
  pause) echo 1 ;;
  base) echo trixie ;;
  postgres-*) { declare -f make_postgres debian && cat "$HERE/postgres-start.sh"; } | sha256sum | cut -c-16 ;;
  esac
}

id_of() { buildah images -q --no-trunc "$1" 2>/dev/null | head -n1; }

made() { # NAME: by the recipe of today. A base image that was pulled serves as well.
  local image
  image=$(name_of "$1")
  [ -n "$(id_of "$image")" ] || return 1
  [ "$1" = base ] || [ "$(buildah inspect --type image --format '{{index .OCIv1.Config.Labels "dbbackup.rig"}}' "$image" 2>/dev/null)" = "$(recipe "$1")" ]
}

commit() { # CONTAINER NAME
  buildah config --label "dbbackup.rig=$(recipe "$2")" "$1"
  buildah commit -q "$1" "$(name_of "$2")" >/dev/null
  buildah rm "$1" >/dev/null
}

give() { # IMAGE ID: to containerd, by way of an archive
  local archive=$OUT/import.$BASHPID.tar
  buildah push -q "$1" "docker-archive:$archive:$1"
  ctr -a "$RUN/containerd.sock" -n k8s.io images import "$archive" >/dev/null
  rm -f "$archive"
  mkdir -p "$IMPORTED"
  echo "$2" >"$IMPORTED/$(tr '/:' '__' <<<"$1")"
}

slim=(--variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*'
  --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=*/libLLVM*')

debian() { # SUITE FILE [mmdebstrap options]: a root file system with the suite's security updates
  local suite=$1 file=$2 key=/usr/share/keyrings/debian-archive-keyring.gpg
  shift 2
  {
    # A mirror that lags serves sid's lists past their short validity.
    echo "deb [signed-by=$key check-valid-until=no] http://deb.debian.org/debian $suite main"
    [ "$suite" = sid ] || echo "deb [signed-by=$key] http://deb.debian.org/debian-security $suite-security main"
  } | mmdebstrap --quiet "${slim[@]}" "$@" "$suite" "$file" -
}

binary() { # NAME FILE PATH [buildah config options]: an image of one static binary
  local c name=$1 file=$2 path=$3
  shift 3
  c=$(buildah from scratch)
  buildah add -q "$c" "$file" "$path" >/dev/null
  buildah config "$@" "$c"
  commit "$c" "$name"
}

make_base() {
  local c root=$OUT/base.root.tar
  debian trixie "$root" --include=ca-certificates
  c=$(buildah from scratch)
  buildah add -q "$c" "$root" / >/dev/null
  buildah config --cmd '["bash"]' "$c"
  commit "$c" base
  rm -f "$root"
}

make_postgres() { # MAJOR: server with contrib, its cluster initialised
  local c v=$1 suite root=$OUT/postgres-$1.root.tar
  case $v in 13) suite=bullseye ;; 15) suite=bookworm ;; 17) suite=trixie ;; 18) suite=sid ;; esac
  local setup="set -e; bin=/usr/lib/postgresql/$v/bin; t=/var/lib/postgresql/template
    groupmod -o -g 999 postgres; usermod -o -u 999 -g 999 postgres; mkdir -p \$t /var/lib/postgresql/data
    chown -R 999:999 /var/lib/postgresql
    setpriv --reuid=999 --regid=999 --clear-groups \$bin/initdb -D \$t -U postgres -E UTF8 --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 --no-sync >/dev/null
    echo 'host all all all scram-sha-256' >>\$t/pg_hba.conf
    printf '%s\n' \"listen_addresses = '*'\" 'password_encryption = scram-sha-256' 'max_connections = 200' 'jit = off' 'log_timezone = UTC' 'timezone = UTC' \
      'fsync = off  # a throw-away test server' 'synchronous_commit = off' 'full_page_writes = off' >>\$t/postgresql.conf
    rm -rf /var/cache/* /var/lib/apt/lists/* /var/log/* /var/lib/postgresql/$v /usr/lib/postgresql/$v/lib/bitcode /usr/lib/postgresql/$v/lib/pgxs /usr/share/postgresql/$v/man \
      /usr/share/i18n /usr/share/perl* /usr/lib/*/perl* /usr/lib/*/libperl* /usr/lib/*/libz3* /usr/lib/*/gconv /usr/share/zsh /usr/share/bash-completion"
  debian "$suite" "$root" --include="postgresql-$v,locales-all-" --customize-hook="chroot \"\$1\" sh -c '$(printf %s "$setup" | sed "s/'/'\\\\''/g")'"
  c=$(buildah from scratch)
  buildah add -q "$c" "$root" / >/dev/null
  buildah add -q --chown 999:999 "$c" "$OUT/empty" /run/postgresql >/dev/null
  buildah add -q --chmod 0755 "$c" "$HERE/postgres-start.sh" /usr/local/bin/postgres-start >/dev/null
  buildah config --entrypoint '["/usr/local/bin/postgres-start"]' --user 999:999 --port 5432 --env "PGBIN=/usr/lib/postgresql/$v/bin" --env PGDATA=/var/lib/postgresql/data \
    --env "PATH=/usr/lib/postgresql/$v/bin:/usr/local/bin:/usr/bin:/bin" --env LANG=C.UTF-8 --stop-signal SIGINT "$c"
  commit "$c" "postgres-$v"
  rm -f "$root"
}

make_one() {
  case $1 in
  base) make_base ;;
  pause) binary pause /bin/busybox /busybox --entrypoint '["/busybox","sleep","2147483647"]' --user 65535 ;;
  coredns) binary coredns "$BIN/coredns" /coredns --entrypoint '["/coredns"]' ;;
  versitygw)
    local c
    c=$(buildah from scratch)
    buildah add -q "$c" "$BIN/versitygw" /versitygw >/dev/null
    buildah add -q --chown 65532:65532 "$c" "$OUT/empty" /data >/dev/null
    buildah add -q --chown 65532:65532 "$c" "$OUT/empty" /tmp >/dev/null
    buildah config --entrypoint '["/versitygw"]' --cmd '["posix","/data"]' --user 65532:65532 --port 7070 --env VGW_PORT=:7070 --env VGW_HEALTH=/health "$c"
    commit "$c" versitygw
    ;;
  toxiproxy) binary toxiproxy "$BIN/toxiproxy" /toxiproxy --entrypoint '["/toxiproxy","-host=0.0.0.0"]' --user 65532:65532 --port 8474 ;;
  kubectl) binary kubectl "$BIN/kubectl" /kubectl --entrypoint '["/kubectl"]' --user 65532:65532 ;;
  postgres-*) make_postgres "${1#postgres-}" ;;
  esac
}

given() { # IMAGE ID: containerd holds it already
  [ "$(cat "$IMPORTED/$(tr '/:' '__' <<<"$1")" 2>/dev/null)" = "$2" ] && ctr -a "$RUN/containerd.sock" -n k8s.io images ls -q "name==$1" | grep -q .
}

command=${1:?make, import or give}
shift
jobs_of_import=()
for name in "$@"; do
  case $command in
  make)
    made "$name" || {
      start=$SECONDS
      make_one "$name"
      echo "made $(name_of "$name") in $((SECONDS - start)) s"
    }
    ;;
  import | give) # give: an image of any name
    image=$name
    [ "$command" = give ] || image=$(name_of "$name")
    id=$(id_of "$image")
    given "$image" "$id" || { give "$image" "$id" & jobs_of_import+=($!); }
    ;;
  esac
done
for job in "${jobs_of_import[@]}"; do wait "$job"; done
