/**
 * The text of a systemd unit. Its sandbox is as tight as the program bears: what it needs is to listen,
 * to reach its servers, to write its state, and to compile its code as it runs, for which memory is
 * written and then executed (hence no `MemoryDenyWriteExecute`).
 *
 * `Type=notify` with a HUP from `ExecReload`, and not `notify-reload`, which systemd knows only from
 * 253 on.
 */

export interface UnitOptions {
  /** The program and all its arguments; the first is an absolute path. */
  readonly command: readonly string[];
  /** Files that systemd hands over readable for the service alone, whatever their owner. */
  readonly credentials: readonly { readonly name: string; readonly path: string }[];
  /** The data folder's name below /var/lib, or the path of one that is there already. */
  readonly state: { readonly name: string } | { readonly path: string };
  /**
   * Several collectors that listen on one port, each an instance of a template: with a data folder in that
   * of all, and an id that begins so; null = with the host's name. Absent: the unit is one collector.
   */
  readonly instances?: {
    readonly id: string | null;
    /** `127.0.0.1:9090`: the 0 at the end becomes the number of the instance; behind a path it stands too. */
    readonly adminListen: readonly string[];
  };
  /** Null = a user that systemd makes up for the time that the service runs. */
  readonly user: string | null;
  readonly shutdownTimeoutMs: number;
  /** 0 = the settings say nothing of it: the unit does. */
  readonly drainDelayMs: number;
  /** It listens on a port below 1024. */
  readonly privilegedPort: boolean;
  /** Comments at its top: how it is installed. */
  readonly remarks: readonly string[];
}

/** Beyond shutdown-timeout: the last counts, the last answers. */
const STOP_MORE_S = 20;
const FILES = 65_536;
/** Longer than most balancers take to look at `/readyz` again. */
const DRAIN_DELAY_MS = 5_000;

const SANDBOX = [
  "NoNewPrivileges=yes",
  "ProtectSystem=strict",
  "ProtectHome=yes",
  "PrivateTmp=yes",
  "PrivateDevices=yes",
  "DevicePolicy=closed",
  "ProtectProc=invisible",
  "ProcSubset=pid",
  "ProtectClock=yes",
  "ProtectControlGroups=yes",
  "ProtectHostname=yes",
  "ProtectKernelLogs=yes",
  "ProtectKernelModules=yes",
  "ProtectKernelTunables=yes",
  "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
  "RestrictNamespaces=yes",
  "RestrictRealtime=yes",
  "RestrictSUIDSGID=yes",
  "RemoveIPC=yes",
  "LockPersonality=yes",
  "KeyringMode=private",
  "UMask=0077",
  "SystemCallArchitectures=native",
  "SystemCallFilter=@system-service",
  "SystemCallFilter=~@privileged @resources",
  "SystemCallErrorNumber=EPERM",
];

/** The whole file, with a newline at its end. */
export function unitText(options: UnitOptions): string {
  const { credentials, state, user, privilegedPort, instances } = options;
  const drainDelayMs = options.drainDelayMs || DRAIN_DELAY_MS;
  const stopS = Math.ceil((drainDelayMs + options.shutdownTimeoutMs) / 1000) + STOP_MORE_S;
  const lines = [
    ...options.remarks.map((remark) => `# ${remark}`),
    "",
    "[Unit]",
    "Description=Shishi, an edge collector for ClickHouse",
    "Wants=network-online.target",
    "After=network-online.target",
    "# However often it fails, it is started again.",
    "StartLimitIntervalSec=0",
    "",
    "[Service]",
    "Type=notify",
    `ExecStart=${commandOf(options).join(" ")}`,
    ...(options.drainDelayMs > 0 ? [] : [
      "# At a stop events are taken for so long more, until a balancer looks elsewhere (/readyz is 503).",
      "# It counts more than a drain-delay in the settings file; 0s where there is no balancer.",
      `Environment=SHISHI_DRAIN_DELAY=${DRAIN_DELAY_MS / 1000}s`,
    ]),
    "ExecReload=/bin/kill -HUP $MAINPID",
    "WatchdogSec=30s",
    "# What hangs is no place to look for a fault in; its core would only be large.",
    "WatchdogSignal=SIGKILL",
    "Restart=on-failure",
    "RestartSec=2s",
    "# Unusable settings do not get better by themselves.",
    "RestartPreventExitStatus=2",
    "KillMode=mixed",
    "# drain-delay, shutdown-timeout, and time for the last answers.",
    `TimeoutStopSec=${stopS}s`,
    `LimitNOFILE=${FILES}`,
    ...(instances === undefined ? [] : ["# Only processes of one user may share a port."]),
    ...(user === null ? ["DynamicUser=yes"] : []),
    ...(user === null && instances === undefined ? [] : [`User=${user ?? "shishi"}`]),
    ..."name" in state
      ? [
        `StateDirectory=${plain(state.name)}${instances === undefined ? "" : "/%i"}`,
        "StateDirectoryMode=0700",
      ]
      : [`ReadWritePaths=${quoted(state.path)}`],
    ...credentials.map(({ name, path }) => `LoadCredential=${name}:${plain(path)}`),
    "",
    ...SANDBOX,
    ...privilegedPort
      ? ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"]
      // In a namespace of users of its own no user may bind a port below 1024.
      : ["PrivateUsers=yes", "CapabilityBoundingSet=", "AmbientCapabilities="],
    "",
    "[Install]",
    "WantedBy=multi-user.target",
    ...(instances === undefined ? [] : ["DefaultInstance=1"]),
  ];
  return lines.join("\n") + "\n";
}

function commandOf({ command, state, instances }: UnitOptions): string[] {
  const words = command.map((word) => argument(word));
  const folder = "path" in state ? state.path : `/var/lib/${state.name}`;
  if (instances === undefined) {
    return "path" in state ? [...words, argument(`--data-dir=${folder}`)] : words;
  }
  const id = instances.id === null ? "--id=%H-%i" : argument(`--id=${instances.id}-`, "%i");
  const admin = instances.adminListen.map((address) =>
    argument(
      `--admin-listen=${address.startsWith("unix:") ? `${address}.` : address.slice(0, -1)}`,
      "%i",
    )
  );
  return [...words, "--share-port", id, ...admin, argument(`--data-dir=${folder}/`, "%i")];
}

/** One word of a command line. @param specifier what systemd puts in behind it. */
function argument(word: string, specifier = ""): string {
  const safe = word.replace(/[\\"]/g, "\\$&").replaceAll("%", "%%").replaceAll("$", "$$$$");
  const plainly = /^[A-Za-z0-9_@:.,/=+*-]+$/.test(word);
  return plainly ? `${word}${specifier}` : `"${safe}${specifier}"`;
}

/** A path in a list of paths. */
function quoted(path: string): string {
  return `"${plain(path).replace(/[\\"]/g, "\\$&")}"`;
}

function plain(text: string): string {
  return text.replaceAll("%", "%%");
}
