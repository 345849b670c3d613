/** Which proxy a request goes through, and that both runtimes do as they are told. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import process from "node:process";
import { createFetch, proxyFor } from "../../src/runtime/fetch.ts";
import { serve } from "../../src/runtime/server.ts";
import { CERTIFICATE, ELSEWHERE_CERTIFICATE, ELSEWHERE_KEY } from "../kit/certificate.ts";
import { startForwardProxy } from "../kit/http_proxy.ts";

describe("the proxy of a request", () => {
  const P = "http://p:3128";
  const cases: [url: string, env: Record<string, string>, want: string | null][] = [
    ["http://ch.test:8123/x", {}, null],
    ["http://ch.test", { HTTP_PROXY: P }, "http://p:3128 (HTTP_PROXY)"],
    ["http://ch.test", { HTTP_PROXY: "http://q:1", http_proxy: P }, "http://p:3128 (http_proxy)"],
    ["http://ch.test", { HTTPS_PROXY: P }, null],
    ["https://ch.test", { HTTP_PROXY: P }, null],
    ["https://ch.test", { HTTPS_PROXY: P, ALL_PROXY: "http://q" }, "http://p:3128 (HTTPS_PROXY)"],
    ["https://ch.test", { all_proxy: "p:3128" }, "http://p:3128 (all_proxy)"],
    ["http://ch.test", { HTTP_PROXY: "" }, null],
    ["http://ch.test", { http_proxy: "https://u:s%40c@p:1/" }, "https://p:1 (http_proxy)"],
    // This host.
    ["http://127.0.0.1:8123", { HTTP_PROXY: P }, null],
    ["http://127.8.9.1", { HTTP_PROXY: P }, null],
    ["http://[::1]:8123", { HTTP_PROXY: P }, null],
    ["http://LOCALHOST:8123", { HTTP_PROXY: P }, null],
    ["http://ch.localhost", { HTTP_PROXY: P }, null],
    ["http://localhost.test", { HTTP_PROXY: P }, "http://p:3128 (HTTP_PROXY)"],
    // Exceptions.
    ...["ch.test", ".ch.test", "x, CH.TEST", "test", "*", "x *", "ch.test."].map((
      NO_PROXY,
    ): [string, Record<string, string>, null] => [
      "http://a.ch.test",
      { HTTP_PROXY: P, NO_PROXY },
      null,
    ]),
    ["http://nch.test", { HTTP_PROXY: P, NO_PROXY: "ch.test" }, "http://p:3128 (HTTP_PROXY)"],
    ["http://a.test", { HTTP_PROXY: P, NO_PROXY: "*", no_proxy: "" }, "http://p:3128 (HTTP_PROXY)"],
    ["http://10.1.2.3", { HTTP_PROXY: P, NO_PROXY: "10.0.0.0/8" }, null],
    ["http://10.1.2.3", { HTTP_PROXY: P, NO_PROXY: "10.1.2.3" }, null],
    ["http://11.1.2.3", { HTTP_PROXY: P, NO_PROXY: "10.0.0.0/8" }, "http://p:3128 (HTTP_PROXY)"],
    ["http://[2001:db8::1]", { HTTP_PROXY: P, NO_PROXY: "2001:db8::/32" }, null],
    ["http://[2001:db8::1]", { HTTP_PROXY: P, NO_PROXY: "[2001:db8::1]" }, null],
    ["http://10.1.2.3", { HTTP_PROXY: P, NO_PROXY: "3" }, "http://p:3128 (HTTP_PROXY)"],
  ];
  for (const [url, env, want] of cases) {
    test(`${url} with ${JSON.stringify(env)}`, () => {
      const found = proxyFor(url, env);
      assert.deepEqual(found.ok && (found.value?.label ?? null), want);
    });
  }

  test("credentials are taken apart and in no label", () => {
    const found = proxyFor("http://a.test", { http_proxy: "http://us%65r:s%40c@p:1" });
    assert.deepEqual(found, {
      ok: true,
      value: { url: "http://p:1", user: "user", password: "s@c", label: "http://p:1 (http_proxy)" },
    });
  });

  test("one that cannot be used is a sentence without its secrets", () => {
    for (
      const [text, want] of [
        [
          "socks5://u:secret@p:1",
          "all_proxy: expected http://host:port, got a proxy of the kind socks5://",
        ],
        ["http://u:secret@", "all_proxy: expected http://host:port, got what is no URL"],
      ]
    ) {
      const found = proxyFor("http://a.test", { all_proxy: text! });
      assert.equal(!found.ok && found.problem, want);
    }
  });
});

describe("fetch", () => {
  const direct = () =>
    serve({
      hostname: "127.0.0.1",
      port: 0,
      handler: async (request) => new Response(`direct ${await request.text()}`),
      onError: () => {},
    });
  const post = async (url: string, env: Record<string, string>, pooled = false) => {
    const answer = await createFetch({ pooled, env })(url, { method: "POST", body: "it" });
    return await answer.text();
  };

  test("goes through the proxy, with its credentials, and to this host without", async () => {
    const server = direct();
    const proxy = await startForwardProxy(`http://127.0.0.1:${server.port}`);
    const named = proxy.url.replace("://", "://us%65r:s%40c@");
    // As an environment has it that was meant for other programs.
    const before = process.env.HTTP_PROXY;
    process.env.HTTP_PROXY = proxy.url;
    try {
      for (const pooled of [true, false]) {
        for (let time = 0; time < 2; time++) {
          assert.equal(
            await post("http://ch.test/a?b", { http_proxy: named }, pooled),
            "direct it",
          );
          assert.equal(proxy.seen.at(-1), `POST http://ch.test/a?b Basic ${btoa("user:s@c")}`);
        }
        const seen = proxy.seen.length;
        const here = `http://127.0.0.1:${server.port}/`;
        assert.equal(await post(here, { http_proxy: named }, pooled), "direct it");
        assert.equal(await post(here, {}, pooled), "direct it");
        const other = here.replace("127.0.0.1", "localhost");
        assert.equal(await post(other, { http_proxy: named }, pooled), "direct it");
        assert.equal(proxy.seen.length, seen);
        assert.equal(process.env.HTTP_PROXY, proxy.url);
      }
    } finally {
      if (before === undefined) delete process.env.HTTP_PROXY;
      else process.env.HTTP_PROXY = before;
      await Promise.all([server.kill(), proxy.close()]);
    }
  });

  test("over TLS through a tunnel, with authorities of its own", async () => {
    const server = serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert: ELSEWHERE_CERTIFICATE, key: ELSEWHERE_KEY },
      handler: async (request) => new Response(`secure ${await request.text()}`),
      onError: () => {},
    });
    const proxy = await startForwardProxy(`http://127.0.0.1:${server.port}`);
    try {
      const env = { HTTPS_PROXY: proxy.url };
      const ask = createFetch({ pooled: false, certificates: [CERTIFICATE], env });
      const answer = await ask("https://ch.test:8443/", { method: "POST", body: "it" });
      assert.equal(await answer.text(), "secure it");
      assert.equal(proxy.seen[0], "CONNECT ch.test:8443");
      await assert.rejects(createFetch({ pooled: false, env })("https://ch.test:8443/", {}));
    } finally {
      await Promise.all([server.kill(), proxy.close()]);
    }
  });

  test("a proxy that is away is named", async () => {
    const server = direct();
    await server.kill();
    await assert.rejects(
      post("http://ch.test/", { http_proxy: `http://u:secret@127.0.0.1:${server.port}` }),
      new RegExp(
        `^Error: .*, through the proxy http://127\\.0\\.0\\.1:${server.port} \\(http_proxy\\)$`,
      ),
    );
    await assert.rejects(
      post("http://ch.test/", { http_proxy: "socks5://p" }),
      /http_proxy: expected/,
    );
  });
});
