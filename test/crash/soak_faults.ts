/** What goes wrong in the soak. Faults of one hand come one after the other, both hands at once. */
import type { ClickHouse } from "../kit/servers.ts";
import type { TcpProxy } from "../kit/tcp_proxy.ts";
import { pause } from "../kit/wait.ts";
import type { Collector } from "./soak_collector.ts";

/** What there is to break. */
export interface Stage {
  readonly clickhouse: ClickHouse;
  /** Between the collector and ClickHouse. */
  readonly proxy: TcpProxy;
  readonly collector: Collector;
  readonly random: () => number;
}

export interface Fault {
  readonly name: string;
  readonly hand: "collector" | "clickhouse";
  /** Resolves when the fault is over, though not its consequences. */
  strike(stage: Stage): Promise<void>;
}

const COLUMNS = [
  ["analytics_events", "user_id"],
  ["seed", "Value"],
] as const;

export const FAULTS: readonly Fault[] = [
  {
    name: "collector killed",
    hand: "collector",
    async strike({ collector, random }) {
      await collector.kill();
      if (random() < 0.3) await pause(random() * 2_000);
      await collector.start();
    },
  },
  {
    name: "killed while it recovers",
    hand: "collector",
    async strike({ collector, random }) {
      await collector.kill();
      for (let times = 0; times < 3; times++) {
        await collector.start();
        await pause(random() * 60);
        await collector.kill();
      }
      await collector.start();
    },
  },
  {
    name: "SIGTERM",
    hand: "collector",
    async strike({ collector }) {
      await collector.terminate();
      await collector.start();
    },
  },
  {
    name: "left alone",
    hand: "collector",
    strike: ({ random }) => pause(random() * 10_000),
  },
  {
    name: "ClickHouse killed",
    hand: "clickhouse",
    async strike({ clickhouse, random }) {
      await clickhouse.kill();
      await pause(random() * 12_000);
      await clickhouse.start();
    },
  },
  {
    name: "answers cut",
    hand: "clickhouse",
    async strike({ proxy, random }) {
      proxy.cutAnswers(1 + Math.floor(random() * 6));
      await pause(2_000);
      proxy.cutAnswers(0);
    },
  },
  {
    name: "network hung",
    hand: "clickhouse",
    async strike({ proxy, random }) {
      proxy.hang();
      await pause(random() * 6_000);
      proxy.resume();
    },
  },
  {
    name: "connections cut",
    hand: "clickhouse",
    strike({ proxy }) {
      proxy.cut();
      return Promise.resolve();
    },
  },
  {
    name: "column dropped",
    hand: "clickhouse",
    async strike({ clickhouse, random }) {
      const [table, column] = COLUMNS[Math.floor(random() * COLUMNS.length)]!;
      await clickhouse.query(`ALTER TABLE ${table} DROP COLUMN ${column}`);
      await pause(random() * 5_000);
      await clickhouse.query(`ALTER TABLE ${table} ADD COLUMN ${column} String`);
    },
  },
];
