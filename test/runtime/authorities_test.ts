/** The authorities of the system's store, of another store, and of `ca-file`. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { after, before, describe, test } from "node:test";
import { authorities } from "../../src/runtime/authorities.ts";
import { serve, type Server } from "../../src/runtime/server.ts";
import { createFetch } from "../../src/runtime/fetch.ts";
import {
  CERTIFICATE,
  RENEWED_CERTIFICATE,
  SIGNED_CERTIFICATE,
  SIGNED_KEY,
} from "../kit/certificate.ts";
import { runShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

describe("authorities", () => {
  const dir = tempDir("authorities");
  const [file, empty, folder] = ["store.pem", "empty.pem", "certs"].map((name) => join(dir, name));
  let server: Server;
  before(() => {
    writeFileSync(file!, `# a store\n${rootCertificates[0]}\n${CERTIFICATE}\n`);
    writeFileSync(empty!, "");
    mkdirSync(folder!);
    writeFileSync(join(folder!, "a.pem"), RENEWED_CERTIFICATE.replaceAll("\n", "\r\n"));
    server = serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert: SIGNED_CERTIFICATE, key: SIGNED_KEY },
      handler: () => new Response("Ok.\n"),
      onError: () => {},
    });
  });
  after(async () => {
    await server.kill();
    removeDir(dir);
  });
  const bare = (pem: string) => pem.replace(/\s/g, "");
  const found = (own: string | null, env: Record<string, string>) =>
    authorities(own, env).map(bare);

  test("of a file and of folders, each once, without what is known anyway", () => {
    assert.deepEqual(found(null, { SSL_CERT_FILE: file! }), [bare(CERTIFICATE)]);
    assert.deepEqual(found(CERTIFICATE, { SSL_CERT_FILE: file! }), [bare(CERTIFICATE)]);
    assert.deepEqual(found(null, { SSL_CERT_DIR: `/nowhere:${folder}` }), [
      bare(RENEWED_CERTIFICATE),
    ]);
    assert.deepEqual(found(CERTIFICATE, { SSL_CERT_FILE: empty!, SSL_CERT_DIR: folder! }), [
      bare(CERTIFICATE),
      bare(RENEWED_CERTIFICATE),
    ]);
    assert.deepEqual(found(null, { SSL_CERT_FILE: "/nowhere" }), []);
    // The runtime's own variable counts beside any store.
    assert.deepEqual(found(null, { SSL_CERT_FILE: empty!, NODE_EXTRA_CA_CERTS: file! }), [
      bare(CERTIFICATE),
    ]);
    assert.deepEqual(found(rootCertificates[1]!, { SSL_CERT_FILE: empty! }), []);
  });

  test("a fetch asks for them once, at the first request over HTTPS", async () => {
    let asked = 0;
    const fetch = createFetch({
      pooled: false,
      certificates: () => (asked++, authorities(null, { SSL_CERT_FILE: file! })),
    });
    await assert.rejects(fetch("http://127.0.0.1:9/", {}));
    assert.equal(asked, 0);
    for (let n = 0; n < 2; n++) {
      const answer = await fetch(`https://127.0.0.1:${server.port}/`, {});
      assert.equal(await answer.text(), "Ok.\n");
    }
    assert.equal(asked, 1);
  });

  for (const binary of [false, true]) {
    test(`shishi reaches a server of such an authority${binary ? " (binary)" : ""}`, async () => {
      const check = async (args: readonly string[], env: Record<string, string>) => {
        const url = `https://127.0.0.1:${server.port}`;
        const { stdout } = await runShishi(["check", "--clickhouse-url", url, ...args], {
          binary,
          env,
        });
        return stdout;
      };
      const untrusted = /certificate|issuer|self.?signed|error sending request/i;
      assert.match(await check([], { SSL_CERT_FILE: empty! }), untrusted);
      assert.doesNotMatch(await check([], { SSL_CERT_FILE: file! }), untrusted);
      assert.doesNotMatch(await check(["--ca-file", file!], { SSL_CERT_FILE: empty! }), untrusted);
    });
  }
});
