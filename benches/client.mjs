// The sandbox of the measurements. It costs nothing, so that what is measured is what happens on this side.

import { appendFileSync, writeFileSync } from "node:fs";
import { WrongOutcome } from "./judge.mjs";

/**
 * What a prepare is told of the sandbox of a measurement.
 *
 * @param {string} remoteCwd
 */
export const specOf = (remoteCwd) => ({
  transport: /** @type {const} */ ("sandbox"),
  provider: "bench",
  sandboxId: remoteCwd,
  remoteCwd,
  timeoutMs: 600_000,
  apiKey: null,
});

/** A client that only keeps the bytes: what it is sent stays in memory, what it is asked for is there already. */
export class KeepingClient {
  /** The parts of the archive, in their order. @type {ArrayBuffer[]} */
  parts = [];
  /** @type {Buffer | undefined} */
  download;

  async makeDir() {}

  async run() {}

  async remove() {}

  /** @returns {Promise<string[]>} */
  async listFiles() {
    return [];
  }

  /**
   * @param {string} _path
   * @param {ArrayBuffer} bytes
   */
  async writeFile(_path, bytes) {
    this.parts.push(bytes);
  }

  async readFile() {
    if (!this.download) throw new Error("there is nothing to download yet");
    return this.download;
  }

  /** How many bytes were sent here. */
  uploadedBytes() {
    return this.parts.reduce((sum, part) => sum + part.byteLength, 0);
  }

  /**
   * Writes what was sent here to a file.
   *
   * @param {string} file
   * @returns {string} The file.
   */
  uploadedBytesOnDisk(file) {
    if (this.parts.length === 0) throw new WrongOutcome("nothing was uploaded");
    writeFileSync(file, "");
    for (const part of this.parts) appendFileSync(file, Buffer.from(part));
    return file;
  }
}
