/** Signals, alike on every runtime. */

import process from "node:process";

/** Calls `handler` at SIGINT and SIGTERM, each time one comes; the answer takes the handlers away. */
export function onStopSignal(handler: (signal: string) => void): () => void {
  const names = ["SIGINT", "SIGTERM"] as const;
  for (const name of names) process.on(name, handler);
  return () => {
    for (const name of names) process.off(name, handler);
  };
}

/** Calls `handler` at SIGUSR2, each time one comes, where there is such a signal. */
export function onUpgradeSignal(handler: () => void): void {
  if (process.platform !== "win32") process.on("SIGUSR2", handler);
}
