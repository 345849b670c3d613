/**
 * How the leader of a classic group shares partitions: round and round among the members that read the topic.
 * The library's own way forgets topics that only others read, so a group whose members read different ones would
 * leave some unread.
 *
 * It stands on its own because it is pure.
 */

import type { GroupPartitionsAssigner } from "@platformatic/kafka";

/** Members in the order of their ids get the next partition each, across topics. */
export const assignFairly: GroupPartitionsAssigner = (_leader, members, _topics, metadata) => {
  const shares = new Map(
    [...members.keys()].sort().map((memberId) => [memberId, {
      memberId,
      assignments: new Map<string, { topic: string; partitions: number[] }>(),
      count: 0,
    }]),
  );
  const topics = new Set([...members.values()].flatMap(({ topics = [] }) => topics));
  for (const topic of [...topics].sort()) {
    const readers = [...shares.values()].filter(({ memberId }) =>
      members.get(memberId)?.topics?.includes(topic)
    );
    const count = metadata.topics.get(topic)?.partitionsCount ?? 0;
    for (let partition = 0; partition < count; partition++) {
      const least = readers.reduce((one, other) => other.count < one.count ? other : one);
      least.count++;
      const share = least.assignments.get(topic);
      if (share === undefined) least.assignments.set(topic, { topic, partitions: [partition] });
      else share.partitions.push(partition);
    }
  }
  return [...shares.values()].map(({ memberId, assignments }) => ({ memberId, assignments }));
};
