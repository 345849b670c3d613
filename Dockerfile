# The image holds one file, the binary. Build: docker build -t shishi .
# Run: docker run -p 8080:8080 -e SHISHI_CLICKHOUSE_URL=http://clickhouse:8123 shishi

FROM node:22-bookworm-slim AS build
WORKDIR /build
# The packages change less often than the source: a layer of their own is kept between builds.
COPY package.json package-lock.json ./
COPY test/kit/prepare.mjs test/kit/
RUN node test/kit/prepare.mjs
COPY . .
RUN npm run build && mkdir /data

# The binary needs glibc and, for https, the certificate authorities; this image has both, and no
# shell and no package manager that an intruder could use.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /build/dist/shishi /shishi
# Owned by the user below, so that a volume mounted here can be written.
COPY --from=build --chown=65532:65532 /data /data
# What the collector keeps goes below the current folder.
WORKDIR /data
# A number, not a name: Kubernetes' runAsNonRoot can check it.
USER 65532:65532
# Inside a container the default, 127.0.0.1, could not be reached from outside.
ENV SHISHI_LISTEN=0.0.0.0:8080
EXPOSE 8080
# By the binary itself: the image holds no curl.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/shishi", "health"]
ENTRYPOINT ["/shishi"]
