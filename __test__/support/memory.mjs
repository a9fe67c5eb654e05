/** A client that runs nothing and always hands out the same download; for tests of everything but the sandbox. */
export class MemorySandbox {
  #download;
  /** The names of the methods that were called. */
  methods = [];

  /** @param {unknown} download What `readFile` answers. */
  constructor(download) {
    this.#download = download;
  }

  async makeDir() {
    this.methods.push("makeDir");
  }

  async writeFile() {
    this.methods.push("writeFile");
  }

  async readFile() {
    this.methods.push("readFile");
    return this.#download;
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
