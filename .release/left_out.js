/**
 * Stands in the binary for libraries that its own libraries name and that it never uses: Amazon's certificates
 * (mysql2; `ca` names a file), Avro and an old draft of JSON Schema (Kafka's registries).
 */

export const ca = [];
export default function leftOut() {
  throw new Error("left out of this build");
}
