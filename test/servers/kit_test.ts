/** The helpers of the tests: a proxy that is a bad network, waiting, ports, the collector itself. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { freePort, isFree } from "../kit/free_port.ts";
import { runShishi, startShishi } from "../kit/shishi.ts";
import { startTcpProxy, type TcpProxy } from "../kit/tcp_proxy.ts";
import { eventually, pause } from "../kit/wait.ts";

const seen: string[] = [];
const web = createServer((request, response) => {
  request.resume().on("end", () => {
    seen.push(request.url ?? "");
    response.end(`answer to ${request.url}`);
  });
});
let proxy: TcpProxy;

before(async () => {
  const port = await freePort();
  await new Promise<void>((resolve) => web.listen(port, "127.0.0.1", resolve));
  proxy = await startTcpProxy(port);
});

after(async () => {
  await proxy.close();
  await new Promise<void>((resolve) => {
    web.close(() => resolve());
    web.closeAllConnections();
  });
});

/** A streamed body, which no runtime sends twice by itself; and no connection is used twice. */
function ask(path: string): Promise<string> {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(new TextEncoder().encode("x"));
      controller.close();
    },
  });
  return fetch(proxy.url + path, {
    method: "POST",
    body,
    duplex: "half",
    headers: { connection: "close" },
  } as RequestInit).then((answer) => answer.text());
}

test("the proxy passes requests and answers", async () => {
  assert.equal(await ask("/a"), "answer to /a");
});

test("cutAnswers: the server sees the request, the client gets no answer, the next one passes", async () => {
  proxy.cutAnswers(1);
  await assert.rejects(ask("/swallowed"));
  assert.equal(seen.filter((path) => path === "/swallowed").length, 1);
  assert.equal(proxy.answersToCut(), 0);
  assert.equal(await ask("/b"), "answer to /b");
});

test("hang holds everything, resume lets it go on", async () => {
  proxy.hang();
  const before = proxy.accepted();
  const late = ask("/late");
  await eventually(() => assert.equal(proxy.accepted(), before + 1), { withinMs: 5000 });
  await pause(100);
  assert.equal(seen.includes("/late"), false);
  proxy.resume();
  assert.equal(await late, "answer to /late");
});

test("cut ends what is under way", async () => {
  proxy.hang();
  const before = proxy.accepted();
  const lost = assert.rejects(ask("/lost"));
  await eventually(() => assert.equal(proxy.accepted(), before + 1), { withinMs: 5000 });
  proxy.cut();
  await lost;
  proxy.resume();
});

test("eventually gives the answer of the first call that does not throw", async () => {
  let calls = 0;
  const answer = await eventually(() => {
    if (++calls < 3) throw new Error("not yet");
    return calls;
  }, { withinMs: 5000, everyMs: 1 });
  assert.equal(answer, 3);
});

test("eventually fails with the last reason", async () => {
  const never = () => {
    throw new Error("still no row");
  };
  await assert.rejects(eventually(never, { withinMs: 20, everyMs: 5 }), /still no row/);
});

test("a free port is free, and no port is given twice", async () => {
  const ports = await Promise.all(Array.from({ length: 20 }, freePort));
  assert.equal(new Set(ports).size, 20);
  assert.equal(await isFree(ports[0]!), true);
  assert.equal(await isFree(proxy.port), false);
});

test("a command that ends by itself gives its exit code and what it printed", async () => {
  const { code, stdout } = await runShishi(["--version"]);
  assert.equal(code, 0);
  assert.match(stdout, /^shishi \d/);
});

test("a collector that does not start is told with its own words", async () => {
  await assert.rejects(startShishi({ args: ["--no-such-setting", "5"] }), /no-such-setting/);
});

test("the collector serves, tells its log, and ends by the signal it is sent", async () => {
  const shishi = await startShishi({ args: ["--clickhouse-url", proxy.url] });
  try {
    assert.equal((await shishi.get("/healthz")).status, 200);
    assert.equal((await shishi.status()).state, "running");
    assert.ok(shishi.lines().some(({ message }) => message === "listening"));
    shishi.signal("SIGTERM");
    assert.deepEqual(await shishi.exited, { code: 0, signal: null }, shishi.stderr());
  } finally {
    await shishi.close();
  }
});
