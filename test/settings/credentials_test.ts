/** Settings from the credentials of a service manager. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CERT, CREDS, KEY, problemsOf, settingsOf } from "./kit.ts";

const env = { CREDENTIALS_DIRECTORY: "/run/credentials/shishi" };
const held = (files: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(files).map(([name, text]) => [`${env.CREDENTIALS_DIRECTORY}/${name}`, text]),
  );

describe("credentials", () => {
  test("one that is called like a secret setting is its value", () => {
    const files = held({
      "clickhouse-url": "http://u:p@h:1/db\n",
      "auth-tokens": "aaaaaaaaaaaaaaaa",
    });
    const { clickhouse, authTokens } = settingsOf({ env, files });
    assert.equal(clickhouse[0]?.password, "p");
    assert.deepEqual(authTokens, ["aaaaaaaaaaaaaaaa"]);
  });

  test("one that is called like a setting that names a file is that file", () => {
    const files = held({ "tls-cert": CERT, "tls-key": KEY, "nats-creds": CREDS });
    const { tls, nats } = settingsOf({ argv: ["--nats-url=ws://n:1"], env, files });
    assert.deepEqual(tls, {
      certFile: `${env.CREDENTIALS_DIRECTORY}/tls-cert`,
      keyFile: `${env.CREDENTIALS_DIRECTORY}/tls-key`,
      cert: CERT,
      key: KEY,
      clients: null,
    });
    assert.equal(nats?.auth.kind, "creds");
  });

  test("a flag and a variable win over it, a key of the file does not", () => {
    const files = {
      ...held({ "nats-token": "cred" }),
      c: 'nats-token = "file"\nnats-url = "ws://n"',
    };
    const token = (argv: string[], more = {}) => {
      const auth = settingsOf({ argv, env: { ...env, ...more }, files }).nats?.auth;
      return auth?.kind === "token" ? auth.token : null;
    };
    assert.equal(token(["--config=c"]), "cred");
    assert.equal(token(["--config=c", "--nats-token=flag"]), "flag");
    assert.equal(token(["--config=c"], { SHISHI_NATS_TOKEN: "env" }), "env");
  });

  test("others are somebody else's, and so are those that are no secret", () => {
    const files = held({ "ca.pem": "x", "table": "t", "clickhouse-url-file": "x" });
    assert.equal(settingsOf({ env, files }).table, "analytics_events");
  });

  test("one that cannot be used is told by its name, without its text", () => {
    const files = held({ "clickhouse-url": "http://u:geheim@h/a/b", "control-secret": " \n" });
    const problems = problemsOf({ env, files });
    assert.match(problems.join("\n"), /^clickhouse-url \(credential\): expected http/m);
    assert.match(
      problems.join("\n"),
      /^control-secret \(credential\): expected .* the empty file/m,
    );
    assert.doesNotMatch(problems.join("\n"), /geheim/);
  });
});
