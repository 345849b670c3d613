/** Clients that open one connection after the other while the certificate is renewed. */
import { connect as connectTls } from "node:tls";
import {
  CERTIFICATE,
  CERTIFICATE_KEY,
  RENEWED_CERTIFICATE,
  RENEWED_KEY,
} from "../kit/certificate.ts";
import type { Shishi } from "../kit/shishi.ts";
import type { Reloading } from "./reloading.ts";

/** What came of connections that were opened one after the other, each for one request. */
export interface Connections {
  readonly answered: Map<string, number>;
  readonly failed: string[];
}

export interface Knocking {
  /** Resolves when the last connection is closed. */
  readonly done: Promise<Connections>;
  /**
   * Resolves when every connection that is open now is closed. A server that has been replaced twice may let a client
   * go that takes over a second to send its request, as one does on a busy machine.
   */
  settled(): Promise<void>;
}

/** Opens connections until it is told to end; files answers by the certificate's subject. */
export function knock(shishi: Shishi, clients: number, ending: AbortSignal): Knocking {
  const { hostname: host, port } = new URL(shishi.url);
  const answered = new Map<string, number>();
  const failed: string[] = [];
  const once = () =>
    new Promise<void>((resolve) => {
      let answer = "";
      let subject = "";
      const socket = connectTls({ host, port: Number(port), rejectUnauthorized: false }, () => {
        subject = String(socket.getPeerCertificate().subject.CN);
        socket.write("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
      });
      socket.on("data", (bytes) => answer += bytes);
      socket.on("error", (error) => failed.push(String(error)));
      socket.on("close", () => {
        if (answer.startsWith("HTTP/1.1 200 ")) {
          answered.set(subject, (answered.get(subject) ?? 0) + 1);
        } else failed.push(`closed after ${answer.length} characters`);
        resolve();
      });
    });
  const open = new Set<Promise<void>>();
  const client = async () => {
    while (!ending.aborted) {
      const connection = once();
      open.add(connection);
      await connection;
      open.delete(connection);
    }
  };
  return {
    done: Promise.all(Array.from({ length: clients }, client)).then(() => ({ answered, failed })),
    settled: async () => void await Promise.all(open),
  };
}

/** Certificate and key as the renewal leaves them on disk. */
export function renew(at: Reloading, turn: number): void {
  const renewed = turn % 2 === 0;
  at.file("cert", renewed ? RENEWED_CERTIFICATE : CERTIFICATE);
  at.file("key", renewed ? RENEWED_KEY : CERTIFICATE_KEY);
}
