/** A Grafana dashboard as a test reads it: its queries, with Grafana's variables filled in. */
import { readFileSync } from "node:fs";

export interface Panel {
  readonly id: number;
  readonly title: string;
  readonly type: string;
  readonly gridPos: {
    readonly x: number;
    readonly y: number;
    readonly w: number;
    readonly h: number;
  };
  readonly targets: readonly { readonly refId: string; expr?: string; query?: string }[];
}

export interface Variable {
  readonly name: string;
  readonly type: string;
  readonly query: string | { readonly query: string };
}

export interface Dashboard {
  readonly schemaVersion: number;
  readonly uid: string;
  readonly title: string;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly Variable[] };
}

/** @param name `prometheus` or `influxdb`. */
export function readDashboard(name: string): Dashboard {
  return JSON.parse(readFileSync(new URL(`./${name}.json`, import.meta.url), "utf8")) as Dashboard;
}

/** Every query of every panel, with the panel's title. */
export function queries({ panels }: Dashboard): { title: string; query: string }[] {
  return panels.flatMap(({ title, targets }) =>
    targets.map(({ expr, query }) => ({ title, query: expr ?? query ?? "" }))
  );
}

/** The text of a variable's own query. */
export function variableQuery({ query }: Variable): string {
  return typeof query === "string" ? query : query.query;
}

/** As Grafana does it; a variable that `values` does not name stays. */
export function filledIn(query: string, values: Readonly<Record<string, string>>): string {
  return query.replace(/\$(\w+)/g, (whole, name: string) => values[name] ?? whole);
}
