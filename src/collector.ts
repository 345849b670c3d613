/**
 * The only file that wires the rooms together: it starts them, hands them changed settings while they run,
 * and stops them in order. Settings go in; out comes something that listens, can be controlled, and ends
 * with a ledger.
 *
 * What the first answer does not need is loaded when it is first wanted (`lazy`, `Integrations`): its
 * libraries would cost every start time and memory.
 */

import process from "node:process";
import type { App, Part, Shared } from "./admit/app.ts";
import type { Pump, PumpOptions } from "./batch/pump.ts";
import { startProgress } from "./batch/progress.ts";
import type {
  BrokerDeps,
  Clock,
  Control,
  DeadLetters,
  ExitAddress,
  Files,
  LedgerTotals,
  Log,
  MessageReader,
  Order,
  Queries,
  SourceAddress,
} from "./contracts.ts";
import { LetterWriter } from "./dead/writer.ts";
import type { Deliver, DeliverSettings } from "./deliver/deliver.ts";
import { nodeUtil } from "./kernel/builtins.ts";
import { compileGlobs } from "./kernel/names.ts";
import { failed } from "./kernel/result.ts";
import { sleep, systemClock, within } from "./kernel/time.ts";
import { Lifecycle, type Limits } from "./lifecycle.ts";
import { createLedger, type MeteredLedger } from "./meter/ledger.ts";
import type { Mirror } from "./meter/mirror.ts";
import type { Prometheus } from "./meter/prometheus.ts";
import { createPage, type OpenPage } from "./page/page.ts";
import { createProblems } from "./page/problems.ts";
import type { Remote } from "./remote/remote.ts";
import type { Exits } from "./sources/exit.ts";
import type { Sources, SourcesDeps } from "./sources/sources.ts";
import { authorities } from "./runtime/authorities.ts";
import { createFetch } from "./runtime/fetch.ts";
import { nodeFiles } from "./runtime/files.ts";
import type { Followed, Predecessor } from "./runtime/handover.ts";
import { runtimeName } from "./runtime/host.ts";
import { openFlock } from "./runtime/libc.ts";
import { type Listeners, listenOnAll, together } from "./runtime/listeners.ts";
import { stillThere, stopListening } from "./runtime/server.ts";
import { isLoopback } from "./settings/checks.ts";
import { writeAddress } from "./settings/kinds.ts";
import type { Settings } from "./settings/settings.ts";
import { copyToQuarantine, deadFolder } from "./spool/data_dir.ts";
import { takeLock } from "./spool/lock.ts";
import { type Disk, openDisk } from "./spool/open.ts";
import { VERSION } from "./version.ts";

export interface CollectorOptions {
  readonly settings: Settings;
  readonly log: Log;
  /** The collector that this one follows, on its port and in its folder. */
  readonly predecessor?: Predecessor | null;
  /** The system's unless given. */
  readonly files?: Files;
  /** Of a journal file; for tests. */
  readonly journalFileBytes?: number;
  /** Opens a source's broker; for tests. */
  readonly openBroker?: SourcesDeps["open"];
}

/** A running collector; another process can follow it (`runtime/handover.ts`). */
export interface Collector extends Followed {
  /** Where it takes events, e.g. `http://127.0.0.1:8080`; sockets in the file system as `unix:/path`. */
  readonly urls: readonly string[];
  /** Where all else is served; none unless there is an admin port. */
  readonly adminUrls: readonly string[];
  readonly control: Control;
  /** Calls `listener` after each change of the state by an order, and with each order (`Lifecycle`). */
  watch(listener: (asked?: Order) => void): () => void;
  /** Resolves after `control.stop`, when everything has ended; with the last counts. */
  readonly finished: Promise<LedgerTotals>;
  /** Gives up what is held, at once; the counts as they are then. */
  abandon(): LedgerTotals;
  /**
   * Goes on with other settings: what is decided from now on follows them, what is under way ends as
   * it began. Rejects with a reason where they cannot be taken; then nothing has changed. Not to be
   * called again before it has ended.
   */
  adopt(settings: Settings): Promise<void>;
}

