/** One line on stderr that says what runs and how long it will take; a line each where it is no terminal. */
import process from "node:process";

export interface Progress {
  /** A job begins. `leftSeconds`: of it and all that follow. */
  at(done: number, of: number, label: string, leftSeconds: number): void;
  end(): void;
}

export function showProgress(): Progress {
  const terminal = process.stderr.isTTY === true;
  let timer: ReturnType<typeof setInterval> | undefined;
  const stop = () => clearInterval(timer);
  return {
    at(done, of, label, leftSeconds) {
      stop();
      const beganMs = performance.now();
      const line = () => {
        const seconds = Math.round((performance.now() - beganMs) / 1000);
        return `[${done + 1}/${of}] ${label} … ${terminal ? `${seconds} s, ` : ""}` +
          `about ${duration(Math.max(0, leftSeconds - seconds))} left`;
      };
      const write = () => process.stderr.write(terminal ? `\r\x1b[K${line()}` : `${line()}\n`);
      write();
      if (terminal) timer = setInterval(write, 1000);
    },
    end() {
      stop();
      if (terminal) process.stderr.write("\r\x1b[K");
    },
  };
}

function duration(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
