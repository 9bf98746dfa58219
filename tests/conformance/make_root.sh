#!/usr/bin/env bash
# make_root.sh MAJOR SUITE BUILD: BUILD/root-MAJOR with the suite's PostgreSQL and the extensions that some inputs need, BUILD/source-MAJOR with the
# source of its server, BUILD/headers-MAJOR. What is there is left alone.
set -euo pipefail
major=$1 suite=$2 build=$3
key=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$build"

suites() { # deb|deb-src
  echo "$1 [signed-by=$key] http://deb.debian.org/debian $suite main"
  [ "$suite" = sid ] || echo "$1 [signed-by=$key] http://deb.debian.org/debian-security $suite-security main"
}

if [ ! -e "$build/root-$major/.ready" ]; then
  command -v mmdebstrap >/dev/null || "$(dirname "$0")/../rig/rig" packages mmdebstrap debian-archive-keyring
  case $major in
    15) packages=postgresql-15-postgis-3,postgresql-15-postgis-3-scripts,postgresql-15-partman,postgresql-15-periods,postgresql-15-cron,postgresql-15-hypopg,postgresql-15-repack ;;
    17) packages=postgresql-17-pgvector ;;
    *) packages=ca-certificates ;;
  esac
  rm -rf "$build/root-$major"
  suites deb | mmdebstrap --quiet --variant=apt --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --include="postgresql-$major,postgresql-plperl-$major,$packages" "$suite" "$build/root-$major" -
  touch "$build/root-$major/.ready"
fi

if [ ! -e "$build/source-$major/.ready" ]; then
  apt=$build/apt-$major
  mkdir -p "$apt/lists/partial" "$apt/cache"
  { suites deb-src; suites deb; } >"$apt/sources.list"
  # The status is the root's, so that nothing depends on what this machine has.
  own=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root
    -o Acquire::Check-Valid-Until=false)
  apt-get "${own[@]}" -qq update
  cd "$apt"
  # A security update's source may be gone from the mirror: then the suite's own will do.
  for version in $(apt-cache "${own[@]}" showsrc "postgresql-$major" | sed -n 's/^Version: //p' | sort -Vru); do
    ! apt-get "${own[@]}" -qq source --download-only "postgresql-$major=$version" 2>/dev/null || break
  done
  # A mirror may lag behind its own index: then the tests of a minor version before will do.
  minor=$(chroot "$build/root-$major" dpkg-query -W -f '${Version}' "postgresql-$major" | sed 's/^[0-9]*\.\([0-9]*\).*/\1/')
  pool=http://deb.debian.org/debian/pool/main/p/postgresql-$major
  until compgen -G "./postgresql-${major}_*.orig.tar.*" >/dev/null || [ "$minor" -lt 0 ]; do
    name=postgresql-${major}_$major.$((minor--)).orig.tar.bz2
    /usr/lib/apt/apt-helper "${own[@]}" -qq download-file "$pool/$name" "$name" 2>/dev/null || rm -f "$name"
  done
  rm -rf "$build/source-$major" "$build/headers-$major"
  mkdir -p "$build/source-$major"
  tar xf ./postgresql-"$major"_*.orig.tar.* -C "$build/source-$major" --strip-components=1
  apt-get "${own[@]}" -qq download "postgresql-server-dev-$major"
  dpkg -x ./postgresql-server-dev-"$major"_*.deb "$build/headers-$major"
  touch "$build/source-$major/.ready"
fi
