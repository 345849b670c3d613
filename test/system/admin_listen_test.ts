/** `admin-listen`: what is served where, over real sockets, on the runtime and on the binary. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { request } from "node:http";
import { request as requestTls } from "node:https";
import { join } from "node:path";
import { describe, test } from "node:test";
import {
  CERTIFICATE,
  CERTIFICATE_KEY,
  RENEWED_CERTIFICATE,
  RENEWED_KEY,
} from "../kit/certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { testOnce } from "../kit/once.ts";
import { openapi } from "../kit/openapi.ts";
import { BUILDS, runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { says, stopBy } from "./around.ts";
import { startReloading } from "./reloading.ts";
import { closeAll, ended, followers, settled } from "./upgrading.ts";

const AWAY = ["--clickhouse-url", "http://127.0.0.1:9", "--shutdown-timeout", "0s"];
const PATIENCE = { withinMs: 20_000 };
const EVENT = '{"eventType":"e"}';
const TOKEN = "an-auth-token-of-some-length";

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** On a connection of its own. @param socketPath instead of the URL's host. */
function ask(
  method: string,
  url: string,
  { body = "", token, socketPath }: { body?: string; token?: string; socketPath?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = (url.startsWith("https:") ? requestTls : request)(url, {
      method,
      agent: false,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(url.startsWith("https:") ? { ca: [CERTIFICATE, RENEWED_CERTIFICATE] } : {}),
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
    }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => text += piece)
        .on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    asked.on("error", reject);
    asked.end(body);
  });
}

const HEALTH = ["/healthz", "/readyz"];
/** Every path and method that is described, but health and what never ends. */
const DESCRIBED = Object.entries<Record<string, unknown>>(openapi.paths).flatMap(
  ([path, methods]) =>
    ["get", "post", "delete"].filter((method) => methods[method] !== undefined).map((method) => ({
      method: method.toUpperCase(),
      path: path.replace("{table}", "flights"),
    })),
).filter(({ path }) => !HEALTH.includes(path) && path !== "/api/live");
/** Where events are taken. */
const isEvents = (path: string) => path.startsWith("/events") || path === "/shishi.js";

/** The admin URL that a collector logs. */
async function adminOf(shishi: Shishi): Promise<string> {
  await says(shishi, "listening for admins");
  return String(
    shishi.lines().findLast(({ message }) => message === "listening for admins")!["url"],
  );
}

