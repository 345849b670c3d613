/** The way to a NATS server, for sources and exits: every login, TLS, and what is said where it is barred. */
import assert from "node:assert/strict";
import process from "node:process";
import { describe, test } from "node:test";
import { nkeys } from "nats.ws";
import { openNats } from "../../src/sources/nats_source.ts";
import { CERTIFICATE, SIGNED_CERTIFICATE, SIGNED_KEY } from "../kit/certificate.ts";
import { CLIENT_CA, EDGE } from "../kit/client_certificate.ts";
import { startNats } from "../kit/servers.ts";
import { tempFile } from "../kit/temp.ts";
import { operatorMode } from "../remote/jwt.ts";
import { asAdmin, depsOf, natsSource, startJetStream } from "./nats_kit.ts";

const never = new AbortController().signal;

describe("the way to a server", () => {
  const user = nkeys.createUser();
  const seed = new TextDecoder().decode(user.getSeed());
  const jwt = operatorMode();
  const read = "subject=s";
  const WAYS: readonly {
    readonly name: string;
    readonly config: string;
    readonly right: string;
    readonly wrong: string;
    readonly files: Readonly<Record<string, string>>;
  }[] = [
    {
      name: "user and password-file",
      config: 'authorization { user: "u", password: "p@ss" }',
      right: "u@HOST?password-file=right",
      wrong: "u@HOST?password-file=wrong",
      files: { right: "p@ss\n", wrong: "s3cret" },
    },
    {
      name: "user and password in the URL",
      config: 'authorization { user: "u", password: "p@ss" }',
      right: "u:p%40ss@HOST?",
      wrong: "u:s3cret@HOST?",
      files: {},
    },
    {
      name: "token in the URL",
      config: 'authorization { token: "tok" }',
      right: "tok@HOST?",
      wrong: "s3cret@HOST?",
      files: {},
    },
    {
      name: "token-file",
      config: 'authorization { token: "tok" }',
      right: "HOST?token-file=right",
      wrong: "HOST?token-file=wrong",
      files: { right: "tok\n", wrong: "s3cret" },
    },
    {
      name: "nkey-file",
      config: `authorization { users: [{ nkey: ${user.getPublicKey()} }] }`,
      right: "HOST?nkey-file=right",
      wrong: "HOST?nkey-file=wrong",
      files: {
        right: `${seed}\n`,
        wrong: new TextDecoder().decode(nkeys.createUser().getSeed()),
      },
    },
    {
      name: "creds",
      config: jwt.config,
      right: "HOST?creds=right",
      wrong: "HOST?creds=wrong",
      files: { right: jwt.creds, wrong: operatorMode().creds },
    },
  ];
  for (const { name, config, right, wrong, files } of WAYS) {
    test(`${name}: the right one is let in, a wrong one is told without it`, async () => {
      const server = await startNats(config);
      const urlOf = (way: string) =>
        `nats://${way.replace("HOST", `127.0.0.1:${server.natsPort}`)}&${read}`.replace("?&", "?");
      const deps = depsOf("g.a", files);
      const feed = await openNats(natsSource(urlOf(right)), deps).connect(never);
      await feed.close();
      const refused = openNats(natsSource(urlOf(wrong)), deps);
      const shown = new RegExp(
        `^Error: 127.0.0.1:${server.natsPort}: the server refuses these credentials$`,
      );
      await assert.rejects(refused.connect(never), shown);
      const [finding] = await refused.inspect();
      assert.equal(finding?.state, "wrong");
      assert.doesNotMatch(JSON.stringify(finding), /s3cret|SU[A-Z0-9]{20}|eyJ/);
      await server.close();
    });
  }

  const BAD: readonly [string, Record<string, string>, RegExp][] = [
    ["creds=missing", {}, /^Error: creds: ENOENT: no such file missing$/],
    ["password-file=missing&user=u", {}, /^Error: password-file: ENOENT/],
    ["creds=bad", { bad: "s3cret" }, /: creds: expected a credentials file/],
    ["nkey-file=bad", { bad: "s3cret" }, /: nkey-file: expected a user's seed/],
  ];
  for (const [query, files, why] of BAD) {
    test(`a file that is none is told by its parameter: ${query}`, async () => {
      const broker = openNats(
        natsSource(`nats://127.0.0.1:1?${query}&${read}`),
        depsOf("g.a", files),
      );
      await assert.rejects(broker.connect(never), (error: Error) => {
        assert.match(String(error), why);
        assert.doesNotMatch(String(error), /s3cret/);
        return true;
      });
    });
  }

  for (const scheme of ["tls", "wss"] as const) {
    test(`${scheme}: ca=, cert= and key= are those of the address alone`, async () => {
      const file = (text: string) => tempFile("tls.pem", text);
      const tls =
        `tls { cert_file: "${file(SIGNED_CERTIFICATE)}", key_file: "${file(SIGNED_KEY)}", ` +
        `ca_file: "${file(CLIENT_CA)}", verify: true }`;
      const server = await startNats(tls, tls);
      const port = scheme === "wss" ? server.port : server.natsPort;
      const files = { ca: CERTIFICATE, cert: EDGE.cert, key: EDGE.key };
      const connect = (query: string) =>
        openNats(natsSource(`${scheme}://localhost:${port}?${read}${query}`), depsOf("g.a", files))
          .connect(never);
      await (await connect("&ca=ca&cert=cert&key=key")).close();
      await assert.rejects(connect("&cert=cert&key=key"), /certificate is not trusted: ca= takes/);
      // One of the runtimes is not always told why the server ends the connection.
      const barred = process.versions.deno === undefined
        ? /wants a certificate of its clients: cert= and key=/
        : /wants a certificate of its clients: cert= and key=|broken off|aborting connection/;
      await assert.rejects(connect("&ca=ca"), barred);
      await server.close();
    });
  }

  test("what the server does not permit is named, of a stream and of a subject", async () => {
    const server = await startJetStream(`authorization { users: [
      { user: "admin", password: "p" },
      { user: "u", password: "p", permissions: {
        publish: { deny: "$JS.API.CONSUMER.INFO.>" }, subscribe: { deny: "secret.>" } } },
      { user: "mute", password: "p", permissions: { publish: { deny: "$JS.API.CONSUMER.MSG.NEXT.>" } } }
    ] }`);
    await asAdmin(server, (_, api) => api.streams.add({ name: "S", subjects: ["s"] }), {
      user: "admin",
      pass: "p",
    });
    const open = (user: string, what: string) => {
      const url = `nats://${user}:p@127.0.0.1:${server.natsPort}?${what}`;
      return openNats(natsSource(url), depsOf());
    };
    await assert.rejects(
      open("u", "stream=S").connect(never),
      /does not permit this user the publish on \$JS\.API\.CONSUMER\.INFO\.S\.shishi/,
    );
    await assert.rejects(
      open("u", "subject=secret.x").connect(never),
      /does not permit this user the subscription on secret\.x/,
    );
    const feed = await open("mute", "stream=S").connect(never);
    await assert.rejects(
      feed.next(),
      /does not permit .* publish on \$JS\.API\.CONSUMER\.MSG\.NEXT/,
    );
    await feed.close();
    const found = await open("u", "stream=S").inspect();
    assert.match(found.map(({ text }) => text).join(), /does not permit/);
    await server.close();
  });

  test("JetStream that is off is told", async () => {
    const server = await startNats();
    const broker = openNats(natsSource(`nats://127.0.0.1:${server.natsPort}?stream=S`), depsOf());
    await assert.rejects(broker.connect(never), /there is no JetStream at this server, or not for/);
    await server.close();
  });
});
