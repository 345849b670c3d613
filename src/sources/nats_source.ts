/**
 * NATS as a source and as an exit channel: the way in, which both share with JetStream, and core NATS itself.
 *
 * Core NATS has no acknowledgements: a message is given once, to one member of the queue group, and whatever
 * becomes of it then, it does not come again. So what comes while there is no room is dropped, and counted.
 */

import type { Msg, NatsConnection } from "nats.ws";
import type {
  Broker,
  BrokerDeps,
  ExitChannel,
  ExitFeed,
  ExitOf,
  Feed,
  Message,
  MetaValue,
  NatsLogin,
  NatsSource,
  Secret,
  SocketTls,
} from "../contracts.ts";
import { messageOf, reasonOf } from "../kernel/errors.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { type NatsAuth, type NatsLink, openLink } from "../kernel/nats.ts";
import { RateLimiter } from "../kernel/rate.ts";
import { failed, type Result } from "../kernel/result.ts";
import { within } from "../kernel/time.ts";
import {
  encodingOf,
  headersOf,
  inspectStream,
  openStream,
  type StreamAddress,
} from "./jetstream.ts";

type Address = (NatsSource | ExitOf<"nats">) & NatsLogin;

const DIAL_MS = 5_000;
const FLUSH_MS = 5_000;
/** Of messages that wait for the loop. */
const MOST_BYTES = 32 * 1024 * 1024;

// ── The way in.

/** Connects to the servers of an address in turn, beginning with another one each time. */
class Way {
  readonly #address: Address;
  readonly #deps: BrokerDeps;
  readonly #name: string;
  #turn = 0;

  constructor(address: Address, deps: BrokerDeps, what: string) {
    this.#address = address;
    this.#deps = deps;
    this.#name = `shishi ${what} ${deps.member}`;
  }

  /** Files of secrets are read anew. @param onTrouble takes what the server complains about. */
  async open(
    signal: AbortSignal | undefined,
    onTrouble: (what: string) => void,
  ): Promise<Result<NatsLink>> {
    const { hosts, scheme, path } = this.#address;
    const ready = await this.#read();
    if (!ready.ok) return ready;
    const { auth, tls } = ready.value;
    const problems: string[] = [];
    const first = this.#turn++;
    for (let at = 0; at < hosts.length && !signal?.aborted; at++) {
      const { host, port } = hosts[(first + at) % hosts.length]!;
      const opened = await openLink(
        {
          server: `${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}${path}`,
          auth,
          name: this.#name,
          timeoutMs: DIAL_MS,
          openSocket: (url) => this.#deps.openSocket(url, tls),
          ...(signal === undefined ? {} : { signal }),
        },
        this.#deps.clock,
        onTrouble,
      );
      if (opened.ok) return opened;
      problems.push(aboutCertificate(opened.problem));
    }
    return failed(problems.join("; ") || "given up");
  }

  async #read(): Promise<Result<{ readonly auth: NatsAuth; readonly tls: SocketTls }>> {
    const { ca, cert, key } = this.#address;
    const file = async (name: string, path: string) => {
      try {
        return await this.#deps.readFile(path);
      } catch (error) {
        throw new Error(`${name}: ${reasonOf(error)}`);
      }
    };
    const textOf = (name: string, secret: Secret) =>
      "text" in secret ? secret.text : file(name, secret.file).then((text) => text.trim());
    try {
      const tls = {
        ca: ca === null ? [] : [await file("ca", ca)],
        cert: cert === null ? null : await file("cert", cert),
        key: key === null ? null : await file("key", key),
      };
      return { ok: true, value: { auth: await this.#auth(file, textOf), tls } };
    } catch (error) {
      return failed(messageOf(error));
    }
  }

  async #auth(
    file: (name: string, path: string) => Promise<string>,
    textOf: (name: string, secret: Secret) => string | Promise<string>,
  ): Promise<NatsAuth> {
    const { user, password, creds, nkey, token } = this.#address;
    if (creds !== null) {
      return { kind: "creds", creds: await file("creds", creds), setting: "creds" };
    }
    if (nkey !== null) {
      return { kind: "nkey", seed: await file("nkey-file", nkey), setting: "nkey-file" };
    }
    if (token !== null) return { kind: "token", token: await textOf("token-file", token) };
    if (user === null) return { kind: "none" };
    // As NATS itself reads `nats://TOKEN@host`.
    if (password === null) return { kind: "token", token: user };
    return { kind: "user", user, password: await textOf("password-file", password) };
  }
}

/** What the runtimes say of a certificate needs a hint at the setting that helps. */
function aboutCertificate(problem: string): string {
  if (/alert_?\w*(?:bad|unknown|required)|bad_certificate|certificate_required/i.test(problem)) {
    return `${problem} (the server wants a certificate of its clients: cert= and key=)`;
  }
  return /self.signed|unable to (?:verify|get)|UnknownIssuer|unknown ?ca\b/i.test(problem)
    ? `${problem} (the server's certificate is not trusted: ca= takes its authority)`
    : problem;
}

