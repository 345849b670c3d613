/** Introduces a running collector to the service manager that started it, if one did. */

import type { Collector } from "../collector.ts";
import type { Log } from "../contracts.ts";
import { systemClock } from "../runtime/clock.ts";
import { serviceManager } from "../runtime/notify.ts";
import { createNotices, type Notices } from "../systemd/notices.ts";
import type { Settings } from "../settings/settings.ts";

/** Beyond shutdown-timeout: to spill what is left, and to send the last answers. */
const STOP_MORE_MS = 20_000;

/** To be called when it listens. @returns null where nobody is to be informed. */
export async function inform(
  collector: Collector,
  settings: () => Settings,
  log: Log,
): Promise<Notices | null> {
  const manager = await serviceManager();
  if (manager === null) return null;
  if ("problem" in manager) {
    log.warn(manager.problem);
    return null;
  }
  const notices = createNotices({
    manager,
    status: () => collector.control.status(),
    clock: systemClock,
    stopMs: () => settings().shutdownTimeoutMs + STOP_MORE_MS,
  });
  collector.watch(notices.changed);
  notices.ready();
  // It may have been told to stop while it started.
  notices.changed();
  return notices;
}
