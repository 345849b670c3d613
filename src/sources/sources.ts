/**
 * All sources of a collector: begun when a setting asks for them, changed by a reload one by one, and ended
 * together. What they read and how is each one's own (`source.ts`).
 */

import type {
  Broker,
  BrokerDeps,
  Clock,
  Intake,
  Ledger,
  Log,
  MessageReader,
  SourceAddress,
  SourceLetter,
  SourceStatus,
} from "../contracts.ts";
import { nodeUtil } from "../kernel/builtins.ts";
import type { Result } from "../kernel/result.ts";
import { openBroker } from "./brokers.ts";
import { Source } from "./source.ts";

export interface SourcesDeps {
  /** What the file of a broker is handed. */
  readonly broker: BrokerDeps;
  readonly intake: Intake;
  readonly reader: MessageReader;
  readonly keepLetters: (letters: readonly SourceLetter[]) => Promise<Result>;
  readonly ledger: Pick<Ledger, "source" | "died">;
  /** As of `SourceDeps`. */
  readonly eventsTable: () => string;
  readonly mayWrite: (table: string) => boolean;
  readonly ack: () => "memory" | "disk" | "clickhouse";
  readonly clock: Clock;
  readonly log: Log;
  /** Opens a broker; tests bring their own. */
  readonly open?: typeof openBroker;
}

/** A source that is wanted. */
export interface WantedSource {
  readonly address: SourceAddress;
  /** What is in the files that it names; another content makes another source of it. */
  readonly texts: readonly string[];
}

interface Running extends WantedSource {
  readonly source: Source;
}

export class Sources {
  readonly #deps: SourcesDeps;
  /** By name, in the order of the setting. */
  #running = new Map<string, Running>();
  #ended = false;

  constructor(deps: SourcesDeps) {
    this.#deps = deps;
  }

  /**
   * Those that are as before are left alone; another one is ended first, so that two of one name never read.
   * Resolves when all that are wanted have begun. Never rejects.
   */
  async adopt(wanted: readonly WantedSource[]): Promise<void> {
    const kept = new Map<string, Running>();
    for (const { address, texts } of wanted) {
      const running = this.#running.get(address.name);
      if (running !== undefined && isSame(running, { address, texts })) {
        kept.set(address.name, running);
      }
    }
    const gone = [...this.#running.values()].filter(({ address: { name } }) => !kept.has(name));
    await Promise.all(gone.map(({ source }) => source.stop(Promise.resolve())));
    if (this.#ended) return;
    const all = wanted.map((one): [string, Running] => [
      one.address.name,
      kept.get(one.address.name) ?? { ...one, source: this.#begin(one.address) },
    ]);
    this.#running = new Map(all);
  }

  status(): readonly SourceStatus[] {
    return [...this.#running.values()].map(({ source }) => source.status());
  }

  /**
   * All of them read no more, at once. Resolves when each has left its broker.
   * @param drained as of `Source.stop`.
   */
  async stop(drained: Promise<unknown>): Promise<void> {
    this.#ended = true;
    await Promise.all([...this.#running.values()].map(({ source }) => source.stop(drained)));
  }

  #begin(address: SourceAddress): Source {
    const { broker, ledger, open = openBroker, ...deps } = this.#deps;
    const source = new Source({
      ...deps,
      address,
      broker: later(() => open(address, broker)),
      totals: ledger.source(address.name),
      died: (table, messages) => ledger.died(table, messages),
    });
    source.start();
    return source;
  }
}

/** A broker whose library is loaded at its first connection. */
function later(open: () => Promise<Broker>): Broker {
  let opened: Promise<Broker> | null = null;
  const broker = () =>
    opened ??= open().catch((error) => {
      opened = null;
      throw error;
    });
  return {
    connect: async (signal) => await (await broker()).connect(signal),
    inspect: async () => await (await broker()).inspect(),
  };
}

function isSame(one: WantedSource, other: WantedSource): boolean {
  const { isDeepStrictEqual } = nodeUtil();
  return isDeepStrictEqual(one.address, other.address) &&
    isDeepStrictEqual(one.texts, other.texts);
}
