#!/bin/sh
# Starts PostgreSQL with the environment of the well-known image: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB. Arguments go to the server.
# The cluster was made when the image was built, so the server is ready within a second.
set -eu
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
single() { "$PGBIN/postgres" --single -j -D "$PGDATA" -c fsync=off postgres >/dev/null; }
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  chmod 0700 "$PGDATA"
  cp -a /var/lib/postgresql/template/. "$PGDATA/"
  password=$(printf %s "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}" | sed "s/'/''/g")
  if [ "$user" = postgres ]; then
    printf "ALTER ROLE postgres PASSWORD '%s';\n\n" "$password" | single
  else
    printf "CREATE ROLE \"%s\" SUPERUSER LOGIN PASSWORD '%s';\n\n" "$user" "$password" | single
  fi
  [ "$database" = postgres ] || printf 'CREATE DATABASE "%s" OWNER "%s";\n\n' "$database" "$user" | single
fi
unset POSTGRES_PASSWORD
exec "$PGBIN/postgres" -D "$PGDATA" "$@"
