/**
 * The bill of materials: what `npm sbom` says of the packages that are not for development alone,
 * without what differs from run to run, and with Bun, which the binary is for the most part.
 */

import { createHash } from "node:crypto";
import type { Stamp } from "./stamp.ts";

interface Component {
  readonly "bom-ref": string;
  readonly name: string;
  readonly [key: string]: unknown;
}

/** CycloneDX, as far as it is touched here. */
export interface Bill {
  serialNumber: string;
  metadata: {
    timestamp: string;
    tools: { vendor: string; name: string; version?: string }[];
    component: Component;
    [key: string]: unknown;
  };
  components: Component[];
  dependencies: { ref: string; dependsOn: string[] }[];
  [key: string]: unknown;
}

/** @param bun its version. */
export function finishedBill(bill: Bill, stamp: Stamp, bun: string): Bill {
  const root = bill.metadata.component["bom-ref"];
  const runtime = {
    "bom-ref": `bun@${bun}`,
    type: "framework",
    name: "bun",
    version: bun,
    scope: "required",
    purl: `pkg:npm/bun@${bun}`,
    externalReferences: [{ type: "website", url: "https://bun.com" }],
    licenses: [{ license: { id: "MIT" } }],
  };
  return {
    ...bill,
    serialNumber: `urn:uuid:${uuidOf(`${stamp.version} ${stamp.commit}`)}`,
    metadata: {
      ...bill.metadata,
      timestamp: new Date(stamp.epochS * 1000).toISOString(),
      tools: bill.metadata.tools.map(({ vendor, name }) => ({ vendor, name })),
      // npm takes the name of the folder for one that is private.
      component: { ...bill.metadata.component, type: "application", name: "shishi" },
    },
    components: [...bill.components, runtime],
    dependencies: [
      ...bill.dependencies.map(({ ref, dependsOn }) => ({
        ref,
        dependsOn: ref === root ? [...dependsOn, runtime["bom-ref"]] : dependsOn,
      })),
      { ref: runtime["bom-ref"], dependsOn: [] },
    ],
  };
}

/** A UUID of version 8 (RFC 9562): the same for the same text. */
function uuidOf(text: string): string {
  const bytes = createHash("sha256").update(text).digest().subarray(0, 16);
  bytes[6] = bytes[6]! & 0x0f | 0x80;
  bytes[8] = bytes[8]! & 0x3f | 0x80;
  return bytes.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
