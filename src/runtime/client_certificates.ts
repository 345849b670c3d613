/**
 * HTTPS that asks clients for certificates. Neither runtime's HTTP server tells whose certificate a client
 * has shown (one of them cannot even ask), but the TLS servers of both can, in the same words. So such a
 * server stands in front: it takes the connections and checks the certificates, and hands on what is inside
 * to an HTTP server of the runtime on a port of the loopback that only it knows the clients of. That one
 * answers nothing that did not come through here: its peer is known by the port at its other end, which is
 * noted before the first byte goes there.
 *
 * Promises: a client whose certificate is none of an authority's, or out of its time, is let go before a
 * byte of its request is read, also where certificates are optional; without any it is let in only there.
 * `renew` is for connections from then on. A TLS session from before may be taken up again, for which one
 * of the runtimes looks at no certificate; so it is looked at here, by the authorities and the time of now.
 */

import type { AddressInfo, Server as NetServer, Socket } from "node:net";
import process from "node:process";
import type { DetailedPeerCertificate, TLSSocket } from "node:tls";
import { nodeCrypto, nodeNet } from "../kernel/builtins.ts";
import { systemClock } from "../kernel/time.ts";
import { cannotListen, type Listening, serve, type ServeOptions, type Tls } from "./server.ts";

export interface CertifiedOptions extends ServeOptions {
  readonly tls: Tls;
  /** A client was not let in. @param address null where it has gone already. @param reason of the TLS library. */
  readonly onRefused?: (address: string | null, reason: string) => void;
}

/** What is known of who is at the other end. */
interface Client {
  readonly address: string;
  /** Null: it has shown no certificate. */
  readonly subject: string | null;
}

/** Of a TLS greeting, as the other servers have it. */
const HANDSHAKE_MS = 12_000;
/** For a client to end a connection whose last answer it has. */
const LINGER_MS = 5_000;
const INSIDE = "127.0.0.1";

/** Rejects with a sentence that names the address when it cannot be listened on. */
export async function serveCertified(options: CertifiedOptions): Promise<Listening> {
  const { tls, handler, onRefused = () => {}, hostname, port, reusePort, shared } = options;
  const required = tls.clients?.required === true;
  /** By the end of the connection inside, as the server there sees it. */
  const clients = new Map<string, Client>();
  const open = new Set<Socket>();
  const { tls: _, path: __, ...plain } = options;
  const inside = serve({
    ...plain,
    hostname: INSIDE,
    port: 0,
    reusePort: false,
    shared: false,
    withPort: true,
    handler(request, peerOf) {
      const client = clients.get(peerOf(request));
      // Another program of this host has found the port.
      if (client === undefined) return new Response(null, { status: 403 });
      return handler(request, () => client.address, client.subject);
    },
  });

  let authorities = authoritiesIn(tls);

  function letIn(socket: TLSSocket): void {
    // Without one it is an empty object.
    const shown = socket.getPeerCertificate(true) as Partial<DetailedPeerCertificate>;
    const { raw, subject = {} } = shown;
    const address = socket.remoteAddress ?? "";
    const problem = raw === undefined
      ? required ? "no certificate" : null
      : !socket.authorized
      ? String(socket.authorizationError)
      : socket.isSessionReused() && !isVouchedFor(shown, authorities)
      ? "its session is from before, its certificate no longer good"
      : null;
    if (problem === null) {
      return handOn(socket, { address, subject: raw === undefined ? null : subjectOf(subject) });
    }
    onRefused(address, problem);
    socket.destroy();
  }

  function handOn(socket: TLSSocket, client: Client): void {
    const inner = nodeNet().connect({ host: INSIDE, port: inside.port });
    let name = "";
    inner.once("connect", () => {
      name = `${INSIDE}:${inner.localPort}`;
      clients.set(name, client);
      socket.pipe(inner);
      inner.pipe(socket);
    });
    inner.setNoDelay(true);
    // The one end goes with the other.
    socket.on("error", () => inner.destroy());
    inner.on("error", () => socket.destroy());
    socket.once("close", () => inner.destroy());
    inner.once("close", () => {
      clients.delete(name);
      if (socket.destroyed) return;
      // Its last answer is still on the way. What comes is read, or the client's end would not be seen.
      socket.resume().end();
      socket.once("close", systemClock.after(LINGER_MS, () => socket.destroy()));
    });
  }

  const server = process.getBuiltinModule("node:tls").createServer({
    ...contextOf(tls),
    requestCert: true,
    rejectUnauthorized: required,
    ALPNProtocols: ["http/1.1"],
    handshakeTimeout: HANDSHAKE_MS,
  }, letIn);
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
    onRefused(socket.remoteAddress || null, error.message);
  });
  server.on("error", (error: Error) => options.onError(error));
  try {
    const reuses = reusePort === true || shared === true;
    await listen(server, { host: hostname, port, ...(reuses ? { reusePort: true } : {}) });
  } catch (error) {
    void inside.kill();
    throw cannotListen({ hostname, port }, error);
  }
  const closed = () => new Promise<void>((resolve) => server.close(() => resolve()));
  let stopped: Promise<unknown> | null = null;
  return {
    port: (server.address() as AddressInfo).port,
    lastAnswers: (last) => inside.lastAnswers(last),
    alone: () => Promise.resolve(),
    renew(tls) {
      server.setSecureContext(contextOf(tls));
      authorities = authoritiesIn(tls);
      return Promise.resolve();
    },
    async stop() {
      await (stopped ??= Promise.all([closed(), inside.stop()]));
    },
    async kill() {
      for (const socket of open) socket.destroy();
      if (stopped === null) server.close();
      await inside.kill();
    },
  };
}

