/**
 * The broker of `test/sources/fake_broker.ts` over TCP, so that processes that read it may be killed: a server
 * in the test, and what plays a broker's library in the collector. It confirms an acknowledgement when
 * it likes, up to half a second later, and forgets what it has not confirmed when the connection breaks, as
 * Kafka does whose clients commit now and then.
 */

import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { Buffer } from "node:buffer";
import type { Broker, Feed, Message } from "../../src/contracts.ts";
import type { FakeBroker } from "../sources/fake_broker.ts";
import { pause } from "../kit/wait.ts";

/** What travels, one JSON a line: messages to the client, addresses of what is acknowledged to the server. */
interface Sent {
  readonly body: string;
  readonly partition: string;
  readonly position?: string;
  readonly id?: string;
  readonly again?: boolean;
  readonly address: string;
}

const PREFETCH = 200;
const LONGEST_CONFIRM_MS = 500;

export interface TcpBroker {
  readonly port: number;
  readonly broker: FakeBroker;
  close(): Promise<void>;
}

/** @param port a free one unless given. */
export async function startTcpBroker(broker: FakeBroker, port = 0): Promise<TcpBroker> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    void serve(socket, broker);
  });
  await new Promise<void>((listening) => server.listen(port, "127.0.0.1", listening));
  return {
    port: (server.address() as AddressInfo).port,
    broker,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

async function serve(socket: Socket, broker: FakeBroker): Promise<void> {
  const feed = await broker.broker(PREFETCH).connect(new AbortController().signal);
  const given = new Map<string, Message>();
  let open = true;
  socket.once("close", () => {
    open = false;
    void feed.close();
  });
  linesOf(socket, async (line) => {
    const { ack } = JSON.parse(line) as { ack: string[] };
    await pause(Math.random() * LONGEST_CONFIRM_MS);
    if (!open) return;
    await feed.acknowledge(ack.map((address) => given.get(address)!)).catch(() => {});
    socket.write(`{"confirmed":true}\n`);
  });
  while (open) {
    const messages = await feed.next().catch(() => []);
    if (!open || messages.length === 0) break;
    const sent = messages.map((message): Sent => {
      given.set(message.address, message);
      const { partition, position, id, again, address, body } = message;
      const known = { partition, address, body: Buffer.from(body).toString() };
      return position === undefined ? { ...known, id: id!, again: again! } : { ...known, position };
    });
    socket.write(`${JSON.stringify({ messages: sent })}\n`);
  }
}

/** A connection that breaks ends them. */
function linesOf(socket: Socket, onLine: (line: string) => void): void {
  socket.on("error", () => {});
  createInterface({ input: socket }).on("line", onLine).on("error", () => {});
}

/** The collector's side. */
export function openTcpBroker(port: number): Broker {
  return {
    inspect: () => Promise.resolve([]),
    connect: () =>
      new Promise((resolve, reject) => {
        const socket = connect(port, "127.0.0.1");
        socket.once("error", reject);
        socket.once("connect", () => resolve(feedOf(socket)));
      }),
  };
}

function feedOf(socket: Socket): Feed {
  const messages: Message[] = [];
  let lost: Error | null = null;
  let wanted: PromiseWithResolvers<readonly Message[]> | null = null;
  let confirmed: PromiseWithResolvers<void> | null = null;
  const give = () => {
    if (lost !== null) {
      wanted?.reject(lost);
      confirmed?.reject(lost);
    } else if (wanted !== null && messages.length > 0) {
      wanted.resolve(messages.splice(0));
      wanted = null;
    }
  };
  const end = (why: string) => {
    lost ??= new Error(why);
    give();
  };
  socket.on("close", () => end("the connection is lost"));
  linesOf(socket, (line) => {
    const said = JSON.parse(line) as { messages?: Sent[] };
    if (said.messages === undefined) confirmed?.resolve();
    else {
      messages.push(...said.messages.map((sent): Message => ({
        ...sent,
        body: new TextEncoder().encode(sent.body),
        meta: () => null,
      })));
    }
    give();
  });
  return {
    next() {
      wanted = Promise.withResolvers();
      const { promise } = wanted;
      give();
      return promise;
    },
    acknowledge(newest) {
      confirmed = Promise.withResolvers();
      const { promise } = confirmed;
      socket.write(`${JSON.stringify({ ack: newest.map(({ address }) => address) })}\n`);
      give();
      return promise;
    },
    lag: () => null,
    close() {
      end("closed");
      socket.destroy();
      return Promise.resolve();
    },
  };
}