// ── Sources.

/** Reads a subject of core NATS or a stream of JetStream, whatever the address says. */
export function openNats(address: NatsSource, deps: BrokerDeps): Broker {
  const way = new Way(address, deps, "source");
  return {
    connect: (signal) => connect(way, address, deps, signal),
    inspect: () => inspect(way, address, deps),
  };
}

async function connect(
  way: Way,
  address: NatsSource,
  deps: BrokerDeps,
  signal: AbortSignal,
): Promise<Feed> {
  let trouble: string | null = null;
  let feed: { lose(why: string): void } | null = null;
  const opened = await way.open(signal, (what) => {
    trouble = what;
    feed?.lose(what);
  });
  if (!opened.ok) throw new Error(opened.problem);
  const link = opened.value;
  try {
    const open = readsStream(address)
      ? await openStream(link, address, deps, () => trouble)
      : await openSubject(link, address, deps);
    feed = open;
    if (trouble !== null) throw new Error(trouble);
    return open;
  } catch (error) {
    await link.close();
    throw new Error(`${link.server}: ${messageOf(error)}`);
  }
}

function readsStream(address: NatsSource): address is StreamAddress {
  return address.read.what === "stream";
}

async function inspect(
  way: Way,
  address: NatsSource,
  deps: BrokerDeps,
): Promise<readonly Finding[]> {
  const what = `source ${address.name} (${address.label})`;
  const is = about(what);
  let trouble: string | null = null;
  const opened = await way.open(undefined, (complaint) => trouble = complaint);
  if (!opened.ok) return [is.wrong(opened.problem)];
  const link = opened.value;
  try {
    const connected = is.ok(`${link.connection.info?.version}, connected`);
    if (readsStream(address)) {
      const found = await inspectStream(link, address, what);
      return [connected, ...trouble === null ? found : [is.wrong(trouble)]];
    }
    const feed = await openSubject(link, address, deps).catch((error) => messageOf(error));
    if (typeof feed === "string" || trouble !== null) {
      return [connected, is.wrong(trouble ?? String(feed))];
    }
    return [
      connected,
      is.warning(
        "core NATS gives a message once: what comes while there is no room, or no collector, is lost",
        "a stream of JetStream (stream=) keeps what is not acknowledged",
      ),
    ];
  } finally {
    await link.close();
  }
}

// ── Core NATS.

async function openSubject(
  link: NatsLink,
  address: NatsSource,
  deps: BrokerDeps,
): Promise<Feed & { lose(why: string): void }> {
  const feed = new SubjectFeed(link, address, deps);
  await settled(link.connection, deps);
  return feed;
}

/** The server has what was sent. Its complaints come before its answer; they are known a moment later. */
async function settled(connection: NatsConnection, { clock }: BrokerDeps): Promise<void> {
  const flushed = connection.flush().then(() => connection.flush()).then(() => true, () => false);
  if (!await within(clock, FLUSH_MS, flushed, false)) {
    throw new Error(`no answer within ${FLUSH_MS / 1000} s`);
  }
}

const DROPS = { count: 1, periodMs: 10_000 };

class SubjectFeed implements Feed {
  readonly #link: NatsLink;
  readonly #deps: BrokerDeps;
  readonly #address: NatsSource;
  readonly #rate: RateLimiter;
  #ready: SubjectMessage[] = [];
  #readyBytes = 0;
  /** Given to the loop, in order. */
  readonly #given: Message[] = [];
  #waiting: PromiseWithResolvers<readonly Message[]> | null = null;
  #lost: string | null = null;
  #dropped = 0;
  #toldDropped = 0;

  constructor(link: NatsLink, address: NatsSource, deps: BrokerDeps) {
    this.#link = link;
    this.#deps = deps;
    this.#address = address;
    this.#rate = new RateLimiter(deps.clock);
    const { read } = address;
    if (read.what !== "subject") throw new Error("no subject");
    link.connection.subscribe(read.subject, {
      queue: read.queue,
      callback: (error, message) => {
        if (error === null) this.#receive(message);
        else this.lose(messageOf(error));
      },
    });
    void link.closed.then((why) => this.lose(`the connection is lost: ${why}`));
  }

