/**
 * Whether somebody reads a stream on a terminal. The runtime's own `isTTY` loads its streams, which takes
 * 10 ms of a start: it is only asked where there may be one.
 */

import { fstatSync, statSync } from "node:fs";
import process from "node:process";

/** Of stderr. */
export function onTerminal(): boolean {
  return mayBeTerminal() && process.stderr.isTTY === true;
}

/** Services, containers and pipelines have a pipe, a socket, a file or `/dev/null`. */
function mayBeTerminal(): boolean {
  try {
    const stat = fstatSync(2);
    return stat.isCharacterDevice() && stat.rdev !== statSync("/dev/null").rdev;
  } catch {
    return true;
  }
}
