/**
 * `wss://` and `tls://` with a private authority, in `ca-file` or given to the process as every runtime
 * takes it: in NODE_EXTRA_CA_CERTS. From source and as the binary, for the collector and for the commands.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { BUILDS, ON_BUN, runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";

for (const scheme of ["wss", "tls"] as const) {
  describe(`${scheme} with a private authority`, () => {
    const dir = tempDir("ca");
    const at = (name: string) => join(dir, name);
    let nats: Nats;
    let natsUrl: string;
    let port: number;
    before(async () => {
      authority();
      const tls = `tls { cert_file: "${at("server.pem")}", key_file: "${at("server.key")}" }`;
      nats = await startNats(`authorization { token: "t" }\n${tls}`, tls);
      port = scheme === "wss" ? nats.port : nats.natsPort;
      natsUrl = `${scheme}://localhost:${port}`;
    });
    after(async () => {
      await nats.close();
      removeDir(dir);
    });

    /** An authority, and a server's certificate that it signed. */
    function authority(): void {
      const openssl = (...args: string[]) =>
        execFileSync("openssl", args, { cwd: dir, stdio: "pipe" });
      const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
      writeFileSync(at("names"), "subjectAltName=DNS:localhost\n");
      openssl(
        ...[
          "req",
          "-x509",
          ...key,
          "-keyout",
          "ca.key",
          "-out",
          "ca.pem",
          "-subj",
          "/CN=authority",
        ],
        ...["-addext", "keyUsage=critical,keyCertSign", "-days", "2"],
      );
      openssl("req", ...key, "-keyout", "server.key", "-out", "request", "-subj", "/CN=localhost");
      openssl(
        ...["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key"],
        ...["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.pem"],
      );
    }

    async function start(binary: boolean, env: Record<string, string>): Promise<Shishi> {
      const away = `http://127.0.0.1:${await freePort()}`;
      const args = ["--nats-url", natsUrl, "--group=eu", "--id=a", "--clickhouse-url", away];
      return await startShishi({ args, binary, env: { SHISHI_NATS_TOKEN: "t", ...env } });
    }

    const logged = (shishi: Shishi, message: string) =>
      eventually(() => {
        const line = shishi.lines().find((each) => String(each["message"]).startsWith(message));
        assert.ok(line !== undefined, shishi.stderr());
        return line;
      }, { withinMs: 20_000 });

    const ways: readonly (readonly [string, () => Record<string, string>])[] = [
      ["ca-file", () => ({ SHISHI_CA_FILE: at("ca.pem") })],
      ["NODE_EXTRA_CA_CERTS", () => ({ NODE_EXTRA_CA_CERTS: at("ca.pem") })],
    ];
    for (const [way, trust] of ways) {
      for (const binary of BUILDS) {
        test(`trusted by ${way}: ${binary ? "the binary" : "from source"}`, async () => {
          const env = { ...trust(), SHISHI_NATS_TOKEN: "t" };
          const shishi = await start(binary, env);
          await logged(shishi, "nats: connected");
          const status = await runShishi(
            ["status", "--nats-url", natsUrl, "--target=eu.a", "--json"],
            { env, binary },
          );
          assert.equal(status.code, 0, status.stderr);
          assert.equal(JSON.parse(status.stdout).id, "a");
          await shishi.close();
        });
      }
    }

    test("not trusted: no connection, no token sent, and the reason is the certificate", async () => {
      const shishi = await start(ON_BUN, {});
      const { error } = await logged(shishi, "nats: not connected");
      assert.match(String(error), /certificate/i);
      assert.match(String(error), new RegExp(`^localhost:${port}: `));
      await shishi.close();
    });
  });
}
