/** The settings of remote control; `table.ts` has the others. */

import { nkeySeed, subject, text } from "./kinds.ts";
import { section, setting } from "./spec.ts";
import { websockets } from "./urls.ts";

const file = text("FILE", "the path of a file");

export const NATS = section("NATS", [
  setting({
    name: "nats-url",
    kind: websockets(),
    default: null,
    meaning: "websocket address of NATS, ws:// or wss://; unset = no remote control",
  }),
  setting({
    name: "nats-subject",
    kind: subject,
    default: "shishi",
    meaning: "prefix of the control subjects",
  }),
  setting({
    name: "nats-creds",
    kind: file,
    default: null,
    meaning: "authenticate with a .creds file",
  }),
  setting({
    name: "nats-nkey",
    kind: nkeySeed,
    default: null,
    meaning: "authenticate with an NKey seed (SU...)",
    secret: true,
  }),
  setting({
    name: "nats-user",
    kind: text("NAME", "a user name"),
    default: null,
    meaning: "authenticate as this user",
  }),
  setting({
    name: "nats-password",
    kind: text("PASSWORD", "a password"),
    default: null,
    meaning: "password of nats-user",
    secret: true,
  }),
  setting({
    name: "nats-token",
    kind: text("TOKEN", "a token"),
    default: null,
    meaning: "authenticate with a token",
    secret: true,
  }),
  setting({
    name: "control-secret",
    kind: text("SECRET", "a secret"),
    default: null,
    meaning: "once set, commands over NATS are signed with it, and obeyed only when they are",
    secret: true,
  }),
]);
