/** Where reproduce.ts leaves the release that it has made twice, for the tests of what is shipped. */

import { join } from "node:path";
import { ROOT } from "../../.release/build.ts";

/** `release/`, and `stamp.json`: the stamp, and `atMs`, before which all files of it had been written. */
export const REPRODUCED = join(ROOT, "dist/reproduced");
