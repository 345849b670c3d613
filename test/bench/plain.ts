/** What a client alone took, from its first connection until its broker has the last acknowledgement. */
import process from "node:process";

export interface PlainCosts {
  readonly seconds: number;
  /** Of its CPU, user and system. */
  readonly cpuSeconds: number;
}

interface Begun {
  readonly fromMs: number;
  readonly cpu: ReturnType<typeof process.cpuUsage>;
}

export function begin(): Begun {
  return { fromMs: performance.now(), cpu: process.cpuUsage() };
}

/** Prints it as JSON. */
export function tell({ fromMs, cpu }: Begun): void {
  const { user, system } = process.cpuUsage(cpu);
  const costs: PlainCosts = {
    seconds: (performance.now() - fromMs) / 1000,
    cpuSeconds: (user + system) / 1e6,
  };
  console.log(JSON.stringify(costs));
}
