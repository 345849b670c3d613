/**
 * Real servers for tests, one import. Each function returns once its server answers, on free ports
 * of 127.0.0.1, with its data in a temporary folder; none outlives the process that started it.
 */
export type { ClickHouse } from "../servers/clickhouse.ts";
export { startClickHouse, userXml } from "../servers/clickhouse.ts";
export { startOldClickHouse } from "../servers/old_clickhouse.ts";
export { startWheelClickHouse } from "../servers/wheel_clickhouse.ts";
export type { Nats } from "../servers/nats.ts";
export { startNats } from "../servers/nats.ts";
export type { NatsNode } from "../servers/nats_cluster.ts";
export { startNatsCluster } from "../servers/nats_cluster.ts";
export type { Influx } from "../servers/influx.ts";
export { startInflux } from "../servers/influx.ts";
export type { Kafka } from "../servers/kafka.ts";
export { startKafka } from "../servers/kafka.ts";
export type { KafkaNode } from "../servers/kafka_cluster.ts";
export { startKafkaCluster } from "../servers/kafka_cluster.ts";
export type { Redis } from "../servers/redis.ts";
export { startOldRedis, startRedis } from "../servers/redis.ts";
export type { Family } from "../servers/family.ts";
export { startMariadb } from "../servers/mariadb.ts";
export { ADMIN, startPostgres } from "../servers/postgres.ts";
export type { RabbitMq } from "../servers/rabbitmq.ts";
export { startRabbitMq } from "../servers/rabbitmq.ts";
export type { Prometheus } from "../servers/prometheus.ts";
export { startPrometheus } from "../servers/prometheus.ts";
export type { Server } from "../servers/process.ts";
