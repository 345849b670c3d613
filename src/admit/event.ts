/**
 * Analytics events. A valid line is forwarded as the client wrote it, with a missing id or timestamp
 * spliced in front: the INSERT renames the fields and turns property values into strings with every
 * digit kept. Only an odd line (a repeated key, a lone surrogate, `1.5e12` as the time) is put
 * together anew.
 */

import { LONGEST_TYPE_BYTES, OTHER_TYPE } from "../contracts.ts";
import { checkMember, unknownField } from "./event_rules.ts";
import { idOf } from "./ids.ts";
import type { RowReader } from "./reader.ts";
import { members, shown } from "./scan.ts";
import type { Scanner } from "./scanner.ts";
import type { Types } from "./types.ts";

const encoder = new TextEncoder();

export class EventReader implements RowReader {
  readonly leastBytes = '{"eventType":"x"}'.length;
  readonly #scanner: Scanner;
  readonly #types: Types;
  #nowMs = NaN;

  constructor(scanner: Scanner, types: Types) {
    this.#scanner = scanner;
    this.#types = types;
  }

  begin(nowMs: number): void {
    this.#scanner.events();
    if (nowMs === this.#nowMs) return;
    this.#nowMs = nowMs;
    this.#scanner.putInFront(`"id":"${idOf(nowMs)}",`, `"timestamp":${nowMs},`);
  }

  closer(text: string): string | null {
    if (!text.startsWith("{")) return `expected a JSON object, got ${shown(text)}`;
    const found = members(text, unknownField);
    if (typeof found === "string") return found;
    const given = new Map<string, string>();
    for (const member of found) {
      const checked = checkMember(member);
      if (checked.kind === "bad") return checked.error;
      given.set(checked.field, checked.value);
    }
    const rawType = given.get("eventType");
    if (rawType === undefined) return "eventType: missing; expected a string";
    if (!given.has("id")) given.set("id", `"${this.#scanner.newId()}"`);
    if (!given.has("timestamp")) given.set("timestamp", String(this.#nowMs));
    this.#scanner.text(`{${[...given].map(([field, value]) => `"${field}":${value}`).join(",")}}`);
    const type: string = JSON.parse(rawType);
    this.#types.add(encoder.encode(type).length > LONGEST_TYPE_BYTES ? OTHER_TYPE : type, 1);
    return null;
  }
}
