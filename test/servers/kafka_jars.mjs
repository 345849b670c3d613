/**
 * A Kafka out of Maven's jars, fetched once into node_modules/.cache, with what makes its start short: a folder
 * that is formatted already (with the users of SCRAM), and an archive of its classes as the JVM has them after
 * loading (2 s instead of 5). Plain JavaScript for Node alone: `test/kit/prepare.mjs` uses it.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** Another one by SHISHI_KAFKA=4.4.0, to be fetched by prepare.mjs with the same. */
export const KAFKA = process.env.SHISHI_KAFKA ?? "4.1.2";
const CACHE = join(
  dirname(fileURLToPath(import.meta.url)),
  "../../node_modules/.cache/kafka",
  KAFKA,
);
const LIB = join(CACHE, "lib");
const FORMATTED = join(CACHE, "formatted");
const ARCHIVE = join(CACHE, "classes.jsa");
/** The users that `format` writes down; PLAIN knows the same one. */
export const USER = { name: "shishi", password: "geheim" };

/** The first `kafka_2.13`: of two versions of slf4j-api the one that it wants wins. */
const POM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shishi.test</groupId><artifactId>kafka</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>${KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>${KAFKA}</version>
      <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.4</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.4</version>
    </dependency>
  </dependencies>
</project>
`;

const LOG = `status=warn
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=[%d] %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.ready.name=kafka.server.KafkaRaftServer
logger.ready.level=info
`;

export function isFetched() {
  return [LIB, FORMATTED, ARCHIVE].every((path) => existsSync(path));
}

/** Fetches and prepares what is missing; the problem, or null. About 45 MB, and 20 to 60 s. */
export async function fetchKafka() {
  if (isFetched()) return null;
  // Beside it first: what is broken off leaves nothing that looks whole.
  const own = `${CACHE}.${process.pid}`;
  mkdirSync(own, { recursive: true });
  mkdirSync(CACHE, { recursive: true });
  try {
    if (!existsSync(LIB)) await fetchJars(own);
    if (!existsSync(FORMATTED)) format(own);
    if (!existsSync(ARCHIVE)) await archive(own);
    return null;
  } catch (problem) {
    return problem.message;
  } finally {
    rmSync(own, { recursive: true, force: true });
  }
}

/**
 * A folder in which `java` with `javaArguments` is Kafka.
 * @param settings lines of its `server.properties`.
 */
export function makeFolder(dir, settings) {
  mkdirSync(dir, { recursive: true });
  if (!existsSync(join(dir, "lib"))) symlinkSync(LIB, join(dir, "lib"));
  if (existsSync(FORMATTED) && !existsSync(join(dir, "data"))) {
    cpSync(FORMATTED, join(dir, "data"), { recursive: true });
  }
  writeFileSync(join(dir, "log4j2.properties"), LOG);
  writeFileSync(join(dir, "server.properties"), settings);
}

/** Of a JVM whose current folder is one of `makeFolder`. */
export function javaArguments(main, ...more) {
  return [
    ...["-Xms96M", "-Xmx320M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"],
    ...["-Xshare:auto", "-Djava.awt.headless=true", "-Dlog4j2.configurationFile=log4j2.properties"],
    ...(existsSync(ARCHIVE) ? [`-XX:SharedArchiveFile=${ARCHIVE}`] : []),
    // One by one and relative, since the archive is only good for the very same words.
    ...["-cp", readdirSync(LIB).sort().map((jar) => `lib/${jar}`).join(":")],
    main,
    ...more,
  ];
}

/**
 * @param ports `plain`, `sasl`, `tls`, `oauth`, `controller`.
 * @param shown what clients are told for `plain`.
 * @param more lines that come last, and so count.
 */
export function settingsOf(ports, shown = ports.plain, more = "") {
  const at = (ports) =>
    ["plain", "sasl", "tls", "oauth"]
      .filter((name) => ports[name] !== undefined)
      .map((name) => `${name.toUpperCase()}://127.0.0.1:${ports[name]}`);
  const listeners = at(ports);
  return `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports.controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listeners=${[...listeners, `CONTROLLER://127.0.0.1:${ports.controller}`].join(",")}
advertised.listeners=${at({ ...ports, plain: shown }).join(",")}
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_SSL,TLS:SSL,OAUTH:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
auto.create.topics.enable=true
num.partitions=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
num.network.threads=2
num.io.threads=2
background.threads=2
log.segment.bytes=16777216
log.index.size.max.bytes=1048576
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_${USER.name}="${USER.password}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="shishi";
listener.name.oauth.oauthbearer.connections.max.reauth.ms=0
ssl.keystore.type=PEM
ssl.keystore.location=server.pem
ssl.truststore.type=PEM
ssl.truststore.location=clients.pem
listener.name.tls.ssl.client.auth=required
${more}
`;
}

async function fetchJars(own) {
  const pom = join(own, "pom.xml");
  writeFileSync(pom, POM);
  await run("mvn", [
    ...["-q", "-B", "-f", pom, "-Dmaven.artifact.threads=12", "dependency:copy-dependencies"],
    ...["-DincludeScope=runtime", `-DoutputDirectory=${join(own, "lib")}`],
  ]);
  keep(join(own, "lib"), LIB);
}

function format(own) {
  const dir = join(own, "format");
  makeFolder(dir, settingsOf({ plain: 1, controller: 2 }));
  const users = ["SCRAM-SHA-256", "SCRAM-SHA-512"].flatMap((mechanism) => [
    "--add-scram",
    `${mechanism}=[name=${USER.name},password=${USER.password}]`,
  ]);
  // Any 16 bytes do as the cluster's id.
  const args = ["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", "server.properties", ...users];
  const { status, stdout, stderr, error } = spawnSync(
    "java",
    javaArguments("kafka.tools.StorageTool", ...args),
    { cwd: dir, encoding: "utf8" },
  );
  if (status !== 0) throw new Error(`it cannot be formatted: ${error ?? stdout + stderr}`);
  keep(join(dir, "data"), FORMATTED);
}

/** A start and an end, at which the JVM writes down what it had loaded. */
async function archive(own) {
  const dir = join(own, "archive");
  makeFolder(dir, settingsOf({ plain: await freePort(), controller: await freePort() }));
  const written = join(own, "classes.jsa");
  const child = spawn("java", [
    `-XX:ArchiveClassesAtExit=${written}`,
    ...javaArguments("kafka.Kafka", "server.properties"),
  ], { cwd: dir, stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
    if (output.includes("Kafka Server started")) child.kill("SIGTERM");
  });
  const limit = setTimeout(() => child.kill("SIGKILL"), 120_000);
  await new Promise((resolve) => child.once("close", resolve));
  clearTimeout(limit);
  if (!existsSync(written)) throw new Error(`it does not start: ${output.slice(-4000)}`);
  keep(written, ARCHIVE);
}

/** Another run may have been faster. */
function keep(made, place) {
  if (!existsSync(place)) renameSync(made, place);
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer().once("error", reject);
    probe.listen({ port: 0, host: "127.0.0.1" }, () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => output = (output + text).slice(-4000));
    }
    child.once("error", (error) => reject(new Error(`${command}: ${error.message}`)));
    child.once("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${command} ended with ${code}: ${output}`));
    });
  });
}
