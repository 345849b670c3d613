/**
 * The port of a collector when another one follows it there: others are let in beside it, get every new
 * connection, and then it closes. Whoever has a connection open gets answers until then, each the last
 * on its connection, so that nobody finds one closed that he was about to use.
 */

import type { Log } from "../contracts.ts";
import { systemClock } from "./clock.ts";
import { type Listening, stopListening } from "./serve.ts";
import { sharePort } from "./shared_port.ts";

export interface Door {
  readonly port: number;
  /** Others may listen there too from now on. @returns why not, a sentence, or null. */
  share(): Promise<string | null>;
  /** New connections are for the one that has come. Resolves when no other is left, or none that is used. */
  leave(): Promise<unknown>;
  /** All is as before `leave`. */
  stay(): unknown;
  /** It listens no more; requests under way get their answers. */
  close(): Promise<unknown>;
}

/** A handshake may be under way when the others get the port. */
const LINGER_MS = 500;
/** Connections that nobody uses are ended after this. */
const IDLE_MS = 10_000;
const LOOK_MS = 50;

export function createDoor(listening: Listening, log: Log): Door {
  const { port } = listening;
  const shared = () => sharePort(port);
  return {
    port,
    async share() {
      // One that is there from before a renewed certificate would get what is meant for the others.
      await listening.alone();
      return await shared() === null ? "this system cannot share a port" : null;
    },
    async leave() {
      const mine = await shared();
      if (!mine?.giveWay()) log.warn("new connections may be reset while this process ends");
      listening.lastAnswers(true);
      const fromMs = systemClock.monotonicMs();
      for (;;) {
        await new Promise<void>((resolve) => void systemClock.after(LOOK_MS, resolve));
        const passedMs = systemClock.monotonicMs() - fromMs;
        if (passedMs > IDLE_MS || passedMs > LINGER_MS && mine?.connections() === 0) return;
      }
    },
    stay: () => listening.lastAnswers(false),
    close: () => stopListening(listening),
  };
}
