/** Commands that are signed, by ours and by a shell; and everything that is refused. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { controlFleet } from "../../src/fleet/fleet.ts";
import { startRemote } from "../../src/remote/remote.ts";
import { sign } from "../../src/kernel/signature.ts";
import { COMMANDS } from "../../src/remote/protocol.ts";
import { type Nats, startNats } from "../kit/servers.ts";
import { removeDir, tempDir } from "../kit/temp.ts";
import { eventually } from "../kit/wait.ts";
import {
  type Asker,
  asker,
  clock,
  connected,
  countCommands,
  fakeControl,
  remember,
  remoteOptions,
} from "./kit.ts";

const SECRET = "a secret of the fleet";
const FOLDER = fileURLToPath(new URL("./", import.meta.url));
/** The lines of docs/nats.md. */
const LINES = readFileSync(join(FOLDER, "signed_command.sh"), "utf8");

describe("signed commands", () => {
  let nats: Nats;
  let client: Asker;
  before(async () => {
    nats = await startNats();
    client = await asker(nats.url);
  });
  after(async () => {
    await client.close();
    await nats.close();
  });

  async function start() {
    const control = fakeControl("eu", "a");
    const ledger = countCommands();
    const log = remember();
    const remote = startRemote(
      remoteOptions([nats.url], control, { ledger, log, controlSecret: SECRET }),
    );
    await connected(remote);
    return { control, ledger, log, remote };
  }

  function signature(subject: string, payload = "", skewMs = 0, secret = SECRET) {
    const bytes = new TextEncoder().encode(payload);
    const atMs = Date.now() + skewMs;
    return { "Shishi-Signature": sign(secret, subject, bytes, atMs, crypto.randomUUID()) };
  }

  for (const command of COMMANDS) {
    for (const controlSecret of [SECRET, "another secret", null]) {
      test(`shishi ${command} with ${controlSecret ?? "no secret"}`, async () => {
        const { control, ledger, remote } = await start();
        const err: string[] = [];
        const code = controlFleet(command, {
          servers: [nats.url],
          auth: { kind: "none" },
          controlSecret,
          subject: "shishi",
          target: "eu.a",
          timeoutMs: 15_000,
          json: true,
          clock,
          out: () => {
            control.flushed(true);
            if (control.calls.includes("stop nats")) control.stopped();
          },
          err: (line) => err.push(line),
        });
        const right = controlSecret === SECRET;
        assert.equal(await code, right ? 0 : 1);
        assert.deepEqual(ledger.counted, [`${command} ${right}`]);
        if (right) assert.deepEqual(err, []);
        else {
          assert.deepEqual(control.calls, []);
          assert.match(
            err[0] ?? "",
            controlSecret ? /^eu\.a: signature wrong/ : /^eu\.a: not sign/,
          );
        }
        await remote.close();
      });
    }
  }

  const subject = "shishi.pause.eu";
  for (
    const [what, headers, payload, wanted] of [
      ["unsigned", () => ({}), "", /^not signed/],
      ["nonsense", () => ({ "Shishi-Signature": "v1,now,x" }), "", /^signature malformed/],
      ["old", () => signature(subject, "", -35_000), "", /^too old: signed \d+\.\d s ago/],
      ["ahead", () => signature(subject, "", 95_000), "", /^too new: signed \d+\.\d s ahead/],
      ["another subject", () => signature("shishi.resume.eu"), "", /^signature wrong/],
      ["another payload", () => signature(subject), "Exit", /^signature wrong/],
      ["1 MB", () => signature(subject), "x".repeat(1_000_000), /^payload too large/],
      ["another secret", () => signature(subject, "", 0, "guessed"), "", /^signature wrong/],
    ] as const
  ) {
    test(`${what}: refused, answered, counted and logged`, async () => {
      const { control, ledger, log, remote } = await start();
      const answers = client.ask(subject, payload, headers());
      const { error, ...answer } = await answers.next();
      assert.match(String(error), wanted);
      const { state, ledger: totals } = control.status();
      assert.deepEqual(answer, {
        group: "eu",
        id: "a",
        command: "pause",
        ok: false,
        state,
        ledger: totals,
      });
      assert.equal(answers.headers(0)?.get("Nats-Service-Error-Code"), "403");
      assert.equal(answers.headers(0)?.get("Nats-Service-Error"), String(error));
      assert.deepEqual(control.calls, []);
      assert.deepEqual(ledger.counted, ["pause false"]);
      const line = log.lines.filter((each) =>
        / nats: command refused .*shishi\.pause\.eu/.test(each)
      );
      assert.equal(line.length, 1);
      assert.ok(line[0]?.includes(String(error)));
      assert.doesNotMatch(log.lines.join(), new RegExp(SECRET));
      await remote.close();
    });
  }

  test("signed with a payload it is obeyed once, and not again", async () => {
    const { control, ledger, remote } = await start();
    const headers = signature(subject, "Exit");
    assert.equal((await client.ask(subject, "Exit", headers).next())["ok"], true);
    const again = await client.ask(subject, "Exit", headers).next();
    assert.match(String(again["error"]), /^replayed/);
    assert.deepEqual(control.calls, ["pause"]);
    assert.deepEqual(ledger.counted, ["pause true", "pause false"]);
    await remote.close();
  });

  test("a flood of unsigned ones is counted, logged as one kind, and holds up no signed one", async () => {
    const { control, ledger, log, remote } = await start();
    const heard = await client.listen("_INBOX.flood");
    for (let at = 0; at < 3_000; at++) {
      client.connection.publish("shishi.stop.eu", "", { reply: "_INBOX.flood" });
    }
    const stop = client.ask("shishi.stop.eu", "", signature("shishi.stop.eu"));
    assert.equal((await stop.next())["state"], "draining");
    assert.equal(ledger.counted.filter((each) => each === "stop false").length, 3_000);
    assert.deepEqual(control.calls, ["stop nats"]);
    // All alike, so that the log folds them.
    const refusals = log.lines.filter((line) => line.includes("refused"));
    assert.deepEqual(new Set(refusals).size, 1, refusals[0]);
    // Each second that it takes lets fifty more be answered.
    assert.ok(heard.all.length >= 1 && heard.all.length <= 500, `${heard.all.length} answers`);
    control.stopped();
    assert.equal((await stop.next())["state"], "stopped");
    await remote.close();
  });

  test("the documented lines stop a collector, with openssl and any client", async () => {
    const { control, remote } = await start();
    const shell = sh(LINES);
    await eventually(() => assert.deepEqual(control.calls, ["stop nats"], shell.said()), {
      withinMs: 20_000,
    });
    control.stopped();
    assert.equal(await shell.code, 0, shell.said());
    assert.match(shell.said(), /"state":"draining".*\n.*"state":"stopped"/);
    await remote.close();
  });

  test("the documented lines with another secret are refused", async () => {
    const { control, remote } = await start();
    const shell = sh(LINES, "another secret");
    assert.equal(await shell.code, 0, shell.said());
    assert.match(shell.said(), /"ok":false,"error":"signature wrong/);
    assert.deepEqual(control.calls, []);
    await remote.close();
  });

  /** Runs the lines beside a file with the secret; only the `nats` tool is ours. */
  function sh(lines: string, secret = SECRET) {
    const dir = tempDir("signed");
    writeFileSync(join(dir, "control-secret"), `${secret}\n`);
    const runtime = process.versions["deno"] === undefined ? "" : "run -A -q --no-check";
    const tool = `nats() { "$RUNTIME" ${runtime} "$TOOL" "$@"; }\n`;
    const child = spawn("sh", ["-ec", tool + lines], {
      cwd: dir,
      env: {
        ...process.env,
        RUNTIME: process.execPath,
        TOOL: join(FOLDER, "nats_tool.ts"),
        NATS_URL: nats.url,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => said += text);
    child.stderr.setEncoding("utf8").on("data", (text: string) => said += text);
    const code = new Promise<number | null>((resolve) => child.once("close", resolve));
    void code.then(() => removeDir(dir));
    return { said: () => said, code };
  }
});
