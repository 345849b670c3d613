/** The two words that matter, from whatever a runtime throws; and nothing else is touched. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createFetch } from "../../src/runtime/fetch.ts";
import { plainNetworkError } from "../../src/kernel/errors.ts";
import { freePort } from "../kit/free_port.ts";

const WORDINGS: [string, Error, string][] = [
  [
    "refused, with advice",
    Object.assign(new Error("Unable to connect. Is the computer able to access the url?"), {
      code: "ECONNREFUSED",
    }),
    "connection refused",
  ],
  [
    "refused, with the URL, as a cause",
    new TypeError("fetch failed", {
      cause: new Error(
        "error sending request for url (http://h:1/?q=secret): client error (Connect): " +
          "tcp connect error: Connection refused (os error 111)",
      ),
    }),
    "connection refused",
  ],
  ["no host", new Error("getaddrinfo ENOTFOUND h"), "host not found"],
  ["no host, other words", new Error("dns error: failed to lookup address"), "host not found"],
  [
    "closed",
    new Error("The socket connection was closed unexpectedly."),
    "connection broken off",
  ],
  ["something else", new Error("certificate has expired"), "certificate has expired"],
];

describe("a failed fetch in plain words", () => {
  for (const [name, error, words] of WORDINGS) {
    test(name, () => {
      const plain = plainNetworkError(error);
      assert.ok(plain instanceof Error);
      assert.equal(plain.message, words);
      assert.equal(plain.cause, error.message === words ? error.cause : undefined);
    });
  }

  test("an abort stays one, and what is no error passes", () => {
    const abort = new DOMException("connection reset", "AbortError");
    assert.equal(plainNetworkError(abort), abort);
    assert.equal(plainNetworkError("text"), "text");
  });

  for (const pooled of [true, false]) {
    test(`of this runtime, ${pooled ? "pooled" : "not pooled"}`, async () => {
      const url = `http://127.0.0.1:${await freePort()}/`;
      await assert.rejects(createFetch({ pooled })(url, {}), { message: "connection refused" });
    });
  }
});
