# One image for every part: ingress, operator, worker, and the demo's database.
#   docker build -t hybridjobs:dev .        (or `make image`, which needs no container engine)
# BASE is any image with python3 and its venv module.
ARG BASE=python:3.13-slim

# The package itself, installed beside /app: a small layer, rebuilt in seconds.
FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /app
COPY requirements-build.txt /build/
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt \
    PIP_CONFIG_FILE=/run/secrets/pip.conf \
    /app/bin/pip install --no-deps --require-hashes -r /build/requirements-build.txt
COPY pyproject.toml README.md LICENSE /build/
COPY operator /build/operator
# By the interpreter of /app, so that scripts name it.
RUN /app/bin/pip install --no-compile --no-deps --no-index --no-build-isolation \
      --prefix /package /build \
 && python3 -m compileall -q -j 0 -s /package -p /app --invalidation-mode unchecked-hash /package

FROM ${BASE}
# initdb, of the demo's database, refuses a user without a name.
RUN echo 'hybridjobs:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'hybridjobs:x:65532:' >> /etc/group
# The dependencies: one large layer, made anew only when requirements.txt changes. Installed in
# place, as nothing but /app comes from it; a COPY would be read in full at each build.
COPY requirements.txt /app/
# The secrets are optional: a machine's own pip configuration and authorities, never in a layer.
# --no-deps: the list is complete, and `pip check` proves it.
# unchecked-hash: imports neither stat nor hash the sources, which nobody edits in an image.
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf \
           PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
 && python3 -m venv /app \
 && /app/bin/pip install --no-compile --no-deps --require-hashes -r /app/requirements.txt \
 && /app/bin/pip check \
 && /app/bin/pip uninstall --yes pip setuptools \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/lib
ENV PATH=/app/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 HOME=/tmp
ARG VERSION=dev
LABEL org.opencontainers.image.title="HybridJobs" \
      org.opencontainers.image.description="Webhooks that start long work: answered at once, run as Kubernetes Jobs, never lost" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["hybridjobs"]
COPY --from=builder /package /app
