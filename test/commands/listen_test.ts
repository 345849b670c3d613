/** Why an address cannot be listened on, in words that are true on every runtime. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { test } from "node:test";
import { lookAtPort } from "../../src/commands/check.ts";
import { type Listening, serve } from "../../src/runtime/server.ts";
import { settingsOf } from "../settings/kit.ts";

const listen = (hostname: string, port: number): Listening =>
  serve({ hostname, port, handler: () => new Response(), onError() {} });

test("a name that leads to no address, whatever error was met before", async () => {
  assert.throws(() => mkdirSync("/"), { code: "EEXIST" });
  assert.throws(
    () => listen("no-such-host.invalid", 0),
    /^Error: cannot listen on no-such-host\.invalid:0: .*this host has no such address$/,
  );
  const [found] = await lookAtPort(settingsOf({ argv: ["--listen=no-such-host.invalid:0"] }));
  assert.deepEqual([found?.state, found?.text], ["wrong", "this host has no such address"]);
});

test("an address that is another host's", async () => {
  assert.throws(() => listen("192.0.2.1", 0), /^Error: cannot listen on 192\.0\.2\.1:0: this host/);
  const [found] = await lookAtPort(settingsOf({ argv: ["--listen=192.0.2.1:0"] }));
  assert.deepEqual([found?.state, found?.text], ["wrong", "this host has no such address"]);
});

for (const hostname of ["127.0.0.1", "localhost"]) {
  test(`a port of ${hostname} that is taken`, async () => {
    const first = listen(hostname, 0);
    try {
      assert.throws(() => listen(hostname, first.port), /: another program listens there already$/);
    } finally {
      await first.kill();
    }
  });
}

test("a port that another collector has: free for one that shares it, for no other", async () => {
  const first = listen("127.0.0.1", 0);
  try {
    const argv = [`--listen=127.0.0.1:${first.port}`, "--data-dir=/nowhere"];
    const [alone] = await lookAtPort(settingsOf({ argv }));
    assert.equal(alone?.state, "wrong");
    assert.match(alone?.text ?? "", /^a collector with another data-dir listens there already$/);
    const [shared] = await lookAtPort(settingsOf({ argv: [...argv, "--share-port", "--id=b"] }));
    assert.equal(shared?.state, "ok");
  } finally {
    await first.kill();
  }
});
