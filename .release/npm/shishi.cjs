#!/usr/bin/env node
/**
 * `shishi` as npm installs it: the program itself lies in a package for this machine, which npm has chosen among
 * the optional ones. Where node can, the program takes this process's place, so that signals, the terminal
 * and an upgrade reach it as they should; elsewhere it is a child that gets them handed on.
 */
"use strict";

const { spawn } = require("node:child_process");
const { constants } = require("node:os");

/** Which of the packages fit this machine, the best first. */
function candidates() {
  const machine = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  if (process.platform !== "linux") return [machine];
  process.report.excludeNetwork = true;
  const glibc = process.report.getReport().header.glibcVersionRuntime !== undefined;
  return glibc ? [machine] : [`${machine}-musl`];
}

function find() {
  for (const machine of candidates()) {
    const program = `@shishi/${machine}/bin/shishi${process.platform === "win32" ? ".exe" : ""}`;
    try {
      return require.resolve(program);
    } catch {
      continue;
    }
  }
  console.error(
    `shishi: expected the package @shishi/${candidates()[0]}, which is not installed. ` +
      "It is left out by --omit=optional, and there is none for some machines: shishi --version of an archive " +
      "names those there are.",
  );
  process.exit(1);
}

const program = find();
const args = process.argv.slice(2);
if (typeof process.execve === "function") {
  try {
    // What it warns of would come too late to be read.
    process.removeAllListeners("warning");
    process.execve(program, ["shishi", ...args], process.env);
  } catch {
    // Not on this system: as a child then.
  }
}
const child = spawn(program, args, { stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2"]) {
  process.on(signal, () => {
    // ^C of a terminal has reached both already.
    if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
  });
}
child.on("error", ({ message }) => {
  console.error(`shishi: ${message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  process.exit(signal === null ? code : 128 + constants.signals[signal]);
});
