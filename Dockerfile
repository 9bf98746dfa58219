# One image for the operator and its Jobs. Built by docker or buildah alike; what changes most comes last.
#   --build-arg VERSION=, REVISION=, CREATED= (the commit's time), SOURCE= (the repository's address)   what the image's labels say
#   --build-arg PGDG=1   PostgreSQL clients of every major (13 to 18) from apt.postgresql.org instead of Debian's 13, 15, 17 and 18
ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS clients
ARG PGDG
ARG CLIENTS="13:bullseye 15:bookworm 17:trixie 18:sid"
COPY image/clients.sh /clients.sh
RUN sh /clients.sh

# The system: Python, the libraries that the clients need, and nothing that installs packages.
FROM ${BASE} AS system
RUN apt-get update -qq \
 && apt-get install -qq -y --no-install-recommends ca-certificates python3 tzdata libgssapi-krb5-2 libldap2 liblz4-1 libreadline8t64 libssl3t64 libzstd1 zlib1g >/dev/null \
 && python3 -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/lib/python3.13

FROM system AS dependencies
ARG PIP_CERT
ARG PIP_INDEX_URL
RUN apt-get install -qq -y --no-install-recommends python3-venv >/dev/null
RUN python3 -m venv /build && /build/bin/pip install -q "setuptools==80.9.0" "wheel==0.45.1" && python3 -m venv --without-pip /opt/dbbackup
COPY requirements/image.txt image/prune.py /
RUN /build/bin/pip --python /opt/dbbackup/bin/python install -q --no-compile --require-hashes --only-binary :all: -r /image.txt \
 && python3 /prune.py /opt/dbbackup \
 && /opt/dbbackup/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/dbbackup/lib

FROM dependencies AS project
COPY pyproject.toml README.md /src/
COPY operator /src/operator
RUN /build/bin/pip wheel -q --no-deps --no-build-isolation --no-index -w /wheel /src \
 && /build/bin/pip --python /opt/dbbackup/bin/python install -q --no-compile --no-deps --no-index --target /project /wheel/*.whl \
 && /opt/dbbackup/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /project -p /opt/dbbackup/lib/python3.13/site-packages /project

FROM system AS rootfs
RUN rm -rf /usr/share/doc /usr/share/man /usr/share/locale /usr/share/info /usr/share/bash-completion /usr/share/perl* /usr/lib/*/perl* /usr/bin/perl* \
    /usr/lib/apt /usr/bin/apt* /usr/lib/*/libapt-* /usr/share/keyrings /var/lib/apt /var/cache /var/log /usr/lib/*/gconv /usr/lib/python3.13/ensurepip \
    /usr/lib/python3.13/pydoc_data /usr/lib/python3.13/test /usr/lib/python3.13/idlelib /usr/share/python3 /usr/share/gcc /usr/share/pixmaps \
 && find / -xdev -perm /6000 -type f -exec chmod a-s {} + \
 && echo "dbbackup:x:65532:65532::/tmp:/usr/sbin/nologin" >>/etc/passwd && echo "dbbackup:x:65532:" >>/etc/group

FROM scratch
COPY --from=rootfs / /
COPY --from=clients /clients/ /
COPY --from=dependencies /opt/dbbackup /opt/dbbackup
ENV PATH=/opt/dbbackup/bin:/usr/local/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Fails the build, rather than a backup, where a client does not run.
RUN for tool in /usr/lib/postgresql/*/bin/*; do "$tool" --version >/dev/null || exit 1; done
COPY --from=project /project /opt/dbbackup/lib/python3.13/site-packages
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/opt/dbbackup/bin/python", "-m", "dbbackup"]
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE
LABEL org.opencontainers.image.title="database-backup-operator" \
      org.opencontainers.image.description="Logical backup and restore of PostgreSQL on Kubernetes that never lies about the outcome" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}"
