/** The one ClickHouse of a test file: there before its first test, gone after its last. */
import { after, before } from "node:test";
import { type ClickHouse, startClickHouse } from "./servers.ts";

/** To be called where the file begins; `url` can be read, and `query` called, in its tests. */
export function oneClickHouse(): Pick<ClickHouse, "url" | "query"> {
  let server: ClickHouse | null = null;
  before(async () => {
    server = await startClickHouse();
  });
  after(() => server?.close());
  const running = () => {
    if (server === null) throw new Error("it is there in tests only");
    return server;
  };
  return {
    get url() {
      return running().url;
    },
    query: (sql) => running().query(sql),
  };
}
