/**
 * What settings must be to each other. Each check names every setting that takes part, and is skipped
 * when one of them is unusable by itself.
 */

import { nodeCrypto } from "../kernel/builtins.ts";
import {
  formatBytes,
  formatDuration,
  type ListenAddress,
  type ListenPath,
  writeAddress,
} from "./kinds.ts";
import type { Read } from "./load.ts";
import { envName, type ValuesOf } from "./spec.ts";
import { type SettingName, TABLE } from "./table.ts";

type Values = ValuesOf<typeof TABLE>;

/** Shorter tokens and secrets can be tried out. */
const SHORT_TOKEN_LENGTH = 16;

/** The problems between settings that are sound one by one. */
export function crossProblems(values: Values, read: Read): string[] {
  const problems: string[] = [];
  const given = (name: SettingName) => read.labels.has(name) || read.bad.has(name);
  const label = (name: SettingName) => read.labels.get(name) ?? name;

  for (const [one, other] of [["tls-cert", "tls-key"], ["tls-key", "tls-cert"]] as const) {
    if (given(one) && !given(other)) {
      problems.push(`${label(one)}: expected ${other} too, got ${one} alone`);
    }
  }

  const auth = values["tls-client-auth"];
  if (auth !== "off") {
    for (const needed of ["tls-cert", "tls-client-ca"] as const) {
      if (given(needed)) continue;
      problems.push(`${label("tls-client-auth")}: expected ${needed} too, got ${auth} alone`);
    }
  }
  const taken = values.listen.map(writeAddress).filter((address) => !address.endsWith(":0"));
  const twice = (values["admin-listen"] ?? []).map(writeAddress)
    .find((address) => taken.includes(address));
  if (twice !== undefined) {
    problems.push(
      `${label("admin-listen")}: expected another address than those of listen, got ${twice}`,
    );
  }
  if (values["share-port"] && !given("id")) {
    problems.push(
      `${label("share-port")}: expected an id too: each collector on a port needs one of its own`,
    );
  }
  const rows = values["max-block-size"];
  if (read.labels.has("max-block-size") && !read.bad.has("backlog") && rows > values.backlog) {
    const wanted = `at most backlog (${values.backlog})`;
    problems.push(`${label("max-block-size")}: expected ${wanted}, got ${rows}`);
  }
  const bytes = values["max-block-bytes"];
  const budget = values["backlog-bytes"];
  if (read.labels.has("max-block-bytes") && !read.bad.has("backlog-bytes") && bytes > budget) {
    const wanted = `at most backlog-bytes (${formatBytes(budget)})`;
    problems.push(`${label("max-block-bytes")}: expected ${wanted}, got ${formatBytes(bytes)}`);
  }

  const user: SettingName = given("nats-user") ? "nats-user" : "nats-password";
  const ways = (["nats-creds", "nats-nkey", user, "nats-token"] as const).filter(given);
  if (ways.length > 1) {
    const named = ways.map(label).join(", ");
    problems.push(`${named}: expected one way to authenticate, got ${ways.length}`);
  }
  if (given("nats-password") && !given("nats-user")) {
    problems.push(`${label("nats-password")}: expected nats-user too, got nats-password alone`);
  }
  return problems;
}

/** What works, but hardly as it was meant. */
export function warningsAbout(values: Values, read: Read): string[] {
  const warnings = secretsInTheOpen(values, read);
  const tokens = values["auth-tokens"] ?? [];
  const writers = values["write-tokens"] ?? [];
  for (const listen of values.listen) {
    if (isLoopback(listen) || tokens.length + writers.length > 0) continue;
    warnings.push(
      `listen: ${writeAddress(listen)} can be reached by others and auth-tokens is not set: ` +
        "every client that reaches it can write",
    );
  }
  tokens.forEach((token, i) => {
    if (token.length >= SHORT_TOKEN_LENGTH) return;
    warnings.push(
      `auth-tokens: token ${i + 1} of ${tokens.length} is shorter than ` +
        `${SHORT_TOKEN_LENGTH} characters and may be guessed`,
    );
  });
  if (values["tls-client-auth"] === "off" && values["tls-client-ca"] !== null) {
    const label = read.labels.get("tls-client-ca");
    warnings.push(`${label}: has no effect while tls-client-auth is off`);
  }
  for (const listen of values["admin-listen"] ?? []) {
    if (isLoopback(listen) || tokens.length > 0) continue;
    warnings.push(
      `admin-listen: ${writeAddress(listen)} can be reached by others and auth-tokens is not ` +
        "set: every client that reaches it can read, and delete dead letters",
    );
  }
  for (const { label, chars } of writers) {
    if (chars >= SHORT_TOKEN_LENGTH) continue;
    warnings.push(
      `write-tokens: ${label} is shorter than ${SHORT_TOKEN_LENGTH} characters and may be guessed`,
    );
  }
  if (writers.length > 0 && tokens.length === 0 && values["admin-listen"] === null) {
    warnings.push(
      "write-tokens: auth-tokens is not set: the page, metrics, status and queries are refused",
    );
  }
  if ((values["control-secret"]?.length ?? Infinity) < SHORT_TOKEN_LENGTH) {
    warnings.push(
      `${read.labels.get("control-secret")}: is shorter than ${SHORT_TOKEN_LENGTH} characters ` +
        "and may be guessed",
    );
  }
  const idleMs = values["idle-interval"];
  if (idleMs !== null && idleMs >= values["flush-interval"]) {
    warnings.push(
      `idle-interval: ${formatDuration(idleMs)} has no effect, because flush-interval ` +
        `(${formatDuration(values["flush-interval"])}) always comes first`,
    );
  }
  const secret = read.labels.get("control-secret");
  if (secret && values["nats-url"] === null && values.exits === null) {
    warnings.push(`${secret}: has no effect without nats-url or exits`);
  }
  if (values["nats-url"] === null) {
    const names = ["nats-creds", "nats-nkey", "nats-user", "nats-password", "nats-token"];
    for (const label of names.map((name) => read.labels.get(name))) {
      if (label) warnings.push(`${label}: has no effect without nats-url`);
    }
  }
  return warnings;
}

