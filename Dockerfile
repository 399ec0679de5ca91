# The service on a CPU, without torch: an exported model in, HTTP out.
#
#   hfrec export --model_name_or_path out --output_dir exported
#   docker build -t hfrec-serve .
#   docker run --rm -p 8000:8000 -v ./exported:/model:ro -v histories:/data hfrec-serve

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE hfrec_command.py ./
COPY hfrec hfrec
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY constraints.txt docker/requirements.txt /install/
RUN pip install --no-cache-dir -c /install/constraints.txt -r /install/requirements.txt
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/hfrec-*.whl
RUN useradd --system --uid 10001 hfrec && mkdir /data && chown hfrec /data
USER hfrec
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["hfrec", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--model_name_or_path", "/model", "--history_store", "sqlite:////data/histories.db"]
