# The image holds the binary, the libraries that it is linked to and the certificate authorities: no
# shell and no package manager that an intruder could use. Build: docker build -t shishi .
# Run: docker run -p 8080:8080 -v shishi:/data -e SHISHI_CLICKHOUSE_URL=http://clickhouse:8123 shishi

FROM docker.io/oven/bun:1.4.5 AS build
WORKDIR /build
# The packages change less often than the source: a layer of their own is kept between builds.
COPY package.json package-lock.json ./
RUN bun install --production --ignore-scripts
COPY . .
# What `shishi --version` says: docker build --build-arg SOURCE_COMMIT=$(git rev-parse --short=12 HEAD) .
ARG SOURCE_COMMIT=""
RUN bun .release/build.ts src/main.ts image/shishi
# Each library where the binary looks for it.
RUN for library in $(ldd image/shishi | grep -o '/[^ ]*'); do \
      install -D "$library" "image$library"; \
    done
RUN test -s /etc/ssl/certs/ca-certificates.crt \
    || { apt-get update && apt-get install -y --no-install-recommends ca-certificates; } \
    && install -D -m 644 -t image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt \
    && mkdir data

FROM scratch
COPY --from=build /build/image /
# Owned by the user below, so that a volume mounted here can be written.
COPY --from=build --chown=65532:65532 /build/data /data
VOLUME /data
# A number, not a name: Kubernetes' runAsNonRoot can check it.
USER 65532:65532
# Inside a container the default, 127.0.0.1, could not be reached from outside. To trust an authority
# of one's own, mount a file over that one, or name another.
ENV SHISHI_LISTEN=:8080 \
    SHISHI_DATA_DIR=/data \
    NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
EXPOSE 8080
# By the binary itself: the image holds no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/shishi", "health"]
ENTRYPOINT ["/shishi"]