/** Secrets on the command line, which every user of the host can read. */
function secretsInTheOpen(values: Values, read: Read): string[] {
  return TABLE.filter((spec) =>
    "secret" in spec && read.onCommandLine.has(spec.name) && holdsSecret(spec.name, values)
  ).map(({ name }) => {
    const ofUrls = name === "sources" || name === "exits" ? ", or password-file= in the URL" : "";
    return `${
      read.labels.get(name)
    }: every user of this host can read a secret on a command line ` +
      `(ps): instead ${name}-file, ${envName(name)} or a settings file${ofUrls}`;
  });
}

/** Whether there is a secret in the value of a setting that may have one: a URL may have none. */
function holdsSecret(name: SettingName, values: Values): boolean {
  switch (name) {
    case "clickhouse-url":
      return values[name].some(({ password }) => password !== "");
    case "influx-url":
      return (values[name]?.password ?? "") !== "";
    case "sources":
    case "exits":
      return (values[name] ?? []).some(({ password }) => password !== null && "text" in password);
    default:
      return true;
  }
}

/** Whether only this host can reach the address. */
export function isLoopback(address: ListenAddress | ListenPath): boolean {
  if ("path" in address) return true;
  const host = address.hostname.toLowerCase();
  return host === "localhost" || /^127(?:\.\d{1,3}){3}$/.test(host) || host === "::1" ||
    /^(?:0{1,4}:){7}0{0,3}1$/.test(host);
}

/** `cert` and `key` are the PEM texts of the files. */
export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  readonly cert: string;
  readonly key: string;
  /** Null: clients are asked for no certificate. */
  readonly clients: {
    readonly caFile: string;
    readonly ca: string;
    readonly required: boolean;
  } | null;
}

const BLOCK = /-----BEGIN CERTIFICATE-----(?:(?!-----BEGIN)[\s\S])*/g;

/**
 * Are a certificate and a key a pair that can be served? Asked before the start, so that a wrong file
 * is a setting to correct, in the same words on every runtime, and not a code of OpenSSL's.
 * @returns null when they are, else a line that names the setting and the file.
 */
export function tlsProblem({ tls }: { readonly tls: TlsFiles | null }): string | null {
  if (tls === null) return null;
  const { certFile, keyFile, cert, key, clients } = tls;
  const [certificate = null] = certificatesIn(cert) ?? [];
  if (certificate === null) {
    return `tls-cert: expected a PEM file with a certificate, got ${show(certFile)}, damaged`;
  }
  const privateKey = attempt(() => nodeCrypto().createPrivateKey(key));
  if (privateKey === null) {
    return `tls-key: expected an unencrypted private key, got ${
      show(keyFile)
    }, damaged or encrypted`;
  }
  if (!certificate.checkPrivateKey(privateKey)) {
    return `tls-key: expected the key of ${show(certFile)}, got ${show(keyFile)}, another one's`;
  }
  return clients === null ? null : clientsProblem(clients);
}

function clientsProblem({ caFile, ca }: NonNullable<TlsFiles["clients"]>): string | null {
  const wanted = "tls-client-ca: expected a PEM file with certificates of authorities, got";
  const authorities = certificatesIn(ca);
  if (authorities === null) return `${wanted} ${show(caFile)}, damaged`;
  // One that may sign nothing would let no client in, and say so to clients alone.
  return authorities.every((certificate) => certificate.ca)
    ? null
    : `${wanted} ${show(caFile)}, with one that is no authority's`;
}

/** All of them, since the end may be missing of a file that is being written; null: damaged, or none. */
function certificatesIn(pem: string) {
  const all = attempt(() =>
    (pem.match(BLOCK) ?? []).map((block) => new (nodeCrypto().X509Certificate)(block))
  );
  return all === null || all.length === 0 ? null : all;
}

const show = (path: string) => JSON.stringify(path);

function attempt<T>(work: () => T): T | null {
  try {
    return work();
  } catch {
    return null;
  }
}
