/**
 * What is taken of @platformatic/kafka; on its own because the bundler leaves out what no import names, and a
 * dynamic import of the library itself would name all of it.
 */

export {
  compressionsAlgorithms,
  ConnectionPool,
  Consumer,
  instancesChannel,
  Producer,
} from "@platformatic/kafka";

/** The file that has the library's code when it is bundled. */
export const ITS_URL = import.meta.url;
