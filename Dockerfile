# syntax=docker/dockerfile:1
# The gateway in a small image: no shell scripts, no compiler, no root. Build: docker build -t chatglm-gateway:0.1.0 .
#
# A tag can change under one's feet, so pin the base by digest where images are built for others:
#   docker buildx imagetools inspect python:3.13-slim-bookworm --format '{{.Manifest.Digest}}'
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim-bookworm@sha256:... -t chatglm-gateway:0.1.0 .
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src

# What changes rarely comes first: the tools that build the wheel, then the packages it runs with, all by hash.
# dns.txt is the core and what finds backends in DNS.
COPY requirements/build.txt requirements/dns.txt requirements/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/gateway \
    && /opt/build/bin/pip --python /opt/gateway/bin/python install --require-hashes -r requirements/dns.txt

COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
# Bytecode is compiled here, since the root of a running container is read-only; hashes in place of file times keep it valid
# and the layer the same from build to build.
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheels . \
    && /opt/build/bin/pip --python /opt/gateway/bin/python install --no-deps --no-index --no-compile /tmp/wheels/*.whl \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/gateway/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="chatglm-gateway" \
      org.opencontainers.image.description="One OpenAI endpoint in front of ChatGLM and OpenAI-like servers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# The environment holds absolute paths: the same Python at the same place in both stages.
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Where every command looks for the config; the health check finds the admin plane in it.
ENV GATEWAY_CONFIG=/etc/gateway/config.toml

# A number, so that Kubernetes can see that it is not root; no home, no shell, nothing to write.
USER 65532:65532
WORKDIR /etc/gateway
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
