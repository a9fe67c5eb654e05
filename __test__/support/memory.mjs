import { makeArchive } from "./tar.mjs";

/** The entry of a download that tells which upload the sandbox had, as the script in that upload makes it. */
export function markOf(upload) {
  // The script is at the end.
  const text = Buffer.from(upload, Math.max(0, upload.byteLength - 65_536)).toString("latin1");
  const [, id] = /^upload=(.*)$/m.exec(text);
  const [, name] = /^answer='(.*)'$/m.exec(text);
  return makeArchive([{ name, content: `mark ${id}\n` }]).subarray(0, 1024);
}

/** A client that runs nothing and always returns the same download; for tests of everything except the sandbox. */
export class MemorySandbox {
  /** What `readFile` answers. */
  download;
  #marked;
  #mark;
  /** The names of the methods that were called. */
  methods = [];

  /**
   * @param {unknown} download What `readFile` answers.
   * @param {object} [options]
   * @param {boolean} [options.marked] Whether the mark of the last upload comes before it, as from a real sandbox. Without
   *   it, a download without anything that was uploaded counts as that of another sandbox.
   */
  constructor(download, { marked = false } = {}) {
    this.download = download;
    this.#marked = marked;
  }

  async makeDir() {
    this.methods.push("makeDir");
  }

  async writeFile(remotePath, bytes) {
    this.methods.push("writeFile");
    if (this.#marked && remotePath.endsWith("/workspace-upload.tar")) this.#mark = markOf(bytes);
  }

  async readFile() {
    this.methods.push("readFile");
    return this.#marked ? Buffer.concat([this.#mark, this.download]) : this.download;
  }

  async listFiles() {
    this.methods.push("listFiles");
    return [];
  }

  async remove() {
    this.methods.push("remove");
  }

  async run() {
    this.methods.push("run");
  }
}
