/** Finds out whether a disk that refused rows takes them again, without risking anybody's rows. */

import { join } from "node:path";
import { reasonWithoutPath } from "../kernel/errors.ts";
import { openSpool, type Place } from "./layout.ts";

/** As large as a block of most requests, or a disk that is all but full would seem well. */
const PROBE_BYTES = 64 * 1024;

/** @returns null, or why the disk does not take rows. Never rejects. */
export async function probeDisk(place: Place): Promise<string | null> {
  const path = join(place.dataDir, "probe");
  try {
    // The folder may have been removed under us, its version with it.
    const { problem } = await openSpool(place);
    if (problem !== null) return problem;
    const file = await place.files.append(path);
    try {
      await file.truncate(0);
      await file.write(new Uint8Array(PROBE_BYTES));
      await file.sync();
    } finally {
      await file.close();
      await place.files.remove(path);
    }
    return null;
  } catch (error) {
    return reasonWithoutPath(error);
  }
}
