/**
 * The suite of all sources, on an outbox in PostgreSQL.
 *
 * Runs once: what differs between the runtimes (sockets, TLS, SQLite) is in outbox_test.ts.
 */
import { outboxHarness, postgresDatabase } from "./outbox_kit.ts";
import { testSource } from "./suite.ts";

testSource(
  "an outbox in PostgreSQL",
  outboxHarness("postgres", postgresDatabase, { notify: true }),
);
