/**
 * What is taken of pg; on its own because the bundler leaves out what no import names, and makes a call of
 * nothing of a dynamic import of this library itself, which is CommonJS.
 */

export { default as PgClient } from "pg/lib/client.js";
