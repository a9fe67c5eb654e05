// A proxy on loopback that hands on bytes both ways, and cuts a connection after a given number of them.

import { once } from "node:events";
import net from "node:net";

/** @param {number} targetPort on this machine */
export async function startCuttingProxy(targetPort) {
  const state = { left: Number.POSITIVE_INFINITY, cuts: 0, frozen: false };
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(targetPort, "127.0.0.1");
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const [from, to] of [
      [near, far],
      [far, near],
    ]) {
      sockets.add(from);
      from.on("error", end);
      from.on("close", () => {
        sockets.delete(from);
        end();
      });
      from.on("data", (data) => {
        if (state.frozen) return;
        state.left -= data.length;
        if (state.left < 0) {
          state.left = Number.POSITIVE_INFINITY;
          state.cuts += 1;
          near.resetAndDestroy();
          far.resetAndDestroy();
          return;
        }
        if (!to.write(data)) {
          from.pause();
          to.once("drain", () => from.resume());
        }
      });
      from.on("end", () => to.end());
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: server.address().port,
    url: `http://127.0.0.1:${server.address().port}`,
    /** Cuts, once, the connection over which the byte after that number passes. */
    cutAfter(bytes) {
      state.left = bytes;
    },
    /** Passes nothing on from now on, and closes nothing. */
    freeze() {
      state.frozen = true;
    },
    cuts: () => state.cuts,
    async stop() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