/** Throws when the address cannot be listened on or the data folder not be used. */
export async function startCollector(options: CollectorOptions): Promise<Collector> {
  const { predecessor = null } = options;
  const rooms = await openRooms(options);
  predecessor?.lead(rooms.control);
  const front = new Front(rooms);
  let ports: Ports;
  try {
    ports = await startListening(rooms, front, predecessor !== null);
  } catch (error) {
    await rooms.page.close();
    rooms.control.ended();
    await rooms.deliver.close();
    await rooms.disk.close();
    throw error;
  }
  const running = new Running(rooms, front, ports, predecessor);
  await running.begin();
  return running;
}

// ── The rooms, and what each of them is given.

/** What most rooms are handed. */
interface Base {
  readonly clock: Clock;
  readonly log: Log;
  readonly ledger: MeteredLedger;
}

interface Rooms extends Base {
  /** The settings that are followed at this moment. */
  readonly current: { settings: Settings };
  readonly disk: Disk;
  readonly letters: LetterWriter;
  readonly deliver: Deliver;
  readonly pump: Pump;
  readonly control: Lifecycle;
  readonly page: OpenPage;
  readonly admit: Admit;
  /** `under`: what an earlier process left in the spool is still being read. */
  readonly recovery: { under: boolean };
  /** Null while there are none. */
  readonly sources: { set: Sources | null; readonly open: SourcesDeps["open"] };
}

type Admit = Pick<
  typeof import("./admit/app.ts"),
  "createApp" | "createShared" | "createJudge" | "eventTypes"
>;

async function openRooms(options: CollectorOptions): Promise<Rooms> {
  const clock = systemClock;
  const problems = createProblems(clock);
  const log = problems.watch(options.log);
  const ledger = createLedger();
  const base: Base = { clock, log, ledger };
  const current = { settings: options.settings };
  // Loaded while the disk syncs, which takes as long.
  const [{ disk, letters }, { Pump }, { createDeliver }, admit] = await Promise.all([
    openDataFolder(options, log, () => current.settings),
    import("./batch/pump.ts"),
    import("./deliver/deliver.ts"),
    import("./admit/app.ts"),
  ]);
  const judge = admit.createJudge();
  const deliver = createDeliver(deliverSettings(current.settings), {
    ...base,
    largest: () => ({
      rows: current.settings.maxBlockSize,
      bytes: current.settings.maxBlockBytes,
    }),
    onTableChange: ({ what }) => ledger.tableChanged(what),
    judge: () => current.settings.typeCheck === "strict" ? judge : null,
    eventTypes: admit.eventTypes,
    fetch: createFetch({ pooled: false, certificates: authoritiesOf(current.settings) }),
  });
  const pump = new Pump(pumpOptions(current.settings), {
    ...base,
    sink: deliver.sink,
    spool: disk.spool,
    deadLetters: letters,
  });
  const recovery = { under: true };
  const sources: Rooms["sources"] = { set: null, open: options.openBroker };
  const control = new Lifecycle({
    ...base,
    ...identityOf(current.settings),
    pump,
    limits: () => limitsOf(current.settings),
    recovering: () => recovery.under,
    sources: () => sources.set?.status() ?? [],
    ping: () => deliver.query.ping(),
  });
  const about = () => ({
    ...current.settings,
    version: VERSION,
    runtime: runtimeName,
    takesEvents: current.settings.adminListen.length === 0,
  });
  const page = createPage({ ...base, holdings: pump, control, problems, about }, clock);
  return {
    ...base,
    current,
    disk,
    letters,
    deliver,
    pump,
    control,
    page,
    admit,
    recovery,
    sources,
  };
}

async function openDataFolder(
  { settings: { dataDir }, files = nodeFiles, journalFileBytes, predecessor }: CollectorOptions,
  log: Log,
  settings: () => Settings,
): Promise<Pick<Rooms, "disk" | "letters">> {
  const dir = { files, dataDir, log };
  const opened = await openDisk({
    dir,
    clock: systemClock,
    memoryBytes: () => settings().backlogBytes,
    journalFileBytes,
    ...(predecessor ? { vacated: predecessor.gone } : {}),
    lock: (folder, options) => takeLock(folder, { ...options, flock: openFlock }),
    onLost() {
      log.error("another collector has taken the data folder; ending", { folder: dataDir });
      process.exit(1);
    },
  });
  if (!opened.ok) throw new Error(opened.problem);
  const disk = opened.value;
  const letters = new LetterWriter({
    files,
    folder: deadFolder(dataDir),
    maxBytes: () => settings().deadMaxBytes,
    quarantine: (name, bytes) => copyToQuarantine(dir, name, bytes),
    alone: disk.whole,
    log,
    clock: systemClock,
  });
  return { disk, letters };
}

