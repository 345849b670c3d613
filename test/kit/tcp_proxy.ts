/**
 * A bad network in front of a server: a TCP proxy that can cut connections, swallow answers and
 * hang. It looks at no byte, so it stands in front of anything.
 */
import { connect, createServer, type Socket } from "node:net";

export interface TcpProxy {
  readonly port: number;
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  /** Connections accepted since the start. */
  accepted(): number;
  /** Cuts every open connection; later ones are served. */
  cut(): void;
  /**
   * The next `n` answers never arrive: the request goes through, the server works on it, and at the
   * first byte of its answer the client's connection is cut.
   */
  cutAnswers(n: number): void;
  /** Answers that are still to be cut. */
  answersToCut(): number;
  /** From here no byte moves in either direction; connections are still accepted. */
  hang(): void;
  /** Ends `hang`; what was held back is delivered. */
  resume(): void;
  close(): Promise<void>;
}

/** Starts a proxy in front of 127.0.0.1:`targetPort`. */
export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const open = new Set<Socket>();
  let accepted = 0;
  let toCut = 0;
  let hanging = false;

  const join = (client: Socket) => {
    accepted++;
    const server = connect(targetPort, "127.0.0.1");
    const both = [client, server];
    const drop = () => both.forEach((socket) => socket.destroy());
    for (const socket of both) {
      open.add(socket);
      socket.setNoDelay(true);
      socket.on("error", drop);
      socket.on("close", () => {
        open.delete(socket);
        drop();
      });
      if (hanging) socket.pause();
    }
    forward(client, server, () => true);
    forward(server, client, () => {
      if (toCut === 0) return true;
      toCut--;
      drop();
      return false;
    });
  };

  const forward = (from: Socket, to: Socket, mayPass: () => boolean) => {
    from.on("data", (bytes) => {
      if (!mayPass() || to.write(bytes)) return;
      from.pause();
      to.once("drain", () => {
        if (!hanging) from.resume();
      });
    });
    from.on("end", () => to.end());
  };

  const listener = createServer({ allowHalfOpen: true }, join);
  await new Promise<void>((resolve, reject) => {
    listener.once("error", reject);
    listener.listen(0, "127.0.0.1", resolve);
  });
  const address = listener.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const cut = () => open.forEach((socket) => socket.destroy());
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    accepted: () => accepted,
    cut,
    cutAnswers: (n) => {
      toCut = n;
    },
    answersToCut: () => toCut,
    hang: () => {
      hanging = true;
      open.forEach((socket) => socket.pause());
    },
    resume: () => {
      hanging = false;
      open.forEach((socket) => socket.resume());
    },
    close: () => {
      cut();
      return new Promise((resolve) => listener.close(() => resolve()));
    },
  };
}
