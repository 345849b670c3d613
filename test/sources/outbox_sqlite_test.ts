/**
 * The suite of all sources, on an outbox in SQLite.
 *
 * Runs once: what differs between the runtimes (sockets, TLS, SQLite) is in outbox_test.ts.
 */
import { outboxHarness, sqliteDatabase } from "./outbox_kit.ts";
import { testSource } from "./suite.ts";

testSource("an outbox in SQLite", outboxHarness("sqlite", () => Promise.resolve(sqliteDatabase())));