/** Read when they are first needed. */
function authoritiesOf({ authorities: own }: Settings) {
  return () => authorities(own);
}

function identityOf({ group, id }: Settings) {
  return { group, id, version: VERSION, runtime: runtimeName };
}

function limitsOf(settings: Settings): Limits {
  const { flushIntervalMs, shutdownTimeoutMs, drainDelayMs } = settings;
  const clickhouse = settings.clickhouse.map(({ label }) => label).join(",");
  return { clickhouse, flushIntervalMs, shutdownTimeoutMs, drainDelayMs };
}

function deliverSettings(settings: Settings): DeliverSettings {
  const { clickhouse, table, createTable, insertTimeoutMs, compress, insertSettings } = settings;
  const { createTables, unknownKeys, maxNewColumns, widen, cluster } = settings;
  return {
    endpoints: clickhouse,
    eventsTable: table,
    createTable,
    insertTimeoutMs,
    compress,
    insertSettings,
    createTables,
    unknownKeys,
    maxNewColumns,
    widen,
    cluster,
  };
}

function pumpOptions(settings: Settings): PumpOptions {
  const { flushIntervalMs, idleIntervalMs } = settings;
  return {
    fill: {
      maxRows: settings.maxBlockSize,
      maxBytes: settings.maxBlockBytes,
      flushIntervalMs,
      idleIntervalMs,
    },
    budget: {
      maxRows: settings.backlog,
      maxBytes: settings.backlogBytes,
      tableShare: settings.tableShare,
    },
    concurrency: settings.concurrency,
    reached: settings.ack === "memory" ? "memory" : "disk",
    maxSpoolBytes: settings.spoolMaxBytes,
    keyWindowMs: settings.idempotencyWindowMs,
  };
}

/** Where it listens, for events and for all else. */
interface Ports {
  readonly events: Listeners;
  /** None = all is served where events are. */
  readonly admin: Listeners | null;
}

async function startListening(
  { current, log }: Rooms,
  front: Front,
  followed: boolean,
): Promise<Ports> {
  const { listen, adminListen, tls, sharePort, idleTimeoutMs } = current.settings;
  const base = {
    ...(tls === null ? {} : { tls }),
    reusePort: followed,
    idleTimeoutMs,
    onError: (error: unknown) => log.error("a request failed", { error: String(error) }),
    // A client that reaches the port can cause as many of these as it likes.
    onRefused: (client: string | null, reason: string) =>
      log.debug("a client was not let in for its certificate", {
        ...(client === null ? {} : { client }),
        reason,
      }),
  };
  const events = await listenOnAll({
    ...base,
    listen,
    shared: sharePort,
    handler: (request, addressOf, subject) => front.answer(request, addressOf, subject),
  });
  if (adminListen.length === 0) return { events, admin: null };
  try {
    const admin = await listenOnAll({
      ...base,
      listen: adminListen,
      handler: (request, addressOf, subject) => front.answerAdmin(request, addressOf, subject),
    });
    return { events, admin };
  } catch (error) {
    void events.kill();
    throw error;
  }
}

// ── What is answered over HTTP.

/** Why neither a successor nor a replay may begin. */
const SPOOL_IS_READ = "the spool of the previous process is still being read";
/** For what is written of dead letters at the end; a disk that hangs is not waited for. */
const LAST_LETTERS_MS = 2_000;
/** A client may take this long to send its body. */
const BODY_TIMEOUT_MS = 30_000;

/**
 * What is answered, as the settings say at the moment. Besides taking rows: metrics, questions about stored
 * events, dead letters. The first answer needs none of these, so each is loaded when it is first wanted.
 */
class Front {
  readonly #rooms: Rooms;
  /** Reads what comes without a request. */
  readonly reader: Lazy<MessageReader>;
  readonly #shared: Shared;
  readonly #metrics: Lazy<Prometheus>;
  readonly #queries: Lazy<Queries & Closing>;
  readonly #deadLetters: Lazy<DeadLetters & { close(): Promise<void> }>;
  #app: App;
  #admin: App;

