/** The document of `/openapi.json` in a test's hands: its routes, its examples, its schemas. */
import assert from "node:assert/strict";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe } from "../../src/admit/reads.ts";

/** As it is served. */
// deno-lint-ignore no-explicit-any
export const openapi: any = JSON.parse((await describe("0.1.0")).text);

/** The document with each reference to one of its components, but for schemas, replaced by that. */
const whole = resolved(openapi);

const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
ajv.addSchema(whole, "shishi");

// deno-lint-ignore no-explicit-any
function resolved(value: any): any {
  if (Array.isArray(value)) return value.map(resolved);
  if (typeof value !== "object" || value === null) return value;
  const [, kind, name] = /^#\/components\/(\w+)\/(\w+)$/.exec(value.$ref) ?? [];
  if (kind === undefined || kind === "schemas") {
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, resolved(one)]));
  }
  const component = openapi.components[kind]?.[name!];
  assert.ok(component, `${value.$ref} is not there`);
  return resolved(component);
}

/** What is wrong with a value by the schema at a JSON pointer into the document; empty = nothing. */
export function faults(value: unknown, ...path: readonly string[]): string[] {
  const pointer = path.map((part) =>
    `/${encodeURIComponent(part.replaceAll("~", "~0").replaceAll("/", "~1"))}`
  );
  const validate = ajv.getSchema(`shishi#${pointer.join("")}`);
  assert.ok(validate, `no schema at ${path.join(" ")}`);
  validate(value);
  return (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
}

export interface Operation {
  readonly path: string;
  readonly method: string;
  // deno-lint-ignore no-explicit-any
  readonly described: any;
}

export const operations: readonly Operation[] = Object.entries(whole.paths).flatMap(
  ([path, item]) =>
    Object.entries(item as Record<string, unknown>)
      .filter(([method]) => ["get", "post", "put", "delete", "patch"].includes(method))
      .map(([method, described]) => ({ path, method, described })),
);

/** Every answer that is described: `post /events 202`. */
export const answers: readonly string[] = operations.flatMap(({ path, method, described }) =>
  Object.keys(described.responses).map((status) => `${method} ${path} ${status}`)
);

/** They come with the answer whatever was asked for. */
const ALWAYS = ["Retry-After", "Allow", "WWW-Authenticate", "Accept-Encoding", "ETag"];

/** Fails unless the document describes exactly this answer. @returns which one it is. */
export async function assertDescribed(
  { path, method, described }: Operation,
  response: Response,
): Promise<string> {
  const key = `${method} ${path} ${response.status}`;
  const text = await textOf(response);
  const answer = described.responses[response.status];
  assert.ok(answer, `${key} is not described: ${text}`);
  for (const name of Object.keys(answer.headers ?? {})) {
    if (ALWAYS.includes(name)) assert.ok(response.headers.get(name), `${key}: ${name}`);
  }
  const types = Object.keys(answer.content ?? {});
  if (types.length === 0) {
    assert.equal(text, "", key);
    return key;
  }
  const type = response.headers.get("content-type")?.split(";")[0] ?? "";
  assert.ok(types.includes(type), `${key}: ${type}`);
  const where = ["paths", path, method, "responses", String(response.status), "content", type];
  const value = type === "application/json" ? JSON.parse(text) : text;
  assert.deepEqual(faults(value, ...where, "schema"), [], `${key}: ${text.slice(0, 500)}`);
  return key;
}

/** The body; of a stream that does not end by itself the beginning. */
async function textOf(response: Response): Promise<string> {
  if (!/event-stream/.test(response.headers.get("content-type") ?? "")) return response.text();
  const reader = response.body!.getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return new TextDecoder().decode(value);
}
