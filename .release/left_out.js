/**
 * Stands in the binary for libraries that its own libraries name and that it never uses: encodings of text
 * besides those of the runtime (mysql2; the connection speaks UTF-8), Amazon's certificates (mysql2; `ca` names
 * a file), Avro and an old draft of JSON Schema (Kafka's registries). With their bytecode they would be 3 MB.
 */

function leftOut() {
  throw new Error("left out of this build");
}

export const getDecoder = leftOut;
export const getEncoder = leftOut;
export const ca = [];
export default leftOut;
