/**
 * One write to InfluxDB, and what its answer means. The only file that knows the `influx` library.
 *
 * The library renders lines and statements. Its transport is replaced by `exchange`, because with it
 * a promise never settles when an answer stalls or is cut in its body, an answer is read without
 * bound (640 MB in 3 s from an endless error), a host is disabled for seconds after one failure, any
 * 2xx passes for a write, and root:root is sent where there is no user. Here only InfluxDB's own 204
 * means written.
 *
 * InfluxDB 2 and 3 are met at their `/write` of version 1. They differ in how they let one in, which
 * `exchange` knows, and take no `precision=n`: nanoseconds are what all of them expect unasked.
 */

import { FieldType, InfluxDB, type ISchemaOptions } from "influx";
import { exchange, type ExchangeDeps } from "./exchange.ts";

/** `tags` are values that the line protocol can carry (`tagValue`). */
export interface Point {
  readonly measurement: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly fields: Readonly<Record<string, number>>;
  /** Epoch nanoseconds, decimal: more digits than a number holds. */
  readonly timestampNs: string;
}

/** The shape of a measurement: which fields are integers, which are floats. */
export interface Measurement {
  readonly name: string;
  readonly tags: readonly string[];
  readonly integers: readonly string[];
  readonly floats: readonly string[];
}

/** What one write came to. Only `written` says that the points are there. */
export type Written =
  | { readonly kind: "written" }
  | { readonly kind: "no-database" }
  /** More bytes than the server takes at once. */
  | { readonly kind: "too-large"; readonly message: string }
  /**
   * At least one point is not to its liking; others of the same write may be stored. `outlived`: it is
   * older than what the database keeps, and will be however often it is sent.
   */
  | { readonly kind: "refused"; readonly message: string; readonly outlived: boolean }
  /** Says nothing about the points, which may or may not be stored. */
  | { readonly kind: "away"; readonly message: string };

/** Never throws. */
export interface InfluxClient {
  write(points: readonly Point[]): Promise<Written>;
  /** Null when the database is there, else why it could not be made. */
  createDatabase(): Promise<string | null>;
}

export interface InfluxDeps extends ExchangeDeps {
  readonly measurements: readonly Measurement[];
}

const MAX_MESSAGE_CHARS = 500;

/** An answer that is no success. */
class AnswerError extends Error {
  constructor(readonly status: number, readonly body: string) {
    super(`HTTP ${status} ${body.trim()}`);
  }
}

export function createInflux(deps: InfluxDeps): InfluxClient {
  const { database } = deps.endpoint;
  const influx = new InfluxDB({
    database,
    schema: deps.measurements.map((measurement) => schemaOf(measurement, database)),
  });
  (influx as unknown as { _pool: Transport })._pool = transport(deps);

  return {
    async write(points) {
      try {
        await influx.writePoints(points.map(({ timestampNs, ...point }) => ({
          ...point,
          timestamp: timestampNs,
        })));
        return { kind: "written" };
      } catch (problem) {
        return meaning(problem);
      }
    },

    createDatabase: () => problemOf(() => influx.createDatabase(database)),
  };
}

/** What the library hands to its transport; the rest is who to be and how to say the time. */
interface Ask {
  readonly method: string;
  readonly path: string;
  readonly query?: { readonly db?: string; readonly q?: string };
  readonly body?: string;
}

/** What the library calls. */
interface Transport {
  discard(ask: Ask): Promise<void>;
  json(ask: Ask): Promise<unknown>;
}

function transport(deps: ExchangeDeps): Transport {
  async function send({ method, path, query = {}, body }: Ask, wanted: number): Promise<string> {
    const { db, q } = query;
    const answer = await exchange(deps, {
      method,
      path,
      query: { ...(db !== undefined && { db }), ...(q !== undefined && { q }) },
      body: body ?? null,
    });
    if (answer.status !== wanted) throw new AnswerError(answer.status, answer.body);
    return answer.body;
  }
  return {
    discard: async (ask) => void await send(ask, 204),
    json: async (ask) => JSON.parse(await send(ask, 200)),
  };
}

function meaning(problem: unknown): Written {
  const message = messageOf(problem);
  if (!(problem instanceof AnswerError)) return { kind: "away", message };
  const { status, body } = problem;
  if (status === 404 && /database not found/i.test(body)) return { kind: "no-database" };
  if (status === 413) return { kind: "too-large", message };
  if (status === 400 || status === 422) {
    return { kind: "refused", message, outlived: /retention policy/i.test(body) };
  }
  return { kind: "away", message };
}

async function problemOf(task: () => Promise<unknown>): Promise<string | null> {
  try {
    await task();
    return null;
  } catch (problem) {
    return messageOf(problem);
  }
}

function messageOf(problem: unknown): string {
  const text = problem instanceof Error ? problem.message : String(problem);
  return text.slice(0, MAX_MESSAGE_CHARS);
}

function schemaOf(measurement: Measurement, database: string): ISchemaOptions {
  const { name, tags, integers, floats } = measurement;
  return {
    database,
    measurement: name,
    tags: [...tags],
    fields: {
      ...Object.fromEntries(integers.map((field) => [field, FieldType.INTEGER])),
      ...Object.fromEntries(floats.map((field) => [field, FieldType.FLOAT])),
    },
  };
}
