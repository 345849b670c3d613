/**
 * The suite of all sources, on a broker in memory: of both kinds, with positions and with ids.
 * Runs once: broker and time are the test's own; each source's test has its connection on both runtimes.
 */

import { fakeAddress, FakeBroker } from "./fake_broker.ts";
import { testSource } from "./suite.ts";

for (const kind of ["log", "queue"] as const) {
  testSource(`the fake, a ${kind}`, () => {
    const places: FakeBroker[] = [];
    return Promise.resolve({
      place: () => {
        const server = new FakeBroker({ kind });
        places.push(server);
        return Promise.resolve({
          open: (_member, prefetch = 1000) => ({
            address: fakeAddress({ prefetch }),
            broker: server.broker(prefetch),
          }),
          publish: (bodies) => Promise.resolve(server.publish(bodies)),
          unacknowledged: () => Promise.resolve(server.unacknowledged),
        });
      },
      server: {
        kill: () => {
          for (const server of places) {
            server.away = "connection refused";
            server.cut();
          }
          return Promise.resolve();
        },
        start: () => {
          for (const server of places) server.away = null;
          return Promise.resolve();
        },
        freeze: () => {
          for (const server of places) {
            server.frozen = true;
            server.cut("no sign of life for 10 s");
            server.away = "no answer";
          }
        },
        thaw: () => {
          for (const server of places) {
            server.away = null;
            server.thaw();
          }
        },
        cut: () => places.forEach((server) => server.cut()),
      },
      traits: { once: true, shared: true, durable: true, againMs: 1000 },
      close: () => Promise.resolve(),
    });
  });
}