  constructor(rooms: Rooms) {
    this.#rooms = rooms;
    const { admit, clock, log, ledger, pump, deliver, current } = rooms;
    const { dataDir } = current.settings;
    this.#shared = admit.createShared(clock);
    this.reader = lazy(async () =>
      (await import("./admit/message_reader.ts")).createMessageReader(() => ({
        tables: deliver.tables,
        maker: deliver.maker,
        clock,
        settings: current.settings,
      }), this.#shared)
    );
    this.#metrics = lazy(async () => {
      const { createPrometheus, createSurroundings } = await import("./meter/prometheus.ts");
      const surroundings = createSurroundings({
        dataDir,
        certificate: () => current.settings.tls?.cert ?? null,
        clock,
      });
      const prometheus = createPrometheus({
        ledger,
        holdings: pump,
        log,
        ...identityOf(current.settings),
        rssBytes,
        limits: () => current.settings,
        sources: () => rooms.sources.set?.status() ?? [],
        surroundings,
      });
      return { text: () => surroundings.look().then(() => prometheus.text()) };
    });
    this.#queries = lazy(async () =>
      (await import("./deliver/questions.ts")).createQueries({
        clock,
        ask: deliver.ask,
        source() {
          const { clickhouse, table } = current.settings;
          return { database: clickhouse[0]!.database, table };
        },
      })
    );
    this.#deadLetters = lazy(async () =>
      (await import("./dead/dead_letters.ts")).createDeadLetters({
        files: nodeFiles,
        folder: deadFolder(dataDir),
        clock,
        log,
        writer: rooms.letters,
        intake: pump,
        tables: deliver.tables,
        reader: this.reader.get,
        portion() {
          const { maxBlockSize, maxBlockBytes } = current.settings;
          return { rows: maxBlockSize, bytes: maxBlockBytes };
        },
        unready: () => rooms.recovery.under ? SPOOL_IS_READ : null,
      })
    );
    [this.#app, this.#admin] = this.#makeApps();
  }

  /** What comes where events are taken. */
  answer(...asked: Parameters<App["fetch"]>): ReturnType<App["fetch"]> {
    return this.#app.fetch(...asked);
  }

  /** What comes to an admin port. */
  answerAdmin(...asked: Parameters<App["fetch"]>): ReturnType<App["fetch"]> {
    return this.#admin.fetch(...asked);
  }

  /** The settings have changed; what is under way ends as it began. */
  adopt(): void {
    [this.#app, this.#admin] = this.#makeApps();
  }

  /** Ends what is under way of questions and replays. */
  async close(): Promise<void> {
    (await this.#queries.made())?.close();
    const closing = (await this.#deadLetters.made())?.close() ?? Promise.resolve();
    await within(this.#rooms.clock, LAST_LETTERS_MS, closing, undefined);
  }

  /** Without an admin port both are one. */
  #makeApps(): [App, App] {
    const { settings } = this.#rooms.current;
    const { listen, adminListen } = settings;
    if (adminListen.length === 0) {
      const app = this.#makeApp("all", settings, listen);
      return [app, app];
    }
    return [
      this.#makeApp("events", settings, listen),
      this.#makeApp("admin", settings, adminListen),
    ];
  }

  #makeApp(part: Part, settings: Settings, listen: Settings["listen"]): App {
    const { clock, log, ledger, control, page, admit, pump, deliver, recovery } = this.#rooms;
    const loopback = listen.every(isLoopback) && settings.tls === null;
    return admit.createApp({
      part,
      clock,
      log,
      ledger,
      control,
      page,
      intake: pump,
      tables: deliver.tables,
      maker: deliver.maker,
      metrics: async () => (await this.#metrics.get()).text(),
      queries: this.#queries.get,
      deadLetters: this.#deadLetters.get,
      setAside: (wanted) =>
        recovery.under ? Promise.resolve(failed(SPOOL_IS_READ)) : pump.setAside(wanted),
      stillThere,
      version: VERSION,
      settings: { ...settings, bodyTimeoutMs: BODY_TIMEOUT_MS, loopback },
    }, this.#shared);
  }
}

interface Closing {
  close(): void;
}

/** Something that is made when it is first wanted. */
interface Lazy<T> {
  get(): Promise<T>;
  /** What was made; null while it was never wanted. */
  made(): Promise<T> | null;
}

function lazy<T>(make: () => Promise<T>): Lazy<T> {
  let made: Promise<T> | null = null;
  return { get: () => made ??= make(), made: () => made };
}

function rssBytes(): number {
  return process.memoryUsage.rss();
}

// ── The mirror in InfluxDB, remote control over NATS, and exit channels.

/** How long a `flush` over NATS may take before it is answered as failed. */
const FLUSH_TIMEOUT_MS = 60_000;
/** How long a predecessor has to wait for exit channels. */
const EXITS_MS = 2_000;
/** After the drain: for the last write to InfluxDB. */
const LAST_WRITE_MS = 2_000;

/**
 * The mirror, remote control and exit channels, loaded when they are first wanted, since their libraries would
 * cost the first answer 10 of 45 ms. While a predecessor is there mirror and remote control do nothing: it has
 * the same name, and two of one name cannot be told apart, neither in InfluxDB nor on NATS. Exits have no names,
 * and one that comes in between must be heard.
 */
class Integrations {
  readonly #rooms: Rooms;
  #mirror: Mirror | null = null;
  #remote: Remote | null = null;
  #exits: Exits | null = null;
  readonly #startedMs: number;
  #nats: Pick<Settings, "nats" | "authorities" | "controlSecret"> | null = null;
  #ending = false;
  #alone: boolean;
  #busy: Promise<void> = Promise.resolve();

  constructor(rooms: Rooms, predecessor: Predecessor | null) {
    this.#rooms = rooms;
    this.#startedMs = rooms.clock.nowMs();
    this.#alone = predecessor === null;
    void predecessor?.gone.then(() => {
      this.#alone = true;
      return this.adopt();
    });
  }

  /**
   * Resolves when all do as the settings say; a NATS that hangs is not waited for long. One after the
   * other; after the last counts nothing comes any more.
   */
  adopt(): Promise<void> {
    const { settings } = this.#rooms.current;
    const adopted = this.#busy.then(async () => {
      if (this.#ending) return;
      await this.#adoptExits(settings).catch((error) => {
        this.#rooms.log.error("exit channels cannot be listened to", { error: String(error) });
      });
      if (!this.#alone) return;
      await this.#adoptMirror(settings);
      await this.#adoptRemote(settings);
    });
    this.#busy = adopted.catch(() => {});
    return adopted;
  }

  /** The last counts go where the settings say, if InfluxDB takes them in time. */
  async writeLast(): Promise<void> {
    this.#ending = true;
    await this.#busy;
    await this.#adoptMirror(this.#rooms.current.settings);
    await this.#mirror?.writeLast(LAST_WRITE_MS);
  }

  async close(): Promise<void> {
    await Promise.all([this.#remote?.close(), this.#exits?.close()]);
  }

  async #adoptExits(settings: Settings): Promise<void> {
    if (settings.exits.length === 0 && this.#exits === null) return;
    const { clock, log, ledger, control } = this.#rooms;
    const [{ Exits }, broker, wanted] = await Promise.all([
      import("./sources/exit.ts"),
      brokerDeps(this.#rooms),
      withTexts(settings.exits, settings),
    ]);
    if (this.#ending) return;
    this.#exits ??= new Exits({
      broker,
      startedMs: this.#startedMs,
      stop: (why) => void control.stop(why),
      count: (ok) => ledger.control("stop", ok),
      clock,
      log,
    });
    this.#exits.adopt(wanted, settings.controlSecret);
    // The predecessor begins to leave when this is done, and one of the two must listen.
    if (!this.#alone) await within(clock, EXITS_MS, this.#exits.tried(), undefined);
  }

  async #adoptMirror(settings: Settings): Promise<void> {
    const { influx, influxIntervalMs: intervalMs, group, id } = settings;
    const { clock, log, ledger, pump } = this.#rooms;
    const to = influx === null ? null : { endpoint: influx, intervalMs };
    if (this.#mirror !== null || to === null) return this.#mirror?.adopt(to);
    const { createMirror } = await import("./meter/mirror.ts");
    this.#mirror = createMirror({
      ...to,
      clock,
      log,
      ledger,
      holdings: pump,
      group,
      id,
      rssBytes,
      fetch: createFetch({ pooled: true, certificates: authoritiesOf(settings) }),
    });
    this.#mirror.start();
  }

  async #adoptRemote(settings: Settings): Promise<void> {
    const { nats: wanted, authorities, controlSecret, group, id } = settings;
    const known = { nats: wanted, authorities, controlSecret };
    if (nodeUtil().isDeepStrictEqual(this.#nats, known)) return;
    this.#nats = known;
    await this.#remote?.close();
    this.#remote = null;
    if (wanted === null) return;
    const { startRemote } = await import("./remote/remote.ts");
    const { createOpenSocket } = await import("./runtime/socket.ts");
    if (this.#ending) return;
    const { control, ledger, clock, log } = this.#rooms;
    this.#remote = startRemote({
      ...wanted,
      controlSecret,
      openSocket: createOpenSocket(authoritiesOf(settings)),
      group,
      id,
      control,
      watch: (listener) => control.watch(listener),
      ledger,
      clock,
      log,
      flushTimeoutMs: FLUSH_TIMEOUT_MS,
    });
  }
}

// ── Brokers and outboxes.

/**
 * The sources, loaded when a setting asks for one. While a predecessor is there nothing is read: it reads under
 * the same name, and a broker would throw one of the two out.
 */
class Inputs {
  readonly #rooms: Rooms;
  readonly #reader: Front["reader"];
  #alone: boolean;
  #stopped: Promise<void> | null = null;
  #busy: Promise<void> = Promise.resolve();

  constructor(rooms: Rooms, { reader }: Front, predecessor: Predecessor | null) {
    this.#rooms = rooms;
    this.#reader = reader;
    this.#alone = predecessor === null;
    void predecessor?.gone.then(() => {
      this.#alone = true;
      return this.adopt();
    });
  }

  /** Resolves when they are as the settings say; they connect in the background. Never rejects. */
  adopt(): Promise<void> {
    return this.#busy = this.#busy.then(() => this.#adopt()).catch((error) => {
      this.#rooms.log.error("sources cannot be read", { error: String(error) });
    });
  }

  /** They read no more, at once; what is safe is acknowledged. Resolves when they have left. */
  stop(): Promise<void> {
    return this.#stopped ??= this.#rooms.sources.set?.stop(this.#rooms.control.drained) ??
      Promise.resolve();
  }

  async #adopt(): Promise<void> {
    const { current: { settings }, sources } = this.#rooms;
    const may = () => this.#alone && this.#stopped === null;
    if (!may() || settings.sources.length === 0 && sources.set === null) return;
    const [{ Sources }, wanted] = await Promise.all([
      import("./sources/sources.ts"),
      withTexts(settings.sources, settings),
    ]);
    if (!may()) return;
    sources.set ??= new Sources(await this.#deps());
    await sources.set.adopt(wanted);
  }

  async #deps(): Promise<ConstructorParameters<typeof Sources>[0]> {
    const [reader, broker] = await Promise.all([this.#reader.get(), brokerDeps(this.#rooms)]);
    const { clock, log, ledger, pump, letters, current, sources } = this.#rooms;
    const globs = (settings: Settings) => compileGlobs(settings.tables);
    return {
      clock,
      log,
      ledger,
      ...(sources.open === undefined ? {} : { open: sources.open }),
      intake: pump,
      reader,
      keepLetters: (those) => letters.keep(those),
      eventsTable: () => current.settings.table,
      mayWrite: (table) => table === current.settings.table || globs(current.settings)(table),
      ack: () => current.settings.ack,
      broker,
    };
  }
}

/** What the files of brokers are handed. */
async function brokerDeps({ log, current }: Rooms): Promise<BrokerDeps> {
  const { forBrokers, standFor } = await import("./runtime/for_brokers.ts");
  const { group, id, dataDir } = current.settings;
  // A folder that is gone at this moment is as good as a new one.
  const folder = await standFor(dataDir).catch(() => crypto.randomUUID().slice(0, 8));
  return forBrokers({ group, id, log, folder, own: () => current.settings.authorities });
}

/** What is in the files that an address names. */
async function withTexts<A extends SourceAddress | ExitAddress>(
  addresses: readonly A[],
  { sourceFiles }: Settings,
) {
  const { filesOf } = await import("./settings/source_urls.ts");
  return addresses.map((address) => ({
    address,
    texts: filesOf(address).map(([, path]) => sourceFiles[path] ?? ""),
  }));
}

// ── The rooms at work.

class Running implements Collector {
  readonly urls: readonly string[];
  readonly adminUrls: readonly string[];
  readonly control: Lifecycle;
  readonly listening: Listeners;
  readonly #rooms: Rooms;
  readonly #front: Front;
  readonly #predecessor: Predecessor | null;
  readonly #integrations: Integrations;
  readonly #inputs: Inputs;
  readonly #finished = Promise.withResolvers<LedgerTotals>();
  #stopProgress = () => {};

  constructor(
    rooms: Rooms,
    front: Front,
    { events, admin }: Ports,
    predecessor: Predecessor | null,
  ) {
    this.#rooms = rooms;
    this.#front = front;
    this.#predecessor = predecessor;
    this.control = rooms.control;
    // To a successor viewers go at once; at a stop they are told that it is one.
    this.listening = rooms.page.leaving(admin === null ? events : together(events, admin));
    this.#integrations = new Integrations(rooms, predecessor);
    this.#inputs = new Inputs(rooms, front, predecessor);
    const { listen, adminListen, tls } = rooms.current.settings;
    const scheme = tls === null ? "http" : "https";
    const urlsOf = ({ addresses }: Pick<Listeners, "addresses">, listen: Settings["listen"]) => [
      ...addresses.map((address) => `${scheme}://${writeAddress(address)}`),
      ...listen.flatMap((listen) => "path" in listen ? [writeAddress(listen)] : []),
    ];
    this.urls = urlsOf(events, listen);
    this.adminUrls = urlsOf(admin ?? { addresses: [] }, adminListen);
    // Clients come again on another connection, which another collector may get. What asks the admin port
    // means this one.
    this.control.watch((asked) => asked === "stop" && events.lastAnswers(true));
    this.control.watch((asked) => void (asked === "stop" && this.#inputs.stop()));
  }

  get finished(): Promise<LedgerTotals> {
    return this.#finished.promise;
  }

  /** What comes after the port: a client that waited for it gets its answer first. */
  async begin(): Promise<void> {
    const { clock, log, ledger, pump, deliver, recovery, current } = this.#rooms;
    await sleep(clock, 0);
    const { group, id } = current.settings;
    for (const url of this.urls) log.info("listening", { url, group, id, version: VERSION });
    for (const url of this.adminUrls) log.info("listening for admins", { url });
    this.control.started();
    void pump.recover().then(() => recovery.under = false);
    void deliver.prepare();
    this.#stopProgress = startProgress({
      clock,
      log,
      backlog: () => pump.backlog(),
      settledRows: () => ledger.totals().stored + ledger.totals().dead,
      flushIntervalMs: () => current.settings.flushIntervalMs,
    });
    void this.#inputs.adopt();
    await this.#integrations.adopt();
    await this.#predecessor?.listening();
    this.#finished.resolve(this.#end());
  }

  watch(listener: (asked?: Order) => void): () => void {
    return this.control.watch(listener);
  }

  unsettled(): string | null {
    return this.#rooms.recovery.under ? SPOOL_IS_READ : null;
  }

  abandon(): LedgerTotals {
    this.#rooms.pump.abandon();
    return this.#rooms.ledger.totals();
  }

  async adopt(next: Settings): Promise<void> {
    const { current, deliver, pump, page } = this.#rooms;
    const { isDeepStrictEqual } = nodeUtil();
    // What can fail comes first.
    if (next.tls !== null && !isDeepStrictEqual(next.tls, current.settings.tls)) {
      await this.listening.renew(next.tls);
    }
    const same = isDeepStrictEqual({ ...next, tls: null }, { ...current.settings, tls: null });
    current.settings = next;
    if (same) return;
    const elsewhere = deliver.adopt(deliverSettings(next));
    pump.adopt(pumpOptions(next), elsewhere);
    this.#front.adopt();
    page.adopted();
    await this.#inputs.adopt();
    await this.#integrations.adopt();
  }

  /** In this order: rows first, then their counts, then the answers that are still waited for. */
  async #end(): Promise<LedgerTotals> {
    const { clock, page, deliver, disk, letters, ledger } = this.#rooms;
    await this.control.drained;
    await this.#inputs.stop();
    await this.#front.close();
    this.#stopProgress();
    await this.#integrations.writeLast();
    await page.close();
    await stopListening(this.listening);
    this.control.ended();
    await this.#integrations.close();
    await deliver.close();
    await within(clock, LAST_LETTERS_MS, letters.idle(), undefined);
    await disk.close();
    return ledger.totals();
  }
}
