/**
 * `GET /events?eventType=…`: an event from where nothing but an address can be given, such as a mail or
 * an `<img>`. Its parameters are the fields of an event; every other one is a property of it. This stands on
 * its own because no other write has its rows anywhere but in a body.
 */

import { hint } from "../kernel/text.ts";
import { FIELDS } from "./event.ts";

/** Parameters that are about the request, and no properties. */
const ABOUT: ReadonlySet<string> = new Set(["key", "strict", "token"]);
const encoder = new TextEncoder();

/**
 * What a client would post: of a parameter that is repeated the last. A field without a value is none, as
 * templates leave it.
 */
export function eventOf(url: string): Uint8Array {
  const query = url.indexOf("?");
  const given = query < 0 ? "" : url.slice(query + 1);
  const event = new Map<string, string>();
  const properties = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(given)) {
    if (ABOUT.has(name)) continue;
    // `properties` is a name like any other here: its value can be no object.
    if (!FIELDS.includes(name) || name === "properties") {
      properties.set(name, JSON.stringify(value));
    } else if (value !== "" || name === "eventType") event.set(name, rawOf(name, value));
  }
  // Without a type it is no event: a name that was meant for it is told as what it is, an unknown key.
  if (!event.has("eventType")) {
    for (const [name, raw] of properties) {
      if (hint(name, ["eventType"], (field) => field) !== "") event.set(name, raw);
    }
  }
  event.set("properties", object(properties));
  return encoder.encode(object(event));
}

function rawOf(name: string, value: string): string {
  const number = name === "timestamp" && /^-?(?:0|[1-9]\d*)(?:\.\d+)?$/.test(value);
  return number ? value : JSON.stringify(value);
}

function object(members: ReadonlyMap<string, string>): string {
  return `{${[...members].map(([name, raw]) => `${JSON.stringify(name)}:${raw}`).join(",")}}`;
}
