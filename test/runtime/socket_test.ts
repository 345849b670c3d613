/**
 * What plays a WebSocket over TCP, on a connection made of nothing: the runtimes hand over data as they
 * like, alone or as a piece of a pool, and a real server does not say which it will be.
 */
import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import net from "node:net";
import { after, before, describe, test } from "node:test";
import { createOpenSocket } from "../../src/runtime/socket.ts";

const INFO = 'INFO {"server_id":"x","max_payload":1048576}\r\n';
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: ArrayBuffer) => new TextDecoder().decode(bytes);

/** A pool as a runtime may have one: what was asked for lies between what others have. */
function pooled(text: string): Buffer {
  const pool = Buffer.alloc(8192, "#");
  const piece = pool.subarray(100, 100 + Buffer.byteLength(text));
  piece.write(text);
  return piece;
}

class Connection extends EventEmitter {
  readonly written: Uint8Array[] = [];
  write(data: Uint8Array): boolean {
    this.written.push(data);
    return true;
  }
  end(): void {}
  destroy(): void {}
}

describe("the socket of nats://", () => {
  const { connect } = net;
  let connection: Connection;
  before(() => {
    net.connect = (() => connection = new Connection()) as unknown as typeof connect;
  });
  after(() => {
    net.connect = connect;
  });

  /** A socket, and the data of its messages. */
  function open(): { readonly socket: WebSocket; readonly messages: ArrayBuffer[] } {
    const socket = createOpenSocket(() => [])("nats://127.0.0.1:4222");
    const messages: ArrayBuffer[] = [];
    socket.onmessage = ({ data }) => void messages.push(data);
    return { socket, messages };
  }

  test("a message is its own bytes, though they lie in a pool", () => {
    const { messages } = open();
    connection.emit("data", pooled(INFO));
    connection.emit("data", pooled("PONG\r\n"));
    assert.deepEqual(messages.map(decode), [INFO, "PONG\r\n"]);
  });

  test("a message stays as it came when the pool is used again", () => {
    const { messages } = open();
    connection.emit("data", pooled(INFO));
    const piece = pooled("MSG a 1 2\r\nhi\r\n");
    connection.emit("data", piece);
    piece.fill("!");
    assert.equal(decode(messages[1]!), "MSG a 1 2\r\nhi\r\n");
  });

  test("the first line is waited for, in whatever pieces it comes; what follows it is not lost", () => {
    const { messages } = open();
    for (const part of [INFO.slice(0, 7), INFO.slice(7, 20), `${INFO.slice(20)}PING\r\n`]) {
      assert.deepEqual(messages, []);
      connection.emit("data", pooled(part));
    }
    assert.deepEqual(messages.map(decode), [`${INFO}PING\r\n`]);
  });

  test("what is sent are the bytes of the buffer, and of a view those that it shows", () => {
    const { socket } = open();
    connection.emit("data", pooled(INFO));
    socket.send(encode("PING\r\n").buffer);
    socket.send(encode("..PONG\r\n..").subarray(2, 8));
    assert.deepEqual(connection.written.map((data) => new TextDecoder().decode(data)), [
      "PING\r\n",
      "PONG\r\n",
    ]);
  });
});
