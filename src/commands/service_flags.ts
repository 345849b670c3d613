/** The flags of `shishi service print`, beside the settings. */

import { matching } from "../settings/kinds.ts";
import { section, setting } from "../settings/spec.ts";

export const EXTRA = section("Flags", [
  setting({
    name: "user",
    kind: matching("NAME", "the name of a user", /^[a-z_][a-z0-9_-]{0,31}$/),
    default: null,
    meaning: "the user that the service runs as; unless given, one that systemd makes up",
  }),
  setting({
    name: "program",
    kind: matching("PATH", "a whole path", /^\/\P{Cc}+$/u),
    default: null,
    meaning: "where the program will lie; where it lies at the moment unless given",
  }),
]);
