/**
 * What is taken of mysql2; on its own because the bundler leaves out what no import names, and a dynamic
 * import of the library itself would name all of it.
 */

export { createConnection } from "mysql2";
