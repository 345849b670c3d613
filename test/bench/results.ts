/** What the runs told. */
import type { Sample } from "./closed_loop.ts";
import type { OpenSample } from "./open_loop.ts";
import type { Ack, SinkName } from "./options.ts";
import type { Reference, Scenario } from "./scenarios.ts";
import type { SharedSample } from "./share_port.ts";
import type { SourceLoad, SourceSample } from "./sources.ts";
import type { StartSample } from "./start_up.ts";
import type { VisibleSample } from "./visible.ts";

/** Who was measured in a closed loop. */
export type Who =
  | { readonly reference: Reference }
  | { readonly ack: Ack; readonly sink: SinkName; readonly build?: "other" };

/** Who shares a port: collectors with an `ack`, or servers that only parse what they read. */
export type SharedBy = Ack | "parse";

export interface Results {
  start: StartSample | null;
  readonly closed: {
    readonly scenario: Scenario;
    readonly who: Who;
    readonly round: number;
    readonly sample: Sample;
  }[];
  readonly open: { readonly ack: Ack; readonly sink: SinkName; readonly sample: OpenSample }[];
  /** Sentences about runs that ended before their figures. */
  readonly failed: string[];
  readonly shared: {
    readonly by: SharedBy;
    readonly collectors: number;
    readonly sample: SharedSample;
  }[];
  readonly sources: {
    readonly broker: string;
    readonly load: SourceLoad;
    readonly sample: SourceSample;
  }[];
  readonly visible: { readonly ack: Ack; readonly sample: VisibleSample }[];
}

export function nameOf(who: Who): string {
  if ("reference" in who) return who.reference;
  return `ack=${who.ack} → ${who.sink}${who.build === "other" ? ", other build" : ""}`;
}