  next(): Promise<readonly Message[]> {
    if (this.#lost !== null) return Promise.reject(new Error(this.#lost));
    if (this.#ready.length > 0) return Promise.resolve(this.#give());
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  /** To make room is all that there is to do. */
  acknowledge([newest]: readonly Message[]): Promise<void> {
    if (newest !== undefined) this.#given.splice(0, this.#given.indexOf(newest) + 1);
    return this.#lost === null ? Promise.resolve() : Promise.reject(new Error(this.#lost));
  }

  lag(): number | null {
    return this.#ready.length;
  }

  dropped(): number {
    return this.#dropped;
  }

  async close(): Promise<void> {
    this.lose("closed");
    this.#dropped += this.#ready.length;
    await this.#link.close();
  }

  lose(why: string): void {
    if (this.#lost !== null) return;
    this.#lost = why;
    this.#waiting?.reject(new Error(why));
    this.#waiting = null;
  }

  #receive(message: Msg): void {
    if (this.#lost !== null) return;
    const held = this.#ready.length + this.#given.length;
    const bytes = message.data.length;
    if (held >= this.#address.prefetch || this.#readyBytes + bytes > MOST_BYTES) {
      return this.#drop(1);
    }
    this.#ready.push(new SubjectMessage(message));
    this.#readyBytes += bytes;
    const waiting = this.#waiting;
    if (waiting === null) return;
    this.#waiting = null;
    // Those that came with it are read together.
    queueMicrotask(() => waiting.resolve(this.#give()));
  }

  #give(): readonly Message[] {
    const ready = this.#ready;
    this.#ready = [];
    this.#readyBytes = 0;
    this.#given.push(...ready);
    return ready;
  }

  #drop(count: number): void {
    this.#dropped += count;
    const dropped = this.#dropped - this.#toldDropped;
    if (dropped === 0 || this.#rate.waitMs("", DROPS) > 0) return;
    this.#toldDropped = this.#dropped;
    this.#deps.log.warn("a source drops messages: there is no room, and core NATS keeps none", {
      source: this.#address.name,
      dropped,
    });
  }
}

class SubjectMessage implements Message {
  readonly partition = "";
  readonly again = false;
  readonly address: string;
  readonly body: Uint8Array;
  readonly encoding?: string;
  readonly #message: Msg;

  constructor(message: Msg) {
    this.address = `nats:${message.subject}`;
    this.body = message.data;
    const encoding = encodingOf(message);
    if (encoding !== undefined) this.encoding = encoding;
    this.#message = message;
  }

  meta(name: string): MetaValue {
    if (name === "_subject") return this.#message.subject;
    return name === "_headers" ? headersOf(this.#message) : null;
  }
}

// ── Exits.

/** An exit channel on a subject of core NATS: what is sent while it is away is not heard. */
export function openNatsExit(address: ExitOf<"nats">, deps: BrokerDeps): ExitChannel {
  const way = new Way(address, deps, "exit");
  return {
    async connect(_sinceMs, signal) {
      let feed: NatsExitFeed | null = null;
      let trouble: string | null = null;
      const opened = await way.open(signal, (what) => {
        trouble = what;
        feed?.lose(what);
      });
      if (!opened.ok) throw new Error(opened.problem);
      const link = opened.value;
      try {
        feed = new NatsExitFeed(link, address.subject);
        await settled(link.connection, deps);
        if (trouble !== null) throw new Error(trouble);
        return feed;
      } catch (error) {
        await link.close();
        throw new Error(`${link.server}: ${messageOf(error)}`);
      }
    },

    async send(text, signal) {
      let trouble: string | null = null;
      const opened = await way.open(signal, (what) => trouble = what);
      if (!opened.ok) throw new Error(opened.problem);
      const { connection, server, close } = opened.value;
      try {
        connection.publish(address.subject, new TextEncoder().encode(text));
        await settled(connection, deps);
        if (trouble !== null) throw new Error(`${server}: ${trouble}`);
      } finally {
        await close();
      }
    },
  };
}

/** Texts that wait to be looked at; a flood is cut. */
const MOST_TEXTS = 1_000;
/** An Exit is short, signed or not. */
const LONGEST_TEXT = 1_024;

class NatsExitFeed implements ExitFeed {
  readonly #link: NatsLink;
  readonly #texts: string[] = [];
  #waiting: PromiseWithResolvers<string> | null = null;
  #lost: string | null = null;

  constructor(link: NatsLink, subject: string) {
    this.#link = link;
    link.connection.subscribe(subject, {
      callback: (error, message) => {
        if (error !== null) return this.lose(messageOf(error));
        this.#hear(new TextDecoder().decode(message.data.subarray(0, LONGEST_TEXT)));
      },
    });
    void link.closed.then((why) => this.lose(`the connection is lost: ${why}`));
  }

  next(): Promise<string> {
    const text = this.#texts.shift();
    if (text !== undefined) return Promise.resolve(text);
    if (this.#lost !== null) return Promise.reject(new Error(this.#lost));
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  async close(): Promise<void> {
    this.lose("closed");
    await this.#link.close();
  }

  lose(why: string): void {
    if (this.#lost !== null) return;
    this.#lost = why;
    this.#waiting?.reject(new Error(why));
    this.#waiting = null;
  }

  #hear(text: string): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting !== null) waiting.resolve(text);
    else if (this.#texts.length < MOST_TEXTS) this.#texts.push(text);
  }
}
