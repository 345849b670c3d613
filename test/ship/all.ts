/** All tests of what is shipped, in one process: they share the Debian that is made, and the releases. */

import "./compose.ts";
import "./deb.ts";
import "./apt.ts";
import "./npm.ts";
import "./homebrew.ts";
import "./chart.ts";
import "./systemd.ts";
import "./bare_host.ts";
import "./image.ts";
