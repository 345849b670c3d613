/** Pieces that the descriptions of the routes have in common. Plain values of OpenAPI 3.1. */

/** A piece of the document. */
export type Piece = Readonly<Record<string, unknown>>;

export const ref = (schema: string): Piece => ({ $ref: `#/components/schemas/${schema}` });

/** JSON of a schema, with examples by name. */
export function json(schema: Piece, examples: Readonly<Record<string, unknown>>): Piece {
  return { "application/json": { schema, examples: values(examples) } };
}

export function values(examples: Readonly<Record<string, unknown>>): Piece {
  return Object.fromEntries(Object.entries(examples).map(([name, value]) => [name, { value }]));
}

/** An answer in JSON. */
export function answer(
  description: string,
  schema: Piece,
  examples: Readonly<Record<string, unknown>>,
  headers: Piece = {},
): Piece {
  return { description, headers, content: json(schema, examples) };
}

/** An answer `{"error":"…"}`. */
export function refusal(description: string, error: string, headers: Piece = {}): Piece {
  return answer(description, ref("Error"), { refused: { error } }, headers);
}

const header = (name: string, description: string, schema: Piece): Piece => ({
  [name]: { description, schema },
});

export const RETRY_AFTER = header("Retry-After", "Seconds until it is worth another try.", {
  type: "integer",
  minimum: 1,
});
export const PREFERENCE_APPLIED = header(
  "Preference-Applied",
  "The preferences that were honoured (RFC 7240).",
  { type: "string" },
);
export const ETAG = header("ETag", "Changes with the document.", { type: "string" });

export const UNAUTHORIZED = refusal(
  "`auth-tokens` is set, and the request has none of them.",
  "a bearer token is needed: Authorization: Bearer TOKEN",
  header("WWW-Authenticate", "`Bearer`", { type: "string" }),
);

/** Of everything but health: who is not let in, whatever is asked. */
export const KEPT_OUT: Piece = {
  "403": refusal(
    "A browser asks for a page of another site.",
    "Origin: expected the collector's own, got https://elsewhere.example",
  ),
  "429": refusal(
    "The client is beyond `rate-limit`.",
    "rate-limit: more than 100 requests in 1 s; nothing was taken",
    RETRY_AFTER,
  ),
};

/** @param allowed as `Allow` says it. */
export const wrongMethod = (path: string, allowed: string, found: string): Piece =>
  refusal(
    "Another method on this path.",
    `${path} takes ${allowed}, not ${found}`,
    header("Allow", `\`${allowed}\``, { type: "string" }),
  );

export const readMethods = (path: string): Piece => wrongMethod(path, "GET, HEAD", "DELETE");

/** Of reading a body. */
export const BODY_REFUSALS: Piece = {
  "408": refusal("The body did not come within 30 s.", "the body did not arrive in time"),
  "413": refusal(
    "The body is too large, as it was sent or unpacked.",
    "the body is larger than 10485760 bytes",
  ),
  "415": refusal(
    "Unknown `Content-Encoding`.",
    "Content-Encoding: expected one of gzip, deflate, br, zstd, got lzma",
    header("Accept-Encoding", "The known ones.", { type: "string" }),
  ),
};

export const CLOSED = refusal(
  "Stopping or paused: nothing was taken.",
  "the collector is paused; nothing was taken",
  RETRY_AFTER,
);

export const CONTENT_ENCODING: Piece = {
  name: "Content-Encoding",
  in: "header",
  description: "How the body is packed.",
  schema: { type: "string", enum: ["gzip", "deflate", "br", "zstd", "identity"] },
};
