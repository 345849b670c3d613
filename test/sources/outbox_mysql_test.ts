/**
 * The suite of all sources, on an outbox in MariaDB.
 *
 * Runs once: what differs between the runtimes (sockets, TLS, SQLite) is in outbox_test.ts.
 */
import { mariadbDatabase, outboxHarness } from "./outbox_kit.ts";
import { testSource } from "./suite.ts";

testSource("an outbox in MariaDB", outboxHarness("mysql", mariadbDatabase, { done: "done_at" }));
