/** A service manager's end of NOTIFY_SOCKET: a real datagram socket, read by a process of Perl. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

export interface Receiver {
  /** Every message so far, newlines as `|`. */
  readonly messages: readonly string[];
  /** Resolves with the first message after the `from`-th that matches. */
  heard(pattern: RegExp, from?: number): Promise<string>;
  close(): Promise<void>;
}

const SCRIPT = fileURLToPath(new URL("receiver.pl", import.meta.url));

/** @param name a path, or `@name`. */
export async function startReceiver(name: string): Promise<Receiver> {
  const child = spawn("perl", [SCRIPT, name], { stdio: ["pipe", "pipe", "inherit"] });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const messages: string[] = [];
  let waiting: (() => void)[] = [];
  let text = "";
  await new Promise<void>((resolve, reject) => {
    void closed.then(() => reject(new Error("the receiver has ended")));
    child.stdout.setEncoding("utf8").on("data", (more: string) => {
      const lines = (text + more).split("\n");
      text = lines.pop() ?? "";
      messages.push(...lines.filter((line) => line !== "ready"));
      resolve();
      for (const tell of waiting.splice(0)) tell();
    });
  });
  return {
    messages,
    async heard(pattern, from = 0) {
      for (;;) {
        const found = messages.slice(from).find((message) => pattern.test(message));
        if (found !== undefined) return found;
        await new Promise<void>((resolve) => waiting = [...waiting, resolve]);
      }
    },
    close() {
      child.stdin.end();
      return closed;
    },
  };
}