function contextOf({ cert, key, clients }: Tls) {
  return { cert, key, ca: clients?.ca ?? "" };
}

type Certificate = InstanceType<ReturnType<typeof nodeCrypto>["X509Certificate"]>;

const BLOCK = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;
/** From a client's certificate to an authority's. */
const MOST_LINKS = 10;

function authoritiesIn({ clients }: Tls): readonly Certificate[] {
  return (clients?.ca.match(BLOCK) ?? []).map((pem) => new (nodeCrypto().X509Certificate)(pem));
}

/**
 * Whether one of the authorities has signed it, or what signed it, all of it in its time. That the links
 * between hold was found when the session began.
 */
function isVouchedFor(
  shown: Partial<DetailedPeerCertificate>,
  authorities: readonly Certificate[],
): boolean {
  const nowMs = systemClock.nowMs();
  let link: Partial<DetailedPeerCertificate> | undefined = shown;
  for (let links = 0; link?.raw !== undefined && links < MOST_LINKS; links++) {
    const certificate: Certificate = new (nodeCrypto().X509Certificate)(link.raw);
    const { validFrom, validTo } = certificate;
    if (nowMs < Date.parse(validFrom) || nowMs > Date.parse(validTo)) return false;
    const vouches = (authority: Certificate) =>
      certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
    if (authorities.some(vouches)) return true;
    link = link.issuerCertificate;
  }
  return false;
}

function listen(
  server: NetServer,
  at: { readonly host: string; readonly port: number; readonly reusePort?: boolean },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(at, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** Longer ones are cut. */
const MOST_CHARS = 128;

/** The common name, else all of it: `O=Example, OU=Shops`. For people: no name is proven by its label. */
function subjectOf(subject: Readonly<Record<string, unknown>>): string {
  const { CN } = subject;
  const text = typeof CN === "string" && CN !== ""
    ? CN
    : Object.entries(subject).map(([name, value]) => `${name}=${value}`).join(", ");
  return text.replace(/\p{Cc}/gu, "?").slice(0, MOST_CHARS).toWellFormed() || "unnamed";
}
