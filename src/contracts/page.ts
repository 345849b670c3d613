/** The status page: its answers, and where its figures come from. */

/** What a viewer of the page is told; every text is JSON. */
export interface PageMoment {
  /** The last sample with state, books, tables and event types. */
  readonly now: string;
  /** The last problems; told again only when they have changed. */
  readonly problems: string;
}

/** Where the page's figures come from: the process that has the ledger. */
export interface PageSource {
  /** For a new viewer: who this is, and the hour that has passed. */
  first(): Promise<PageMoment & { readonly about: string; readonly past: string }>;
  /** Resolves with the next sample, within about a second; costs nothing while nobody asks. */
  next(): Promise<PageMoment>;
}

/** The page's answers. */
export interface Page {
  /** `GET /`: needs no token, for it shows nothing before it has one. */
  document(request: Request): Promise<Response>;
  /** `GET /api/live`: server-sent events until either side ends them. */
  live(): Promise<Response>;
}
