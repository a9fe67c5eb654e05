// A proxy on loopback that hands on bytes both ways, and cuts a connection once so many have passed.

import { once } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import net from "node:net";
import path from "node:path";
import { expect } from "vitest";
import { distinct, until } from "./support.mjs";

/** How many places of a transfer are tried. */
export const PLACES = Array.from({ length: 10 }, (_, index) => (index + 0.5) / 10);

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
    /** Cuts the connection over which the byte after so many passes, once. */
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

/**
 * Expects of a client that it carries transfers both ways to their end although the connection is cut, and leaves nothing
 * beside them.
 *
 * @param {string} folder An empty folder here that is the same there.
 * @param {() => Promise<{ proxy: Awaited<ReturnType<typeof startCuttingProxy>>, client: object }>} throughProxy
 */
export async function expectTransfersDespiteCuts(folder, throughProxy) {
  const bytes = distinct(2_000_000);
  await Promise.all(
    PLACES.map(async (place) => {
      const { proxy, client } = await throughProxy();
      const file = path.join(folder, String(place));
      proxy.cutAfter(place * bytes.byteLength);
      await client.writeFile(file, bytes);
      expect((await readFile(file)).equals(Buffer.from(bytes))).toBe(true);
      proxy.cutAfter(place * bytes.byteLength);
      expect((await client.readFile(file)).equals(Buffer.from(bytes))).toBe(true);
      expect(proxy.cuts()).toBe(2);
    }),
  );
  await until(async () => (await readdir(folder)).length === PLACES.length);
}
