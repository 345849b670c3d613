/** The disk and the certificate as metrics tell them: of the real system, of one that hangs, of a renewed one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createSurroundings, type DiskRoom } from "../../src/meter/prometheus.ts";
import { CERTIFICATE, RENEWED_CERTIFICATE } from "../kit/certificate.ts";
import { ManualClock } from "../kit/manual_clock.ts";
import { removeDir, tempDir } from "../kit/temp.ts";

const plain = { certificate: () => null, clock: new ManualClock() };

test("the room of a folder's disk; none of a folder that is not there", async () => {
  const dataDir = tempDir("room");
  try {
    const seen = createSurroundings({ ...plain, dataDir });
    assert.equal(seen.room(), null, "before anybody has looked");
    await seen.look();
    const { freeBytes, sizeBytes } = seen.room()!;
    assert.ok(freeBytes > 0 && freeBytes <= sizeBytes && sizeBytes > 2 ** 20);
    const gone = createSurroundings({ ...plain, dataDir: `${dataDir}/gone` });
    await gone.look();
    assert.equal(gone.room(), null);
  } finally {
    removeDir(dataDir);
  }
});

test("a disk that hangs is asked once, waited for a second, and keeps what was seen last", async () => {
  const clock = new ManualClock();
  const answers: PromiseWithResolvers<DiskRoom>[] = [];
  const seen = createSurroundings({
    ...plain,
    clock,
    dataDir: "/",
    measure() {
      answers.push(Promise.withResolvers());
      return answers.at(-1)!.promise;
    },
  });
  const first = seen.look();
  answers[0]!.resolve({ freeBytes: 1, sizeBytes: 2 });
  await first;
  for (let scrape = 0; scrape < 3; scrape++) {
    let over = false;
    const looking = seen.look().then(() => over = true);
    await clock.advance(999);
    assert.ok(!over);
    await clock.advance(1);
    await looking;
    assert.deepEqual(seen.room(), { freeBytes: 1, sizeBytes: 2 });
  }
  assert.equal(answers.length, 2);
  answers[1]!.reject(new Error("EIO"));
  await seen.look();
  assert.equal(seen.room(), null);
});

test("the end of the certificate that is served, also after a renewal; none without one", () => {
  let pem: string | null = CERTIFICATE;
  const seen = createSurroundings({ ...plain, dataDir: "/", certificate: () => pem });
  assert.equal(seen.certificateEndS(), Date.UTC(2120, 0, 1) / 1000);
  pem = RENEWED_CERTIFICATE;
  assert.equal(new Date(seen.certificateEndS()! * 1000).toISOString(), "2126-10-29T05:30:11.000Z");
  for (pem of [null, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]) {
    assert.equal(seen.certificateEndS(), null);
  }
});
