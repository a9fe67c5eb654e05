"use strict";

// The parts of Node that this package uses. An ES module that a bundler made has no `require`, so
// `process.getBuiltinModule` is used; Node before 20.16 lacks that and needs `require`. Each part is loaded when it is first
// used, so what only a ready-made client needs is not loaded for others.

const canAsk = typeof process.getBuiltinModule === "function";

module.exports = {
  get buffer() {
    return canAsk ? process.getBuiltinModule("node:buffer") : require("node:buffer");
  },
  get childProcess() {
    return canAsk ? process.getBuiltinModule("node:child_process") : require("node:child_process");
  },
  get crypto() {
    return canAsk ? process.getBuiltinModule("node:crypto") : require("node:crypto");
  },
  get fs() {
    return canAsk ? process.getBuiltinModule("node:fs") : require("node:fs");
  },
  get module() {
    return canAsk ? process.getBuiltinModule("node:module") : require("node:module");
  },
  get net() {
    return canAsk ? process.getBuiltinModule("node:net") : require("node:net");
  },
  get os() {
    return canAsk ? process.getBuiltinModule("node:os") : require("node:os");
  },
  get path() {
    return canAsk ? process.getBuiltinModule("node:path") : require("node:path");
  },
  get stream() {
    return canAsk ? process.getBuiltinModule("node:stream") : require("node:stream");
  },
  get timersPromises() {
    return canAsk ? process.getBuiltinModule("node:timers/promises") : require("node:timers/promises");
  },
  get util() {
    return canAsk ? process.getBuiltinModule("node:util") : require("node:util");
  },
};
