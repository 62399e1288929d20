# agentload in a container: docker build -t agentload:0.1.0 .
#
# Everything is built in a stage that is thrown away: libraries at the versions and hashes of requirements.lock, of which
# the image gets only what agentload itself needs. What is left has no pip, no compiler and no root.

FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN pip wheel --no-cache-dir --require-hashes --requirement requirements.lock --wheel-dir /wheels
COPY pyproject.toml README.md LICENSE ./
COPY agents ./agents
COPY loadprofiles ./loadprofiles
COPY collectors ./collectors
COPY agentload ./agentload
RUN pip install --no-cache-dir --no-index --find-links /wheels hatchling \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/agentload \
 && pip --python /opt/agentload/bin/python install --no-cache-dir --no-index --find-links /wheels "agentload[otel]" \
 && find /opt/agentload/lib -type d \( -name tests -o -path '*/pyarrow/include' \) -prune -exec rm -r {} +

FROM python:3.12-slim
RUN pip uninstall --yes --root-user-action=ignore pip \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin agentload \
 && install --directory --owner=10001 --group=10001 /runs
COPY --from=build /opt/agentload /opt/agentload
ENV PATH=/opt/agentload/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /
VOLUME /runs
ENTRYPOINT ["agentload"]
CMD ["--help"]
