/** `tls-client-auth`: who is let in, over real TLS, on the runtime and on the binary. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readlinkSync } from "node:fs";
import { request } from "node:https";
import { join } from "node:path";
import { connect, type TLSSocket } from "node:tls";
import { describe, test } from "node:test";
import {
  CERTIFICATE,
  CERTIFICATE_KEY,
  RENEWED_CERTIFICATE,
  RENEWED_KEY,
} from "../kit/certificate.ts";
import {
  CHAINED,
  CLIENT_CA,
  EDGE,
  EXPIRED,
  OTHER,
  OTHER_CA,
  type Pair,
} from "../kit/client_certificate.ts";
import { freePort } from "../kit/free_port.ts";
import { BUILDS, runShishi } from "../kit/shishi.ts";
import { removeDir, tempDir, tempFile } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { says, stopBy } from "./around.ts";
import { type Reloading, startReloading, told } from "./reloading.ts";
import { closeAll, ended, followers } from "./upgrading.ts";

const PATIENCE = { withinMs: 20_000 };
const EVENT = '{"eventType":"e"}';

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** On a connection of its own; null: it was not let in. */
function ask(
  url: string,
  shown: Pair | null,
  { body = null, headers = {} }: {
    readonly body?: string | Uint8Array | null;
    readonly headers?: Record<string, string>;
  } = {},
): Promise<Answer | null> {
  return new Promise((resolve) => {
    const asked = request(url, {
      method: body === null ? "GET" : "POST",
      agent: false,
      ca: [CERTIFICATE, RENEWED_CERTIFICATE],
      ...shown,
      headers,
    }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => text += piece)
        .on("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    asked.on("error", () => resolve(null));
    asked.end(body ?? undefined);
  });
}

const CLIENTS = [
  ["none", null],
  ["one of its authority", EDGE],
  ["one of another authority", OTHER],
  ["one that has expired", EXPIRED],
] as const;

for (const binary of BUILDS) {
  describe(`client certificates${binary ? " (binary)" : ""}`, () => {
    const start = (auth: string, more: Record<string, string | boolean> = {}) =>
      startReloading((file) => ({
        "clickhouse-url": "http://127.0.0.1:9",
        "shutdown-timeout": "0s",
        "log-level": "debug",
        listen: "127.0.0.1:0",
        "tls-cert": file("cert", CERTIFICATE),
        "tls-key": file("key", CERTIFICATE_KEY),
        "tls-client-ca": file("ca", CLIENT_CA),
        "tls-client-auth": auth,
        ...more,
      }), { listens: true, binary });
    const statuses = async ({ shishi: { url } }: Reloading) => {
      const all = [];
      for (const [, shown] of CLIENTS) {
        all.push((await ask(`${url}/events`, shown, { body: EVENT }))?.status ?? null);
      }
      return all;
    };

    for (
      const [auth, wanted] of [
        ["required", [null, 202, null, null]],
        ["optional", [202, 202, null, null]],
      ] as const
    ) {
      test(`${auth}: none, a good one, one of another authority, an expired one`, async () => {
        const at = await start(auth);
        try {
          assert.deepEqual(await statuses(at), wanted);
          const { shishi: { url } } = at;
          const { ledger, certificates } = JSON.parse(
            (await ask(`${url}/api/status`, EDGE))!.text,
          );
          assert.equal(ledger.received, wanted.filter((status) => status !== null).length);
          assert.deepEqual(certificates, { "edge-1": 1 });
          const metrics = await ask(`${url}/metrics`, EDGE);
          assert.match(metrics!.text, /^shishi_certificate_requests_total\{subject="edge-1"\} 2$/m);
          // The log names who was refused what, and why others were not let in.
          assert.equal((await ask(`${url}/nothing`, EDGE))?.status, 404);
          await eventually(() => {
            const lines = at.shishi.lines();
            assert.ok(
              lines.some(({ status, certificate }) => status === 404 && certificate === "edge-1"),
            );
            const refused = told(lines, "a client was not let in for its certificate");
            assert.equal(refused.length, wanted.filter((status) => status === null).length);
            for (const { client = "127.0.0.1", reason } of refused) {
              assert.deepEqual([client, typeof reason], ["127.0.0.1", "string"]);
            }
          }, PATIENCE);
          assert.equal((await stopBy(at.shishi)).code, 0);
        } finally {
          await at.close();
        }
      });
    }

    test("a reload takes another authority, and another certificate; no old session is taken up", async () => {
      const at = await start("required");
      try {
        const { shishi: { url } } = at;
        const sessions = ["-tls1_2", "-tls1_3"].map((version) => ({
          version,
          file: join(at.dir, `session${version}`),
        }));
        const isIn = (told: string) => told.includes("HTTP/1.1 200 OK");
        for (const { version, file } of sessions) {
          assert.ok(isIn(openssl(url, CHAINED, version, "-sess_out", file)), version);
          const again = openssl(url, null, version, "-sess_in", file);
          assert.ok(isIn(again) && again.includes("Reused,"), version);
        }
        const { certificates } = JSON.parse((await ask(`${url}/api/status`, EDGE))!.text);
        assert.deepEqual(certificates, { leaf: 4 }, "a session has the name of its certificate");
        at.file("ca", OTHER_CA);
        at.file("cert", RENEWED_CERTIFICATE);
        at.file("key", RENEWED_KEY);
        await at.set({});
        assert.deepEqual(await statuses(at), [null, null, 202, null]);
        for (const { version, file } of sessions) {
          assert.ok(!isIn(openssl(url, null, version, "-sess_in", file)), version);
        }
        assert.ok(/CN ?= ?Shishi renewed/.test(openssl(url, OTHER)));
        at.file("ca", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
        at.write({});
        const lines = await at.reload();
        assert.match(
          String(lines.find(({ level }) => level === "error")?.["problem"]),
          /^tls-client-ca: expected a PEM file with certificates of authorities, got "\S+", damaged$/,
        );
        assert.deepEqual(await statuses(at), [null, null, 202, null]);
      } finally {
        await at.close();
      }
    });

    test("large bodies and answers, many requests on a connection, and one that is broken off", async () => {
      const at = await start(
        "required",
        { "max-block-size": 1_000_000, backlog: 10_000_000 } as never,
      );
      try {
        const { shishi: { url } } = at;
        const large = `${EVENT}\n`.repeat(300_000);
        const answer = await ask(`${url}/events`, EDGE, { body: large });
        assert.equal(answer?.status, 202);
        assert.equal(JSON.parse(answer!.text).accepted, 300_000);
        const page = await ask(`${url}/`, EDGE);
        assert.equal(page?.status, 200);
        assert.ok(page!.text.trimEnd().endsWith("</html>"));
        assert.deepEqual(await onOneConnection(url, 20), new Array(20).fill(202));
        await brokenOff(url);
        assert.equal((await ask(`${url}/events`, EDGE, { body: EVENT }))?.status, 202);
      } finally {
        await at.close();
      }
    });

    const sockets = (pid: number) =>
      readdirSync(`/proc/${pid}/fd`).filter((fd) => {
        try {
          return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith("socket:");
        } catch {
          return false;
        }
      }).length;

    test("no connection stays open behind those that have ended", async () => {
      const at = await start("optional");
      try {
        const { shishi: { url, pid } } = at;
        await ask(`${url}/events`, EDGE, { body: EVENT });
        await eventually(() => assert.ok(sockets(pid) < 20), PATIENCE);
        const before = sockets(pid);
        for (const shown of [EDGE, null, OTHER, EDGE, null, EXPIRED, EDGE]) {
          for (let times = 0; times < 5; times++) {
            await ask(`${url}/healthz`, shown);
            await ask(`${url}/events`, shown, { body: EVENT, headers: { connection: "close" } });
            await ask(`${url}/nothing`, shown, { body: "x".repeat(100_000) });
          }
        }
        await brokenOff(url);
        await eventually(() => assert.ok(sockets(pid) <= before + 2, `${sockets(pid)}`), PATIENCE);
      } finally {
        await at.close();
      }
    });

    test("nothing but what came through its TLS is answered inside", async () => {
      const at = await start("optional");
      try {
        const outside = new URL(at.shishi.url).port;
        const others = listening(at.shishi.pid).filter((port) => port !== Number(outside));
        assert.equal(others.length, 1);
        const answer = await fetch(`http://127.0.0.1:${others[0]}/events`, {
          method: "POST",
          body: EVENT,
        });
        assert.deepEqual([answer.status, await answer.text()], [403, ""]);
        const { text } = (await ask(`${at.shishi.url}/api/status`, null))!;
        assert.equal(JSON.parse(text).ledger.received, 0);
      } finally {
        await at.close();
      }
    });

    test("the admin port asks for them too; a socket in the file system and health do without", async () => {
      const at = await start("required", {
        listen: `127.0.0.1:${await freePort()}`,
        "admin-listen": "127.0.0.1:0",
      });
      try {
        await says(at.shishi, "listening for admins");
        const admin = String(
          told(at.shishi.lines(), "listening for admins").at(-1)!["url"],
        );
        assert.equal(await ask(`${admin}/api/status`, null), null);
        assert.equal((await ask(`${admin}/api/status`, EDGE))?.status, 200);
        const config = ["--config", join(at.dir, "shishi.toml")];
        const health = await runShishi(["health", ...config], { binary });
        assert.deepEqual([health.code, health.stderr], [0, ""]);
      } finally {
        await at.close();
      }
      const dir = tempDir("admin");
      const path = join(dir, "admin.sock");
      const through = await start("required", { "admin-listen": `unix:${path}` });
      try {
        await says(through.shishi, "listening for admins");
        const dataDir = join(through.shishi.dir, "shishi-data");
        const replay = await runShishi(
          ["dead", "replay", "--config", join(through.dir, "shishi.toml"), "--data-dir", dataDir],
          { binary },
        );
        assert.equal(replay.code, 0, replay.stderr);
      } finally {
        await through.close();
        removeDir(dir);
      }
    });

    test("an upgrade hands its port over, and collectors share one", async () => {
      const port = await freePort();
      const at = await start("required", { listen: `127.0.0.1:${port}` });
      try {
        const { shishi } = at;
        assert.equal((await ask(`${shishi.url}/events`, EDGE, { body: EVENT }))?.status, 202);
        await eventually(async () => {
          const { text } = (await ask(`${shishi.url}/api/status`, EDGE))!;
          assert.equal(JSON.parse(text).recovering, false);
        }, PATIENCE);
        shishi.signal("SIGUSR2");
        await ended(shishi, 1);
        assert.deepEqual(await statuses(at), [null, 202, null, null]);
        assert.equal(followers(shishi).length, 1);
      } finally {
        await closeAll(at.shishi);
        await at.close();
      }
      const shared = await freePort();
      const one = await start("required", {
        listen: `127.0.0.1:${shared}`,
        "share-port": true,
        id: "one",
      });
      const two = await start("required", {
        listen: `127.0.0.1:${shared}`,
        "share-port": true,
        id: "two",
      });
      try {
        const met = new Set<string>();
        await eventually(async () => {
          const { text } = (await ask(`${one.shishi.url}/api/status`, EDGE))!;
          met.add(JSON.parse(text).id);
          assert.equal(met.size, 2);
        }, PATIENCE);
      } finally {
        await one.close();
        await two.close();
      }
    });

    test("a port that another program has is told as ever", async () => {
      const at = await start("required");
      try {
        const address = at.shishi.url.slice("https://".length);
        const { code, stderr } = await runShishi([
          "serve",
          "--config",
          join(at.dir, "shishi.toml"),
          "--listen",
          address,
        ], { binary });
        assert.equal(code, 1);
        assert.ok(stderr.includes(`cannot listen on ${address}: another program listens`), stderr);
      } finally {
        await at.close();
      }
    });
  });
}

/** What `openssl s_client` says of a question for the status. @param shown with what signed it, if anything. */
function openssl(url: string, shown: Pair | null, ...more: readonly string[]): string {
  const [own = "", ...chain] = shown?.cert.split(/(?<=-----END CERTIFICATE-----\n)/) ?? [];
  const args = shown === null ? [] : [
    "-cert",
    tempFile("own.pem", own),
    "-key",
    tempFile("own.key", shown.key),
    ...(chain.join("") === "" ? [] : ["-cert_chain", tempFile("chain.pem", chain.join(""))]),
  ];
  const { stdout, stderr } = spawnSync(
    "openssl",
    ["s_client", "-ign_eof", "-connect", new URL(url).host, ...args, ...more],
    {
      encoding: "utf8",
      input: "GET /api/status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    },
  );
  return stdout + stderr;
}

/** The statuses of so many writes, one after the other. */
function onOneConnection(url: string, times: number): Promise<number[]> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const found: number[] = [];
    const send = () =>
      socket.write(
        `POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: ${EVENT.length}\r\n\r\n${EVENT}`,
      );
    const socket: TLSSocket = connect(
      { host: hostname, port: Number(port), rejectUnauthorized: false, ...EDGE },
      send,
    );
    let text = "";
    socket.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
      const status = /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n\{.*\}\n(?:\r\n0\r\n\r\n)?$/.exec(text)?.[1];
      if (status === undefined) return;
      text = "";
      found.push(Number(status));
      if (found.length < times) send();
      else socket.end(() => resolve(found));
    });
    socket.on("error", reject);
  });
}

/** Half of a request. */
function brokenOff(url: string): Promise<void> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket: TLSSocket = connect(
      { host: hostname, port: Number(port), rejectUnauthorized: false, ...EDGE },
      () => {
        socket.write("POST /events HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{");
        setTimeout(() => socket.destroy(), 50);
      },
    );
    socket.on("error", () => {});
    socket.once("close", () => resolve());
  });
}

/** The ports that a process listens on. */
function listening(pid: number): number[] {
  const { stdout } = spawnSync("ss", ["-Hltnp"], { encoding: "utf8" });
  return stdout.split("\n").filter((line) => line.includes(`pid=${pid},`))
    .map((line) => Number(/:(\d+)\s/.exec(line)?.[1]));
}
