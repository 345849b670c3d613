/** The suite of all sources, on an outbox in PostgreSQL. */
import { outboxHarness, postgresDatabase } from "./outbox_kit.ts";
import { testSource } from "./suite.ts";

testSource(
  "an outbox in PostgreSQL",
  outboxHarness("postgres", postgresDatabase, { notify: true }),
);
