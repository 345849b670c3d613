/** The version, from its one place: package.json. */

import manifest from "../package.json" with { type: "json" };

export const VERSION: string = manifest.version;
