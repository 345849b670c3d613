/** Whether something listens on a port of 127.0.0.1. */
import { connect } from "node:net";

/** Rejects where nothing does. */
export function reach(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.once("error", reject);
  });
}
