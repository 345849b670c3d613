/**
 * Well-behaved clients: each takes the next post from a common pile, and on 429 or 503 waits as long
 * as the collector asks and sends the same post again. Nothing of a refused post was taken, so no
 * row arrives twice.
 */

/** One request: `rows` rows, as NDJSON unless `type` says otherwise. */
export interface Post {
  readonly type?: string;
  readonly path: string;
  readonly rows: number;
  readonly body: string;
}

export interface Fed {
  readonly acceptedRows: number;
  readonly retries: number;
}

/** Cuts `rows` into posts of at most `size` rows. */
export function posts(path: string, rows: readonly unknown[], size: number): Post[] {
  const pieces = Array.from(
    { length: Math.ceil(rows.length / size) },
    (_, at) => rows.slice(at * size, (at + 1) * size),
  );
  return pieces.map((piece) => ({
    path,
    rows: piece.length,
    body: piece.map((row) => `${JSON.stringify(row)}\n`).join(""),
  }));
}

/** Sends all posts; throws a sentence when one is answered with anything but "all taken". */
export async function feed(
  url: string,
  pile: readonly Post[],
  { clients, onRows }: { clients: number; onRows: (acceptedRows: number) => void },
): Promise<Fed> {
  const left = [...pile];
  let acceptedRows = 0;
  let retries = 0;
  const client = async () => {
    for (let post = left.shift(); post !== undefined; post = left.shift()) {
      while (!await send(url, post)) retries++;
      acceptedRows += post.rows;
      onRows(acceptedRows);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { acceptedRows, retries };
}

/** True when taken; false, after the wait the collector asked for, when it is to be sent again. */
async function send(url: string, post: Post): Promise<boolean> {
  const response = await fetch(url + post.path, {
    method: "POST",
    headers: { "content-type": post.type ?? "application/x-ndjson" },
    body: post.body,
  });
  const text = await response.text();
  if (response.status === 429 || response.status === 503) {
    const seconds = Number(response.headers.get("retry-after") ?? 1);
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    return false;
  }
  const answer = text.startsWith("{") ? JSON.parse(text) : {};
  if (response.ok && answer.accepted === post.rows) return true;
  throw new Error(`POST ${post.path} answered ${response.status}: ${text.slice(0, 500)}`);
}
