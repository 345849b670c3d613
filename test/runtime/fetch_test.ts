/** Which certificates are trusted: the usual ones, and those that are given. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createFetch } from "../../src/runtime/fetch.ts";
import { serve } from "../../src/runtime/server.ts";
import {
  CERTIFICATE,
  RENEWED_CERTIFICATE,
  RENEWED_KEY,
  SIGNED_CERTIFICATE,
  SIGNED_KEY,
} from "../kit/certificate.ts";

describe("fetch over TLS", () => {
  for (const pooled of [true, false]) {
    test(`trusts what a certificate has signed that it is given, and nothing else (${pooled ? "" : "not "}pooled)`, async () => {
      const server = (cert: string, key: string) =>
        serve({
          hostname: "127.0.0.1",
          port: 0,
          tls: { cert, key },
          handler: async (request) => new Response(`got ${await request.text()}`),
          onError: () => {},
        });
      const known = server(SIGNED_CERTIFICATE, SIGNED_KEY);
      const other = server(RENEWED_CERTIFICATE, RENEWED_KEY);
      const certificates = [CERTIFICATE];
      const post = async (
        trusting: { readonly certificates?: readonly string[] },
        port: number,
      ) => {
        const fetch = createFetch({ pooled, ...trusting });
        const answer = await fetch(`https://127.0.0.1:${port}/`, { method: "POST", body: "it" });
        return await answer.text();
      };
      try {
        assert.equal(await post({ certificates }, known.port), "got it");
        assert.equal(await post({ certificates }, known.port), "got it");
        await assert.rejects(post({}, known.port));
        await assert.rejects(post({ certificates: [] }, known.port));
        await assert.rejects(post({ certificates }, other.port));
      } finally {
        await Promise.all([known.kill(), other.kill()]);
      }
    });
  }
});
