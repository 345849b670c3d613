/**
 * What every answer gets before it is sent: it is counted, its headers say what browsers may do with it,
 * and it has an id that also stands in the log. An answer that says yes carries an id only where the client
 * sent one: to make one for each would cost every request, and there is nothing to look up.
 */

import type { Ledger, Log } from "../contracts.ts";
import { excerpt } from "../kernel/text.ts";
import type { AddressOf, ClientAddress } from "./client.ts";
import { type Gate, pathOf } from "./gate.ts";
import * as reply from "./reply.ts";

export interface FinishDeps {
  readonly ledger: Pick<Ledger, "http" | "certified">;
  readonly log: Log;
}

export interface Finish {
  /** @param subject of the client's certificate; null: it has shown none. */
  readonly done: (
    response: Response,
    request: Request,
    addressOf: AddressOf,
    subject?: string | null,
  ) => Response;
  /** The answer to a request whose work threw; `done` comes after it. */
  readonly failed: (
    error: unknown,
    request: Request,
    addressOf: AddressOf,
    subject?: string | null,
  ) => Response;
}

const ID = reply.REQUEST_ID;

export function createFinish(
  { ledger, log }: FinishDeps,
  { mark, labelOf }: Pick<Gate, "mark" | "labelOf">,
  clientAddress: ClientAddress,
): Finish {
  const about = (
    request: Request,
    { headers }: Response,
    addressOf: AddressOf,
    subject: string | null,
  ) => {
    const token = labelOf(request);
    return {
      request: headers.get(ID),
      method: excerpt(request.method),
      // Without its query: a token may stand there.
      path: excerpt(pathOf(request)),
      client: clientAddress(request, addressOf),
      ...(subject === null ? {} : { certificate: subject }),
      ...(token === null ? {} : { token }),
    };
  };
  return {
    done(response, request, addressOf, subject = null) {
      const { status } = response;
      ledger.http(status);
      if (subject !== null) ledger.certified(subject);
      if (status >= 400) {
        if (!response.headers.has(ID)) {
          response.headers.set(ID, idOf(request) ?? crypto.randomUUID());
        }
        if (status !== 500) {
          log.debug("a request was refused", {
            ...about(request, response, addressOf, subject),
            status,
          });
        }
      } else {
        const id = idOf(request);
        if (id !== null) response.headers.set(ID, id);
      }
      mark(response, request);
      return response;
    },
    failed(error, request, addressOf, subject = null) {
      const response = reply.internalError();
      response.headers.set(ID, idOf(request) ?? crypto.randomUUID());
      log.error("a request failed", {
        ...about(request, response, addressOf, subject),
        error: String(error),
      });
      return response;
    },
  };
}

/** Ids that requests have got here. */
const given = new WeakMap<Request, string>();

/** The client's own id, where it is one that a log line and a header can hold, or the one it has got here. */
function idOf(request: Request): string | null {
  const id = request.headers.get(ID);
  return id !== null && /^[\x21-\x7e]{1,128}$/.test(id) ? id : given.get(request) ?? null;
}

/** The id of a request that needs one; its answer will have it too. */
export function requestId(request: Request): string {
  let id = idOf(request);
  if (id === null) given.set(request, id = crypto.randomUUID());
  return id;
}
