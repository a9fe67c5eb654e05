// The sandbox of the measurements. It takes no time, so only this package's own work is measured.

import { appendFileSync, writeFileSync } from "node:fs";
import { WrongOutcome } from "./judge.mjs";

/**
 * The spec of a measurement's sandbox.
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

/** A client that only keeps bytes: uploads stay in memory, and downloads are in memory already. */
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

  /** How many bytes were uploaded. */
  uploadedBytes() {
    return this.parts.reduce((sum, part) => sum + part.byteLength, 0);
  }

  /**
   * Writes the upload to a file.
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
