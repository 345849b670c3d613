/**
 * The collector as a NATS micro service named `shishi` (ADR-32 of NATS): what it answers to
 * `$SRV.PING|INFO|STATS`, so that `nats micro ls|info|stats` shows the fleet. Pure but for its counts.
 *
 * The library's own services do not fit: they put every endpoint into a queue group, of which one
 * member gets a command that is meant for all, and take another id and start with each connection.
 */

import type { Command, LedgerTotals, Status } from "../contracts.ts";
import { COMMANDS } from "./protocol.ts";

export interface MicroOptions {
  /** Unique to this process; no dots. */
  readonly instance: string;
  readonly startedMs: number;
  /** Prefix of the control subjects. */
  readonly prefix: string;
  readonly signed: boolean;
  readonly status: () => Status;
}

const NAME = "shishi";
const DESCRIPTION = "Collects events for ClickHouse; its endpoints control it";
const VERBS = ["PING", "INFO", "STATS"] as const;

const ABOUT: Readonly<Record<Command, string>> = {
  status: "state and counts",
  flush: "sends at once what is held; answers twice: flushing, flushed",
  pause: "refuses new events; what is held is still delivered",
  resume: "takes events again",
  stop: "delivers what is held, then ends; answers twice: draining, stopped",
};

interface Counts {
  requests: number;
  errors: number;
  lastError: string;
  processingNs: number;
}

export class Micro {
  /** Nine: each verb for all services, for those named `shishi`, and for this one; with its answer. */
  readonly subjects: ReadonlyMap<string, () => Uint8Array>;
  readonly #options: MicroOptions;
  /** The collector, which is the same for as long as the process lives. */
  readonly #collector: Pick<Status, "group" | "id" | "version" | "runtime">;
  readonly #counts = new Map<string, Counts>(
    COMMANDS.map((command) => [
      command,
      { requests: 0, errors: 0, lastError: "", processingNs: 0 },
    ]),
  );

  constructor(options: MicroOptions) {
    this.#options = options;
    this.#collector = options.status();
    const write = {
      PING: () => this.#head("ping"),
      INFO: () => this.#info(),
      STATS: () => this.#stats(),
    };
    this.subjects = new Map(VERBS.flatMap((verb) => {
      const bytes = () => new TextEncoder().encode(JSON.stringify(write[verb]()));
      const all = `$SRV.${verb}`;
      return [all, `${all}.${NAME}`, `${all}.${NAME}.${options.instance}`].map((subject) =>
        [subject, bytes] as const
      );
    }));
  }

  /** One command was handled. */
  count(command: Command | "unknown", tookMs: number): void {
    const of = this.#counts.get(command);
    if (of === undefined) return;
    of.requests++;
    of.processingNs += Math.round(tookMs * 1e6);
  }

  /** One was refused, or has failed. */
  fail(command: Command | "unknown", problem: string): void {
    const of = this.#counts.get(command);
    if (of === undefined) return;
    of.errors++;
    of.lastError = problem;
  }

  /** What every answer begins with. */
  #head(type: string) {
    const { group, id, version, runtime } = this.#collector;
    return {
      type: `io.nats.micro.v1.${type}_response`,
      name: NAME,
      id: this.#options.instance,
      version,
      metadata: { group, id, runtime },
    };
  }

  #info() {
    const { prefix, signed } = this.#options;
    const { group } = this.#collector;
    return {
      ...this.#head("info"),
      description: DESCRIPTION,
      endpoints: COMMANDS.map((command) => ({
        ...this.#endpoint(command),
        metadata: {
          description: ABOUT[command],
          subjects: [`${prefix}.${command}`, `${prefix}.${command}.${group}`].join(" "),
          format: "application/json",
          signed: String(signed),
          request_schema: JSON.stringify(REQUEST_SCHEMA),
          response_schema: JSON.stringify(responseSchema(command)),
        },
      })),
    };
  }

  #stats() {
    const { status, startedMs } = this.#options;
    const data: LedgerTotals = status().ledger;
    return {
      ...this.#head("stats"),
      started: new Date(startedMs).toISOString(),
      endpoints: [...this.#counts].map(([command, of]) => ({
        ...this.#endpoint(command),
        num_requests: of.requests,
        num_errors: of.errors,
        last_error: of.lastError,
        data,
        processing_time: of.processingNs,
        average_processing_time: of.requests === 0 ? 0 : Math.trunc(of.processingNs / of.requests),
      })),
    };
  }

  #endpoint(command: string) {
    const { group, id } = this.#collector;
    return {
      name: command,
      subject: `${this.#options.prefix}.${command}.${group}.${id}`,
      // None: every collector that is meant obeys, not one of them.
      queue_group: "",
    };
  }
}

const REQUEST_SCHEMA = { description: "ignored; may be empty" };
const INTEGER = { type: "integer" };
const STRING = { type: "string" };
const LEDGER = ["received", "recovered", "rejected", "stored", "dead", "held", "lost"];

/** JSON Schema of one answer. */
function responseSchema(command: Command): object {
  return {
    type: "object",
    required: ["group", "id", "command", "ok", "state", "ledger"],
    properties: {
      group: STRING,
      id: STRING,
      command: { const: command },
      ok: { type: "boolean" },
      error: { type: "string", description: "present when ok is false" },
      state: STRING,
      ledger: {
        type: "object",
        required: LEDGER,
        properties: Object.fromEntries(LEDGER.map((name) => [name, INTEGER])),
      },
    },
  };
}
