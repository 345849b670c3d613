/** Where a collector listens: both families, both loopbacks, several addresses, sockets in the file system. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { freePort } from "../kit/free_port.ts";
import { EVERY_BUILD, runShishi, type Shishi, startShishi } from "../kit/shishi.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { stopBy } from "./around.ts";

const EVENT = '{"eventType":"e"}';
const AWAY = ["--clickhouse-url", "http://127.0.0.1:9", "--shutdown-timeout", "0s"];
const IPV6 = existsSync("/proc/net/if_inet6") &&
  readFileSync("/proc/net/if_inet6", "utf8").includes("00000001");
const LOOPBACKS = IPV6 ? ["127.0.0.1", "[::1]"] : ["127.0.0.1"];

async function posts(url: string): Promise<number> {
  return (await fetch(`${url}/events`, { method: "POST", body: EVENT })).status;
}

/** One event through a socket in the file system. */
function postsThrough(socketPath: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path: "/events", method: "POST", agent: false });
    asked.on("response", (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    asked.on("error", reject);
    asked.end(EVENT);
  });
}

const portOf = ({ url }: Shishi) => new URL(url).port;

for (const binary of EVERY_BUILD) {
  describe(`listening${binary ? " (binary)" : ""}`, () => {
    const start = (listen: string, ...more: string[]) =>
      startShishi({ binary, args: ["--listen", listen, ...AWAY, ...more] });

    for (const listen of [":0", "localhost:0"]) {
      test(`${listen} is IPv6 and IPv4`, async () => {
        const shishi = await start(listen);
        try {
          for (const host of LOOPBACKS) {
            assert.equal(await posts(`http://${host}:${portOf(shishi)}`), 202, host);
          }
          assert.equal((await stopBy(shishi)).code, 0);
        } finally {
          await shishi.close();
        }
      });
    }

    test("several addresses, one of them in the file system; each has its line", async () => {
      const dir = tempDir("listen");
      const path = join(dir, "shishi.sock");
      const [one, two] = [await freePort(), await freePort()];
      const shishi = await start(`127.0.0.1:${one},127.0.0.1:${two},unix:${path}`);
      try {
        await eventually(() => {
          const urls = shishi.lines().filter(({ message }) => message === "listening")
            .map(({ url }) => url);
          assert.deepEqual(urls, [
            `http://127.0.0.1:${one}`,
            `http://127.0.0.1:${two}`,
            `unix:${path}`,
          ]);
        }, { withinMs: 5_000 });
        assert.equal(await posts(`http://127.0.0.1:${one}`), 202);
        assert.equal(await posts(`http://127.0.0.1:${two}`), 202);
        assert.equal(await postsThrough(path), 202);
        const health = await runShishi(["health", "--listen", `unix:${path}`], { binary });
        assert.equal(health.code, 0, health.stderr);
        assert.equal((await stopBy(shishi)).code, 0);
        assert.equal(existsSync(path), false);
      } finally {
        await shishi.close();
        removeDir(dir);
      }
    });

    test("a socket that a killed collector left is taken over, one that is used is not", async () => {
      const dir = tempDir("listen");
      const path = join(dir, "shishi.sock");
      const listen = `127.0.0.1:0,unix:${path}`;
      const killed = await start(listen);
      await killed.kill();
      const shishi = await start(listen);
      try {
        await eventually(async () => assert.equal(await postsThrough(path), 202), {
          withinMs: 5_000,
        });
        const other = await runShishi(
          ["serve", "--listen", listen, ...AWAY, "--data-dir", join(dir, "other")],
          { binary },
        );
        assert.equal(other.code, 1);
        assert.match(other.stderr, /cannot listen on unix:\S+: another program listens there/);
        assert.equal(await postsThrough(path), 202);
      } finally {
        await shishi.close();
        await killed.close();
        removeDir(dir);
      }
    });

    test("where one of several cannot be listened on, none is", async () => {
      const taken = createServer();
      await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", () => resolve()));
      const { port } = taken.address() as { port: number };
      const free = await freePort();
      const { code, stderr } = await runShishi(
        ["serve", "--listen", `127.0.0.1:${free},127.0.0.1:${port}`, ...AWAY],
        { binary },
      );
      taken.close();
      assert.equal(code, 1);
      assert.match(stderr, new RegExp(`cannot listen on 127.0.0.1:${port}: another program`));
    });

    test("an upgrade hands over every address, and the name in the file system", async () => {
      const dir = tempDir("listen");
      const path = join(dir, "shishi.sock");
      writeFileSync(path, "what was here before");
      const port = await freePort();
      const shishi = await start(`localhost:${port},unix:${path}`);
      let next = 0;
      try {
        await eventually(async () => assert.equal(await postsThrough(path), 202), {
          withinMs: 5_000,
        });
        shishi.signal("SIGUSR2");
        await eventually(() => {
          const line = shishi.lines().find(({ message }) => /starting a new/.test(`${message}`));
          next = Number(line?.pid ?? 0);
          assert.ok(next > 0, shishi.stderr());
        }, { withinMs: 10_000 });
        // Its stderr is the new one's as well, and stays open.
        await eventually(() => {
          assert.ok(shishi.lines().some(({ message }) => /^stopped/.test(`${message}`)));
        }, { withinMs: 20_000 });
        for (const host of LOOPBACKS) assert.equal(await posts(`http://${host}:${port}`), 202);
        assert.equal(await postsThrough(path), 202);
      } finally {
        if (next > 0) process.kill(next, "SIGKILL");
        await shishi.close();
        removeDir(dir);
      }
    });
  });
}
