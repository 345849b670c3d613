/**
 * What is wrong with one InfluxDB: is it there, does it let the collector in and write? What is written
 * is nothing at all.
 */

import type { Clock, Endpoint } from "../contracts.ts";
import { about, type Finding } from "../kernel/finding.ts";
import { createPost, type Fetch } from "../kernel/http.ts";
import { askInflux } from "./influx.ts";

const TIMEOUT_MS = 5_000;

/** Never rejects. */
export async function inspectInflux(
  endpoint: Endpoint,
  tools: { readonly fetch: Fetch; readonly clock: Clock },
): Promise<Finding[]> {
  const is = about(`influxdb ${endpoint.label}`);
  const { database, user, password } = endpoint;
  const post = createPost(tools);
  const server = { endpoint, post, timeoutMs: TIMEOUT_MS };
  const ask = (path: string, query: Record<string, string>) =>
    askInflux(server, { method: "POST", path, query, body: "" });
  const quoted = (name: string) => `"${name.replace(/["\\]/g, "\\$&")}"`;
  const hasToken = user === "" && password !== "";
  const unanswered = (problem: string) => is.wrong(problem, "start it, or correct influx-url");
  const answered = await ask("/write", { db: database });
  if (!answered.ok) return [unanswered(answered.problem)];
  const { status, body } = answered.value;
  const version = answered.value.version?.slice(0, 40) ?? "of an unknown version";
  // 400: it would like at least one point, and has let the client in to say so.
  if (status === 204 || status === 200 || status === 400) {
    return [is.ok(`${version}, takes counts`)];
  }
  const said = `${version}, HTTP ${status} ${body.trim().slice(0, 300)}`.trim();
  if (status === 401) {
    return [is.wrong(said, `correct ${hasToken ? "token" : "user and password"} in influx-url`)];
  }
  if (status === 403) {
    const todo = hasToken
      ? `give the token the right to write to ${database}`
      : `GRANT WRITE ON ${quoted(database)} TO ${quoted(user)}`;
    return [is.wrong(said, todo)];
  }
  if (status !== 404) return [is.wrong(said)];
  if (hasToken) {
    const todo = `create the bucket ${database} and map the database to it (influx v1 dbrp create)`;
    return [is.wrong(`${version}, database ${database} is not there`, todo)];
  }
  // A user that may list the users may create a database, and no other.
  const listed = await ask("/query", { q: "SHOW USERS" });
  if (!listed.ok) return [unanswered(listed.problem)];
  return listed.value.status === 200
    ? [is.ok(`${version}, database ${database} is not there; will be created`)]
    : [is.wrong(
      `${version}, database ${database} is not there, and this user may not create it`,
      `CREATE DATABASE ${quoted(database)}; GRANT WRITE ON ${quoted(database)} TO ${quoted(user)}`,
    )];
}
