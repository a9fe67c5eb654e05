// A package registry on loopback that has just the given packages, as the real one will have them.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";

/**
 * @param {import("./packages.mjs").Packed[]} packages
 * @returns {Promise<{ url: string, unknown: Set<string>, close(): Promise<void> }>} `unknown`: what was asked for and is
 *   not here.
 */
export async function startRegistry(packages) {
  /** @type {Set<string>} */
  const unknown = new Set();
  const byTarball = new Map(packages.map((packed) => [`/${path.basename(packed.tarball)}`, packed]));
  const byName = new Map(packages.map((packed) => [`/${packed.manifest.name}`, packed]));

  /**
   * @param {string} url
   * @param {string} base
   */
  const answer = async (url, base) => {
    const asked = byTarball.get(url);
    if (asked) return readFile(asked.tarball);
    const described = byName.get(url);
    if (described) return JSON.stringify(await describe(described, base));
    unknown.add(url);
    return undefined;
  };
  const server = createServer(async (request, response) => {
    try {
      const base = `http://${request.headers.host}/`;
      const body = await answer(decodeURIComponent(new URL(request.url ?? "/", base).pathname), base);
      response.writeHead(body === undefined ? 404 : 200).end(body ?? "{}");
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}/`,
    unknown,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

/**
 * What a registry tells of a package.
 *
 * @param {import("./packages.mjs").Packed} packed
 * @param {string} base
 */
async function describe({ manifest, tarball }, base) {
  const bytes = await readFile(tarball);
  const digest = (
    /** @type {string} */ algorithm,
    /** @type {import("node:crypto").BinaryToTextEncoding} */ encoding,
  ) => createHash(algorithm).update(bytes).digest(encoding);
  const { name, version } = manifest;
  const dist = {
    tarball: new URL(path.basename(tarball), base).href,
    shasum: digest("sha1", "hex"),
    integrity: `sha512-${digest("sha512", "base64")}`,
  };
  return { name, "dist-tags": { latest: version }, versions: { [version]: { ...manifest, dist } } };
}
