/** The collector that another one follows, as the one that follows sees it (`commands/upgrade.ts`). */

import type { Control } from "./contracts.ts";

/** A collector that is at work, and that this one is to follow on its port and in its folder. */
export interface Predecessor {
  /**
   * Has `control` paused if that one is, and from then on paused, resumed and stopped whenever that one is:
   * whoever asks it for that means both. To be called before anything is answered.
   */
  heed(control: Control): void;
  /** Tells it that this one listens; resolves when it takes no more connections. */
  listening(): Promise<void>;
  /** Its process has ended. */
  readonly gone: Promise<void>;
}
