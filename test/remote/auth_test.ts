/** Every way to authenticate, against servers configured so; and no secret in what is said about it. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { nkeys } from "nats.ws";
import { connectForever } from "../../src/remote/forever.ts";
import { dial } from "../../src/remote/nats.ts";
import { startRemote } from "../../src/remote/service.ts";
import type { NatsAuth } from "../../src/remote/wire.ts";
import { startNats } from "../kit/servers.ts";
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
      { servers: [locked.url], auth: { kind: "none" }, name: "x" },
      () => {},
      log,
      clock,
      () => {},
      (options, ...rest) =>
        dial({ ...options, server: ++tries <= 4 ? locked.url : open.url }, ...rest),
    );
    await eventually(() => assert.ok(link.server() !== null), { withinMs: BACK_WITHIN_MS });
    assert.ok(tries > 4);
    await link.close();
    await locked.close();
    await open.close();
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
      assert.ok(dialled.kind === "failed");
      assert.match(dialled.why, wanted);
      assert.doesNotMatch(dialled.why, /s3cret/);
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
});
