/** `nats://`, the port that every NATS server has: what the websocket does, and what goes wrong there. */
import assert from "node:assert/strict";
import { createServer, type Server } from "node:net";
import { after, before, describe, test } from "node:test";
import { controlFleet } from "../../src/fleet/fleet.ts";
import { dial } from "../../src/kernel/nats.ts";
import { startRemote } from "../../src/remote/remote.ts";
import { createOpenSocket } from "../../src/runtime/socket.ts";
import { freePort } from "../kit/free_port.ts";
import { startNats } from "../kit/servers.ts";
import { eventually } from "../kit/wait.ts";
import { clock, connected, fakeControl, remember, remoteOptions } from "./kit.ts";

const openSocket = createOpenSocket(() => []);
const BACK_WITHIN_MS = 20_000;

describe("nats://", () => {
  test("a command is obeyed, also after the server was killed and is back on another one", async () => {
    const [first, second] = [await startNats(), await startNats()];
    const servers = [first, second].map(({ natsPort }) => `nats://127.0.0.1:${natsPort}`);
    const control = fakeControl("eu", "a");
    const remote = startRemote(remoteOptions(servers, control, { openSocket }));
    await connected(remote, 5_000);
    assert.equal(remote.server(), `127.0.0.1:${first.natsPort}`);
    await first.kill();
    await eventually(() => assert.equal(remote.server(), `127.0.0.1:${second.natsPort}`), {
      withinMs: BACK_WITHIN_MS,
    });
    const err: string[] = [];
    const code = await controlFleet("pause", {
      servers,
      openSocket,
      auth: { kind: "none" },
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
    await second.close();
  });

  test("a wrong token is told as one, without it", async () => {
    const nats = await startNats('authorization { token: "s3cret-token" }');
    const log = remember();
    const auth = { kind: "token", token: "s3cret-other" } as const;
    const remote = startRemote(
      remoteOptions([`nats://127.0.0.1:${nats.natsPort}`], fakeControl("eu", "a"), {
        auth,
        log,
        openSocket,
      }),
    );
    await eventually(
      () => assert.match(log.lines.join(), /the server refuses these credentials/),
      { withinMs: BACK_WITHIN_MS },
    );
    assert.doesNotMatch(log.lines.join(), /s3cret/);
    await remote.close();
    await nats.close();
  });

  test("a large message arrives whole", async () => {
    const nats = await startNats();
    const dialled = await dial(
      {
        server: `nats://127.0.0.1:${nats.natsPort}`,
        auth: { kind: "none" },
        name: "x",
        timeoutMs: 5000,
        openSocket,
      },
      clock,
      () => {},
    );
    assert.ok(dialled.ok, dialled.ok ? "" : dialled.problem);
    const wire = dialled.value;
    const sent = Uint8Array.from({ length: 900_000 }, (_, at) => at % 251);
    const got = new Promise<Uint8Array>((resolve) =>
      wire.subscribe("large", ({ payload }) => resolve(payload.slice()))
    );
    assert.equal(wire.publish("large", sent), true);
    assert.equal(await wire.flush(5000), true);
    assert.deepEqual(await got, sent);
    await wire.close();
    assert.equal(wire.publish("large", sent), false);
    await nats.close();
  });

  describe("what is no NATS server", () => {
    let port: number;
    let server: Server;
    before(async () => {
      port = await freePort();
      server = createServer((socket) => {
        socket.on("error", () => {});
        socket.write("HTTP/1.1 400 Bad Request\r\n\r\n");
      });
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    });
    after(() => new Promise<void>((resolve) => server.close(() => resolve())));

    const cases: readonly (readonly [string, () => Promise<string> | string, RegExp])[] = [
      ["answers in another way", () => `nats://127.0.0.1:${port}`, /is no NATS server/],
      [
        "is not there",
        async () => `nats://127.0.0.1:${await freePort()}`,
        /^127\.0\.0\.1:\d+: .*refused/,
      ],
    ];
    for (const [what, url, why] of cases) {
      test(what, async () => {
        const options = { auth: { kind: "none" }, name: "x", timeoutMs: 3000, openSocket } as const;
        const dialled = await dial({ server: await url(), ...options }, clock, () => {});
        assert.ok(!dialled.ok);
        assert.match(dialled.problem, why);
      });
    }
  });

  test("tls:// to a server without TLS: no token is sent in the clear", async () => {
    const nats = await startNats('authorization { token: "t" }');
    const dialled = await dial(
      {
        server: `tls://127.0.0.1:${nats.natsPort}`,
        auth: { kind: "token", token: "t" },
        name: "x",
        timeoutMs: 3000,
        openSocket,
      },
      clock,
      () => {},
    );
    assert.ok(!dialled.ok);
    assert.match(dialled.problem, /the server offers no TLS/);
    await nats.close();
  });
});
