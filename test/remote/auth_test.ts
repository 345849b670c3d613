/** Every way to authenticate, against servers configured so; and no secret in what is said about it. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { nkeys } from "nats.ws";
import { controlFleet } from "../../src/fleet/fleet.ts";
import { connectForever } from "../../src/remote/reconnect.ts";
import { dial } from "../../src/kernel/nats.ts";
import { startRemote } from "../../src/remote/remote.ts";
import type { NatsAuth } from "../../src/kernel/nats.ts";
import { freePort } from "../kit/free_port.ts";
import { startNats } from "../kit/servers.ts";
import { removeDir, tempFile } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import { operatorMode } from "./jwt.ts";
import { asker, clock, connected, fakeControl, remember, remoteOptions } from "./kit.ts";

const BACK_WITHIN_MS = 20_000;

describe("authentication", () => {
  const user = nkeys.createUser();
  const seed = new TextDecoder().decode(user.getSeed());
  const jwt = operatorMode();
  const other = operatorMode();
  const cases: readonly {
    name: string;
    config: string;
    right: NatsAuth;
    wrong: NatsAuth;
  }[] = [
    {
      name: "token",
      config: 'authorization { token: "s3cret-token" }',
      right: { kind: "token", token: "s3cret-token" },
      wrong: { kind: "token", token: "s3cret-other" },
    },
    {
      name: "user and password",
      config: 'authorization { user: "u", password: "s3cret-password" }',
      right: { kind: "user", user: "u", password: "s3cret-password" },
      wrong: { kind: "user", user: "u", password: "s3cret-other" },
    },
    {
      name: "nkey",
      config: `authorization { users: [{ nkey: ${user.getPublicKey()} }] }`,
      right: { kind: "nkey", seed: `${seed}\n` },
      wrong: { kind: "nkey", seed: new TextDecoder().decode(nkeys.createUser().getSeed()) },
    },
    {
      name: "credentials file",
      config: jwt.config,
      right: { kind: "creds", creds: jwt.creds },
      wrong: { kind: "creds", creds: other.creds },
    },
    {
      name: "credentials file with CRLF",
      config: jwt.config,
      right: { kind: "creds", creds: jwt.creds.replaceAll("\n", "\r\n") },
      wrong: { kind: "none" },
    },
  ];

  for (const { name, config, right, wrong } of cases) {
    test(`${name}: the right one is let in, a wrong one is told without the secret`, async () => {
      const nats = await startNats(config);
      const remote = startRemote(
        remoteOptions([nats.url], fakeControl("eu", "a"), { auth: right }),
      );
      await connected(remote, 5_000);
      await remote.close();
      const log = remember();
      const refused = startRemote(
        remoteOptions([nats.url], fakeControl("eu", "a"), { auth: wrong, log }),
      );
      await eventually(
        () => assert.match(log.lines.join(), /the server refuses these credentials/),
        {
          withinMs: 5_000,
        },
      );
      assert.doesNotMatch(log.lines.join(), /s3cret|SU[A-Z0-9]{20}|eyJ/);
      assert.equal(refused.server(), null);
      await refused.close();
      await nats.close();
    });
  }

  test("a user in the address works as one in the settings", async () => {
    const nats = await startNats('authorization { user: "u", password: "p@ss" }');
    const url = nats.url.replace("ws://", "ws://u:p%40ss@");
    const remote = startRemote(remoteOptions([url], fakeControl("eu", "a")));
    await connected(remote, 5_000);
    await remote.close();
    await nats.close();
  });

  test("refused many times, then let in: control comes back", async () => {
    const locked = await startNats('authorization { token: "t" }');
    const open = await startNats();
    let tries = 0;
    const log = remember();
    const link = connectForever(
      {
        servers: [locked.url],
        auth: { kind: "none" },
        name: "x",
        setup: () => {},
        log,
        clock,
        dial: (options, ...rest) =>
          dial({ ...options, server: ++tries <= 4 ? locked.url : open.url }, ...rest),
      },
    );
    await eventually(() => assert.ok(link.server() !== null), { withinMs: BACK_WITHIN_MS });
    assert.ok(tries > 4);
    await link.close();
    await locked.close();
    await open.close();
  });

  test("revoked while connected, and given back: control comes back", async () => {
    const file = tempFile("auth.conf", 'authorization { token: "t" }');
    // The server looks beside its own configuration, which lies in another folder beside this one.
    const nats = await startNats(`include "../${basename(dirname(file))}/auth.conf"`);
    const log = remember();
    const auth = { kind: "token", token: "t" } as const;
    const remote = startRemote(remoteOptions([nats.url], fakeControl("eu", "a"), { auth, log }));
    await connected(remote);
    writeFileSync(file, 'authorization { token: "other" }');
    process.kill(nats.pid, "SIGHUP");
    await eventually(() => assert.match(log.lines.join(), /refuses these credentials/), {
      withinMs: BACK_WITHIN_MS,
    });
    assert.equal(remote.server(), null);
    writeFileSync(file, 'authorization { token: "t" }');
    process.kill(nats.pid, "SIGHUP");
    await connected(remote, BACK_WITHIN_MS);
    const client = await asker(nats.url, { token: "t" });
    assert.equal((await client.ask("shishi.status.eu").next())["ok"], true);
    await client.close();
    await remote.close();
    await nats.close();
    removeDir(dirname(file));
  });

  test("several servers: one is away, one refuses, the one in use is killed, the next takes over", async () => {
    const away = `ws://127.0.0.1:${await freePort()}`;
    const locked = await startNats('authorization { token: "other" }');
    const first = await startNats(jwt.config);
    const second = await startNats(jwt.config);
    const auth = { kind: "creds", creds: jwt.creds } as const;
    const control = fakeControl("eu", "a");
    const servers = [away, locked.url, first.url, second.url];
    const remote = startRemote(remoteOptions(servers, control, { auth }));
    await connected(remote, BACK_WITHIN_MS);
    assert.equal(remote.server(), `127.0.0.1:${first.port}`);
    await first.kill();
    await eventually(() => assert.equal(remote.server(), `127.0.0.1:${second.port}`), {
      withinMs: BACK_WITHIN_MS,
    });
    const err: string[] = [];
    const code = await controlFleet("pause", {
      servers,
      auth,
      subject: "shishi",
      target: "eu.a",
      timeoutMs: 15_000,
      json: false,
      clock,
      out: () => {},
      err: (line) => err.push(line),
    });
    assert.equal(code, 0, err.join("\n"));
    assert.deepEqual(control.calls, ["pause"]);
    await remote.close();
    await Promise.all([locked, first, second].map((server) => server.close()));
  });

  for (
    const [auth, wanted] of [
      [{ kind: "nkey", seed: "s3cret" }, /nats-nkey: expected a user's seed/],
      [{ kind: "creds", creds: "s3cret" }, /nats-creds: expected a credentials file/],
    ] as const
  ) {
    test(`a ${auth.kind} that is none is told by its name`, async () => {
      const options = { server: "ws://127.0.0.1:1", auth, name: "x", timeoutMs: 1000 };
      const dialled = await dial(options, clock, () => {});
      assert.ok(!dialled.ok);
      assert.match(dialled.problem, wanted);
      assert.doesNotMatch(dialled.problem, /s3cret/);
    });
  }

  test("a subject that the user may not have is logged, the rest works", async () => {
    const nats = await startNats(`authorization { users: [
      { user: "u", password: "p", permissions: { subscribe: { deny: "shishi.stop.>" } } },
      { user: "admin", password: "p" }
    ] }`);
    const log = remember();
    const auth = { kind: "user", user: "u", password: "p" } as const;
    const remote = startRemote(remoteOptions([nats.url], fakeControl("eu", "a"), { auth, log }));
    await connected(remote, 5_000);
    const client = await asker(nats.url, { user: "admin", pass: "p" });
    assert.equal((await client.ask("shishi.status.eu").next())["ok"], true);
    assert.deepEqual(await client.ask("shishi.stop.eu").next(), { noResponders: true });
    assert.match(
      log.lines.join(),
      /does not permit this user the subscription on shishi\.stop\.eu/,
    );
    await client.close();
    await remote.close();
    await nats.close();
  });

  test("a user that may neither publish events nor be a service is controlled all the same", async () => {
    const nats = await startNats(`authorization { users: [
      { user: "u", password: "p", permissions: {
        publish: { deny: "shishi.event.>" }, subscribe: { deny: "$SRV.>" } } },
      { user: "admin", password: "p" }
    ] }`);
    const log = remember();
    const auth = { kind: "user", user: "u", password: "p" } as const;
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions([nats.url], control, { auth, log }));
    await connected(remote, 5_000);
    const client = await asker(nats.url, { user: "admin", pass: "p" });
    for (const command of ["pause", "resume", "pause"]) {
      assert.equal((await client.ask(`shishi.${command}.eu`).next())["ok"], true);
    }
    assert.deepEqual(await client.ask("$SRV.PING").next(), { noResponders: true });
    const lines = log.lines.filter((line) => line.includes("does not permit"));
    assert.ok(lines.length > 0);
    for (const line of lines) {
      assert.match(line, /^warn nats: the server complains /, "the log folds it");
    }
    assert.equal(log.lines.some((line) => line.includes("connection lost")), false);
    await client.close();
    await remote.close();
    await nats.close();
  });

  test("the rights that docs/nats.md names are enough, for a collector and for a client that commands", async () => {
    const nats = await startNats(`authorization { users: [
      { user: "u", password: "p", permissions: {
        subscribe: ["shishi.>", "$SRV.>"], publish: ["_INBOX.>", "shishi.event.>"] } },
      { user: "sre", password: "p", permissions: { subscribe: "_INBOX.>", publish: "shishi.>" } },
      { user: "admin", password: "p" }
    ] }`);
    const log = remember();
    const client = await asker(nats.url, { user: "admin", pass: "p" });
    const heard = await client.listen("shishi.event.eu.a");
    const remote = startRemote(remoteOptions([nats.url], fakeControl("eu", "a"), {
      auth: { kind: "user", user: "u", password: "p" },
      log,
    }));
    assert.equal((await heard.next())["event"], "started");
    assert.equal((await client.ask("$SRV.PING.shishi").next())["name"], "shishi");
    const err: string[] = [];
    const code = await controlFleet("pause", {
      servers: [nats.url],
      auth: { kind: "user", user: "sre", password: "p" },
      subject: "shishi",
      target: "eu.a",
      timeoutMs: 15_000,
      json: false,
      clock,
      out: () => {},
      err: (line) => err.push(line),
    });
    assert.equal(code, 0, err.join("\n"));
    assert.deepEqual(log.lines.filter((line) => line.startsWith("warn")), []);
    await client.close();
    await remote.close();
    await nats.close();
  });
});
