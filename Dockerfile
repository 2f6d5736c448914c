# The image of a pod, a worker and the command `router`. Both stages must come from the same base.
ARG PYTHON_IMAGE=python:3.13-slim@sha256:6771159cd4fa5d9bba1258caf0b82e6b73458c694d178ad97c5e925c2d0e1a91

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 SOURCE_DATE_EPOCH=1577836800
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/router
COPY pyproject.toml requirements.lock ./
COPY .ci/runtime_lock.py .ci/
# The image lists what it holds in /opt/router/sbom.cdx.json (CycloneDX). No compiler is here, and none gets into the image: all are wheels but nkeys, which is pure Python and has none.
RUN /build/bin/python .ci/runtime_lock.py requirements.lock hatchling setuptools cyclonedx-bom > build.lock \
 && /build/bin/python .ci/runtime_lock.py requirements.lock pyproject.toml > runtime.lock \
 && /build/bin/pip install -q --require-hashes --no-deps --only-binary :all: -r build.lock \
 && /build/bin/pip wheel -q --require-hashes --no-deps --no-build-isolation --only-binary :all: --no-binary nkeys -w /wheels -r runtime.lock \
 && /build/bin/cyclonedx-py requirements --output-reproducible -o /opt/router/sbom.cdx.json runtime.lock
COPY README.md LICENSE ./
COPY lua lua
COPY examples examples
COPY router router
# Compiled here, as the root file system is read-only at run time; unchecked hashes keep the bytes the same in every build.
RUN /build/bin/pip wheel -q --no-deps --no-build-isolation --no-index -w /wheels . \
 && /build/bin/pip --python /opt/router/bin/python install -q --no-deps --no-index /wheels/*.whl \
 && /opt/router/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/router/lib

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="router-fleet" \
      org.opencontainers.image.description="A fleet of stateless routers: who runs this task for this tenant?" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/router /opt/router
ENV PATH=/opt/router/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s/readyz' % (os.environ.get('ROUTER_HTTP_PORT') or 8080), timeout=2)"]
ENTRYPOINT ["router"]
CMD ["serve"]