for (const binary of BUILDS) {
  describe(`an admin port${binary ? " (binary)" : ""}`, () => {
    const start = (args: readonly string[], env: Record<string, string> = {}) =>
      startShishi({ binary, args: [...AWAY, ...args], env });

    test("each path is served on one of the two, health on both", async () => {
      const shishi = await start(["--admin-listen", "127.0.0.1:0", "--tables", "flights"]);
      try {
        const admin = await adminOf(shishi);
        assert.notEqual(admin, shishi.url);
        assert.ok(DESCRIBED.length > 10);
        for (const { method, path } of DESCRIBED) {
          const [there, elsewhere] = isEvents(path) ? [shishi.url, admin] : [admin, shishi.url];
          const served = await ask(method, there + path, { body: method === "POST" ? "x" : "" });
          assert.notEqual(served.status, 404, `${method} ${path}`);
          for (const any of [method, "GET", "OPTIONS", "PUT"]) {
            const not = await ask(any, elsewhere + path, { body: any === "GET" ? "" : EVENT });
            assert.equal(not.status, 404, `${any} ${path} ${not.text}`);
            // Neither says where the other one is.
            assert.ok(!not.text.includes(new URL(there).port));
          }
        }
        assert.equal((await ask("GET", `${shishi.url}/api/live`)).status, 404);
        for (const path of HEALTH) {
          const [one, two] = [
            await ask("GET", shishi.url + path),
            await ask("GET", admin + path),
          ];
          assert.deepEqual([one.status, one.text], [two.status, two.text]);
        }
        assert.equal((await ask("POST", `${shishi.url}/events`, { body: EVENT })).status, 202);
        const { ledger } = JSON.parse((await ask("GET", `${admin}/api/status`)).text);
        assert.equal(ledger.held, 1, "nothing of what the admin port was sent");
        assert.equal((await stopBy(shishi)).code, 0);
      } finally {
        await shishi.close();
      }
    });

    testOnce(
      "tokens: auth tokens on both, write tokens where events are; without auth tokens it is open",
      async () => {
        const write = "web:a-write-token-of-some-length";
        const token = write.slice(4);
        const closed = await start(["--admin-listen=127.0.0.1:0"], {
          SHISHI_AUTH_TOKENS: TOKEN,
          SHISHI_WRITE_TOKENS: write,
        });
        const open = await start(["--admin-listen=127.0.0.1:0"], { SHISHI_WRITE_TOKENS: write });
        try {
          for (
            const [shishi, wanted] of [[closed, [401, 403, 200]], [open, [200, 200, 200]]] as const
          ) {
            const admin = await adminOf(shishi);
            const statuses = [];
            for (const one of [{}, { token }, { token: TOKEN }]) {
              statuses.push((await ask("GET", `${admin}/metrics`, one)).status);
            }
            assert.deepEqual(statuses, wanted);
            const post = (more: { token?: string }) =>
              ask("POST", `${shishi.url}/events`, { body: EVENT, ...more });
            assert.equal((await post({})).status, 401);
            assert.equal((await post({ token })).status, 202);
            const { text } = await ask("GET", `${admin}/metrics`, { token: TOKEN });
            assert.match(text, /^shishi_token_rows_total\{token="web"\} 1$/m);
          }
        } finally {
          await closed.close();
          await open.close();
        }
      },
    );

    test("shishi dead and health find it, also as a socket in the file system", async () => {
      const dir = tempDir("admin");
      const path = join(dir, "admin.sock");
      const listen = `127.0.0.1:${await freePort()}`;
      const both = (admin: string) => ["--listen", listen, "--admin-listen", admin];
      try {
        for (const admin of [`127.0.0.1:${await freePort()}`, `unix:${path}`]) {
          const shishi = await start([...both(admin), "--data-dir", join(dir, "data")]);
          try {
            await adminOf(shishi);
            const letters = await runShishi(
              ["dead", "ls", ...both(admin), "--data-dir", join(dir, "data")],
              { binary },
            );
            assert.equal(letters.code, 0, letters.stderr);
            const replay = await runShishi(
              ["dead", "replay", ...both(admin), "--data-dir", join(dir, "data")],
              { binary },
            );
            assert.equal(replay.code, 0, replay.stderr);
            assert.equal((await runShishi(["health", "--listen", listen], { binary })).code, 0);
            const checked = await runShishi(
              ["check", ...both(admin), ...AWAY.slice(0, 2), "--data-dir", join(dir, "data")],
              { binary },
            );
            assert.match(checked.stdout + checked.stderr, new RegExp(`admin-listen ${admin}`));
          } finally {
            await stopBy(shishi);
            await shishi.close();
          }
          assert.equal(existsSync(path), false);
        }
      } finally {
        removeDir(dir);
      }
    });

    test("with TLS both have it, and a renewed certificate too", async () => {
      const at = await startReloading((file) => ({
        "clickhouse-url": AWAY[1]!,
        "shutdown-timeout": "0s",
        listen: "127.0.0.1:0",
        "admin-listen": "127.0.0.1:0",
        "tls-cert": file("cert", CERTIFICATE),
        "tls-key": file("key", CERTIFICATE_KEY),
      }), { listens: true, binary });
      try {
        const admin = await adminOf(at.shishi);
        assert.match(admin, /^https:/);
        const asks = async () => {
          assert.equal((await ask("POST", `${at.shishi.url}/events`, { body: EVENT })).status, 202);
          assert.equal((await ask("GET", `${admin}/api/status`)).status, 200);
        };
        await asks();
        at.file("cert", RENEWED_CERTIFICATE);
        at.file("key", RENEWED_KEY);
        await at.set({});
        await asks();
      } finally {
        await at.close();
      }
    });

    testOnce("collectors that share a port are asked one by one", async () => {
      const port = await freePort();
      const startOne = (id: string) =>
        start([
          "--listen",
          `127.0.0.1:${port}`,
          "--share-port",
          "--id",
          id,
          "--admin-listen=127.0.0.1:0",
        ]);
      const [one, two] = [await startOne("one"), await startOne("two")];
      try {
        for (const [shishi, id] of [[one, "one"], [two, "two"]] as const) {
          const admin = await adminOf(shishi);
          for (let times = 0; times < 5; times++) {
            const { text } = await ask("GET", `${admin}/metrics`);
            assert.match(
              text,
              new RegExp(`shishi_collector_info\\{group="default",id="${id}"\\} 1`),
            );
          }
        }
      } finally {
        await one.close();
        await two.close();
      }
    });

    testOnce("where it cannot be listened on, the start fails and names it", async () => {
      const busy = await start(["--admin-listen=127.0.0.1:0"]);
      try {
        const address = (await adminOf(busy)).slice("http://".length);
        const listen = `127.0.0.1:${await freePort()}`;
        const { code, stderr } = await runShishi(
          ["serve", "--listen", listen, "--admin-listen", address, ...AWAY],
          { binary },
        );
        assert.equal(code, 1);
        assert.ok(stderr.includes(`cannot listen on ${address}: another program listens`), stderr);
        await assert.rejects(ask("GET", `http://${listen}/healthz`));
      } finally {
        await busy.close();
      }
    });

    test("an upgrade hands it over", async () => {
      const admin = `http://127.0.0.1:${await freePort()}`;
      const shishi = await start(["--admin-listen", admin.slice("http://".length)]);
      try {
        await settled({ ...shishi, url: admin });
        shishi.signal("SIGUSR2");
        await ended(shishi, 1);
        await eventually(async () => {
          const { status } = await ask("GET", `${admin}/api/status`);
          assert.equal(status, 200);
          assert.equal((await ask("POST", `${shishi.url}/events`, { body: EVENT })).status, 202);
        }, PATIENCE);
        assert.equal(followers(shishi).length, 1);
        const { received } = JSON.parse((await ask("GET", `${admin}/api/status`)).text).ledger;
        assert.ok(received >= 1);
      } finally {
        await closeAll(shishi);
      }
    });
  });
}
