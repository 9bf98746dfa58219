#!/bin/sh
# Puts pg_dump, pg_restore and psql of every supported major below /clients, with one libpq: the newest, since psql 18 misses symbols in older ones.
#   CLIENTS   MAJOR:SUITE pairs: Debian suites, each with its security archive
#   PGDG      not empty: every major from 13 to 18 from apt.postgresql.org instead
set -eu
out=/clients
work=$(mktemp -d)
cd "$work"
# shellcheck disable=SC1091
. /etc/os-release
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
sources=/etc/apt/sources.list.d

rm -f /etc/apt/sources.list "$sources"/*
if [ -n "${PGDG:-}" ]; then
  majors="13 14 15 16 17 18"
  echo "deb [signed-by=$keyring] http://deb.debian.org/debian $VERSION_CODENAME main" >"$sources/system.list"
  apt-get update -qq
  apt-get install -qq -y --no-install-recommends ca-certificates postgresql-common >/dev/null
  echo "deb [signed-by=/usr/share/postgresql-common/pgdg/apt.postgresql.org.asc] https://apt.postgresql.org/pub/repos/apt $VERSION_CODENAME-pgdg main" \
    >"$sources/pgdg.list"
else
  majors=""
  for pair in $CLIENTS; do
    suite=${pair#*:}
    majors="$majors ${pair%%:*}"
    # A mirror that lags serves sid's lists past their short validity; they are signed all the same, and --version is checked at the image's end.
    echo "deb [signed-by=$keyring check-valid-until=no] http://deb.debian.org/debian $suite main" >>"$sources/clients.list"
    [ "$suite" = sid ] || echo "deb [signed-by=$keyring] http://deb.debian.org/debian-security $suite-security main" >>"$sources/clients.list"
  done
fi
apt-get update -qq
for major in $majors; do apt-get download -qq "postgresql-client-$major"; done
apt-get download -qq libpq5
# bullseye's clients want OpenSSL 1.1's libcrypto for hashes; TLS is libpq's, of the newest suite.
case "${PGDG:-}${CLIENTS:-}" in *bullseye*) apt-get download -qq libssl1.1 ;; esac
for package in ./*.deb; do dpkg-deb -x "$package" "$work/root"; done
for major in $majors; do
  mkdir -p "$out/usr/lib/postgresql/$major/bin"
  for tool in pg_dump pg_restore psql; do cp "$work/root/usr/lib/postgresql/$major/bin/$tool" "$out/usr/lib/postgresql/$major/bin/"; done
done
lib=$(dirname "$(find "$work/root" -name 'libpq.so.5')")
mkdir -p "$out${lib#"$work/root"}"
cp -a "$lib"/libpq.so.5* "$out${lib#"$work/root"}/"
cp -a "$lib"/libcrypto.so.1.1 "$out${lib#"$work/root"}/" 2>/dev/null || true
dpkg-deb -f ./libpq5_*.deb Package Version Depends
rm -rf "$work"
